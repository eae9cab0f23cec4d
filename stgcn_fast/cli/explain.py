"""``stgcn-fast explain``: what each layer of a checkpoint looks at, on clips."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

# Clips kept by default: as many as a page shows, less where they would fill the memory.
_MOST_KEPT, _FEWEST_KEPT, _MOST_BYTES = 600, 100, 128_000_000
# Maps of ten layers and three coordinates, at most.
_VALUES_OF_A_JOINT = 13

__all__ = [
    "add_arguments",
    "bodies_of",
    "clip_arguments",
    "opened_clips",
    "run",
    "writable_directory",
    "write_page",
]


def clip_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that say which network, which clips and where the results go."""
    parser.add_argument("checkpoint", metavar="CKPT", help="a .safetensors file written by train")
    parser.add_argument(
        "data", metavar="DATA", nargs="?", help="a store or a directory; the run's own data when not given"
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="directory for the results")
    parser.add_argument("--format", metavar="FMT", help="format of DATA, detected when not given")
    parser.add_argument("--part", choices=("train", "val", "test", "all"), default="test", help="which clips")
    parser.add_argument("--limit", type=int, metavar="N", help="only N of them, drawn at random (seed 0)")
    parser.add_argument("--layers", nargs="+", metavar="NAME", help="layers by name; all blocks by default")
    parser.add_argument("--pdf", action="store_true", help="figures also as PDF")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.epilog = (
        "Writes explain.npz, explain.json, tables (.csv), figures (.png), focus.gif and report.html, a page "
        "that shows them all; see docs/explain.md."
    )
    clip_arguments(parser)
    parser.add_argument(
        "--target", choices=("predicted", "label"), default="predicted", help="class to explain"
    )
    parser.add_argument("--reduction", choices=("mean", "sum"), default="mean", help="over channels")
    parser.add_argument(
        "--keep", type=int, metavar="N", help="clips whose maps are kept (up to 600, fewer of long clips)"
    )
    parser.add_argument("--joints", type=int, default=3, metavar="K", help="joints to occlude (3)")
    parser.add_argument(
        "--fill",
        choices=("mean", "still", "centre", "zero"),
        default="mean",
        help="what an occluded joint becomes: its mean over all clips, its mean over the clip, the body's "
        "centre, zero",
    )
    parser.add_argument("--mp4", action="store_true", help="also focus.mp4, by ffmpeg")


def writable_directory(path: str) -> Path:
    """The directory of the results, made if need be.

    Raises:
        OSError: It cannot be made or written into.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder}: --out must be a directory, got a file")
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / ".writable"
    probe.write_bytes(b"")
    probe.unlink()
    return folder


def bodies_of(opened: Any) -> Callable[[int], Any]:
    """Keypoints ``[M, T, V, C]`` by position in the store, as the network's transforms leave them."""
    from stgcn_fast.training.datasets import build_dataset, transforms_of

    config, store = opened.config, opened.store
    plain = config.data.model_copy(update={"stream": "joint", "confidence": False})
    bodies = build_dataset(store, None, transforms_of(config, "eval"), plain, store.layout)
    return lambda i: bodies[i][0].permute(3, 1, 2, 0).numpy()


def write_page(out: Path, checkpoint: str) -> list[Path]:
    """``report.html`` of what a directory holds, named after the run; without plotly a line that says so."""
    from stgcn_fast import report

    try:
        return [report.write_report(out, title=Path(checkpoint).resolve().parent.name or None)]
    except ImportError as error:
        print(f"stgcn-fast: no report.html: {error}", file=sys.stderr)
        return []


@contextmanager
def opened_clips(options: argparse.Namespace, *, same_classes: bool = True) -> Iterator[Any]:
    """The network and the clips that ``clip_arguments`` describe."""
    from dataclasses import replace

    from stgcn_fast.training import open_clips

    if options.limit is not None and options.limit < 2:
        raise ValueError(f"--limit must be at least 2, got {options.limit}")
    overrides = []
    if options.data is not None:
        overrides += [f"data.source={json.dumps(options.data)}", "data.store=null"]
        overrides += ["data.format=null", "data.options={}"]
    if options.format is not None:
        overrides.append(f"data.format={json.dumps(options.format)}")
    owner = f"stgcn-fast {options.command}"
    with open_clips(
        options.checkpoint, overrides, options.part, same_classes=same_classes, owner=owner
    ) as opened:
        if options.limit is not None and options.limit < len(opened.indices):
            drawn = np.random.default_rng(0).choice(opened.indices, options.limit, replace=False)
            opened = replace(opened, indices=np.sort(drawn))
        yield opened
        del opened


def run(options: argparse.Namespace) -> int:
    """Explain, write, draw, print."""
    from stgcn_fast import explain

    if options.mp4 and shutil.which("ffmpeg") is None:
        raise ValueError("--mp4 must be given where ffmpeg is installed, got none on PATH")
    for name, value in (("--keep", options.keep), ("--joints", options.joints)):
        if value is not None and value < 0:
            raise ValueError(f"{name} must be at least 0, got {value}")
    out = writable_directory(options.out)
    with opened_clips(options) as opened:
        result = _explain(opened, options)
        del opened  # with the files that it maps
    files = [*explain.save_explanation(result, out), *_draw(result, out, options.pdf, options.mp4)]
    files += write_page(out, options.checkpoint)
    print(_table(result, files))
    return 0


def _explain(opened: Any, options: argparse.Namespace) -> Any:
    from torch.utils.data import DataLoader

    from stgcn_fast.explain import explain_clips
    from stgcn_fast.graph import get_layout
    from stgcn_fast.training.datasets import build_dataset, transforms_of
    from stgcn_fast.training.progress import progress_bar

    config, store, predictor = opened.config, opened.store, opened.predictor
    entries = transforms_of(config, "eval")
    dataset = build_dataset(store, opened.indices, entries, config.data, store.layout)
    layout = get_layout(store.layout)
    if options.joints >= len(layout.joints):
        raise ValueError(f"--joints must be below the {len(layout.joints)} joints, got {options.joints}")
    size = config.training.eval_batch_size or config.training.batch_size
    with progress_bar("explaining") as progress:
        return explain_clips(
            predictor.model,
            DataLoader(dataset, batch_size=size),
            layout=layout,
            class_names=predictor.class_names,
            names=store.names,
            layers=options.layers or "blocks",
            target=options.target,
            reduction=options.reduction,
            keep=_room(config.data, len(layout.joints)) if options.keep is None else options.keep,
            keypoints=bodies_of(opened),
            occluded=options.joints,
            fill=options.fill,
            progress=lambda done, _: progress(done, len(dataset)),
        )


def _room(data: Any, joints: int) -> int:
    """Clips whose maps of some ten layers and keypoints fit, so that a page can show the focus of all."""
    values = data.frames * joints * data.persons * _VALUES_OF_A_JOINT
    return int(min(max(_MOST_BYTES // (4 * values), _FEWEST_KEPT), _MOST_KEPT))


def _draw(result: Any, out: Path, pdf: bool, mp4: bool) -> list[Path]:
    from stgcn_fast import report

    endings = (".png", ".pdf") if pdf else (".png",)
    written: list[Path] = []

    def draw(name: str, plot: Callable[[Path], Path]) -> None:
        written.extend(plot(out / f"{name}{ending}") for ending in endings)

    joints, last = list(result.layout.joints), result.layers[-1]
    draw(
        "importance",
        lambda path: report.plot_heatmap(
            result.class_importance[-1],
            result.class_names,
            joints,
            path,
            title=f"importance of joints, {last}",
        ),
    )
    mean = result.importance.mean(1)
    scaled = mean / np.maximum(mean.max(1, keepdims=True), 1e-30)
    draw(
        "layers",
        lambda path: report.plot_heatmap(
            scaled,
            result.layers,
            joints,
            path,
            title="importance of joints by layer, all clips",
            label="of largest",
        ),
    )
    present = np.flatnonzero(~np.isnan(result.class_maps[last]).any((1, 2)))
    if len(present):
        number = int(present[0])
        draw(
            "joint_time",
            lambda path: report.plot_heatmap(
                result.class_maps[last][number].T,
                joints,
                None,
                path,
                column_label="frame",
                title=f"{result.class_names[number]}, {last}",
                label="mean map",
            ),
        )
    contrast = result.figures.get("contrastivity")
    if contrast:
        draw(
            "contrastivity",
            lambda path: report.plot_lines(
                {kind: list(values.values()) for kind, values in contrast.items()},
                path,
                x=result.layers,
                title="contrastivity of classes",
                x_label="layer",
                y_label="mean over pairs of classes",
            ),
        )
    faith = result.figures.get("faithfulness")
    if faith:
        drops = {
            f"{which} important" if which != "random" else "random": [
                faith["layers"][name][which]["accuracy_drop"] for name in result.layers
            ]
            for which in ("most", "random", "least")
        }
        draw(
            "faithfulness",
            lambda path: report.plot_lines(
                drops,
                path,
                x=result.layers,
                x_label="layer whose map chooses",
                y_label="loss of accuracy",
                title=f"{faith['joints']} joints occluded, {faith['clips']} clips",
            ),
        )
        curves = result.figures["curves"]
        draw(
            "curves",
            lambda path: report.plot_lines(
                {
                    f"{name} (area {curve['area']:.3f})": curve["probability"]
                    for name, curve in curves.items()
                },
                path,
                x_label="joints",
                y_label="probability of the class",
                title=last,
            ),
        )
    if len(result.kept) and result.keypoints.ndim == 5:
        clip = int(result.kept[0])
        title = f"{result.names[clip]}: {result.class_names[int(result.explained[clip])]}"
        draw(
            "focus",
            lambda path: report.plot_focus(
                result.keypoints[0],
                {name: result.maps[name][0] for name in result.layers},
                result.layout,
                path,
                frames=int(result.frames[clip]),
                title=title,
            ),
        )
        for ending in (".gif", ".mp4") if mp4 else (".gif",):
            moving = report.animate_focus(
                result.keypoints[0],
                result.maps[last][0],
                result.layout,
                out / f"focus{ending}",
                frames=int(result.frames[clip]),
                title=f"{title}, {last}",
            )
            written.append(moving)
    return written


def _table(result: Any, files: list[Path]) -> str:
    from stgcn_fast.training.files import format_table

    contrast = result.figures.get("contrastivity") or {}
    faith = result.figures.get("faithfulness")
    header = ["layer", *(f"contrast {kind}" for kind in contrast)]
    if faith:
        header += [f"- {faith['joints']} {which}" for which in ("most", "random", "least")]
    rows = []
    for name in result.layers:
        row = [name, *(f"{contrast[kind][name]:.3f}" for kind in contrast)]
        if faith:
            row += [
                f"{-100 * faith['layers'][name][which]['accuracy_drop']:+.1f} %"
                for which in ("most", "random", "least")
            ]
        rows.append(row)
    top = "" if np.isnan(result.accuracy) else f", accuracy {100 * result.accuracy:.2f} %"
    return "\n".join(
        [f"{len(result.names)} clips{top}", format_table(rows, header), "", *(str(file) for file in files)]
    )
