"""A process that trains one run after another for a study: ``python -m stgcn_fast.training.study_worker``.

Each line of standard input holds a configuration and the file for its lines; each line of standard output
says how it ended. When standard input closes, the process ends at once: a study that is killed leaves no run
behind that would go on by itself, and what was cut short is resumed.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import Any

__all__ = ["main"]


def _read(orders: queue.Queue[str]) -> None:
    for line in sys.stdin:
        orders.put(line)
    os._exit(0)


def _train(order: dict[str, Any]) -> str | None:
    """Train one run; the reason why it failed, or None."""
    from stgcn_fast.training.config import Config
    from stgcn_fast.training.run import train

    log = Path(order["log"])
    log.parent.mkdir(parents=True, exist_ok=True)
    before = os.dup(2)
    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 2)
        try:
            train(Config.from_dict(order["config"]), resume=True)
        except (ValueError, TypeError, OSError, RuntimeError) as error:
            return " ".join(str(error).split()) or type(error).__name__
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
    return None


def main() -> None:
    """Work until standard input closes."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # nothing else may speak on the line of answers
    orders: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(orders,), daemon=True).start()
    while True:
        reason = _train(json.loads(orders.get()))
        answers.write(json.dumps({"failed": reason}) + "\n")
        answers.flush()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        os._exit(130)
