"""``stgcn-fast geometry noise``: noise on the clips against label smoothness and accuracy."""

from __future__ import annotations

import argparse
import math
from typing import Any

from stgcn_fast.cli.explain import clip_arguments, opened_clips, writable_directory, write_page
from stgcn_fast.cli.geometry import batches_of, endings, graph_arguments, graph_options

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.epilog = "Writes noise.json, noise.csv, figures (.png) and report.html; see docs/geometry.md."
    clip_arguments(parser)
    graph_arguments(parser)
    parser.add_argument(
        "--snr",
        type=float,
        nargs="+",
        default=[40, 30, 20, 10, 0],
        metavar="DB",
        help="signal to noise (40 .. 0)",
    )
    parser.add_argument("--repeats", type=int, default=3, metavar="R", help="draws of the noise (3)")


def run(options: argparse.Namespace) -> int:
    """Measure, write, draw, print."""
    from stgcn_fast import geometry, report
    from stgcn_fast.geometry.files import save_noise
    from stgcn_fast.training.datasets import transforms_of
    from stgcn_fast.training.files import format_table
    from stgcn_fast.training.progress import progress_bar

    out = writable_directory(options.out)
    with opened_clips(options) as opened:
        entries = transforms_of(opened.config, "eval")

        def batches(level: float, repeat: int) -> Any:
            if math.isinf(level):
                return batches_of(opened, entries)
            return batches_of(opened, [{"name": "JitterNoise", "snr_db": level}, *entries], repeat)

        with progress_bar("runs") as progress:
            study = geometry.noise_study(
                opened.predictor.model,
                batches,
                [math.inf, *options.snr],
                options.repeats,
                progress=progress,
                **graph_options(options, opened.config.data.frames),
            )
    files = save_noise(study, out)
    names = ["clean" if math.isinf(level) else f"{level:g} dB" for level in study.snr_db]
    for ending in endings(options):
        curves = dict(zip(names, study.smoothness.mean(1)))
        files += [
            report.plot_lines(
                curves,
                out / f"noise{ending}",
                x=study.layers,
                x_label="layer",
                y_label="label smoothness error",
            ),
            report.plot_lines(
                {
                    "accuracy": study.accuracy.mean(1),
                    "smoothness error, last layer": study.smoothness[:, :, -1].mean(1),
                },
                out / f"noise_accuracy{ending}",
                x=names,
                x_label="signal to noise",
            ),
        ]
    files += write_page(out, options.checkpoint)
    rows = [
        [
            name,
            f"{100 * study.accuracy[i].mean():.2f} %",
            *(f"{value:.4f}" for value in study.smoothness[i].mean(0)),
        ]
        for i, name in enumerate(names)
    ]
    print(format_table(rows, ["noise", "accuracy", *study.layers]))
    print("\n".join(["", *map(str, files)]))
    return 0
