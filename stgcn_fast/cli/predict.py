"""``stgcn-fast predict``: label and probability of a keypoint file or a video."""

from __future__ import annotations

import argparse
import json

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    from stgcn_fast.cli.main import read_options

    parser.epilog = (
        "A file of many clips (.ts, .pkl, .npz) needs --option index=N or --option name=NAME. A video "
        "needs the extra pose: its keypoints come from rtmlib (--option mode=balanced: larger networks)."
    )
    parser.add_argument("file", metavar="FILE", help="keypoint file, a directory of frames, or a video")
    parser.add_argument(
        "--checkpoint", metavar="CKPT", required=True, help=".safetensors file written by train"
    )
    read_options(parser)
    parser.add_argument("--top", type=_positive, default=1, metavar="K", help="print the K likeliest classes")
    parser.add_argument(
        "--download", action="store_true", help="fetch the networks that find keypoints in videos, once"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number from 1 on, got {text!r}")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Predict and print."""
    from stgcn_fast.cli.main import reader_keywords
    from stgcn_fast.training import predict

    keywords = reader_keywords(options)
    if options.download:
        keywords["download"] = True
    prediction = predict(options.file, options.checkpoint, options.format, **keywords)
    top = prediction.top(options.top)
    if options.json:
        answer = {
            "file": options.file,
            "label": prediction.label,
            "label_name": prediction.label_name,
            "probability": prediction.probability,
            "top": [{"label_name": name, "probability": value} for name, value in top],
        }
        print(json.dumps(answer, ensure_ascii=False))
        return 0
    width = max(len(name) for name, _ in top)
    for name, value in top:
        print(f"{name:<{width}}  {value:.4f}")
    return 0
