"""``stgcn-fast geometry``: label smoothness of every layer of a checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from stgcn_fast.cli.explain import bodies_of, clip_arguments, opened_clips, writable_directory, write_page

__all__ = ["add_arguments", "batches_of", "endings", "graph_arguments", "graph_options", "run"]


def graph_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the DS-Graphs."""
    parser.add_argument("-k", type=int, default=10, metavar="K", help="candidates of each clip (10)")
    parser.add_argument(
        "--window", type=int, metavar="W", help="frames of a window, in the input (16 of 300)"
    )
    parser.add_argument(
        "--hop", type=int, metavar="H", help="frames from window to window (half of a window)"
    )
    parser.add_argument(
        "--reduce", choices=("auto", "stack", "mean"), default="auto", help="frames of a window to a symbol"
    )
    parser.add_argument("--solver", choices=("nnls", "pruned"), default="nnls", help="of the regressions")
    parser.add_argument("--sigma", type=float, help="width of the kernel; a third of the mean k-th distance")
    parser.add_argument("--per-node", action="store_true", help="a width for each clip")
    parser.add_argument(
        "--symmetrize", choices=("reference", "max", "mean", "min"), default="reference", help="edges"
    )


def graph_options(options: argparse.Namespace, frames: int) -> dict[str, Any]:
    """Keywords for ``smoothness_by_depth`` from ``graph_arguments``; ``frames`` is T of the input."""
    from dataclasses import replace

    from stgcn_fast.geometry import Settings, windows_for

    for name in ("window", "hop"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    dtw = replace(windows_for(frames), reduce=options.reduce)
    if options.window is not None:
        dtw = replace(dtw, window=options.window, hop=max(1, options.window // 2))
    if options.hop is not None:
        dtw = replace(dtw, hop=options.hop)
    settings = Settings(
        k=options.k,
        sigma=options.sigma,
        per_node=options.per_node,
        solver=options.solver,
        symmetrize=options.symmetrize,
    )
    return {"k": options.k, "dtw": dtw, "settings": settings, "layers": options.layers or "blocks"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.epilog = (
        "stgcn-fast geometry noise and geometry transfer are studies of their own (see their --help). "
        "Writes geometry.json, clips.npz, tables (.csv), figures (.png) and report.html, a page that shows "
        "them all; see docs/geometry.md."
    )
    clip_arguments(parser)
    graph_arguments(parser)


def batches_of(opened: Any, entries: list[Any] | None = None, seed: int = 0) -> Any:
    """Batches of an opened part in order, every time the same."""
    from torch.utils.data import DataLoader

    from stgcn_fast.training.datasets import build_dataset, transforms_of

    config, store = opened.config, opened.store
    chosen = transforms_of(config, "eval") if entries is None else entries
    dataset = build_dataset(store, opened.indices, chosen, config.data, store.layout, seed)
    return DataLoader(dataset, batch_size=config.training.eval_batch_size or config.training.batch_size)


def endings(options: argparse.Namespace) -> tuple[str, ...]:
    """Of the figures."""
    return (".png", ".pdf") if options.pdf else (".png",)


def run(options: argparse.Namespace) -> int:
    """Build the graphs, write, draw, print."""
    from stgcn_fast import geometry, report
    from stgcn_fast.geometry.files import save_depth
    from stgcn_fast.graph import get_layout
    from stgcn_fast.training.files import format_table
    from stgcn_fast.training.progress import progress_bar

    out = writable_directory(options.out)
    with opened_clips(options) as opened:
        keywords = graph_options(options, opened.config.data.frames)
        class_names, names = opened.predictor.class_names, opened.store.names
        with progress_bar("layers") as progress:
            study = geometry.smoothness_by_depth(
                opened.predictor.model, batches_of(opened), progress=progress, **keywords
            )
        given = {
            "k": options.k,
            "window": keywords["dtw"].window,
            "hop": keywords["dtw"].hop,
            "reduce": options.reduce,
            "solver": options.solver,
            "symmetrize": options.symmetrize,
            "part": options.part,
        }
        files = save_depth(study, out, class_names=class_names, names=names, options=given)
        positions = study.predicted.positions.tolist()
        bodies = report.collect_bodies(bodies_of(opened), positions, get_layout(opened.store.layout))
        files.append(report.save_bodies(bodies, out))
        del opened  # with the files that it maps
    files += _draw(study, class_names, out, endings(options))
    files += write_page(out, options.checkpoint)
    rows = [
        [name, *(f"{each[kind].value:.4f}" for kind in geometry.KINDS), str(each["quad"].isolated)]
        for name, each in zip(study.layers, study.smoothness)
    ]
    rows.append(["Spearman", *(f"{study.trend(kind):+.3f}" for kind in geometry.KINDS), ""])
    spent = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in study.seconds.items())
    print(f"{len(study.predicted.labels)} clips, accuracy {100 * study.predicted.accuracy:.2f} %; {spent}")
    print(format_table(rows, ["label smoothness error", *geometry.KINDS, "isolated"]))
    print("\n".join(["", *map(str, files)]))
    return 0


def _draw(study: Any, class_names: Any, out: Path, kinds: tuple[str, ...]) -> list[Path]:
    import numpy as np

    from stgcn_fast import report
    from stgcn_fast.geometry import KINDS

    count = len(class_names)
    by_class = np.stack([each["rw"].per_class for each in study.smoothness], axis=1)  # [K, L]
    labels = study.predicted.labels
    confusion = np.zeros((count, count), np.int64)
    np.add.at(confusion, (labels, study.predicted.predictions), 1)
    graphs = {name: (g.embedding, g.graph.edges) for name, g in zip(study.layers, study.graphs)}
    written = []
    for ending in kinds:
        written += [
            report.plot_lines(
                {kind: study.curve(kind) for kind in KINDS},
                out / f"smoothness{ending}",
                x=study.layers,
                x_label="layer",
                y_label="label smoothness error",
                title=f"{len(labels)} clips",
            ),
            report.plot_heatmap(
                by_class,
                [str(name) for name in class_names[: len(by_class)]],
                study.layers,
                out / f"smoothness_by_class{ending}",
                label="label smoothness error",
            ),
            report.plot_graphs(graphs, labels, class_names, out / f"graphs{ending}", title="DS-Graphs"),
            report.plot_confusion_matrix(confusion, class_names, out / f"confusion{ending}"),
        ]
    return written
