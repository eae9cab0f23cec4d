"""Maps: against captum, the released formula, the closed form; every kind of model; bad input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import stgcn_fast
from stgcn_fast import explain
from stgcn_fast.explain import STGGradCAM, find_blocks, unfold_attribution
from stgcn_fast.models import MSG3D, STF, STGCN
from stgcn_fast.nn import _fusion
from twins import st_gcn
from twins.common import lively

TARGETS = [1, 0, 3]


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> bool:
    return float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize("name", ["stgcn", "msg3d"])
def test_every_layer_equals_captum(name: str, clips: Tensor, request: pytest.FixtureRequest) -> None:
    attr = pytest.importorskip("captum.attr")
    model = request.getfixturevalue(name)
    result = STGGradCAM(model, reduction="sum", persons="each")(clips, TARGETS)
    for layer, path in find_blocks(model).items():
        grad_cam = attr.LayerGradCam(model, model.get_submodule(path))
        expected = grad_cam.attribute(clips, target=torch.tensor(TARGETS), relu_attributions=True)
        assert expected.abs().max() > 0
        assert close(result.maps[layer], unfold_attribution(expected.detach(), samples=len(clips)))


def released(model: STGCN, path: str, x: Tensor) -> Tensor:
    """The released helper on one sample, from its description: [1, C, T, V, M] -> [M, T, V]."""
    kept: list[Tensor] = []
    handle = model.get_submodule(path).register_forward_hook(lambda m, i, o: kept.append(o))
    scores = model(x)
    handle.remove()
    features = kept[0]  # [M, C, T, V], the batch is one sample
    (gradient,) = torch.autograd.grad(scores[0, scores[0].argmax()], features)
    alpha = gradient.mean(dim=(0, 2, 3))
    weighted = features.detach() * alpha[None, :, None, None]
    return torch.clamp(weighted.mean(1), min=0)


def test_one_sample_equals_the_released_formula(stgcn: STGCN, clips: Tensor) -> None:
    paths = find_blocks(stgcn)
    cam = STGGradCAM(stgcn)
    together = cam(clips)
    positive = []
    for i in range(len(clips)):
        x = clips[i : i + 1]
        alone = cam(x)
        for layer in ("block1", "block5", "block10"):
            expected = released(stgcn, paths[layer], x)
            positive.append(bool(expected.max() > 0))
            assert close(alone.maps[layer][0], expected)
            assert close(together.maps[layer][i], expected)
    assert sum(positive) > len(positive) / 2


def test_the_last_layer_has_a_closed_form(stgcn: STGCN, clips: Tensor) -> None:
    n, m = clips.shape[0], clips.shape[4]
    features = stgcn.extract_features(clips, "block10")["block10"].detach()  # [N, M, C, T, V]
    t, v = features.shape[3:]
    weights = stgcn.fcn.weight.detach().flatten(1)[TARGETS] / (m * t * v)  # [N, C]
    expected = torch.einsum("nmctv,nc->nmtv", features, weights).relu() / features.shape[2]
    assert close(STGGradCAM(stgcn, "block10")(clips, TARGETS).maps["block10"], expected)
    assert expected.shape == (n, m, t, v)


def test_all_layers_cost_one_backward_pass(stgcn: STGCN, clips: Tensor, monkeypatch: Any) -> None:
    passes = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: passes.append(1) or grad(*a, **k))
    result = STGGradCAM(stgcn)(clips)
    assert len(result.maps) == 10
    assert len(passes) == 1


def test_targets(stgcn: STGCN, clips: Tensor) -> None:
    cam = STGGradCAM(stgcn, ["block3", "block10"])
    predicted = cam(clips)
    assert torch.equal(predicted.classes, predicted.scores.argmax(1))
    with torch.no_grad():
        assert torch.allclose(predicted.scores, stgcn(clips), atol=1e-5)
    same = cam(clips, predicted.classes)
    two = cam(clips, "top2")
    assert torch.equal(two.classes, predicted.scores.topk(2, 1).indices)
    for name in predicted.maps:
        assert torch.equal(same.maps[name], predicted.maps[name])
        assert torch.equal(two.maps[name][:, 0], predicted.maps[name])
        assert close(two.maps[name][:, 1], cam(clips, two.classes[:, 1]).maps[name])
    assert torch.equal(cam(clips, 2).classes, torch.tensor([2, 2, 2]))


def test_options_change_what_they_say(stgcn: STGCN, clips: Tensor) -> None:
    mean, total = (STGGradCAM(stgcn, "block5", reduction=r)(clips).maps["block5"] for r in ("mean", "sum"))
    assert close(total, 16 * mean)  # channels of block5 at width 1/8
    signed = STGGradCAM(stgcn, "block5", relu=False)(clips).maps["block5"]
    assert signed.min() < 0
    assert torch.equal(signed.relu(), mean)
    one = clips[..., :1]
    joint, each = (STGGradCAM(stgcn, "block5", persons=p)(one).maps["block5"] for p in ("joint", "each"))
    assert torch.equal(joint, each)


def test_normalised_maps(stgcn: STGCN, clips: Tensor) -> None:
    x = torch.cat([clips, clips * 2])
    classes = [0, 0, 1, 1, 2, 2]
    raw = STGGradCAM(stgcn, "block8", relu=False)(x, classes).maps["block8"]
    each = STGGradCAM(stgcn, "block8", normalize="map", relu=False)(x, classes).maps["block8"]
    assert all(float(m.min()) == 0 and float(m.max()) == 1 for m in each)
    layer = STGGradCAM(stgcn, "block8", normalize="layer", relu=False)(x, classes).maps["block8"]
    assert close(layer, (raw - raw.min()) / (raw.max() - raw.min()))
    grouped = STGGradCAM(stgcn, "block8", normalize="class", relu=False)(x, classes).maps["block8"]
    for i in (0, 2, 4):
        pair = raw[i : i + 2]
        assert close(grouped[i : i + 2], (pair - pair.min()) / (pair.max() - pair.min()))
    assert explain.normalise_maps(torch.ones(2, 1, 3, 4), "map").abs().max() == 0
    with pytest.raises(ValueError, match=r"normalise_maps: classes must have shape \[2\], got None"):
        explain.normalise_maps(torch.ones(2, 1, 3, 4), "class")


class Public(nn.Module):
    """A block as the public code writes it: it returns its adjacency beside the features."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(inputs, outputs, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor, adjacency: Tensor) -> tuple[Tensor, Tensor]:
        return self.relu(torch.einsum("nctv,vw->nctw", self.mix(x), adjacency)), adjacency


class Somebodys(nn.Module):
    """A network of somebody else; its second block overwrites what the first one gave."""

    def __init__(self) -> None:
        super().__init__()
        self.l1, self.l2, self.l10 = Public(3, 8), Public(8, 8), Public(8, 8)
        self.unused = nn.Conv2d(8, 8, 1)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        n, c, t, v, m = x.shape
        y = x.permute(0, 4, 1, 2, 3).reshape(n * m, c, t, v)
        adjacency = torch.full((v, v), 1 / v)
        y, _ = self.l1(y, adjacency)
        y.mul_(2)
        for block in (self.l2, self.l10):
            y, _ = block(y, adjacency)
        out: Tensor = self.fc(self.drop(y).mean((2, 3)).view(n, m, -1).mean(1))
        return out


def test_a_model_of_somebody_else(clips: Tensor) -> None:
    model = Somebodys().train()
    assert list(find_blocks(model).values()) == ["l1", "l2", "l10"]
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    result = STGGradCAM(model)(clips)
    assert model.training
    assert model.drop.training
    named = STGGradCAM(model, ["l10", "l2"])(clips)
    assert torch.equal(named.maps["l10"], result.maps["block3"])
    # The first block's output was doubled in place: its map is that of the output before.
    twice = torch.autograd.grad
    model.eval()
    x = clips.permute(0, 4, 1, 2, 3).flatten(0, 1)
    first = model.l1(x, torch.full((25, 25), 1 / 25))[0].detach().requires_grad_()
    y = first * 2
    for block in (model.l2, model.l10):
        y = block(y, torch.full((25, 25), 1 / 25))[0]
    scores = model.fc(y.mean((2, 3)).view(3, 2, -1).mean(1))
    (gradient,) = twice(scores.amax(1).sum(), first)
    alpha = gradient.mean((2, 3)).view(3, 2, 8).mean(1)
    expected = torch.einsum("nmctv,nc->nmtv", first.detach().view(3, 2, 8, 16, 25), alpha).relu() / 8
    assert close(result.maps["block1"], expected)


@pytest.mark.parametrize("mode", ["train", "inference"])
def test_accelerated_models_give_the_same_maps(
    mode: Any, clips: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lively(st_gcn.Model(3, classes=4, joints=11, widths=(16, 16, 24), taps=5)).eval()
    x = clips[:, :, :, :11]
    expected = STGGradCAM(model)(x)
    assert len(expected.maps) == 3
    monkeypatch.setattr(_fusion, "compiled", lambda op, device: True)  # on machines without kernels too
    assert stgcn_fast.accelerate(model, mode).taken
    found = STGGradCAM(model)(x)
    assert all(close(found.maps[name], expected.maps[name], 1e-4) for name in expected.maps)


def test_compiled_models_give_the_same_maps(stgcn: STGCN, clips: Tensor) -> None:
    expected = STGGradCAM(stgcn)(clips)
    compiled = torch.compile(stgcn, backend="eager")
    with torch.no_grad():
        compiled(clips)  # hooks set later would not be seen
    found = STGGradCAM(compiled)(clips)
    assert all(torch.equal(found.maps[name], expected.maps[name]) for name in expected.maps)


def test_maps_inside_no_grad_and_inference_mode(stgcn: STGCN, clips: Tensor) -> None:
    expected = STGGradCAM(stgcn)(clips).maps["block10"]
    with torch.no_grad():
        assert torch.equal(STGGradCAM(stgcn)(clips).maps["block10"], expected)
    with torch.inference_mode():
        assert torch.equal(STGGradCAM(stgcn)(clips).maps["block10"], expected)


def test_no_hook_and_no_gradient_stays_behind(stgcn: STGCN, clips: Tensor) -> None:
    STGGradCAM(stgcn)(clips)
    assert not any(module._forward_hooks for module in stgcn.modules())
    assert all(parameter.grad is None for parameter in stgcn.parameters())


def test_blocks_of_a_network_inside_another(clips: Tensor) -> None:
    model = STF(num_classes=4, backbone="st_gcn", backbone_options={"width": 0.125}).eval()
    result = STGGradCAM(model, relu=False)(clips)
    assert len(result.maps) == 10
    path = "backbone.st_gcn_networks.9"
    last = STGGradCAM(model, path, relu=False)(clips).maps[path]
    assert torch.equal(last, result.maps["block10"])
    assert last.abs().max() > 0


class Branching(nn.Module):
    """A block with a list of branches inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(nn.Conv2d(3, 2, 1)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class OneBlock(nn.Module):
    """A network that holds its only block in a list, beside a wrapper of one module."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([Branching()])
        self.head = nn.Sequential(nn.Sequential(nn.Linear(6, 4)))

    def forward(self, x: Tensor) -> Tensor:
        n, c, t, v, m = x.shape
        y = self.stages[0](x.permute(0, 4, 1, 2, 3).reshape(n * m, c, t, v))
        out: Tensor = self.head(y.mean((2, 3)).view(n, m, -1).mean(1))
        return out


def test_a_network_of_one_block(clips: Tensor) -> None:
    model = STGCN(num_classes=3, layout="ntu25", channels=[4], strides=[1])
    assert find_blocks(model) == {"block1": "st_gcn_networks.0"}
    assert STGGradCAM(model)(clips).maps["block1"].shape == (3, 2, 16, 25)
    assert find_blocks(OneBlock()) == {"block1": "stages.0"}
    assert STGGradCAM(OneBlock())(clips).maps["block1"].shape == (3, 2, 16, 25)


def test_bad_input(stgcn: STGCN, msg3d: MSG3D, clips: Tensor) -> None:
    with pytest.raises(ValueError, match=r"^STGGradCAM: layers must be among block1, .*fcn, got blok1$"):
        STGGradCAM(stgcn, ["block1", "blok1"])
    with pytest.raises(ValueError, match=r"must be names of modules for a Linear, whose blocks are not"):
        STGGradCAM(nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"^STGGradCAM: model must be a torch.nn.Module, got int$"):
        STGGradCAM(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^STGGradCAM: reduction must be one of mean, sum, got 'max'$"):
        STGGradCAM(stgcn, reduction="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"layer 'fc' must give maps \[N \* M, C, T, V\], got \[3, 4\]"):
        STGGradCAM(msg3d, "fc")(clips)
    with pytest.raises(ValueError, match=r"^STGGradCAM: layers must run when the model does, got unused$"):
        STGGradCAM(Somebodys(), "unused")(clips)
    with pytest.raises(ValueError, match=r"^STGGradCAM: target must be in \[0, 4\), got 4 to 4$"):
        STGGradCAM(stgcn)(clips, 4)
    with pytest.raises(ValueError, match=r"^STGGradCAM: target must be None, 'top2' or classes, got 'best'$"):
        STGGradCAM(stgcn)(clips, "best")
    with pytest.raises(ValueError, match=r"target must have shape \[3\] or \[3, Q\], got \[2\]"):
        STGGradCAM(stgcn)(clips, [0, 1])
    with pytest.raises(TypeError, match=r"^STGGradCAM: target must be integers, got torch.float32$"):
        STGGradCAM(stgcn)(clips, 0.5)  # type: ignore[arg-type]


def test_an_inference_network_says_that_it_has_no_gradients(stgcn: STGCN, clips: Tensor) -> None:
    fast = stgcn_fast.optimize(stgcn)
    with pytest.raises(ValueError, match=r"^STGGradCAM: "):
        STGGradCAM(fast)(clips)


def test_unfolding() -> None:
    folded = torch.arange(2 * 3 * 4 * 5 * 6.0).view(6, 4, 5, 6)  # two samples of three persons
    assert torch.equal(unfold_attribution(folded, 2)[1, 2], folded[5].sum(0))
    inputs = torch.randn(2, 4, 5, 6, 3)
    assert torch.equal(unfold_attribution(inputs, reduction="mean")[1, 2], inputs[1, :, :, :, 2].mean(0))
    assert unfold_attribution(inputs, reduction="abs").min() > 0
    with pytest.raises(ValueError, match=r"samples must divide the 6 rows of \[N \* M, C, T, V\], got 4"):
        unfold_attribution(folded, 4)
    with pytest.raises(ValueError, match="reduction must be one of sum, mean, abs"):
        unfold_attribution(folded, 2, "max")
