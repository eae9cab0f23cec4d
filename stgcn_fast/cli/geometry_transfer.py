"""``stgcn-fast geometry transfer``: fine-tuning on new classes with the first layers frozen."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np

from stgcn_fast.cli.explain import clip_arguments, opened_clips, writable_directory, write_page
from stgcn_fast.cli.geometry import endings, graph_arguments, graph_options

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.epilog = (
        "DATA holds the new classes; with --classes only these of it count. Trains on its training part, "
        "tests on its test part. Writes transfer.json, transfer.csv, a figure and report.html; see "
        "docs/geometry.md."
    )
    clip_arguments(parser)
    graph_arguments(parser)
    parser.add_argument(
        "--classes", type=_classes, metavar="A-B", help="classes of DATA, such as 20-26 or 3,5,8"
    )
    parser.add_argument(
        "--freeze", type=_classes, metavar="A-B", help="blocks to freeze; 0 to all when not given"
    )
    parser.add_argument("--epochs", type=int, default=30, help="of each run (30)")
    parser.add_argument(
        "--lr", type=float, default=0.01, help="learning rate (0.01), a tenth after each third"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the classifier and of the order (0)")


def _classes(text: str) -> list[int]:
    try:
        found: list[int] = []
        for part in text.split(","):
            first, _, last = part.partition("-")
            found += range(int(first), int(last or first) + 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must look like 20-26 or 3,5,8, got {text!r}") from None
    if not found:
        raise argparse.ArgumentTypeError(f"must name at least one number, got {text!r}")
    return found


def run(options: argparse.Namespace) -> int:
    """Tune, write, draw, print."""
    from stgcn_fast import geometry, report
    from stgcn_fast.geometry.files import save_transfer
    from stgcn_fast.training.files import format_table

    out = writable_directory(options.out)
    recipe = geometry.Recipe(epochs=options.epochs, lr=options.lr, seed=options.seed)
    with opened_clips(options, same_classes=False) as opened:
        parts, names = _parts(opened, options)
        model = opened.predictor.model
        smooth = geometry.smoothness_by_depth(
            model, parts["test"], embed=False, **graph_options(options, opened.config.data.frames)
        )
        study = geometry.transfer_study(
            model,
            parts["train"],
            parts["test"],
            len(names),
            options.freeze,
            recipe=recipe,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
        del opened, parts
    files = save_transfer(study, out, smoothness=smooth, class_names=names)
    for ending in endings(options):
        files.append(
            report.plot_lines(
                {"test": study.accuracy, "training": study.train_accuracy},
                out / f"transfer{ending}",
                x=study.depths,
                x_label="blocks frozen",
                y_label="accuracy on the new classes",
            )
        )
    files += write_page(out, options.checkpoint)
    rows = [
        [str(depth), f"{count:,}", f"{100 * accuracy:.2f} %"]
        for depth, count, accuracy in zip(study.depths, study.trained, study.accuracy)
    ]
    print(format_table(rows, ["frozen", "parameters tuned", "top-1"]))
    curve = dict(zip(smooth.layers, smooth.curve()))
    print("smoothness error of the source's features: " + ", ".join(f"{n} {v:.3f}" for n, v in curve.items()))
    print("\n".join(["", *map(str, files)]))
    return 0


def _parts(opened: Any, options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Batches of the training part (by epoch) and of the test part, labels from 0; names of the classes."""
    from torch.utils.data import DataLoader

    from stgcn_fast.training import split_source
    from stgcn_fast.training.datasets import build_dataset, transforms_of
    from stgcn_fast.training.run import class_names_of

    config, store = opened.config, opened.store
    labels = np.asarray(store.labels)
    all_names = class_names_of(store)
    wanted = sorted(set(options.classes or range(len(all_names))))
    if len(wanted) < 2 or wanted[0] < 0 or wanted[-1] >= len(all_names):
        raise ValueError(
            f"--classes must be at least two from 0 to {len(all_names) - 1}, got {','.join(map(str, wanted))}"
        )
    number = np.full(len(all_names), -1)
    number[wanted] = np.arange(len(wanted))
    indices = split_source(store, config.data.split, config.training.seed)
    sets = {}
    for part in ("train", "test"):
        chosen = indices[part][number[labels[indices[part]]] >= 0]
        if not len(chosen):
            raise ValueError(f"--classes must have {part} clips in {config.data.source}, got none")
        entries = transforms_of(config, "train" if part == "train" else "eval")
        sets[part] = build_dataset(store, chosen, entries, config.data, store.layout, options.seed)
    size = config.training.batch_size

    def renamed(batch: Any) -> Any:
        x, found, positions = batch
        return x, found.new_tensor(number[found.numpy()]), positions

    class Batches:
        """The test part; may be gone through any number of times."""

        dataset = sets["test"]

        def __iter__(self) -> Any:
            return map(renamed, DataLoader(sets["test"], batch_size=size))

    def train(epoch: int) -> Any:
        sets["train"].set_epoch(epoch)
        order = np.random.default_rng((options.seed, epoch)).permutation(len(sets["train"])).tolist()
        # BatchNorm learns nothing from a last batch of one clip.
        last = len(order) % size == 1 and len(order) > 1
        return map(renamed, DataLoader(sets["train"], batch_size=size, sampler=order, drop_last=last))

    return {"train": train, "test": Batches()}, [all_names[i] for i in wanted]
