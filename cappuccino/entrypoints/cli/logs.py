"""logs: what the workloads of an object wrote. The files stay when a workload has ended, and need no runner to be read."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from cappuccino.core.errors import InvalidInput, NotFound
from cappuccino.entrypoints.cli import kinds, options

_POLL_SECONDS = 0.2


def logs(
    what: Annotated[list[str], typer.Argument(help="KIND/NAME, KIND NAME, or exchange.", show_default=False)],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as more is written, until Ctrl-C.")] = False,
    tail: Annotated[int, typer.Option("--tail", min=-1, help="Lines from the end; -1 for all.")] = -1,
    namespace: options.Namespace = "default",
    state: options.State = None,
) -> None:
    """Print what the workload of an object wrote: a trainer, a gate, a refresh, a trader.

    Examples:

    \b
      cappuccino logs trial/quickstart-00001
      cappuccino logs trader quickstart-0 --follow --tail 20
      cappuccino logs exchange
    """
    from cappuccino.entrypoints.settings import state_folder

    folder = state_folder(state) / "logs"
    names = ["exchange"] if what == ["exchange"] else _workloads(*kinds.one(what), namespace)
    files = [path for path in (folder / f"{name}.log" for name in names) if path.exists()]
    if not files:
        shown = what[0] if what == ["exchange"] else kinds.shown(*kinds.one(what))
        raise NotFound(f"{shown} has written nothing under {folder}: `cappuccino describe` says what it waits for")
    for path in files:
        for line in _last(path, tail):
            typer.echo(line, nl=False)
    if follow:
        for line in _growing(files[-1]):
            typer.echo(line, nl=False)


def _workloads(kind: str, name: str, namespace: str) -> list[str]:
    """Names of the workloads that an object of ours may have, in the order in which they run."""
    from cappuccino.controllers import dataset, deployment, trader
    from cappuccino.controllers.decision import Key

    key = Key(kind, namespace, name)
    if kind == "Dataset":
        return [dataset.workload_name(key)]
    if kind == "Deployment":
        return [deployment.gates_name(key), deployment.grade_name(key)]
    if kind == "Trader":
        return [key.workload(), trader.farewell_name(key)]
    if kind == "Trial":
        return [key.workload()]
    raise InvalidInput(f"a {kind} has no process of its own: look at its trials, as trial/{name}-00000")


def _last(path: Path, count: int) -> list[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        lines = file.readlines()
    return lines if count < 0 else lines[len(lines) - min(count, len(lines)) :]


def _growing(path: Path) -> Iterator[str]:
    """What is appended from now on; a file that was cut is read from its beginning."""
    with path.open(encoding="utf-8", errors="replace") as file:
        file.seek(0, os.SEEK_END)
        while True:
            if line := file.readline():
                yield line
                continue
            if path.stat().st_size < file.tell():
                file.seek(0)
            time.sleep(_POLL_SECONDS)
