"""Soft-DTW: values, gradients and laws, against tslearn and the recurrence in torch."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tslearn.metrics import SoftDTW
from tslearn.metrics import soft_dtw as tslearn_soft_dtw

from stgcn_fast import dtw

# Around a tile (3 to 5) and a vector (8, 16).
LENGTHS = [1, 2, 3, 4, 5, 8, 9, 16, 17, 33, 61]


def textbook(x: torch.Tensor, y: torch.Tensor, gamma: float, radius: int = 10**6) -> torch.Tensor:
    """The recurrence cell by cell, differentiated by torch; infinite cells are left out of the sums."""
    n, m = len(x), len(y)
    r: dict[tuple[int, int], torch.Tensor] = {}
    for i in range(n):
        for j in range(m):
            if not -radius - max(0, n - m) <= j - i <= radius + max(0, m - n):
                continue
            before = [r[p] for p in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if p in r]
            r[i, j] = ((x[i] - y[j]) ** 2).sum()
            if before:
                r[i, j] = r[i, j] - gamma * torch.logsumexp(-torch.stack(before) / gamma, 0)
    return r[n - 1, m - 1]


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 2e-6)])
@pytest.mark.parametrize("features", [1, 3, 520])
@pytest.mark.parametrize("gamma", [1e-3, 1.0, 30.0])
def test_values_equal_tslearn(collection, features, gamma, dtype, tolerance):
    x = collection(LENGTHS, features, dtype)
    y = collection(LENGTHS[::-3], features, dtype, seed=1)
    want = np.array([[tslearn_soft_dtw(a.astype(float), b.astype(float), gamma) for b in y] for a in x])
    got = dtw.soft_dtw(x, y, gamma)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max())
    np.testing.assert_array_equal(dtw.soft_dtw(y, y, gamma), dtw.soft_dtw(y, None, gamma))


@pytest.mark.parametrize("features", [1, 4])
@pytest.mark.parametrize("gamma", [0.05, 2.0])
def test_gradient_equals_tslearn(collection, features, gamma):
    for a, b in [(9, 14), (30, 30), (1, 7)]:
        x, y = collection([a, b], features)
        cost = ((x[:, None] - y[None]) ** 2).sum(-1)
        reference = SoftDTW(cost, gamma)
        reference.compute()
        share = reference.grad()  # E of the paper
        want = 2 * (share[:, :, None] * (x[:, None] - y[None])).sum(1)
        tensor = torch.tensor(x, requires_grad=True)
        dtw.soft_dtw([tensor], [y], gamma).sum().backward()
        np.testing.assert_allclose(tensor.grad, want, rtol=1e-9, atol=1e-9 * np.abs(want).max())


@pytest.mark.parametrize("options", [{}, {"window": 2}, {"window": 0.2}, {"normalize": True}], ids=str)
@pytest.mark.parametrize("lengths", [(2, 7, 13), (5, 5, 5)])
def test_gradcheck(lengths, options):
    rng = np.random.default_rng(0)
    x = [torch.tensor(rng.normal(size=(t, 2)), requires_grad=True) for t in lengths]
    y = [torch.tensor(rng.normal(size=(t, 2)), requires_grad=True) for t in lengths[::-1]]
    assert torch.autograd.gradcheck(
        lambda *a: dtw.soft_dtw(list(a[:3]), list(a[3:]), 0.7, **options), (*x, *y)
    )
    assert torch.autograd.gradcheck(lambda *a: dtw.soft_dtw(list(a), None, 0.7, **options), tuple(x))
    assert torch.autograd.gradcheck(
        lambda *a: dtw.soft_dtw(list(a[:3]), list(a[3:]), 0.7, batched=True, **options), (*x, *y)
    )


@pytest.mark.parametrize("window", [None, 0, 4])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 3e-5)])
def test_both_gradients_equal_the_textbook(collection, window, dtype, tolerance):
    x, y = (
        [torch.tensor(s, dtype=torch.float64) for s in collection([24, 7, 31], 6, seed=i)] for i in (0, 1)
    )
    weights = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0], [-1.0, 0.25, 2.0]], dtype=torch.float64)

    def gradients(compute, dtype):
        leaves = [s.to(dtype).requires_grad_() for s in (*x, *y)]
        value = (compute(leaves[:3], leaves[3:]) * weights.to(dtype)).sum()
        return value, torch.autograd.grad(value, leaves)

    radius = 10**6 if window is None else window
    want, slopes = gradients(
        lambda a, b: torch.stack([textbook(s, t, 1.3, radius) for s in a for t in b]).reshape(3, 3),
        torch.float64,
    )
    got, found = gradients(lambda a, b: dtw.soft_dtw(a, b, 1.3, window=window), dtype)
    assert got.item() == pytest.approx(want.item(), rel=tolerance)
    for a, b in zip(found, slopes):
        np.testing.assert_allclose(a.double(), b, rtol=0, atol=tolerance * b.abs().max().item())


def test_padded_strips_and_threads_do_not_change_a_bit(collection):
    # 400 columns: several strips of rows. Two threads add gradients up in one order.
    x = collection([400, 370, 12, *range(40, 60)], 2, np.float32)
    results = []
    for n_jobs in (1, 2):
        leaves = [torch.tensor(s, requires_grad=True) for s in x]
        value = dtw.soft_dtw(leaves, n_jobs=n_jobs)
        results.append([value, *torch.autograd.grad(value.sum() / 1e4, leaves)])
    assert all(torch.equal(a, b) for a, b in zip(*results))
    alone = dtw.soft_dtw([x[0]], [x[1]])
    np.testing.assert_array_equal(alone[0, 0], results[0][0][0, 1].detach())
    want = tslearn_soft_dtw(x[0].astype(float), x[1].astype(float), 1.0)
    assert alone[0, 0] == pytest.approx(want, rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    features=st.integers(1, 3),
    gamma=st.floats(0.01, 10),
    seed=st.integers(0, 99),
)
def test_laws(lengths, features, gamma, seed):
    rng = np.random.default_rng(seed)
    x = [rng.normal(size=(t, features)) for t in lengths]
    soft = dtw.soft_dtw(x, gamma=gamma)
    hard = dtw.dtw_pairwise_distance(x, squared=True)
    np.testing.assert_array_equal(soft, soft.T)
    assert (soft <= hard + 1e-9).all()
    # Of T_x + T_y - 2 minima at most, each lowers the sum by at most gamma log 3.
    length = np.add.outer(lengths, lengths)
    assert (soft >= hard - gamma * np.log(3) * length - 1e-9).all()
    assert (dtw.soft_dtw(x, gamma=2 * gamma) <= soft + 1e-9).all()
    divergence = dtw.soft_dtw(x, gamma=gamma, normalize=True)
    np.testing.assert_allclose(divergence, dtw.soft_dtw(x, x, gamma, normalize=True), atol=1e-9)
    assert (divergence >= -1e-8).all()
    assert np.abs(np.diag(divergence)).max() <= 1e-9
    order = rng.permutation(len(x))
    np.testing.assert_array_equal(
        dtw.soft_dtw([x[i] for i in order], gamma=gamma), soft[np.ix_(order, order)]
    )
    np.testing.assert_array_equal(dtw.soft_dtw(x, x, gamma, batched=True), np.diag(soft))


@pytest.mark.parametrize("window", [None, 0, 3])
def test_tends_to_dtw(collection, window):
    x = collection([20, 31, 20, 4], 3)
    hard = dtw.dtw_pairwise_distance(x, window, squared=True)
    far = [np.abs(dtw.soft_dtw(x, None, gamma, window=window) - hard).max() for gamma in (1.0, 1e-2, 1e-4)]
    assert far[0] + 1e-9 >= far[1] >= far[2] - 1e-9
    assert far[2] <= 1e-3


def test_gradient_descends_and_reaches_a_barycentre():
    rng = np.random.default_rng(0)
    clips = torch.tensor(np.cumsum(rng.normal(size=(6, 25, 2)), 1))
    centre = clips.mean(0, keepdim=True).requires_grad_()
    start = dtw.soft_dtw(centre, clips, 0.1).sum().item()
    optimizer = torch.optim.LBFGS([centre], max_iter=30)

    def loss():
        optimizer.zero_grad()
        value = dtw.soft_dtw(centre, clips, 0.1).sum()
        value.backward()
        return value

    optimizer.step(loss)
    assert dtw.soft_dtw(centre, clips, 0.1).sum().item() < 0.8 * start


def test_forms_of_input_and_output(collection):
    x = np.stack(collection([9, 9, 9], 1))
    want = dtw.soft_dtw(x)
    assert isinstance(want, np.ndarray)
    got = dtw.soft_dtw(torch.tensor(x))
    assert isinstance(got, torch.Tensor)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(dtw.soft_dtw(x[..., 0]), want)
    np.testing.assert_array_equal(dtw.soft_dtw([torch.tensor(s[:, 0]) for s in x], x), want)
    packed = dtw.Sequences(x.reshape(-1, 1), np.array([0, 9, 18, 27]))
    np.testing.assert_array_equal(dtw.soft_dtw(packed), want)
    mixed = torch.tensor(x, requires_grad=True)
    dtw.soft_dtw(packed, mixed, batched=True).sum().backward()
    assert mixed.grad.shape == (3, 9, 1)
    half = torch.tensor(x, dtype=torch.float32, requires_grad=True)
    dtw.soft_dtw(half, dtype=np.float64).sum().backward()
    assert half.grad.dtype == torch.float32


def test_far_apart_is_infinite_and_flat():
    far = [torch.full((3, 2), value, requires_grad=True) for value in (0.0, 1e30)]
    value = dtw.soft_dtw([far[0]], [far[1]])
    assert value.item() == np.inf
    near = torch.full((3, 2), 1e4, requires_grad=True)
    dtw.soft_dtw([far[0]], [near], 1e-3).sum().backward()
    assert torch.isfinite(near.grad).all()


@pytest.mark.parametrize(
    ("error", "arguments", "message"),
    [
        (TypeError, {"gamma": "1"}, "soft_dtw: gamma must be a number, got '1'"),
        (ValueError, {"gamma": 0}, "soft_dtw: gamma must be above 0, got 0.0"),
        (ValueError, {"gamma": np.inf}, "soft_dtw: gamma must be above 0, got inf"),
        (ValueError, {"window": 9}, "soft_dtw: window must be from 0 to 2 cells"),
        (ValueError, {"batched": True}, "soft_dtw: y must be given if batched, got None"),
        (ValueError, {"batched": True, "y": [[1.0]]}, "soft_dtw: y must hold 2 sequences like x"),
        (ValueError, {"y": [[np.nan]]}, r"soft_dtw: y\[0\] must be finite, got nan"),
        (ValueError, {"y": [[[1.0, 2.0]]]}, r"soft_dtw: y\[0\] must have 1 features"),
        (TypeError, {"n_jobs": 1.5}, "soft_dtw: n_jobs must be"),
    ],
)  # fmt: skip
def test_bad_input(error, arguments, message):
    with pytest.raises(error, match=message):
        dtw.soft_dtw([[1.0, 2.0], [3.0]], **arguments)


def test_example_in_the_documentation_runs():
    result = doctest.testmod(importlib.import_module("stgcn_fast.dtw.soft_dtw"))
    assert result.attempted >= 4
    assert result.failed == 0


def test_no_second_derivative(collection):
    x = torch.tensor(collection([5], 2)[0], requires_grad=True)
    (slope,) = torch.autograd.grad(dtw.soft_dtw([x], [x.detach() + 1]).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="soft_dtw: has no second derivative"):
        slope.sum().backward()
