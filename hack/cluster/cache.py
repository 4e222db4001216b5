"""The folder in which built programs are kept, across checkouts: `$XDG_CACHE_HOME/cappuccino`, or below `~/.cache`.

What is in it appears whole or not at all: it is made in a scratch folder and renamed, by one process at a time.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cappuccino"


def say(line: str) -> None:
    print(f"cluster: {line}", file=sys.stderr, flush=True)


@contextmanager
def exclusive(name: str) -> Iterator[None]:
    """One process at a time is inside for this name; the others wait, and say so."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is making {name}: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
