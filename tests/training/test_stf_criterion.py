"""STF's criterion: what each step minimises, how weights come about, and runs of the ordinary command."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stgcn_fast.models import MSG3D, STF
from stgcn_fast.nn.focus import focus, present, scaled
from stgcn_fast.training import Config, ConfigError, losses, train
from stgcn_fast.training.criterion import build_criterion
from stgcn_fast.training.stf_criterion import LOSSES, STFCriterion, _frozen_statistics

OFF = dict.fromkeys(LOSSES, 0)
NOW = {"warmup": 0, "start": 0}
SMALL = {"num_gcn_scales": 2, "num_g3d_scales": 2, "width": 6, "num_persons": 1}


def network(classes: int = 3, **options: Any) -> STF:
    torch.manual_seed(0)
    known = {"layout": "hand21", "backbone_options": SMALL}
    model = STF(classes, **(known | options))
    for module in model.focus_modules:
        nn.init.constant_(module.alpha.gate, 0.3)
    return model.train()


def batch(samples: int = 4, persons: int = 1) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(samples, 3, 8, 21, persons), torch.arange(samples) % 3


def test_off_is_cross_entropy() -> None:
    model, (x, labels) = network(), batch()
    plain = copy.deepcopy(model)
    criterion = STFCriterion(label_smoothing=0.1, **OFF)
    loss, logits, parts = criterion.step(model, x, labels, 9, 0)
    expected, same, _ = build_criterion("cross_entropy", label_smoothing=0.1).step(plain, x, labels, 9, 0)
    assert torch.equal(loss, expected)
    assert torch.equal(logits, same)
    assert list(parts) == ["ce"]


def test_each_loss_is_its_formula() -> None:
    """All in one step, with weights of one's own, against the losses put together by hand."""
    model, (x, labels) = network(), batch()
    twin = copy.deepcopy(model)
    weights = dict(zip(LOSSES, (0.5, 2.0, 3.0, 0.25)))
    loss, _, parts = STFCriterion(**weights, **NOW, alternate=False).step(model, x, labels, 0, 0)

    trace = twin.trace(x)
    order = trace.logits.detach().argsort(1, descending=True)
    scores = [trace.logits.gather(1, order[:, i : i + 1])[:, 0] for i in range(2)]

    def at(i: int, *layers: str) -> list[Tensor]:
        return [scaled(q) for q in focus(scores[i], [trace.layers[n] for n in layers], create_graph=True)]

    (earlier, later), (second,) = at(0, "frames3", "windows3"), at(1, "windows3")
    momenta = [m.momentum for m in twin.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    with _frozen_statistics(twin):
        left = twin(losses.masked(x, later))
    assert momenta == [m.momentum for m in twin.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    expected = {
        "ce": nn.functional.cross_entropy(trace.logits, labels),
        "exploration": losses.exploration_loss(left, order[:, 0]),
        "divergence": losses.divergence_loss(later, second),
        "consistency": losses.consistency_loss(earlier, later),
        "adjacency": losses.adjacency_loss(at(0, *trace.places), trace.estimates),
    }
    assert set(parts) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value.detach(), rtol=1e-4, atol=1e-5)
    whole = expected["ce"] + sum(weights[name] * expected[name] for name in LOSSES)
    torch.testing.assert_close(loss, whole, rtol=1e-4, atol=1e-5)
    loss.backward()
    whole.backward()
    for (name, a), b in zip(model.named_parameters(), twin.parameters()):
        assert a.grad is not None, name
        assert bool(torch.isfinite(a.grad).all()), name
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-2, atol=1e-4 * float(b.grad.abs().max()) + 1e-5)


def test_schedule() -> None:
    """Warm-up, then the adjacency loss, then two kinds of steps in turn."""
    model, (x, labels) = network(), batch()
    criterion = STFCriterion(exploration=1, divergence=1, consistency=1, adjacency=1, warmup=1, start=2)
    seen = [[sorted(criterion.step(model, x, labels, epoch, i)[2]) for i in range(2)] for epoch in range(3)]
    assert seen == [
        [["ce"], ["ce"]],
        [["adjacency", "ce"], ["adjacency", "ce"]],
        [["adjacency", "ce", "consistency", "divergence"], ["ce", "exploration"]],
    ]
    only = STFCriterion(**(OFF | {"exploration": 1}), **NOW)  # nothing to alternate with
    assert [sorted(only.step(model, x, labels, 0, i)[2]) for i in range(2)] == [["ce", "exploration"]] * 2


def test_weights_are_calibrated_and_kept() -> None:
    model, (x, labels) = network(), batch()
    criterion = STFCriterion(warmup=1, start=2, share=0.1)
    assert bool(torch.isnan(criterion.weights).all())
    _, _, parts = criterion.step(model, x, labels, 0, 0)
    assert sorted(parts) == ["adjacency", "ce"]  # measured, not yet part of the loss
    assert criterion.step(model, x, labels, 0, 0)[0] == criterion.step(model, x, labels, 0, 1)[0]
    criterion.step(model, x, labels, 1, 0)
    adjacency = criterion.weights[LOSSES.index("adjacency")]
    torch.testing.assert_close(adjacency, 0.1 * parts["ce"] / parts["adjacency"])
    saved = copy.deepcopy(criterion.state_dict())
    resumed = STFCriterion(warmup=1, start=2, share=0.1)
    resumed.load_state_dict(saved)
    for c in (criterion, resumed):
        c.step(model, x, labels, 2, 0)
        assert not bool(torch.isnan(c.weights).any())
    assert torch.equal(criterion.weights, resumed.weights)
    fixed = criterion.weights.clone()
    for epoch in (3, 4):
        criterion.step(model, x, labels, epoch, 0)
    assert torch.equal(criterion.weights, fixed)


def test_a_weight_without_an_epoch_before_it() -> None:
    model, (x, labels) = network(), batch()
    criterion = STFCriterion(**(OFF | {"divergence": "auto"}), **NOW)
    loss, _, parts = criterion.step(model, x, labels, 0, 0)
    weight = criterion.weights[LOSSES.index("divergence")]
    torch.testing.assert_close(loss.detach(), parts["ce"] + weight * parts["divergence"])
    torch.testing.assert_close(weight, 0.1 * parts["ce"] / parts["divergence"].abs().clamp_min(1e-2))


def test_masked_clips_leave_running_statistics_alone() -> None:
    model, (x, labels) = network(), batch()
    twin = copy.deepcopy(model)
    STFCriterion(**(OFF | {"exploration": 1}), **NOW).step(model, x, labels, 0, 0)
    twin(x)
    for (name, a), b in zip(model.named_buffers(), twin.buffers()):
        torch.testing.assert_close(a, b, msg=name)


def finite_steps(model: STF, criterion: STFCriterion, x: Tensor, labels: Tensor) -> None:
    """Two steps, one of each kind where they alternate, with losses and gradients that are numbers."""
    for i in range(2):
        model.zero_grad()
        loss, _, parts = criterion.step(model, x, labels, 0, i)
        loss.backward()
        found = [loss, *parts.values(), *(p.grad for p in model.parameters())]
        assert all(bool(torch.isfinite(t).all()) for t in found if t is not None)
    assert bool(torch.isfinite(criterion.weights).all())


@pytest.mark.parametrize("alternate", [True, False])
@pytest.mark.parametrize("case", ["one sample", "one class", "no second body", "zeros", "threshold", "logit"])
def test_little_to_learn_from_is_finite(case: str, alternate: bool) -> None:
    persons = 2 if case == "no second body" else 1
    model = network(1 if case == "one class" else 3, backbone_options=SMALL | {"num_persons": persons})
    x, labels = batch(1 if case == "one sample" else 4, persons)
    if case == "no second body":
        x[..., 1] = 0
    if case == "zeros":
        x.zero_()
    if case == "one class":
        labels.zero_()
    options = {"threshold": True} if case == "threshold" else {}
    if case == "logit":
        options = {"exploration_score": "logit", "focus_class": "label", "symmetric": True}
    finite_steps(model, STFCriterion(**NOW, **options, alternate=alternate), x, labels)


@pytest.mark.parametrize("alpha", ["focus", None])
def test_the_least_of_everything_is_finite_on_other_backbones(alpha: str | None) -> None:
    """One clip of zeros, one class, no second body, all at once."""
    options = {"channels": [6, 6], "temporal_kernel": 3}
    model = network(1, backbone="st_gcn", alpha=alpha, backbone_options=options)
    criterion = STFCriterion(**NOW, **({} if alpha else {"adjacency": 0}), alternate=False)
    finite_steps(model, criterion, torch.zeros(1, 3, 8, 21, 2), torch.zeros(1, dtype=torch.int64))


def test_dead_features_have_no_focus_and_harm_nothing() -> None:
    """Layers whose output is zero everywhere: Q = 0 at each of them."""
    model = network()
    x, labels = batch()
    with torch.no_grad():
        for layer in (model.backbone.tcn3, model.backbone.sgcn3, model.backbone.gcn3d3):
            for norm in layer.modules():
                if isinstance(norm, nn.BatchNorm2d):
                    norm.weight.zero_()
                    norm.bias.fill_(-1)
    q = model.eval().focus(x)
    assert not q.any()
    finite_steps(model.train(), STFCriterion(**NOW, alternate=False), x, labels)


def test_an_absent_person_is_no_part_of_the_focus() -> None:
    model = network(backbone_options=SMALL | {"num_persons": 2}).eval()
    x, labels = batch(2, 2)
    x[..., 1] = 0
    assert present(x).tolist() == [[1, 0], [1, 0]]
    criterion = STFCriterion(**(OFF | {"divergence": 1}), **NOW)
    _, _, parts = criterion.step(model, x, labels, 0, 0)
    one = [model.focus(x, model(x).topk(2).indices[:, i], "windows3")[:, :1] for i in range(2)]
    torch.testing.assert_close(parts["divergence"], losses.divergence_loss(*one), rtol=1e-4, atol=1e-5)


def test_bad_arguments() -> None:
    for name in LOSSES:
        with pytest.raises(ValueError, match=f"{name} must be 'auto' or a number >= 0, got -1"):
            STFCriterion(**{name: -1})
        with pytest.raises(ValueError, match=f"{name} must be 'auto' or a number >= 0, got nan"):
            STFCriterion(**{name: float("nan")})
    with pytest.raises(TypeError, match="divergence must be 'auto' or a number, got 'often'"):
        STFCriterion(divergence="often")
    with pytest.raises(ValueError, match=r"warmup must be in \[0, start = 5\], got 6"):
        STFCriterion(warmup=6)
    with pytest.raises(TypeError, match=r"start must be an integer, got 2\.5"):
        STFCriterion(start=2.5)
    with pytest.raises(ValueError, match="focus_grad must be one of full, detach_weights, got 'none'"):
        STFCriterion(focus_grad="none")
    with pytest.raises(ValueError, match="share must be positive, got 0"):
        STFCriterion(share=0)
    with pytest.raises(TypeError, match="model must be an STF network, got MSG3D"):
        STFCriterion().check(MSG3D(3, layout="hand21", **SMALL))
    with pytest.raises(ValueError, match="adjacency must be 0 for a network without modules"):
        STFCriterion().check(network(alpha=None))


def settings(**loss: Any) -> dict[str, Any]:
    options = {"alpha": "focus", "backbone_options": SMALL}
    if loss.get("adjacency") == 0:
        options["alpha"] = None
    return {
        "model": {"name": "stf", "options": options},
        "loss": {"name": "stf", "options": {"warmup": 1, "start": 2} | loss},
        "training": {"epochs": 3, "batch_size": 4},
    }


def test_a_run_of_the_command_resumes_to_the_bit(
    store_path: Path, tmp_path: Path, tiny: Callable[..., Config]
) -> None:
    sections = settings()
    whole = train(tiny(store_path, tmp_path / "whole", **sections), say=lambda line: None).metrics
    record = whole["history"][-1]
    assert {"loss_exploration", "loss_divergence", "loss_consistency", "loss_adjacency"} <= set(record)
    assert all(torch.isfinite(torch.tensor(value)) for value in record.values())

    class Stop(Exception):
        pass

    config = tiny(store_path, tmp_path / "cut", **sections)
    original = STFCriterion.step

    def cut(self: STFCriterion, *args: Any) -> Any:
        if args[3] == 2:
            raise Stop
        return original(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(STFCriterion, "step", cut)
        with pytest.raises(Stop):
            train(config, say=lambda line: None)
    train(config, resume=True, say=lambda line: None)
    states = [
        torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "cut")
    ]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_run_without_modules(store_path: Path, tmp_path: Path, tiny: Callable[..., Config]) -> None:
    """Rows M1 to M3 of the paper's ablation: the backbone with losses of the focus."""
    sections = settings(adjacency=0, consistency=0) | {"training": {"epochs": 3, "batch_size": 8}}
    record = train(tiny(store_path, tmp_path / "run", **sections), say=lambda line: None).metrics["history"]
    assert {"loss_exploration", "loss_divergence"} <= set(record[-1])
    assert "loss_adjacency" not in record[-1]


def test_a_wrong_loss_is_refused_before_it_trains(
    store_path: Path, tmp_path: Path, tiny: Callable[..., Config]
) -> None:
    sections = settings(exploration=-1)
    with pytest.raises(ConfigError, match="exploration must be 'auto' or a number >= 0, got -1"):
        train(tiny(store_path, tmp_path / "run", **sections), say=lambda line: None)
    sections = settings(adjacency=0) | {"loss": {"name": "stf"}}
    with pytest.raises(ConfigError, match="adjacency must be 0 for a network without modules"):
        train(tiny(store_path, tmp_path / "run", **sections), say=lambda line: None)
