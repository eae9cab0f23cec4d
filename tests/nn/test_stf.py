"""STF's parts: the focus, its estimate, the graphs, and what an added graph does to MS-G3D's layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from stgcn_fast.nn import _scales, focus, ms_g3d, stf


def bones(joints: int) -> np.ndarray:
    """A chain of joints."""
    out = np.zeros((joints, joints))
    for i in range(joints - 1):
        out[i, i + 1] = out[i + 1, i] = 1
    return out


def clip(*shape: int) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(shape).double().contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("channels", "stride", "dilation"), [(3, 1, 1), (4, 2, 1), (12, 2, 1), (4, 1, 2)])
def test_a_graph_shared_by_frames_is_the_tiled_one(
    channels: int, stride: int, dilation: int, training: bool
) -> None:
    """Windows with an added graph equal windows whose adjacency has it in every pair of frames."""
    samples, joints, scales, window = 2, 5, 3, 3
    torch.manual_seed(0)
    layer = ms_g3d.WindowGraphConv(channels, 6, bones(joints), scales, window, stride, dilation)
    layer = layer.double().train(training)
    x = clip(samples, channels, 7, joints).requires_grad_()
    extra = torch.randn(samples, scales, joints, joints).double().requires_grad_()
    found = layer(x, extra)

    inner = layer.gcn3d[1]
    conv, norm = inner.mlp.layers
    pad = dilation
    padded = F.pad(x, (0, 0, pad, pad))
    steps = -(-7 // stride)
    frames = [
        padded[:, :, a * dilation : a * dilation + (steps - 1) * stride + 1 : stride] for a in range(window)
    ]
    unfolded = torch.cat(frames, 3)  # [N, C, T', τV]
    maps = inner.maps() + extra.tile(1, 1, window, window)  # [N, K, τV, τV]
    summed = torch.einsum("nctv,nkvw->nkctw", unfolded, maps).flatten(1, 2)
    y = F.relu(F.batch_norm(conv(summed), None, None, norm.weight, norm.bias, True))
    if not training:
        y = F.relu(norm(conv(summed)))
    y = layer.out_conv(y.unflatten(3, (window, joints))).squeeze(3)
    z = layer.out_bn
    expected = F.batch_norm(y, None, None, z.weight, z.bias, True) if training else z(y)

    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
    weights = torch.randn_like(found)
    ours = torch.autograd.grad((found * weights).sum(), [x, extra])
    theirs = torch.autograd.grad((expected * weights).sum(), [x, extra])
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels", [3, 16])
def test_a_graph_of_each_sample_over_frames(channels: int, training: bool) -> None:
    layer = ms_g3d.MultiScaleGraphConv(channels, 6, bones(5), 4).double().train(training)
    x, extra = clip(2, channels, 6, 5), torch.randn(2, 4, 5, 5).double()
    found = layer(x, extra)
    conv, norm = layer.mlp.layers
    summed = torch.einsum("nctv,nkvw->nkctw", x, layer.maps() + extra).flatten(1, 2)
    expected = F.relu(F.batch_norm(conv(summed), None, None, norm.weight, norm.bias, True))
    if not training:
        expected = F.relu(norm(conv(summed)))
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_means_of_windows(stride: int, dilation: int) -> None:
    x = clip(2, 3, 7, 4)
    rows = F.unfold(x, (5, 1), (dilation, 1), (2 * dilation, 0), (stride, 1))
    expected = rows.view(2, 3, 5, -1, 4).mean(2)
    torch.testing.assert_close(_scales._window_means(x, 5, stride, dilation), expected)


@pytest.mark.parametrize(("length", "frames"), [(4, 9), (9, 4), (1, 5), (5, 1), (6, 6)])
def test_resampling_is_linear_interpolation(length: int, frames: int) -> None:
    q = torch.rand(2, 3, length, 4).double()
    flat = q.flatten(0, 1).mT  # [6, V, T]
    expected = F.interpolate(flat, frames, mode="linear", align_corners=False).mT.view(2, 3, frames, 4)
    torch.testing.assert_close(focus.resampled(q, frames), expected)


@pytest.mark.parametrize("frames", [3, 8, 13])
def test_stretches_are_adaptive_means(frames: int) -> None:
    s = torch.rand(2, frames, 5).double()
    torch.testing.assert_close(stf._stretches(s, 8), F.adaptive_avg_pool2d(s, (8, 5)))


def test_scaling() -> None:
    q = torch.rand(3, 2, 4, 5)
    q[1] = 0
    out = focus.scaled(q)
    torch.testing.assert_close(out.amax((1, 2, 3)), torch.tensor([1.0, 0.0, 1.0]), atol=1e-5, rtol=0)
    assert bool((out[1] == 0).all())
    soft = focus.scaled(q, threshold=True)
    torch.testing.assert_close(soft[1], torch.full((2, 4, 5), float(torch.sigmoid(torch.tensor(-5.0)))))
    assert focus.scaled(q[:0]).shape == (0, 2, 4, 5)


def test_focus_by_the_formula() -> None:
    """Any score: pooled gradients times features, each sample and person for itself."""
    x = torch.randn(4, 3, 5, 6).double().requires_grad_()  # two samples of two persons
    weights = torch.randn(4, 3, 5, 6).double()
    score = (x.square() * weights).view(2, 2, -1).sum((1, 2))
    (q,) = focus.focus(score, [x], 2)
    gradient = 2 * x.detach() * weights
    expected = F.relu(torch.einsum("nc,nctv->ntv", gradient.mean((2, 3)), x.detach()))
    torch.testing.assert_close(q, expected.view(2, 2, 5, 6))
    assert not q.requires_grad


def test_focus_grad() -> None:
    """In full the pooled gradients are differentiated too, else they are constants."""
    x = torch.randn(1, 3, 4, 5).double()
    results = {}
    for mode in focus.FOCUS_GRAD:
        leaf = x.clone().requires_grad_()
        (q,) = focus.focus(leaf.pow(3).sum()[None], [leaf], focus_grad=mode, create_graph=True)
        (results[mode],) = torch.autograd.grad(q.square().sum(), leaf)
    pooled = (3 * x.square()).mean((2, 3))
    leaf = x.clone().requires_grad_()
    (constant,) = torch.autograd.grad(focus.weighted(leaf, pooled).square().sum(), leaf)
    torch.testing.assert_close(results["detach_weights"], constant)
    assert float((results["full"] - constant).abs().max()) > 1e-3
    leaf = x.clone().requires_grad_()
    whole = focus.weighted(leaf, (3 * leaf.square()).mean((2, 3))).square().sum()
    torch.testing.assert_close(results["full"], torch.autograd.grad(whole, leaf)[0])


def test_focus_says_what_is_wrong() -> None:
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    with pytest.raises(ValueError, match="focus_grad must be one of full, detach_weights, got 'half'"):
        focus.focus(x.sum((1, 2, 3)), [x], focus_grad="half")
    with pytest.raises(ValueError, match=r"features must be \[N \* M, C, T, V\] with N = 2, M = 2"):
        focus.focus(x.sum((1, 2, 3)), [x], 2)
    with pytest.raises(ValueError, match=r"score must be \[N\], got \[2, 3\]"):
        focus.focus(x.sum((2, 3)), [x])


@pytest.mark.parametrize("alpha", stf.ALPHAS)
def test_a_module_begins_with_no_graph(alpha: str) -> None:
    torch.manual_seed(0)
    module = stf.FocusAdjacency(16, 3, 5, alpha, frames=6).double()
    x = clip(2, 16, 6, 5)
    graph, estimate = module(x)
    assert graph.shape == (2, 3, 5, 5)
    assert torch.equal(graph, torch.zeros_like(graph))
    assert estimate.shape == (2, 6, 5)
    assert bool((estimate >= 0).all())
    graph.sum().backward()
    assert float(module.alpha.gate.grad.abs().min()) > 0  # so it can open
    module.alpha.gate.data.fill_(0.5)
    opened = module(x)[0].detach()
    assert float((opened[0] - opened[1]).abs().max()) > 1e-4  # each sample has its own
    assert float(opened.abs().max()) <= 0.5
    if alpha == "cen":
        norms = torch.linalg.vector_norm(opened, dim=2)
        torch.testing.assert_close(norms, torch.full_like(norms, 0.5))


def test_beta_is_its_layers() -> None:
    beta = stf.FocusEstimate(16).double().eval()
    x = torch.randn(2, 16, 6, 5).double()
    expected = F.softplus(beta.leave(F.relu(beta.norm(beta.enter(x))))).squeeze(1)
    torch.testing.assert_close(beta(x), expected)


def test_bad_modules() -> None:
    with pytest.raises(ValueError, match="alpha must be one of focus, cen, got 'beta'"):
        stf.FocusAdjacency(8, 3, 5, "beta")
    with pytest.raises(ValueError, match="frames must be positive with alpha 'cen', got None"):
        stf.FocusAdjacency(8, 3, 5, "cen")
    with pytest.raises(ValueError, match="rank must be positive, got 0"):
        stf.FocusAdjacency(8, 3, 5, rank=0)
    with pytest.raises(ValueError, match="s must be 6 frames long in this layer"):
        stf.FocusAdjacency(8, 3, 5, "cen", frames=6)(torch.randn(1, 8, 7, 5))
