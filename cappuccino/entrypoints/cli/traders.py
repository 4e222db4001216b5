"""halt, resume and evidence: what a person does and asks while bundles trade."""

from __future__ import annotations

import getpass
import json
from typing import Annotated, Any

import typer

from cappuccino.core.errors import InvalidInput, NotFound
from cappuccino.entrypoints.cli import kinds, options
from cappuccino.entrypoints.cli.connection import Cluster, ask
from cappuccino.entrypoints.cli.options import Document


def halt(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="Traders.", show_default=False)] = None,
    reason: options.Reason = "",
    everything: Annotated[bool, typer.Option("--all", help="Every account that the record knows, in every namespace.")] = False,
    namespace: options.Namespace = "default",
    state: options.State = None,
) -> None:
    """Stop traders from entering anything, at once, wherever they run.

    The halt is a row of the record: it survives restarts, and only `cappuccino resume` lifts it.

    Examples:

    \b
      cappuccino halt quickstart-0 --reason "spread looks wrong"
      cappuccino halt --all --reason "exchange maintenance"
    """
    if not reason.strip():
        raise InvalidInput('halt needs --reason "...": it is what the record will show')
    if everything == bool(names):
        raise InvalidInput("name the traders to halt, or give --all for every one")

    async def run(cluster: Cluster) -> None:
        if everything:
            accounts = {account.name: f"account {account.name}" for account in await cluster.record.accounts()}
            if not accounts:
                raise NotFound("no account has traded yet: there is nothing to halt")
        else:
            accounts = await _accounts(cluster, names or [], namespace)
        for account, shown in accounts.items():
            await cluster.record.halt(name=account, reason=reason, actor=getpass.getuser())
            typer.echo(f"{shown} halted")

    ask(state, run)


def resume(
    name: Annotated[str, typer.Argument(help="Trader.", show_default=False)],
    reason: options.Reason = "",
    namespace: options.Namespace = "default",
    state: options.State = None,
) -> None:
    """Lift a halt. One trader at a time, with a reason.

    Examples:

    \b
      cappuccino resume quickstart-0 --reason "feed is back, positions checked"
    """
    if not reason.strip():
        raise InvalidInput('resume needs --reason "...": only a stated reason lifts a halt')

    async def run(cluster: Cluster) -> None:
        for account, shown in (await _accounts(cluster, [name], namespace)).items():
            await cluster.record.resume(name=account, reason=reason, actor=getpass.getuser())
            typer.echo(f"{shown} resumed")

    ask(state, run)


def evidence(
    what: Annotated[list[str], typer.Argument(help="A Deployment: mdep/NAME, or deployment NAME.", show_default=False)],
    output: options.TextOrJson = Document.TEXT,
    namespace: options.Namespace = "default",
    state: options.State = None,
) -> None:
    """Show what every gate measured on every candidate, against which threshold.

    `detectable` is the smallest effect that the gate could have seen: a miss below it is inconclusive, not a failure.

    Examples:

    \b
      cappuccino evidence mdep/quickstart
      cappuccino evidence deployment quickstart -o json
    """
    from cappuccino.controllers.decision import Key
    from cappuccino.core.clock import iso
    from cappuccino.entrypoints.cli.tables import table

    kind, name = kinds.one(what)
    if kind != "Deployment":
        raise InvalidInput(f"gates belong to a Deployment, not to {kinds.shown(kind, name)}: name one, as mdep/quickstart")

    async def run(cluster: Cluster) -> list[Any]:
        document = await cluster.objects.get(Key(kind, namespace, name))
        if document is None:
            raise NotFound(f"{kinds.shown(kind, name)} is not in namespace {namespace}: `cappuccino get mdep` lists them")
        return await cluster.record.evidence(deployment_uid=document["metadata"]["uid"])

    rows = ask(state, run)
    if output is Document.JSON:
        fields = (
            "bundle_digest",
            "gate",
            "gate_version",
            "scope",
            "outcome",
            "measured",
            "threshold",
            "minimum_detectable",
            "message",
        )
        found = [
            {field: getattr(row, field) for field in fields}
            | {"detail": dict(row.detail), "recorded_at": iso(row.recorded_at) if row.recorded_at else None}
            for row in rows
        ]
        typer.echo(json.dumps(found, indent=2))
    elif not rows:
        typer.echo(f"no evidence yet for {kinds.shown(kind, name)}")
    else:
        head = ["Bundle", "Gate", "Outcome", "Measured", "Threshold", "Detectable", "Message"]
        body = [
            [
                row.bundle_digest[:12],
                row.gate,
                row.outcome,
                *map(_number, (row.measured, row.threshold, row.minimum_detectable)),
                row.message,
            ]
            for row in rows
        ]
        typer.echo(table(head, body))


async def _accounts(cluster: Cluster, names: list[str], namespace: str) -> dict[str, str]:
    """Venue account of each Trader, with how to name it in the answer."""
    from cappuccino.controllers.decision import Key

    found = {}
    for word in names:
        kind, name = kinds.one([word]) if "/" in word else ("Trader", word)
        if kind != "Trader":
            raise InvalidInput(f"{kinds.shown(kind, name)} does not trade: name a Trader, or halt --all")
        document = await cluster.objects.get(Key("Trader", namespace, name))
        if document is None:
            raise NotFound(f"trader/{name} is not in namespace {namespace}: `cappuccino get traders` lists them")
        found[document["spec"]["account"]] = f"trader/{name}"
    return found


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
