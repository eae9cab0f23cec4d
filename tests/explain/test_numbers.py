"""Importance, contrastivity, faithfulness: hand-made cases, laws, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor, nn

from stgcn_fast import explain

MAPS = torch.arange(2 * 2 * 4 * 3.0).view(2, 2, 4, 3)  # [N, M, T, V]


def test_node_importance_counts_filled_frames() -> None:
    assert np.allclose(explain.node_importance(MAPS), MAPS[:, 0].mean(1))
    assert np.allclose(explain.node_importance(MAPS, person=1), MAPS[:, 1].mean(1))
    assert np.allclose(explain.node_importance(MAPS, person=None), MAPS.mean((1, 2)))
    # Of 8 input frames 3 and 8 are filled: ceil(4 * 3 / 8) = 2 of the map's 4.
    found = explain.node_importance(MAPS, [3, 8], 8)
    assert np.allclose(found[0], MAPS[0, 0, :2].mean(0))
    assert np.allclose(found[1], MAPS[1, 0].mean(0))


def test_class_importance_and_joint_time_maps() -> None:
    rows = np.array([[1.0, 3.0, 2.0], [3.0, 5.0, 2.0], [4.0, 4.0, 4.0], [9.0, 9.0, 0.0]])
    found = explain.class_importance(rows, [0, 0, 2, -1], 3)
    assert np.allclose(found[0], [0, 1, 0])
    assert np.isnan(found[1]).all()
    assert np.allclose(found[2], 0)
    assert np.allclose(explain.class_importance(rows, [0, 0, 2, -1], 3, normalize=False)[0], [2, 4, 2])
    joint_time = explain.joint_time_map(MAPS, [1, 1], 2)
    assert np.allclose(joint_time[1], MAPS[:, 0].mean(0))
    assert np.isnan(joint_time[0]).all()


def test_valid_frames() -> None:
    x = np.zeros((3, 2, 5, 4, 2))
    x[0, 0, 2, 1, 1] = 1
    x[1, 1, 4, 0, 0] = 1
    assert explain.valid_frames(x).tolist() == [3, 5, 1]


def test_contrastivity_by_hand() -> None:
    rows = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [np.nan] * 3])
    assert explain.contrastivity(rows) == pytest.approx((1.5 + 0 + 1.5) / 3)
    assert explain.contrastivity(rows, "rms") == pytest.approx(2 * np.sqrt(2 / 3) / 3)
    assert explain.contrastivity(rows, "hamming") == pytest.approx(4 / 9)
    assert explain.contrastivity(rows, "hamming", threshold=2.0) == 0
    assert explain.contrastivity([[1.0, 1.0], [0.0, 1.0]]) == 1


@given(hnp.arrays(np.float64, (4, 6), elements=st.floats(0, 1)), st.permutations(range(4)))
def test_contrastivity_is_a_mean_over_unordered_pairs(rows: Any, order: Any) -> None:
    for kind in ("1-corr", "rms", "hamming"):
        value = explain.contrastivity(rows, kind)
        assert -1e-12 <= value <= 2
        assert explain.contrastivity(rows[order], kind) == pytest.approx(value, abs=1e-9)
        if np.ptp(rows[0]) > 1e-6:
            same = np.repeat(rows[:1], 3, 0)
            assert explain.contrastivity(same, kind) == pytest.approx(0, abs=1e-6)


class Reads(nn.Module):
    """Scores class 1 by joint 2 and class 0 by joint 0; counts its passes."""

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        return 4 * x.mean((1, 2, 4))[:, [0, 2]]


@pytest.fixture
def simple() -> tuple[nn.Module, Tensor, Any, Any]:
    x = torch.zeros(4, 3, 6, 5, 1)
    target = np.array([0, 1, 0, 1])
    x[target == 0, :, :, 0] = 1
    x[target == 1, :, :, 2] = 1
    importance = np.zeros((4, 5))
    importance[target == 0, 0] = 1
    importance[target == 1, 2] = 1
    return Reads().train(), x, importance, target


def test_faithfulness_of_a_network_that_reads_one_joint(simple: Any) -> None:
    model, x, importance, target = simple
    found = explain.faithfulness(model, x, importance, target, k=1, fill="zero", draws=40)
    assert model.training
    assert found.accuracy == 1
    assert found.least.accuracy_drop == 0
    assert found.least.probability_drop == pytest.approx(0)
    assert found.most.probability == pytest.approx(0.5)
    assert found.most.accuracy == 0.5  # a tie goes to class 0
    assert found.random.probability_drop == pytest.approx(found.most.probability_drop / 5, rel=0.5)
    assert explain.faithfulness(model, x, importance, target, k=1, fill="zero", draws=40) == found


def test_curves(simple: Any) -> None:
    model, x, importance, target = simple
    high = 1 / (1 + np.exp(-4))
    deleted = explain.deletion_curve(model, x, importance, target, fill="zero")
    inserted = explain.insertion_curve(model, x, importance, target, fill="zero")
    assert np.allclose(deleted.probability, [high, 0.5, 0.5, 0.5, 0.5, 0.5])
    assert np.allclose(inserted.probability, [0.5, high, high, high, high, high])
    assert deleted.area == pytest.approx((0.5 * 9 + high) / 10)
    assert inserted.area == pytest.approx((0.5 + 9 * high) / 10)


def test_the_mean_of_all_clips_stands_in_for_a_joint(simple: Any) -> None:
    """The joints that tell two classes apart are 1 in half of the clips."""
    model, x, importance, target = simple
    found = explain.faithfulness(model, x, importance, target, k=1, draws=40)
    score = 4 * 0.5
    assert found.most.probability == pytest.approx(1 / (1 + np.exp(-score)))
    assert found.least.probability_drop == pytest.approx(0)
    assert found == explain.faithfulness(model, x, importance, target, k=1, fill="mean", draws=40)


def test_occlusion() -> None:
    x = torch.randn(2, 3, 4, 5, 2)
    x[1, :, 3] = 0  # no body in the last frame
    x[0, :, :, :, 1] = 0
    joints = torch.zeros(2, 5, dtype=torch.bool)
    joints[1, 3] = True
    filled = {fill: explain.occlude(x, joints, fill) for fill in ("mean", "still", "centre", "zero")}
    for found in filled.values():
        assert torch.equal(found[0], x[0])
        assert torch.equal(found[1, :, :, [0, 1, 2, 4]], x[1, :, :, [0, 1, 2, 4]])
        assert torch.equal(found[1, :, 3], x[1, :, 3])
    assert filled["zero"][1, :, :, 3].abs().max() == 0
    assert torch.equal(filled["centre"][1, :, :, 3], x[1].mean(2))
    # Ten bodies in frames: four of one person of the first clip, three of two of the second.
    mean = (x[0, :, :, 3, 0].sum(1) + x[1, :, :3, 3].sum((1, 2))) / 10
    assert torch.allclose(filled["mean"][1, :, :3, 3], mean[:, None, None].expand(3, 3, 2), atol=1e-6)
    still = x[1, :, :3, 3].mean(1, keepdim=True)
    assert torch.allclose(filled["still"][1, :, :3, 3], still.expand(3, 3, 2), atol=1e-6)
    assert torch.equal(explain.occlude(x, joints), filled["mean"])


def test_bad_input(simple: Any) -> None:
    model, x, importance, target = simple
    with pytest.raises(ValueError, match=r"^faithfulness: k must be from 1 to 4 \(joints less one\), got 5$"):
        explain.faithfulness(model, x, importance, target, k=5)
    with pytest.raises(ValueError, match=r"^deletion_curve: importance must be finite, got NaN or infinity$"):
        explain.deletion_curve(model, x, importance * np.nan, target)
    with pytest.raises(ValueError, match=r"x and importance must be \[N, C, T, V, M\] and \[N, V\]"):
        explain.insertion_curve(model, x, importance[:2], target)
    with pytest.raises(ValueError, match=r"^faithfulness: target must be 4 classes from 0 up, got \[2\]$"):
        explain.faithfulness(model, x, importance, target[:2])
    with pytest.raises(ValueError, match=r"^occlude: fill must be one of mean, .*, zero, got 'noise'$"):
        explain.faithfulness(model, x, importance, target, fill="noise")
    with pytest.raises(ValueError, match=r"importance must hold at least two classes, got 1$"):
        explain.contrastivity([[0.0, 1.0], [np.nan, np.nan]])
    with pytest.raises(ValueError, match=r"^contrastivity: kind must be one of 1-corr, rms, hamming"):
        explain.contrastivity([[0.0, 1.0]], "cosine")
    with pytest.raises(ValueError, match=r"^node_importance: person must be in \[0, 2\), got 2$"):
        explain.node_importance(MAPS, person=2)
    with pytest.raises(ValueError, match=r"^node_importance: frames must be 2 numbers from 1 to 8"):
        explain.node_importance(MAPS, [0, 3], 8)
    with pytest.raises(ValueError, match=r"^node_importance: frames and input_frames must come together"):
        explain.node_importance(MAPS, [1, 3])
    with pytest.raises(ValueError, match=r"^class_importance: classes must be below 2, got 3$"):
        explain.class_importance(np.ones((2, 3)), [3, 0], 2)
