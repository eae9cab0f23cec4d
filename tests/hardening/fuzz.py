"""Readers under a fuzzer that is guided by the branches they take (atheris, libFuzzer).

    python tests/hardening/fuzz.py FAMILY [libFuzzer options, such as -max_total_time=120]

FAMILY is one of FAMILIES below. It starts from sound files and from ``damage``; what a reader does with a
file must be what ``test_corrupt_files`` asks for: data, or one clear sentence. Anything else ends the fuzzer
with the file that did it. Needs ``pip install "stgcn_fast[fuzz]"``.
"""

from __future__ import annotations

import random
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch  # before the instrumentation: only the readers are watched

READERS = ("ntu", "kinetics", "openpose", "pyskl", "utd_mhad", "nw_ucla", "natops", "arrays", "arrays_npy")
FAMILIES = (*READERS, "store", "checkpoint", "table", "layout", "config")
MOST_BYTES = 1 << 16  # larger files only take longer


@dataclass(frozen=True)
class Family:
    """Files of one kind: the first byte of an input says which of them the rest of it replaces."""

    files: list[Path]
    use: Callable[[], None]


def family(name: str, folder: Path) -> Family:
    """Sound files in ``folder``, and what reads them."""
    from damage import sample_files
    from test_corrupt_files import outcome

    if name in READERS:
        path = sample_files(folder)[name]
        return Family([path], lambda: void(outcome(path, name.removesuffix("_npy"))))
    make = {"store": store, "checkpoint": checkpoint, "table": table, "layout": layout, "config": config}
    return make[name](folder)


def void(_: object) -> None:
    """The value is not needed."""


def one_sentence(read: Callable[[], object]) -> None:
    """Data, or an error of one line."""
    try:
        read()
    except ValueError as error:
        if "\n" in str(error):
            raise AssertionError("more than one line") from error


def store(folder: Path) -> Family:
    from damage import sample_files

    from stgcn_fast.data import SkeletonStore, read

    samples = sample_files(folder)
    path = folder / "clips"
    clips = [read(samples["ntu"], "ntu"), read(samples["arrays"])]
    SkeletonStore.build(path, clips, layout="ntu25")

    def use() -> None:
        opened = SkeletonStore(path)
        for index in range(len(opened)):
            void(opened[index])

    return Family([file for file in sorted(path.rglob("*")) if file.is_file()], lambda: one_sentence(use))


def checkpoint(folder: Path) -> Family:
    from stgcn_fast import load_checkpoint, models

    path, old = folder / "model.safetensors", folder / "old.pth"
    model = models.STGCN(3, channels=[4], layout="natops8", partition="uniform", temporal_kernel=3)
    models.save_checkpoint(path, model, {"classes": ["a", "b", "c"]})
    torch.save({"weight": torch.ones(2)}, old)

    def use() -> None:
        for file in (path, old):
            one_sentence(lambda file=file: load_checkpoint(file))  # type: ignore[misc]

    return Family(sorted(folder.iterdir()), use)


def table(folder: Path) -> Family:
    from stgcn_fast.data import read_clip_table

    path = folder / "clips.csv"
    path.write_text("name,label,subject,split\na,wave,1,train\nb,clap,2,test\n")
    return Family([path], lambda: one_sentence(lambda: read_clip_table(path)))


def layout(folder: Path) -> Family:
    from stgcn_fast.cli.layout_file import layout_name

    path = folder / "arms.yaml"
    path.write_text(
        "name: arms\njoints: [neck, lw, rw]\nbones:\n  - [lw, neck]\n  - [rw, neck]\n"
        "centre: neck\nleft: [lw]\nright: [rw]\n"
    )
    return Family([path], lambda: one_sentence(lambda: layout_name(str(path))))


def config(folder: Path) -> Family:
    from stgcn_fast.training import load_config

    path = folder / "run.yaml"
    path.write_text(
        "data: {source: clips, frames: 8, split: {protocol: cross_subject, options: {train: [1]}}}\n"
        "transforms:\n  train:\n    - {name: Centre, joint: neck}\n"
        "model: {options: {channels: [4]}}\ntraining: {epochs: 3}\n"
    )
    return Family([path], lambda: one_sentence(lambda: load_config(path, [])))


def main() -> None:
    """Fuzzes until the options say that it is enough."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in FAMILIES:
        raise SystemExit(f"fuzz: FAMILY must be one of {', '.join(FAMILIES)}, got {name!r}")
    import atheris

    with atheris.instrument_imports(include=["stgcn_fast"]):
        import stgcn_fast.cli.layout_file
        import stgcn_fast.data
        import stgcn_fast.models
        import stgcn_fast.training  # noqa: F401
    from damage import damage

    warnings.simplefilter("error")  # a warning of numpy or scipy would reach the user as noise
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    work, corpus = folder / "work", folder / "corpus"
    work.mkdir()
    corpus.mkdir()
    chosen = family(name, work)
    contents = [file.read_bytes() for file in chosen.files]
    for number, content in enumerate(contents):
        (corpus / str(number)).write_bytes(bytes([number]) + content[: MOST_BYTES - 1])

    def once(entry: bytes) -> None:
        number = entry[0] % len(contents) if entry else 0
        chosen.files[number].write_bytes(entry[1:])
        chosen.use()
        chosen.files[number].write_bytes(contents[number])

    def mutate(entry: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5:
            return bytes(atheris.Mutate(entry, most))
        return (entry[:1] + damage(entry[1:], rng))[:most]

    limits = [f"-max_len={MOST_BYTES}", "-timeout=20", "-rss_limit_mb=3000", "-print_final_stats=1"]
    words = [sys.argv[0], *limits, *sys.argv[2:], str(corpus)]
    atheris.Setup(words, once, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
