"""UTD-MHAD skeletons (Chen et al., ICIP 2015): one MATLAB file a clip, ``aA_sS_tT_skeleton.mat``.

Variable ``d_skel`` is [20, 3, T]: Kinect v1 joints (in UTD's own order, layout ``utd20``), x y z in metres.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from stgcn_fast.data.errors import FormatError
from stgcn_fast.data.formats.base import Clip, Format, find_files, finish
from stgcn_fast.data.formats.class_names import UTD_MHAD
from stgcn_fast.data.formats.mat5 import read_variable
from stgcn_fast.data.skeleton import Skeleton

VARIABLE = "d_skel"
NUM_JOINTS = 20
FILE_NAME = re.compile(r"a(\d+)_s(\d+)_t(\d+)_skeleton")


def read(path: str | os.PathLike[str]) -> Skeleton:
    """Reads one UTD-MHAD clip.

    Args:
        path: ``.mat`` file; a name ``aA_sS_tT_skeleton`` gives label (A - 1), subject and replication.

    Returns:
        Clip [1, T, 20, 3] in metres, layout ``utd20``.

    Raises:
        FormatError: If the file is damaged or ``d_skel`` has another shape.
    """
    file = Path(path)
    table = read_variable(file, VARIABLE)
    if table.ndim != 3 or table.shape[:2] != (NUM_JOINTS, 3) or table.shape[2] == 0:
        raise FormatError(file, f"{VARIABLE} must be [{NUM_JOINTS}, 3, T]", f"shape {list(table.shape)}")
    match = FILE_NAME.fullmatch(file.stem)
    action, subject, replication = map(int, match.groups()) if match else (None, None, None)
    if action is not None and not 1 <= action <= len(UTD_MHAD):
        raise FormatError(file, f"action number in the name must be in [1, {len(UTD_MHAD)}]", action)
    return finish(
        file,
        "utd20",
        table.transpose(2, 0, 1)[None],  # [M, T, V, C]
        name=file.stem.removesuffix("_skeleton"),
        label=None if action is None else action - 1,
        label_name=None if action is None else UTD_MHAD[action - 1],
        subject=subject,
        replication=replication,
    )


def clips(path: str | os.PathLike[str]) -> Iterator[Clip]:
    """Finds all ``*_skeleton.mat`` files under ``path``, in natural order (a2 before a10)."""
    for file in find_files(Path(path), ["*_skeleton.mat"]):
        yield Clip(file.stem.removesuffix("_skeleton"), partial(read, file))


FORMAT = Format(
    name="utd_mhad",
    description="UTD-MHAD .mat: Kinect v1, 20 joints xyz in UTD's own order, labels from the file name",
    layouts=("utd20",),
    matches=lambda path: path.suffix.lower() == ".mat",
    read=read,
    clips=clips,
)
