"""Northwestern-UCLA skeletons (Wang et al., CVPR 2014) as JSON, one file a clip: ``aAA_sSS_eEE_vVV.json``.

``{"file_name": "a01_s01_e00_v01", "skeletons": [T][20][3], "label": 1}``: Kinect v1 joints in the order of
the Kinect SDK (layout ``kinect20``), x y z in metres. Labels count from 1; they are not the action number of
the name, which has gaps. A clip to predict needs none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from stgcn_fast.data.errors import FormatError
from stgcn_fast.data.formats.base import Clip, Format, find_files, finish, json_keys, numbers, read_json
from stgcn_fast.data.formats.class_names import NW_UCLA
from stgcn_fast.data.skeleton import Skeleton

NUM_JOINTS = 20
FILE_NAME = re.compile(r"a(\d+)_s(\d+)_e(\d+)_v(\d+)")


def read(path: str | os.PathLike[str]) -> Skeleton:
    """Reads one NW-UCLA clip.

    Args:
        path: JSON file; a name ``aAA_sSS_eEE_vVV`` gives subject, replication (episode) and camera (view).

    Returns:
        Clip [1, T, 20, 3] in metres, layout ``kinect20``. Clips of a single frame are kept.

    Raises:
        FormatError: If the file breaks a rule of the format.
    """
    file = Path(path)
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("skeletons"), list):
        raise FormatError(file, "must be a JSON object with a list 'skeletons'", type(content).__name__)
    label = content.get("label")
    if label is not None and (
        isinstance(label, bool) or not isinstance(label, int) or not 1 <= label <= len(NW_UCLA)
    ):
        raise FormatError(file, f"label must be an integer in [1, {len(NW_UCLA)}]", label)
    rule = f"skeletons must be [T][{NUM_JOINTS}][3] numbers"
    table = numbers(file, rule, content["skeletons"])
    if table.ndim != 3 or table.shape[1:] != (NUM_JOINTS, 3):
        raise FormatError(file, rule, f"shape {list(table.shape)}")
    match = FILE_NAME.fullmatch(file.stem)
    _, subject, episode, view = map(int, match.groups()) if match else (None,) * 4
    return finish(
        file,
        "kinect20",
        table[None],  # [M, T, V, C]
        name=file.stem,
        label=None if label is None else label - 1,
        label_name=None if label is None else NW_UCLA[label - 1],
        subject=subject,
        camera=view,
        replication=episode,
    )


def clips(path: str | os.PathLike[str]) -> Iterator[Clip]:
    """Finds all JSON files under ``path``."""
    for file in find_files(Path(path), ["*.json"]):
        yield Clip(file.stem, partial(read, file))


FORMAT = Format(
    name="nw_ucla",
    description="Northwestern-UCLA JSON: Kinect v1, 20 joints xyz in SDK order, labels from the file",
    layouts=("kinect20",),
    matches=lambda path: path.suffix.lower() == ".json" and "skeletons" in json_keys(path),
    read=read,
    clips=clips,
)
