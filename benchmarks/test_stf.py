"""MS-G3D beside its plain twin and torch.compile, and a training step of STF beside one of MS-G3D.

    pytest benchmarks/test_stf.py --threads 1

MS-G3D: groups of ours, eager and compiled. STF: a step of MS-G3D with cross entropy, one of STF with it, the
two that alternate (cross entropy with divergence, consistency and adjacency losses; cross entropy with the
exploration loss), and one with all losses at once. `python benchmarks/test_stf.py [ROUNDS] [--no-compile]`
prints the ratios of processor times, contenders in turns; compiling the training step takes minutes.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from side_by_side.families import twins
from stgcn_fast.models import MSG3D, STF
from stgcn_fast.training.criterion import build_criterion

BATCHES, QUICK_BATCHES = (1, 4), (1,)
CLASSES = 20
AGREEMENT = 1e-3
"""Largest difference of logits, relative to the largest."""


class Sizes(NamedTuple):
    """A network and its clips."""

    name: str
    width: int
    gcn_scales: int
    g3d_scales: int
    frames: int
    persons: int

    def __str__(self) -> str:
        return self.name


LAYERS = [Sizes("full T100", 96, 13, 6, 100, 2), Sizes("small T32", 24, 6, 3, 32, 1)]
QUICK_LAYERS = LAYERS[1:]


def network(sizes: Sizes) -> MSG3D:
    """MS-G3D on the joints of NTU."""
    torch.manual_seed(0)
    return MSG3D(
        CLASSES,
        num_persons=sizes.persons,
        num_gcn_scales=sizes.gcn_scales,
        num_g3d_scales=sizes.g3d_scales,
        width=sizes.width,
    )


def plain(model: MSG3D) -> nn.Module:
    """The twin of plain layers, with the same weights."""
    bones = torch.zeros(25, 25)
    for child, parent in model.layout.edges:
        bones[child, parent] = bones[parent, child] = 1
    twin: nn.Module = twins("ms_g3d").Model(
        bones, CLASSES, model.num_persons, model.num_gcn_scales, model.num_g3d_scales, width=model.width
    )
    twin.load_state_dict(model.state_dict())
    return twin


def clips(sizes: Sizes, batch: int) -> Tensor:
    """``[N, C, T, V, M]``."""
    torch.manual_seed(1)
    return torch.randn(batch, 3, sizes.frames, 25, sizes.persons)


def contender(model: MSG3D, way: str) -> nn.Module:
    """The network as one of the ways computes it."""
    if way == "ours":
        return copy.deepcopy(model)
    other = plain(model).train(model.training)
    return other if way == "eager" else torch.compile(other)  # type: ignore[return-value]


def step(model: nn.Module, x: Tensor) -> Callable[[], None]:
    """A training step up to the gradients."""
    labels = torch.arange(len(x)) % CLASSES

    def run() -> None:
        model.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(x), labels).backward()

    return run


def stf_steps(sizes: Sizes, batch: int) -> dict[str, Callable[[], None]]:
    """Steps of MS-G3D and STF by name, up to the gradients, with all weights fixed."""
    base = network(sizes).train()
    model = STF.from_backbone(base).train()
    for module in model.focus_modules:
        nn.init.constant_(module.alpha.gate, 0.1)
    x = clips(sizes, batch)
    labels = torch.arange(batch) % CLASSES
    loss = {"exploration": 0.1, "divergence": 0.1, "consistency": 0.1, "adjacency": 0.1}
    loss |= {"warmup": 0, "start": 0}
    ce = build_criterion("cross_entropy")
    turns, whole = build_criterion("stf", **loss), build_criterion("stf", **loss, alternate=False)

    def of(network: nn.Module, criterion: Any, iteration: int = 0) -> Callable[[], None]:
        def run() -> None:
            network.zero_grad(set_to_none=True)
            criterion.step(network, x, labels, 0, iteration)[0].backward()

        return run

    return {
        "ms_g3d": of(base, ce),
        "stf, cross entropy": of(model, ce),
        "stf, divergence to adjacency": of(model, turns, 0),
        "stf, exploration": of(model, turns, 1),
        "stf, all at once": of(model, whole),
    }


STEPS = [
    "ms_g3d",
    "stf, cross entropy",
    "stf, divergence to adjacency",
    "stf, exploration",
    "stf, all at once",
]


@pytest.mark.parametrize("way", ["ours", "eager", "compile"])
def test_inference(benchmark: Any, layer: Sizes, batch: int, way: str) -> None:
    model, x = network(layer).eval(), clips(layer, batch)
    run = contender(model, way)
    benchmark.group = f"MS-G3D inference {layer} N{batch}"
    with torch.no_grad():
        expected = plain(model).eval()(x)
        assert float((run(x) - expected).abs().max()) <= AGREEMENT * float(expected.abs().max())
        benchmark(run, x)


@pytest.mark.parametrize("way", ["ours", "eager", "compile"])
def test_training(benchmark: Any, layer: Sizes, batch: int, way: str) -> None:
    model, x = network(layer).train(), clips(layer, batch)
    run = contender(model, way)
    expected = plain(model).train()(x)
    assert float((run(x) - expected).detach().abs().max()) <= AGREEMENT * float(expected.detach().abs().max())
    benchmark.group = f"MS-G3D training {layer} N{batch}"
    benchmark(step(run, x))


@pytest.mark.parametrize("name", STEPS)
def test_stf_step(benchmark: Any, layer: Sizes, batch: int, name: str) -> None:
    benchmark.group = f"STF training {layer} N{batch}"
    benchmark(stf_steps(layer, max(batch, 2))[name])


def _least(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Least processor time of each, in turns, after one call that does not count."""
    best = dict.fromkeys(ways, float("inf"))
    for count in range(rounds + 1):
        for name, run in ways.items():
            start = time.process_time()
            run()
            if count:
                best[name] = min(best[name], time.process_time() - start)
    return best


def _print(title: str, best: dict[str, float], unit: str) -> None:
    shown = [f"{name} {1e3 * t:.0f} ms ({t / best[unit]:.2f})" for name, t in best.items()]
    print(f"{title}: {'; '.join(shown)}", flush=True)


def main(rounds: int = 5, names: tuple[str, ...] = ("ours", "eager", "compile")) -> None:
    """Prints processor times and their ratios to ours, and to a step of MS-G3D."""
    for sizes in LAYERS:
        batch = 2 if sizes.width > 24 else 16
        x = clips(sizes, batch)
        model = network(sizes)
        with torch.no_grad():
            best = _least({way: partial(contender(model.eval(), way), x) for way in names}, rounds)
        _print(f"inference {sizes} N{batch}", best, "ours")
        runs = {way: contender(model.train(), way) for way in names}
        _print(f"training {sizes} N{batch}", _least({w: step(r, x) for w, r in runs.items()}, rounds), "ours")
        _print(f"STF {sizes} N{batch}", _least(stf_steps(sizes, batch), rounds), "ms_g3d")


if __name__ == "__main__":
    torch.set_num_threads(1)
    arguments = [word for word in sys.argv[1:] if word != "--no-compile"]
    ways = ("ours", "eager") if "--no-compile" in sys.argv else ("ours", "eager", "compile")
    main(int(arguments[0]) if arguments else 5, ways)
