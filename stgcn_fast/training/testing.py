"""Test a checkpoint again, on its own data or on other."""

from __future__ import annotations

import os
from collections.abc import Sequence

from stgcn_fast.training.datasets import evaluation_loader
from stgcn_fast.training.device import resolve_device
from stgcn_fast.training.evaluation import Evaluation, evaluate
from stgcn_fast.training.opened import open_clips
from stgcn_fast.training.progress import progress_bar
from stgcn_fast.training.scores import write_scores

__all__ = ["test"]


def test(
    checkpoint: str | os.PathLike[str],
    overrides: Sequence[str] = (),  # noqa: PT028
    part: str = "test",  # noqa: PT028
    scores: str | os.PathLike[str] | None = None,  # noqa: PT028
) -> tuple[Evaluation, tuple[str, ...]]:
    """Evaluate a checkpoint of :func:`stgcn_fast.training.train`.

    Args:
        checkpoint: ``.safetensors`` file.
        overrides: Changes to the run's configuration, such as ``data.source=DIR`` or ``test.views=5``.
        part: ``train``, ``val``, ``test`` or ``all``.
        scores: File for the scores of every clip, ``.npz``, which ``stgcn-fast fuse`` sums; None for none.

    Returns:
        The figures and the class names.

    Raises:
        FileNotFoundError: Checkpoint or data are not there.
        ConfigError: The data do not fit the checkpoint, or the part is empty.
        FormatError: A data file breaks its format.
    """
    with open_clips(checkpoint, overrides, part, owner="test") as opened:
        names = opened.predictor.class_names
        device = resolve_device(opened.config.training.device)
        loader = evaluation_loader(opened.store, opened.indices, opened.config)
        with progress_bar("testing") as progress:
            result = evaluate(opened.predictor.model, loader, len(names), device, progress)
        if scores is not None:
            write_scores(scores, result, opened.store.names, names)
        del opened, loader
    return result, names
