"""STF: it begins as its backbone, sees where a score comes from, and is differentiable twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from stgcn_fast.models import MSG3D, STF, STGCN, build, load_checkpoint, save_checkpoint
from stgcn_fast.nn.focus import focus, last_focus, resampled, scaled
from twins import ms_g3d as twin
from twins.common import lively

OPTIONS: dict[str, dict[str, Any]] = {
    "ms_g3d": {"num_gcn_scales": 4, "num_g3d_scales": 3, "width": 12},
    "st_gcn": {"channels": (12, 16, 24, 24), "temporal_kernel": 3},
}
CLASSES = {"ms_g3d": MSG3D, "st_gcn": STGCN}
BACKBONES = list(OPTIONS)


def network(backbone: str, **options: Any) -> STF:
    torch.manual_seed(0)
    known = {"layout": "hand21", "backbone": backbone, "backbone_options": OPTIONS[backbone]}
    return STF(4, **(known | options))


def opened(model: STF) -> STF:
    """Far from its initial weights, with graphs of its own."""
    constants = {name: b.clone() for name, b in model.named_buffers() if name.endswith(".base")}
    lively(model)
    for name, value in constants.items():
        model.get_buffer(name).copy_(value)
    for module in model.focus_modules:
        nn.init.uniform_(module.alpha.gate, 0.2, 0.5)
    return model.eval()


def clips(frames: int = 12, samples: int = 3) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(samples, 3, frames, 21, 2)


def classifier(model: STF) -> Tensor:
    net = model.backbone
    return net.fc.weight if isinstance(net, MSG3D) else net.fcn.weight.flatten(1)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_begins_as_its_backbone(backbone: str, training: bool) -> None:
    torch.manual_seed(0)
    plain = CLASSES[backbone](4, layout="hand21", **OPTIONS[backbone]).double()
    model = STF.from_backbone(plain)
    assert len(model.focus_modules) == len(model.places) == (6 if backbone == "ms_g3d" else 4)
    x = clips().double()
    results = []
    for net in (plain, model):
        leaf = x.clone().requires_grad_()
        y = net.train(training)(leaf)
        results.append((y, *torch.autograd.grad(y.square().sum(), [leaf, *plain_parameters(net)])))
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def plain_parameters(net: nn.Module) -> list[Tensor]:
    return list((net.backbone if isinstance(net, STF) else net).parameters())


def test_begins_as_the_public_network() -> None:
    public = lively(twin.Model(torch.zeros(25, 25).fill_diagonal_(0, False), 5, width=12, num_gcn_scales=3))
    state = {f"module.{key}": value for key, value in public.state_dict().items()}
    model = STF.from_state_dict(state, num_persons=2).eval()
    reference = MSG3D.from_state_dict(state).eval()
    x = torch.randn(2, 3, 8, 25, 2)
    torch.testing.assert_close(model(x), reference(x))
    assert STF.from_state_dict(state, alpha=None).config["alpha"] is None


def test_the_same_seed_gives_the_same_backbone() -> None:
    """So that rows of an ablation differ in what they name only."""
    torch.manual_seed(0)
    plain = MSG3D(4, layout="hand21", **OPTIONS["ms_g3d"])
    for alpha in (None, "focus"):
        for a, b in zip(plain.parameters(), network("ms_g3d", alpha=alpha).backbone.parameters()):
            assert torch.equal(a, b)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_added_graphs_change_the_result(backbone: str) -> None:
    model, x = opened(network(backbone)), clips()
    with torch.no_grad():
        after = model(x)
        for module in model.focus_modules:
            module.alpha.gate.zero_()
        assert float((model(x) - after).abs().max()) > 1e-4 * float(after.abs().max())


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("alpha", ["focus", "cen", None])
def test_checkpoints(backbone: str, alpha: str | None, tmp_path: Path) -> None:
    model = opened(network(backbone, alpha=alpha, frames=12))
    save_checkpoint(tmp_path / "net", model)
    again = load_checkpoint(tmp_path / "net")[0]
    x = clips()
    torch.testing.assert_close(again(x), model(x))
    assert build("stf", **model.config).config == model.config == again.config


@pytest.mark.parametrize("backbone", BACKBONES)
def test_focus_of_the_last_layer_has_a_closed_form(backbone: str) -> None:
    model, x = opened(network(backbone)).double(), clips().double()
    trace = model.trace(x)
    target = torch.tensor([2, 0, 1])
    last = model.layer_names[-1]
    assert list(trace.layers) == model.layer_names
    expected = last_focus(trace.layers[last], classifier(model), target, 2)
    found = model.focus(x, target)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-15)
    assert float(found.max()) > 0
    torch.testing.assert_close(
        model.focus(x), last_focus(trace.layers[last], classifier(model), trace.logits.argmax(1), 2)
    )
    projected = model.focus(x, target, project=True)
    torch.testing.assert_close(projected, resampled(scaled(expected), 12))
    assert projected.shape == (3, 2, 12, 21)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_focus_of_a_batch_is_that_of_each_sample(backbone: str) -> None:
    model, x = opened(network(backbone)).double(), clips().double()
    target = torch.tensor([3, 1, 0])
    for layer in (model.places[0], model.places[-2], model.places[-1]):
        whole = model.focus(x, target, layer)
        alone = torch.cat([model.focus(x[i : i + 1], target[i : i + 1], layer) for i in range(3)])
        torch.testing.assert_close(whole, alone, rtol=1e-8, atol=1e-14)


def test_focus_agrees_with_finite_differences() -> None:
    """Along a change of one channel everywhere, the score moves by Z times the pooled gradient."""
    model, x = opened(network("ms_g3d")).double(), clips(samples=1).double()
    layers = {}

    def shift(module: nn.Module, inputs: Any, y: Tensor) -> Tensor:
        layers["y"] = y.detach()
        return y + by

    handle = model.backbone.gcn3d3.register_forward_hook(shift)
    pooled = []
    for channel in range(3):
        values = []
        for step in (1e-5, -1e-5):
            by = torch.zeros(1, 48, 1, 1).double()
            by[:, channel] = step
            values.append(float(model(x).detach()[0, 1]))
        frames, joints = layers["y"].shape[2:]
        pooled.append((values[0] - values[1]) / 2e-5 / (frames * joints))
    handle.remove()
    trace = model.trace(x)
    (gradient,) = torch.autograd.grad(trace.logits[0, 1], trace.layers["windows3"])
    expected = gradient.mean((2, 3)).sum(0)[:3]  # both persons were shifted
    torch.testing.assert_close(torch.tensor(pooled).double(), expected, rtol=1e-5, atol=1e-9)


def test_focus_of_a_frozen_network() -> None:
    model, x = opened(network("ms_g3d")), clips()
    expected = model.focus(x, layer="windows2")
    torch.testing.assert_close(model.requires_grad_(False).focus(x, layer="windows2"), expected)


def test_an_absent_person_has_no_focus() -> None:
    model, x = opened(network("ms_g3d")), clips()
    x[1, ..., 1] = 0
    q = model.focus(x)
    assert float(q[1, 1].abs().max()) == 0
    assert float(q[1, 0].max()) > 0


def test_focus_of_zeros() -> None:
    model = opened(network("ms_g3d"))
    q = model.focus(torch.zeros(1, 3, 12, 21, 2), project=True)
    assert float(q.abs().max()) == 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_losses_of_the_focus_have_right_derivatives(backbone: str, training: bool) -> None:
    """A focus holds first derivatives of the fused operators: its own derivatives are second ones."""
    small = {
        "ms_g3d": OPTIONS["ms_g3d"] | {"width": 6},
        "st_gcn": {"channels": (6, 6, 6), "temporal_kernel": 3},
    }
    model = opened(network(backbone, backbone_options=small[backbone])).double().train(training)
    x = clips(8, 2).double()
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    last = "backbone.tcn3.branches.1.3.conv.weight" if backbone == "ms_g3d" else "backbone.fcn.weight"
    names = [last, "focus_modules.2.alpha.gate"]

    class Loss(nn.Module):
        """Of the focus on two classes at two modules."""

        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def forward(self, x: Tensor) -> Tensor:
            trace = self.net.trace(x)
            features = [trace.layers[name] for name in trace.places[-2:]]
            a = focus(trace.logits[:, 0], features, 2, create_graph=True)
            b = focus(trace.logits[:, 1], features[1:], 2, create_graph=True)
            return 1e3 * ((a[0] - a[1]).square().sum() + (a[1] - b[0]).square().sum())

    loss = Loss()

    def of(*values: Tensor) -> Tensor:
        changed = {f"net.{name}": p for name, p in parameters.items()}
        changed |= {f"net.{name}": value for name, value in zip(names, values)}
        buffers = {f"net.{name}": b.clone() for name, b in model.named_buffers()}
        return functional_call(loss, (changed, buffers), (x,))

    values = [parameters[name].clone().requires_grad_() for name in names]
    whole = torch.autograd.grad(of(*values), values)
    torch.manual_seed(3)
    for i, gradient in enumerate(whole):
        direction = torch.randn_like(values[i])
        ends = []
        for step in (1e-6, -1e-6):
            moved = [v.detach() for v in values]
            moved[i] = moved[i] + step * direction
            with torch.enable_grad():
                moved = [v.requires_grad_() for v in moved]
                ends.append(of(*moved).detach())
        numeric = (ends[0] - ends[1]) / 2e-6
        analytic = (gradient * direction).sum()
        torch.testing.assert_close(numeric, analytic, rtol=2e-4, atol=1e-7)
        assert abs(float(analytic)) > 1e-7


def test_second_derivatives() -> None:
    """gradgradcheck of what lies behind the last modules: temporal module, averages, classifier."""
    torch.manual_seed(0)
    net = MSG3D(2, layout="hand21", width=6, num_gcn_scales=2, num_g3d_scales=2).double().train()
    features = torch.randn(2, 24, 2, 2).double().requires_grad_()
    weight = net.tcn3.branches[1][3].conv.weight.detach().clone().requires_grad_()

    def run(y: Tensor, weight: Tensor) -> Tensor:
        state = {"branches.1.3.conv.weight": weight}
        state |= {name: b.clone() for name, b in net.tcn3.named_buffers()}
        return net.classified(functional_call(net.tcn3, state, (y,)))

    torch.autograd.gradgradcheck(run, (features, weight), atol=1e-4, fast_mode=True)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_stages_are_the_network_without_its_classifier(backbone: str) -> None:
    model = network(backbone)
    stages = model.stages()
    assert len(stages) == 1 + (3 if backbone == "ms_g3d" else 4)
    held = {p for stage in stages for part in stage for p in part.parameters()}
    left = [name for name, p in model.named_parameters() if p not in held]
    assert left == [name for name, _ in model.named_parameters() if ".fc" in name]
    assert model.focus_modules[-1] in stages[-1]


def test_one_graph() -> None:
    small = {"channels": (6, 6, 6), "temporal_kernel": 3}
    model, x = opened(network("st_gcn", backbone_options=small)), clips()
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="eager")(x), expected)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="backbone must be one of ms_g3d, st_gcn, got 'resnet'"):
        STF(4, backbone="resnet")
    with pytest.raises(TypeError, match=r"backbone_options must be arguments of ms_g3d, got .*colour"):
        STF(4, backbone_options={"colour": 1})
    with pytest.raises(ValueError, match="backbone_options must be without num_classes, got 3"):
        STF(4, backbone_options={"num_classes": 3})
    with pytest.raises(TypeError, match="backbone must be MSG3D or STGCN, got Linear"):
        STF.from_backbone(nn.Linear(2, 2))
    model = network("ms_g3d").eval()
    with pytest.raises(ValueError, match=r"layer must be one of frames1, windows1, block1, .*, got 'block9'"):
        model.focus(clips(), layer="block9")
    with pytest.raises(ValueError, match=r"target must be int64 \[N\] with N = 3, got torch.int64 \[2\]"):
        model.focus(clips(), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="x must be"):
        model(torch.zeros(1, 3, 8, 25, 2))
    assert (
        STF(4, layout="hand21", backbone="stgcn", backbone_options=OPTIONS["st_gcn"]).backbone_name
        == "st_gcn"
    )
