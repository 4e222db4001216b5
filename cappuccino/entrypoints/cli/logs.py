"""logs: what the workloads of an object wrote.

On this machine they are files, which stay when a workload has ended and need no runner; on Kubernetes they are its pods' logs.
Traders of one pod have a log together, in which each line names an account; which pod that is, a Trader's spec says.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from cappuccino.core.errors import InvalidInput, NotFound
from cappuccino.entrypoints.cli import kinds, options
from cappuccino.entrypoints.cli.connection import Cluster, ask
from cappuccino.entrypoints.cli.target import Target

_POLL_SECONDS = 0.2


@options.targeted
def logs(
    target: Target,
    what: Annotated[list[str], typer.Argument(help="KIND/NAME, KIND NAME, exchange, or operator.", show_default=False)],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as more is written, until Ctrl-C.")] = False,
    tail: Annotated[int, typer.Option("--tail", min=-1, help="Lines from the end; -1 for all.")] = -1,
) -> None:
    """Print what the workload of an object wrote: a trainer, a gate, a refresh, a trader.

    Examples:

    \b
      cappuccino logs trial/quickstart-00001
      cappuccino logs trader quickstart-0 --follow --tail 20
      cappuccino logs exchange
    """
    if target.remote:
        asyncio.run(_of_pods(target, what, tail=tail, follow=follow))
    else:
        _of_files(target, what, tail=tail, follow=follow)


def _of_files(target: Target, what: list[str], *, tail: int, follow: bool) -> None:
    from cappuccino.entrypoints.settings import state_folder

    folder = state_folder(target.state) / "logs"
    names = ["exchange"] if what == ["exchange"] else _named(target, *kinds.one(what))
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


async def _of_pods(target: Target, what: list[str], *, tail: int, follow: bool) -> None:
    from cappuccino.adapters.kubernetes.naming import CONTAINER
    from cappuccino.entrypoints.cli.remote import connected

    component = what[0] if what in (["exchange"], ["operator"]) else ""
    async with connected(target) as cluster:
        if component:
            pods = await cluster.pods(f"app.kubernetes.io/name=cappuccino,app.kubernetes.io/component={component}")
        else:
            kind, name = kinds.one(what)
            names = await _shared(cluster, kind, name) or _workloads(kind, name, cluster.namespace)
            selectors = map(_selector, names)
            pods = [pod for selector in selectors for pod in await cluster.pods(selector)]
        begun = [pod["metadata"]["name"] for pod in pods if pod["status"].get("phase") != "Pending"]
        if not begun:
            shown = component or kinds.shown(*kinds.one(what))
            raise NotFound(f"{shown} has no pod that began in namespace {cluster.namespace}: `status` says what it waits for")
        for pod in begun:
            if len(begun) > 1:
                typer.echo(f"==> pod/{pod} <==")
            on = follow and pod == begun[-1]
            async for chunk in cluster.log(pod, container=None if component else CONTAINER, tail=tail, follow=on):
                typer.echo(chunk, nl=False)


def _named(target: Target, kind: str, name: str) -> list[str]:
    own = _workloads(kind, name, target.namespace or "default")
    if kind != "Trader":
        return own
    with suppress(NotFound):  # no runner that could say more
        return ask(target, lambda cluster: _shared(cluster, kind, name)) or own
    return own


async def _shared(cluster: Cluster, kind: str, name: str) -> list[str]:
    """Those of a Trader that shares a process; empty of everybody else."""
    from cappuccino.controllers import pod, trader
    from cappuccino.controllers.decision import Key

    key = Key(kind, cluster.namespace, name)
    found = await cluster.objects.get(key) if kind == "Trader" else None
    shared = found["spec"].get("pod") if found else None
    return [pod.workload_name(key.namespace, shared), trader.farewell_name(key)] if shared else []


def _selector(workload: str) -> str:
    """The label of a workload's pods."""
    from cappuccino.adapters.kubernetes.naming import WORKLOAD, labels
    from cappuccino.controllers.decision import Workload

    return f"{WORKLOAD}={labels(Workload(name=workload, kind='finite', arguments=('',), keys=()))[WORKLOAD]}"


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
