"""NTU RGB+D ``.skeleton`` text (Shahroudy et al., CVPR 2016; Liu et al., TPAMI 2020).

A file is a frame count; per frame a body count; per body a line of ten values (tracking identity first), a
joint count and one line of twelve values per joint: x y z in metres, four pixel positions, four orientation
values and the tracking state (0 not tracked, 1 inferred, 2 tracked).

Kinect tracks furniture as bodies now and then, so a clip with several bodies is cleaned first
(``BodyRules``), as is common practice for this data set, and the ``max_persons`` most active bodies are kept,
most active first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stgcn_fast.data.errors import FormatError
from stgcn_fast.data.formats.base import (
    MAX_FRAMES,
    Clip,
    Format,
    check_max_persons,
    find_files,
    finish,
    read_name_list,
    read_text,
)
from stgcn_fast.data.formats.class_names import NTU_120
from stgcn_fast.data.skeleton import Skeleton

NUM_JOINTS = 25
JOINT_COLUMNS = 12
BODY_COLUMNS = 10
TRACKING_STATES = ("0", "1", "2")
FILE_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")
# Kinect's runtime prints a not-a-number this way.
NOT_A_NUMBER = re.compile(r"-?1\.#(IND|QNAN|INF)\w*")


@dataclass(frozen=True)
class BodyRules:
    """When a body of a clip with several bodies counts as noise. The defaults are common practice.

    A rule never removes the last body left.

    Attributes:
        min_frames: A body seen in fewer frames is noise (too short).
        max_spread: A frame in which the joints spread wider than ``max_spread`` times their height is
            implausible ...
        max_wide_share: ... and a body with at least this share of implausible frames is noise (furniture).
        motion: A body whose variance of position, summed over x, y, z (all joints and frames together, square
            metres), is outside this range is noise (too still, or jumping).
    """

    min_frames: int = 12
    max_spread: float = 0.8
    max_wide_share: float = 0.69754
    motion: tuple[float, float] = (0.089925, 2.0)


@dataclass
class Body:
    """One tracked body: its identity, and per frame seen its joints and tracking states."""

    identity: str
    frames: list[int]
    joints: NDArray[np.float64]  # [frames, V, 3]
    states: NDArray[np.float64]  # [frames, V]

    @property
    def motion(self) -> float:
        """Variance of position summed over x, y, z, over all joints and frames together (square metres)."""
        points = self.joints[np.isfinite(self.joints).all(axis=-1)]  # [*, 3]
        return float(points.var(axis=0).sum()) if len(points) else 0.0

    def wide_share(self, max_spread: float) -> float:
        """Share of frames in which the joints spread wider than ``max_spread`` times their height."""
        joints = np.where(np.isfinite(self.joints), self.joints, 0)
        extent = joints.max(axis=1) - joints.min(axis=1)  # [frames, 3]
        return float((extent[:, 0] > max_spread * extent[:, 1]).mean())


def read(
    path: str | os.PathLike[str],
    *,
    max_persons: int | None = 2,
    denoise: bool = True,
    rules: BodyRules | None = None,
    merge_tracks: bool = True,
    tracking_confidence: bool = False,
) -> Skeleton:
    """Reads one NTU RGB+D clip.

    Args:
        path: ``.skeleton`` file; a name ``SsssCcccPpppRrrrAaaa`` gives set-up, camera, subject, replication
            and label.
        max_persons: How many of the most active bodies to keep; None keeps all. Most active first.
        denoise: Apply ``rules`` to clips with several bodies.
        rules: When a body is noise; None for the defaults.
        merge_tracks: Kinect may lose a person and track it again under a new identity. Then a further body
            that shares no frame with a kept one fills its empty frames; ``body_ids`` joins the identities
            with ``+``.
        tracking_confidence: Return confidence 0, 0.5, 1 for joints not tracked, inferred, tracked. Default
            none.

    Returns:
        Clip [M, T, 25, 3] in metres, layout ``ntu25``; ``body_ids`` holds the tracking identities.

    Raises:
        FormatError: If the file is truncated or its counts do not fit each other.
    """
    check_max_persons("ntu.read", max_persons)
    file = Path(path)
    num_frames, bodies = parse(file)
    if not bodies:
        raise FormatError(file, "must hold at least one body", f"0 bodies in {num_frames} frames")
    kept = remove_noise(bodies, rules or BodyRules()) if denoise else list(bodies)
    kept.sort(key=lambda body: -body.motion)  # stable: ties keep the order of appearance
    tracks = _merge(kept) if merge_tracks else [[body] for body in kept]
    tracks = tracks[:max_persons]
    points = np.zeros((len(tracks), num_frames, NUM_JOINTS, 3))
    states = np.zeros((len(tracks), num_frames, NUM_JOINTS))
    for m, track in enumerate(tracks):
        for body in track:
            points[m, body.frames], states[m, body.frames] = body.joints, body.states
    numbers = FILE_NAME.search(file.name)
    setup, camera, subject, replication, action = map(int, numbers.groups()) if numbers else (None,) * 5
    label = _label(file, action)
    return finish(
        file,
        "ntu25",
        points,
        states / 2 if tracking_confidence else None,
        name=file.stem,
        label=label,
        label_name=None if label is None else NTU_120[label],
        subject=subject,
        camera=camera,
        setup=setup,
        replication=replication,
        body_ids=tuple("+".join(body.identity for body in track) for track in tracks),
    )


def parse(path: Path) -> tuple[int, list[Body]]:
    """Reads the frame count and all bodies, in order of appearance, and checks the file's own counts."""
    lines = read_text(path, "ascii").splitlines()
    num_frames = _count(path, lines, 0, "frame count", MAX_FRAMES)
    seen: dict[str, tuple[list[int], list[NDArray[np.float64]]]] = {}
    at = 1
    for frame in range(num_frames):
        where = f"frame {frame + 1} of {num_frames}"
        num_bodies = _count(path, lines, at, f"body count of {where}", 1000)
        at += 1
        for _ in range(num_bodies):
            header = _line(path, lines, at, f"a body of {where}").split()
            if len(header) != BODY_COLUMNS:
                rule = f"line {at + 1} must have {BODY_COLUMNS} body values"
                raise FormatError(path, rule, len(header))
            joints = _count(path, lines, at + 1, f"joint count of {where}", 1000)
            if joints != NUM_JOINTS:
                raise FormatError(path, f"line {at + 2} must be the joint count {NUM_JOINTS}", joints)
            table = _joints(path, lines, at + 2, where)
            frames, tables = seen.setdefault(header[0], ([], []))
            if frames and frames[-1] == frame:
                raise FormatError(path, f"line {at + 1} must be a body not yet in {where}", header[0])
            frames.append(frame)
            tables.append(table)
            at += 2 + NUM_JOINTS
    rest = [line for line in lines[at:] if line.strip()]
    if rest:
        raise FormatError(
            path, f"must end after the {num_frames} frames it declares", f"{len(rest)} further lines"
        )
    bodies = []
    for identity, (frames, tables) in seen.items():
        stack = np.stack(tables)  # [frames, V, 12]
        bodies.append(Body(identity, frames, stack[..., :3], stack[..., -1]))
    return num_frames, bodies


def remove_noise(bodies: list[Body], rules: BodyRules) -> list[Body]:
    """Bodies that break no rule; rules apply in turn, but not one that would leave no body."""
    low, high = rules.motion
    for plausible in (
        lambda body: len(body.frames) >= rules.min_frames,
        lambda body: body.wide_share(rules.max_spread) < rules.max_wide_share,
        lambda body: low <= body.motion <= high,
    ):
        if len(bodies) > 1:
            bodies = [body for body in bodies if plausible(body)] or bodies
    return list(bodies)


def clips(
    path: str | os.PathLike[str],
    *,
    missing: str | os.PathLike[str] | None = None,
    max_persons: int | None = 2,
    denoise: bool = True,
    rules: BodyRules | None = None,
    merge_tracks: bool = True,
    tracking_confidence: bool = False,
) -> Iterator[Clip]:
    """Finds all ``.skeleton`` files under ``path``.

    Args:
        path: Directory or file.
        missing: Text file that names the clips to leave out, one a line (the official lists of clips with
            missing skeletons can be given as they are: lines without a clip name are passed over).
        max_persons: See ``read``, as are the other arguments.
        denoise: See ``read``.
        rules: See ``read``.
        merge_tracks: See ``read``.
        tracking_confidence: See ``read``.
    """
    left_out: set[str] = set()
    if missing is not None:
        left_out = {match.group() for line in read_name_list(missing) if (match := FILE_NAME.search(line))}
        if not left_out:
            raise FormatError(missing, "must name clips as SsssCcccPpppRrrrAaaa", "no such name")
    for file in find_files(Path(path), ["*.skeleton"]):

        def load(file: Path = file) -> Skeleton:
            return read(
                file,
                max_persons=max_persons,
                denoise=denoise,
                rules=rules,
                merge_tracks=merge_tracks,
                tracking_confidence=tracking_confidence,
            )

        yield Clip(file.stem, load, "named in the list of missing clips" if file.stem in left_out else None)


def _merge(bodies: list[Body]) -> list[list[Body]]:
    """Groups bodies that share no frame into tracks, the first body that fits first."""
    tracks: list[list[Body]] = []
    taken: list[set[int]] = []
    for body in bodies:
        for track, frames in zip(tracks, taken, strict=True):
            if frames.isdisjoint(body.frames):
                track.append(body)
                frames.update(body.frames)
                break
        else:
            tracks.append([body])
            taken.append(set(body.frames))
    return tracks


def _label(path: Path, action: int | None) -> int | None:
    if action is None:
        return None
    if not 1 <= action <= len(NTU_120):
        raise FormatError(path, f"action number in the name must be in [1, {len(NTU_120)}]", action)
    return action - 1


def _line(path: Path, lines: list[str], at: int, what: str) -> str:
    if at >= len(lines):
        raise FormatError(path, f"must not end before {what}", f"the end at line {len(lines)}")
    return lines[at]


def _count(path: Path, lines: list[str], at: int, what: str, most: int) -> int:
    text = _line(path, lines, at, f"the {what}").strip()
    least = 1 if at == 0 else 0
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise FormatError(path, f"line {at + 1} must be the {what}, a number in [{least}, {most}]", text)
    return int(text)


def _joints(path: Path, lines: list[str], at: int, where: str) -> NDArray[np.float64]:
    """Reads 25 lines of 12 values: [V, 12]."""
    table = [line.split() for line in lines[at : at + NUM_JOINTS]]
    if len(table) == NUM_JOINTS and all(len(row) == JOINT_COLUMNS for row in table):
        try:
            values = np.array([float(value) for row in table for value in row])
        except ValueError:
            pass  # the careful way below reads odd numbers, and names the line of what is none
        else:
            if all(row[-1] in TRACKING_STATES for row in table):
                return values.reshape(NUM_JOINTS, JOINT_COLUMNS)
    rows = []
    for joint in range(NUM_JOINTS):
        text = _line(path, lines, at + joint, f"joint {joint + 1} of {where}")
        row = NOT_A_NUMBER.sub("nan", text).split()
        rule = f"line {at + joint + 1} must"
        if len(row) < JOINT_COLUMNS and at + joint + 1 == len(lines):
            what = f"joint {joint + 1} of {where} is complete"
            raise FormatError(path, f"must not end before {what}", f"the end in line {len(lines)}")
        if len(row) != JOINT_COLUMNS:
            raise FormatError(path, f"{rule} have {JOINT_COLUMNS} joint values", len(row))
        try:
            rows.append([float(value) for value in row])
        except ValueError:
            raise FormatError(path, f"{rule} be numbers", text) from None
        if row[-1] not in TRACKING_STATES:
            raise FormatError(path, f"{rule} end in the tracking state 0, 1 or 2", row[-1])
    return np.array(rows)


FORMAT = Format(
    name="ntu",
    description="NTU RGB+D .skeleton text: 25 joints xyz, several bodies, labels from the file name",
    layouts=("ntu25",),
    matches=lambda path: path.suffix.lower() == ".skeleton",
    read=read,
    clips=clips,
)
