"""Where the runner of a state folder is: `runner.json`, written by `cappuccino run`, read by every other command.

The file outlives a runner that was killed, so it names the process by pid and start time: a pid alone may be
somebody else by now.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from cappuccino.core.errors import IntegrityError, NotFound
from cappuccino.core.processes import started

FILE = "runner.json"


@dataclass(frozen=True, kw_only=True)
class Presence:
    database_url: str
    pid: int
    started: str


def announce(state: Path, database_url: str) -> Presence:
    """Say that this process runs the cluster of `state`. Atomic; for its owner only, as the URL may hold a password."""
    present = Presence(database_url=database_url, pid=os.getpid(), started=started(os.getpid()) or "")
    state.mkdir(parents=True, exist_ok=True)
    draft = state / f"{FILE}.{present.pid}"
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(present), file)
    draft.replace(state / FILE)
    return present


def withdraw(state: Path) -> None:
    """Take the announcement back, if it is this process's own."""
    try:
        if _read(state).pid == os.getpid():
            (state / FILE).unlink(missing_ok=True)
    except NotFound:
        return


def find(state: Path) -> Presence:
    """The living runner of `state`.

    Raises:
        NotFound: there is none; says how to start one.
    """
    present = _read(state)
    if started(present.pid) != present.started:
        raise NotFound(f"the runner of {state} has ended: start it again with `cappuccino run`; nothing is lost")
    return present


def _read(state: Path) -> Presence:
    try:
        return Presence(**json.loads((state / FILE).read_text()))
    except FileNotFoundError as error:
        raise NotFound(f"no runner in {state}: start one with `cappuccino run`, or name its folder with --state") from error
    except (ValueError, TypeError) as error:
        raise IntegrityError(f"{state / FILE} is not readable ({error}): delete it and start `cappuccino run` again") from error
