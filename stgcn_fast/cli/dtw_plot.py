"""``stgcn-fast dtw plot``: a warping path between two clips, or a distance matrix ordered by class."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    from stgcn_fast.cli.dtw import clip_options

    clip_options(parser)
    parser.add_argument("picture", metavar="OUT.png", help=".png, .pdf or .svg")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--clips", nargs=2, metavar=("A", "B"), help="warping path between two clips: names or positions"
    )
    what.add_argument(
        "--matrix", metavar="FILE", help="matrix of the same clips that stgcn-fast dtw wrote, .npy or .zarr"
    )


def _position(word: str, names: Sequence[str]) -> int:
    """Where a clip stands; a name goes before a position."""
    if word in names:
        return names.index(word)
    try:
        position = int(word)
    except ValueError:
        raise ValueError(f"--clips must be names or positions of clips, got {word!r}") from None
    if not 0 <= position < len(names):
        raise ValueError(f"--clips must be positions from 0 to {len(names) - 1}, got {position}")
    return position


def run(options: argparse.Namespace) -> int:
    """Read, draw, print."""
    from stgcn_fast import dtw, report
    from stgcn_fast.cli.dtw import dtw_options, read_clips
    from stgcn_fast.training.files import format_table

    if not Path(options.picture).parent.is_dir():
        raise FileNotFoundError(f"{options.picture}: its directory must exist, got none")
    matrix = None if options.matrix is None else dtw.open_distance_matrix(options.matrix)
    clips = read_clips(options)
    if matrix is not None:
        written = report.plot_distance_matrix(matrix, clips.labels, clips.class_names, options.picture)
        rows = [("clips", str(len(clips.names))), ("picture", str(written))]
    else:
        a, b = (_position(word, clips.names) for word in options.clips)
        x, y = clips.sequences[a], clips.sequences[b]
        titles = [_title(clips.names[k], int(clips.labels[k]), clips.class_names) for k in (a, b)]
        asked = dtw_options(options)
        distance = dtw.dtw_distance(x, y, **asked)
        written = report.plot_warping_path(x, y, options.picture, names=(titles[0], titles[1]), **asked)
        rows = [
            ("clips", f"{clips.names[a]}, {clips.names[b]}"),
            ("distance", f"{distance:.6g}"),
            ("picture", str(written)),
        ]
    print(format_table(rows))
    return 0


def _title(name: str, label: int, class_names: Sequence[str]) -> str:
    return f"{name} ({class_names[label]})" if 0 <= label < len(class_names) else name
