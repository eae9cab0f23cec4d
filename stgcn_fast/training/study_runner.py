"""Run what is missing of a study, one run after another or several side by side."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from stgcn_fast.training import distributed
from stgcn_fast.training.config import SYNTHETIC_KTH, Config, DataConfig
from stgcn_fast.training.errors import ConfigError
from stgcn_fast.training.files import write_json
from stgcn_fast.training.source import is_store, open_source
from stgcn_fast.training.study import Plan, StudyRun, digest_of
from stgcn_fast.training.yaml_io import load_yaml

__all__ = ["finished", "run_study", "select", "state_of"]

Say = Callable[[str], None]
_STUDY_NAME, _LOCK_NAME, LOG_NAME = "study.json", ".lock", "log.txt"
_FORMAT = 1


def finished(run: StudyRun) -> dict[str, Any] | None:
    """``metrics.json`` of a run that has ended, else None.

    Raises:
        ConfigError: The directory holds a run of another configuration, or the file is damaged.
    """
    file = run.directory / "metrics.json"
    if not file.is_file():
        return None
    saved = run.directory / "config.yaml"
    if digest_of(Config.from_dict(load_yaml(saved), str(saved)), run.start) != run.digest:
        raise ConfigError(f"{saved}: must be the configuration of {run.title}, got another")
    try:
        metrics = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file}: must be JSON, got {error}") from error
    return metrics if isinstance(metrics, dict) else None


def state_of(run: StudyRun) -> str:
    """``finished``, ``begun`` or ``to run``."""
    if finished(run) is not None:
        return "finished"
    return "begun" if (run.directory / "last.ckpt").is_file() else "to run"


def select(plan: Plan, only: Sequence[str]) -> list[StudyRun]:
    """The runs that ``axis=value`` words leave, and those they start from.

    Args:
        plan: The study.
        only: ``axis=value`` or ``axis=value,value``; ``seed`` is an axis. Words of one axis add up, those of
            different axes must all hold.

    Raises:
        ConfigError: A word names no axis or value.
    """
    wanted: dict[str, set[str]] = {}
    for word in only:
        axis, equals, text = word.partition("=")
        known = set(map(str, plan.study.seeds)) if axis == "seed" else set(plan.study.axes.get(axis, ()))
        if not equals or not known:
            axes = ", ".join([*plan.study.axes, "seed"])
            raise ConfigError(f"command line: --only must look like axis=value of {axes}, got {word!r}")
        for value in text.split(","):
            if value not in known:
                raise ConfigError(
                    f"command line: --only {axis} must be one of {', '.join(sorted(known))}, got {value!r}"
                )
            wanted.setdefault(axis, set()).add(value)
    chosen = {
        run.digest
        for run in plan.runs
        if all((run.cell | {"seed": str(run.seed)})[axis] in values for axis, values in wanted.items())
    }
    for run in reversed(plan.runs):  # a run stands behind the one it starts from
        if run.digest in chosen and run.start is not None:
            chosen.add(run.start)
    return [run for run in plan.runs if run.digest in chosen]


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Hold the directory of studies; the lock goes with the process, however it ends."""
    output.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # pragma: no cover - only where there is no such lock
        yield
        return
    with (output / _LOCK_NAME).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"{output}: output must be free, got a study that runs there now") from None
        yield


def _claim(plan: Plan) -> None:
    """Take the directory of the tables, or refuse it where another study has it."""
    file = plan.directory / _STUDY_NAME
    if file.is_file():
        try:
            held = json.loads(file.read_text(encoding="utf-8"))["digest"]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{file}: must be written by a study, got {error!r}") from error
        if held != plan.digest:
            raise ConfigError(
                f"{plan.directory}: study must be the one begun there, {held}, got another content, "
                f"{plan.digest} (give it another name or --output; runs that are the same are kept)"
            )
        return
    plan.directory.mkdir(parents=True, exist_ok=True)
    write_json(file, {"format": _FORMAT, "digest": plan.digest, "runs": [run.title for run in plan.runs]})


def _with_store(config: Config, output: Path) -> Config:
    """The configuration with a store that all runs on the same data share."""
    part = config.data
    if part.store is not None or (part.source != SYNTHETIC_KTH and is_store(part.source)):
        return config
    changed = config.model_copy(deep=True)
    changed.data.store = str(output / "stores" / digest_of(Config(data=_origin(part)), None))
    return changed


def _origin(part: DataConfig) -> DataConfig:
    return DataConfig(source=part.source, format=part.format, options=part.options)


def _check(run: StudyRun, config: Config, stores: dict[str, Any]) -> None:
    """Build what can be built before the first run begins, so that a mistake in the last one shows now."""
    from stgcn_fast.training.datasets import sample_shape
    from stgcn_fast.training.device import resolve_device
    from stgcn_fast.training.module import build_checked_criterion
    from stgcn_fast.training.network import build_model
    from stgcn_fast.training.run import check_transforms, class_names_of
    from stgcn_fast.training.source import split_source

    try:
        resolve_device(config.training.device)
        key = json.dumps([config.data.source, config.data.store, config.data.layout])
        if key not in stores:
            stores[key] = open_source(config.data, config.data.store or config.data.source)
        store = stores[key]
        check_transforms(config)
        split_source(store, config.data.split, config.training.seed)
        shape = sample_shape(store, config)
        sample_shape(store, config, "train")
        options = config.model.options
        if "graph" not in options:  # which may measure all clips
            model = build_model(config, store, shape[0], len(class_names_of(store)))
            build_checked_criterion(config, model)
    except (ConfigError, OSError) as error:
        raise ConfigError(f"{run.title}: {error}") from error


def run_study(
    plan: Plan,
    runs: Sequence[StudyRun],
    *,
    jobs: int = 1,
    say: Say,
    changed: Callable[[], None] = lambda: None,
) -> dict[str, str]:
    """Run every run that has not ended yet; what was cut short goes on from its last epoch.

    Args:
        plan: The study.
        runs: Which of its runs, in an order in which those that others start from come first.
        jobs: How many side by side, each in a process of its own that ends with this one; its lines go to
            ``log.txt`` in the directory of the run. With one the runs happen in this process.
        say: Receives the lines of progress.
        changed: Called before the first run and after each.

    Returns:
        For runs that failed or were left out for one that did, by title the reason.

    Raises:
        ConfigError: The directory belongs to another study or is in use, or a run cannot be built.
        KeyboardInterrupt: The study was interrupted; calling again continues it.
    """
    if jobs < 1:
        raise ValueError(f"run_study: jobs must be at least 1, got {jobs}")
    if distributed.world_size() > 1:
        raise ConfigError(
            f"study must run as one process, got {distributed.world_size()} (leave out torchrun)"
        )
    with _alone(plan.output):
        _claim(plan)
        unique = {run.digest: run for run in runs}
        done = {digest for digest, run in unique.items() if finished(run) is not None}
        waiting = [
            (run, _with_store(run.config, plan.output)) for run in unique.values() if run.digest not in done
        ]
        stores: dict[str, Any] = {}
        for run, config in waiting:
            _check(run, config, stores)
        del stores
        changed()
        say(f"{len(unique)} runs, {len(done)} finished before")
        work = _in_turn if jobs == 1 else _side_by_side
        return work(waiting, done, jobs, say, changed)


def _outcome(run: StudyRun) -> str:
    metrics = finished(run) or {}
    test = metrics.get("test") or {}
    top1 = f"{100 * test['top1']:.2f} %" if test else "no test clips"
    return f"finished: {run.title}: {top1} in {metrics.get('seconds', 0.0):.0f} s"


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _in_turn(
    waiting: list[tuple[StudyRun, Config]], done: set[str], jobs: int, say: Say, changed: Callable[[], None]
) -> dict[str, str]:
    from stgcn_fast.training.run import train

    failed: dict[str, str] = {}
    for number, (run, config) in enumerate(waiting, start=1):
        if run.start is not None and run.start not in done:
            failed[run.title] = "the run it starts from failed"
            continue
        say(f"run {number}/{len(waiting)}: {run.title}")
        try:
            train(config, resume=True, say=lambda line: None)
        except (ValueError, TypeError, OSError, RuntimeError) as error:
            failed[run.title] = _reason(error)
            say(f"failed: {run.title}: {_reason(error)}")
            continue
        done.add(run.digest)
        say(_outcome(run))
        changed()
    return failed


class _Worker:
    """A process that takes one configuration after another; it ends when its standard input closes."""

    def __init__(self, threads: int) -> None:
        environment = {"OMP_NUM_THREADS": str(threads)} | dict(os.environ)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stgcn_fast.training.study_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=environment,
        )
        self.run: StudyRun | None = None

    def begin(self, run: StudyRun, config: Config) -> None:
        assert self.process.stdin is not None
        self.run = run
        order = {"config": config.to_dict(), "log": str(run.directory / LOG_NAME)}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def answer(self) -> tuple[StudyRun, str | None]:
        """The run that ended and why it failed, if it did."""
        assert self.process.stdout is not None
        run, self.run = self.run, None
        assert run is not None
        line = self.process.stdout.readline()
        if not line:
            return run, f"its process ended with status {self.process.wait()}, see {run.directory / LOG_NAME}"
        reason: str | None = json.loads(line)["failed"]
        return run, reason

    def close(self) -> None:
        with suppress(OSError):
            if self.process.stdin is not None:
                self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def _side_by_side(
    waiting: list[tuple[StudyRun, Config]], done: set[str], jobs: int, say: Say, changed: Callable[[], None]
) -> dict[str, str]:
    failed: dict[str, str] = {}
    lost: set[str] = set()
    total, number = len(waiting), 0
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ExitStack() as stack, selectors.DefaultSelector() as selector:

        def hire() -> _Worker:
            worker = _Worker(threads)
            stack.callback(worker.close)
            selector.register(worker.process.stdout, selectors.EVENT_READ, worker)  # type: ignore[arg-type]
            return worker

        idle = [hire() for _ in range(min(jobs, total))]
        busy = 0
        while waiting or busy:
            for run, config in _ready(waiting, done, lost, failed):
                if not idle:
                    break
                waiting.remove((run, config))
                number += 1
                say(f"run {number}/{total}: {run.title}")
                idle.pop().begin(run, config)
                busy += 1
            if not busy:
                continue  # what is left was struck off, or becomes ready now
            for key, _ in selector.select():
                worker: _Worker = key.data
                run, reason = worker.answer()
                busy -= 1
                if reason is None:
                    done.add(run.digest)
                    say(_outcome(run))
                    changed()
                else:
                    failed[run.title] = reason
                    lost.add(run.digest)
                    say(f"failed: {run.title}: {reason}")
                if worker.process.poll() is None:
                    idle.append(worker)
                else:
                    selector.unregister(key.fileobj)
                    idle.append(hire())
    return failed


def _ready(
    waiting: list[tuple[StudyRun, Config]], done: Collection[str], lost: set[str], failed: dict[str, str]
) -> list[tuple[StudyRun, Config]]:
    """What can begin now; what waits for a run that failed is struck off."""
    for entry in list(waiting):
        if entry[0].start in lost:
            waiting.remove(entry)
            failed[entry[0].title] = "the run it starts from failed"
            lost.add(entry[0].digest)
    return [entry for entry in waiting if entry[0].start is None or entry[0].start in done]
