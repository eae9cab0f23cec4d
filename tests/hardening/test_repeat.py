"""The same seed gives the same bits: twice, on one thread and on two, with and without dropout."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from stgcn_fast import _native, dtw, ops
from stgcn_fast.models import MSG3D, STGCN

Rounds = Callable[[int, int], int]
Figure = Callable[[str], None]


def trained(
    model: Callable[[], torch.nn.Module], threads: int, steps: int, frames: int = 24
) -> list[torch.Tensor]:
    """Parameters and buffers after a few steps."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.manual_seed(3)
        network = model()
        optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
        generator = torch.Generator().manual_seed(5)
        for _ in range(steps):
            x = torch.randn(3, 3, frames, 25, 2, generator=generator)
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(x), torch.tensor([0, 1, 2])).backward()
            optimiser.step()
        return [value.detach().clone() for value in network.state_dict().values()]
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not _native.load().loaded, reason="the compiled kernels are not built")
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_training_of_st_gcn(dropout: float, rounds: Rounds, figure: Figure) -> None:
    def make() -> torch.nn.Module:
        return STGCN(3, channels=[8, 16, 16], dropout=dropout)

    runs = [trained(make, threads, rounds(2, 50)) for threads in (1, 2, 1, 2)]
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], run, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(runs[0], trained(make, 1, 1), strict=True))
    figure(f"{rounds(2, 50)} steps on 1, 2, 1, 2 threads: the same bits")


@pytest.mark.parametrize("name", ["st_gcn", "ms_g3d"])
def test_layers_of_torch_between_ours(name: str, rounds: Rounds, figure: Figure) -> None:
    """torch's own BatchNorm adds up in an order of its thread count: the same one each time."""

    def make() -> torch.nn.Module:
        if name == "ms_g3d":
            return MSG3D(3, width=12, num_gcn_scales=3, num_g3d_scales=2)
        return STGCN(3, channels=[8, 16, 16], dropout=0.5)

    with ops.options(fused_blocks=False):
        runs = [trained(make, 2, rounds(1, 10), frames=8) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    figure(f"{rounds(1, 10)} steps twice on 2 threads: the same bits")


def test_distances(rounds: Rounds, figure: Figure) -> None:
    rng = np.random.default_rng(0)
    clips = [rng.normal(size=(int(t), 7)).astype("f4") for t in rng.integers(3, 60, 40)]
    want = dtw.dtw_pairwise_distance(clips, 0.2, n_jobs=1)
    for _ in range(rounds(2, 100)):
        for threads in (1, 2, 3):
            assert np.array_equal(dtw.dtw_pairwise_distance(clips, 0.2, n_jobs=threads), want)
    figure(f"{rounds(2, 100)} matrices on 1, 2 and 3 threads: the same bits")
