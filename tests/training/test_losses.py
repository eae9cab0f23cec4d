"""STF's losses: formulas, and finite numbers where there is little to compare."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from stgcn_fast.training import losses


def focuses(*shape: int) -> Tensor:
    torch.manual_seed(0)
    return torch.rand(shape).double()


def test_masking_takes_the_focus_out() -> None:
    x, q = torch.randn(2, 3, 4, 5, 2).double(), focuses(2, 2, 4, 5)
    out = losses.masked(x, q)
    torch.testing.assert_close(out[1, :, 2, 3, 1], x[1, :, 2, 3, 1] * (1 - q[1, 1, 2, 3]))
    assert torch.equal(losses.masked(x, torch.zeros_like(q)), x)
    assert not losses.masked(x, torch.ones_like(q)).any()
    assert losses.masked(x, q[:, :, :2]).shape == x.shape  # interpolated along frames


def test_exploration() -> None:
    logits, classes = torch.randn(3, 4).double(), torch.tensor([2, 0, 3])
    chosen = torch.stack([logits.softmax(1)[i, c] for i, c in enumerate(classes)])
    torch.testing.assert_close(losses.exploration_loss(logits, classes), chosen.mean())
    picked = torch.stack([logits[i, c] for i, c in enumerate(classes)])
    torch.testing.assert_close(losses.exploration_loss(logits, classes, "logit"), picked.mean())
    with pytest.raises(ValueError, match="score must be one of probability, logit, got 'margin'"):
        losses.exploration_loss(logits, classes, "margin")


def test_consistency() -> None:
    a = focuses(3, 2, 4, 5).requires_grad_()
    b = focuses(3, 2, 4, 5).flip(0).requires_grad_()
    loss = losses.consistency_loss(a, b)
    expected = sum(float((a[i] - b[i]).detach().square().sum()) ** 0.5 for i in range(3)) / 3 / math.sqrt(20)
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert a.grad is not None
    assert bool(a.grad.any())
    assert b.grad is None  # the teacher
    losses.consistency_loss(a, b, symmetric=True).backward()
    assert b.grad is not None
    assert losses.consistency_loss(a, b[:, :, :2]).shape == ()


def test_divergence() -> None:
    a, b = focuses(3, 2, 4, 5), focuses(3, 2, 4, 5).flip(0)
    units = [F.normalize(q.flatten(1), dim=1) for q in (a, b)]
    expected = -(units[0] - units[1]).square().sum(1).sqrt().mean()
    torch.testing.assert_close(losses.divergence_loss(a, b), expected)
    torch.testing.assert_close(losses.divergence_loss(3 * a, b), expected)  # the range does not matter
    assert losses.divergence_loss(a, a).item() == 0
    apart = torch.zeros(2, 1, 1, 2).double()
    apart[0, ..., 0] = apart[1, ..., 1] = 1
    assert losses.divergence_loss(apart, apart.flip(0)).item() == pytest.approx(-math.sqrt(2))


def test_adjacency() -> None:
    teachers = [focuses(3, 2, 4, 5).requires_grad_(), focuses(3, 2, 4, 5)]
    estimates = [focuses(6, 4, 5).flip(0).requires_grad_(), focuses(6, 8, 5).requires_grad_()]
    loss = losses.adjacency_loss(teachers, estimates)
    loss.backward()
    assert teachers[0].grad is None
    assert all(e.grad is not None and bool(e.grad.any()) for e in estimates)
    difference = (estimates[0].view(3, 2, 4, 5) - teachers[0]).detach()
    first = difference.square().sum((1, 2, 3)).sqrt().mean() / math.sqrt(20)
    one = losses.adjacency_loss(teachers[:1], estimates[:1])
    torch.testing.assert_close(one, first)
    two = losses.adjacency_loss(teachers[1:], estimates[1:])
    torch.testing.assert_close(loss, one + two)
    with pytest.raises(ValueError, match="got 1 for 2"):
        losses.adjacency_loss(teachers[:1], estimates)


@pytest.mark.parametrize("samples", [1, 2])
def test_nothing_to_see_is_finite(samples: int) -> None:
    """Focuses of zeros, equal ones, a batch of one: numbers and derivatives stay finite."""
    for q in (torch.zeros(samples, 1, 4, 5), torch.ones(samples, 1, 4, 5)):
        a, b = q.clone().requires_grad_(), q.clone().requires_grad_()
        estimate = q[:, 0].clone().requires_grad_()
        values = [
            losses.consistency_loss(a, b, symmetric=True),
            losses.divergence_loss(a, b),
            losses.adjacency_loss([a], [estimate]),
            losses.masked(torch.ones(samples, 2, 4, 5, 1), a).sum(),
        ]
        gradients = torch.autograd.grad(sum(values, torch.zeros(())), [a, b, estimate])
        assert all(bool(torch.isfinite(t).all()) for t in [*values, *gradients])


def test_shapes_are_checked() -> None:
    q = focuses(2, 1, 4, 5)
    with pytest.raises(ValueError, match=r"masked: q must be \[N, M, T, V\] with N, M, V = 2, 1, 6"):
        losses.masked(torch.zeros(2, 3, 4, 6, 1), q)
    with pytest.raises(ValueError, match="divergence_loss: q must be"):
        losses.divergence_loss(q, q[:1])
    with pytest.raises(ValueError, match="consistency_loss: q must be"):
        losses.consistency_loss(q, q[..., :2])
