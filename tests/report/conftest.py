"""Results small enough to look at by eye, made without a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stgcn_fast.explain import Explanation
from stgcn_fast.graph import get_layout

LAYERS = ["block1", "block2", "block3"]
LENGTHS = [12, 12, 6]
CLASSES = ["walk", "wave", "jump"]


@pytest.fixture(scope="session")
def explanation() -> Explanation:
    """Nine clips of three classes, six of them kept; the last one has two persons and is filled by half."""
    rng = np.random.default_rng(0)
    layout = get_layout("ntu25")
    joints, count, kept = len(layout.joints), 9, np.array([0, 1, 2, 4, 5, 8])
    labels = np.arange(count) % 3
    predictions = labels.copy()
    predictions[3] = 1
    keypoints = rng.normal(size=(len(kept), 2, 12, joints, 3)).astype(np.float32)
    height = np.linspace(-1, 1, joints)
    for joint, name in enumerate(layout.joints):
        place = 2.0 if "head" in name else -2.0 if "foot" in name or "ankle" in name else height[joint]
        keypoints[..., joint, 1] = place
    keypoints[:5, 1] = 0
    keypoints[5, :, 6:] = 0
    frames = np.full(count, 12)
    frames[8] = 6
    class_importance = rng.random((3, 3, joints)).astype(np.float32)
    return Explanation(
        layout=layout,
        layers=list(LAYERS),
        class_names=list(CLASSES),
        names=[f"clip{i}" for i in range(count)],
        labels=labels,
        predictions=predictions,
        probabilities=rng.dirichlet(np.ones(3), count).astype(np.float32),
        explained=predictions,
        frames=frames,
        input_frames=12,
        importance=rng.random((3, count, joints)).astype(np.float32),
        class_importance=class_importance,
        class_maps={
            name: rng.random((3, length, joints)).astype(np.float32) for name, length in zip(LAYERS, LENGTHS)
        },
        counted=labels == predictions,
        kept=kept,
        maps={
            name: rng.random((len(kept), 2, length, joints)).astype(np.float32)
            for name, length in zip(LAYERS, LENGTHS)
        },
        keypoints=keypoints,
        figures={
            "contrastivity": {kind: dict(zip(LAYERS, (0.1, 0.2, 0.3))) for kind in ("1-corr", "rms")},
            "faithfulness": {
                "joints": 3,
                "clips": count,
                "layers": {
                    name: {
                        "accuracy": 0.9,
                        "probability": 0.8,
                        **{
                            which: {"accuracy_drop": drop, "probability_drop": drop / 2}
                            for which, drop in (("most", 0.4), ("random", 0.2), ("least", 0.1))
                        },
                    }
                    for name in LAYERS
                },
            },
            "curves": {
                name: {"probability": np.linspace(0.9, 0.1, joints + 1).tolist(), "area": 0.5}
                for name in ("deletion", "insertion")
            },
        },
    )


@pytest.fixture
def geometry() -> dict[str, Any]:
    """What geometry.json holds, of the same nine clips and one more."""
    rng = np.random.default_rng(1)
    labels = [*(np.arange(9) % 3).tolist(), 2]
    predictions = list(labels)
    predictions[3] = 1
    confusion = np.zeros((3, 3), np.int64)
    np.add.at(confusion, (labels, predictions), 1)
    return {
        "format": "stgcn_fast geometry",
        "version": 1,
        "class_names": list(CLASSES),
        "layers": list(LAYERS),
        "clips": [f"clip{i}" for i in range(10)],
        "positions": list(range(10)),
        "labels": labels,
        "predictions": predictions,
        "accuracy": 0.9,
        "confusion": confusion.tolist(),
        "smoothness": {
            kind: {
                "values": [0.3, 0.2, 0.1],
                "per_class": [[0.3, 0.2, None], [0.2, 0.2, 0.2], [0.1, 0.1, 0.1]],
                "isolated": [0, 0, 0],
                "spearman": -1.0,
            }
            for kind in ("rw", "quad", "sym", "rmse")
        },
        "graphs": {
            name: {
                "directed": False,
                "edges": [[i, i + 1] for i in range(9)],
                "weights": [0.5] * 9,
                "sigma": 1.0,
                "embedding": rng.normal(size=(10, 2)).tolist(),
            }
            for name in LAYERS
        },
        "options": {"k": 3},
        "seconds": {"features": 0.1},
    }
