"""halt and resume: what a person does while bundles trade.

The record is written directly where it is at hand, because a halt must act at once. Elsewhere, and for a Trader that has no
account yet, annotations ask for it, and the controller does it (controllers/latch.py).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from cappuccino.core.errors import InvalidInput, NotFound, RetryLater
from cappuccino.entrypoints.cli import kinds, options
from cappuccino.entrypoints.cli.connection import Cluster, ask
from cappuccino.entrypoints.cli.target import Target

if TYPE_CHECKING:
    from cappuccino.reconcile.ports import Document, Key

_AT_ONCE = 20  # requests under way
_WORDS_SECONDS = 3.0  # for so long a refusal may be on its way after the mark


@options.targeted
def halt(
    target: Target,
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="Traders.", show_default=False)] = None,
    reason: options.Reason = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Every Trader; on this machine every account of the record.")
    ] = False,
    all_namespaces: options.AllNamespaces = False,
    timeout: options.Seconds = 10.0,
) -> None:
    """Stop traders from entering anything, wherever they run.

    The halt is a row of the record: it survives restarts, and only `resume` lifts it. On Kubernetes it is asked for by an
    annotation, and the answer comes when the operator has written the row: 0 means halted.

    Examples:

    \b
      cappuccino halt quickstart-0 --reason "spread looks wrong"
      cappuccino halt --all --reason "exchange maintenance"
      kubectl cappuccino halt --all --all-namespaces --reason "exchange maintenance"
    """
    if not reason.strip():
        raise InvalidInput('halt needs --reason "...": it is what the record will show')
    if everything == bool(names):
        raise InvalidInput("name the traders to halt, or give --all for every one")

    async def run(cluster: Cluster) -> None:
        if everything and cluster.record is not None:
            await _halt_accounts(cluster, reason)
            return
        if everything:
            found = await cluster.objects.list("Trader", namespace=None if all_namespaces else cluster.namespace)
            if not found:
                raise NotFound("there is no Trader: there is nothing to halt")
        else:
            found = [await _trader(cluster, word) for word in names or []]
        at_once = asyncio.Semaphore(_AT_ONCE)

        async def one(document: Document) -> None:
            async with at_once:
                await _halt(cluster, document, reason, timeout)

        outcomes = await asyncio.gather(*map(one, found), return_exceptions=True)
        if wrong := [error for error in outcomes if isinstance(error, BaseException)]:
            raise (
                wrong[0]
                if len(found) == 1
                else RetryLater(
                    f"{len(wrong)} of {len(found)} traders are not known to be halted: " + "; ".join(map(str, wrong))
                )
            )

    ask(target, run)


@options.targeted
def resume(
    target: Target,
    name: Annotated[str, typer.Argument(help="Trader.", show_default=False)],
    reason: options.Reason = "",
    timeout: options.Seconds = 10.0,
) -> None:
    """Lift a halt. One trader at a time, with a reason.

    On Kubernetes it is asked for by an annotation, which lifts the halt that the Trader's status shows, and no later one.

    Examples:

    \b
      cappuccino resume quickstart-0 --reason "feed is back, positions checked"
    """
    if not reason.strip():
        raise InvalidInput('resume needs --reason "...": only a stated reason lifts a halt')

    async def run(cluster: Cluster) -> None:
        document = await _trader(cluster, name)
        account = document["spec"]["account"]
        if cluster.record is not None and await cluster.record.account(account) is not None:
            await cluster.record.resume(name=account, reason=reason, actor=await cluster.user())
        else:
            await _resume(cluster, document, reason, timeout)
        typer.echo(f"{_shown(document)} resumed")

    ask(target, run)


async def _halt_accounts(cluster: Cluster, reason: str) -> None:
    """Every account that the record knows, in every namespace."""
    assert cluster.record is not None  # asked before
    accounts = await cluster.record.accounts()
    if not accounts:
        raise NotFound("no account has traded yet: there is nothing to halt")
    for account in accounts:
        await cluster.record.halt(name=account.name, reason=reason, actor=await cluster.user())
        typer.echo(f"account {account.name} halted")


async def _halt(cluster: Cluster, document: Document, reason: str, seconds: float) -> None:
    from cappuccino.controllers.requests import HALT
    from cappuccino.entrypoints.cli.asking import acted, ask_for, awaited

    account = document["spec"]["account"]
    if cluster.record is not None and await cluster.record.account(account) is not None:
        await cluster.record.halt(name=account, reason=reason, actor=await cluster.user())
        typer.echo(f"{_shown(document)} halted")
        return
    key = _key(document)
    mark = await ask_for(cluster, key, document, HALT, reason, reason=reason)
    if cluster.record is not None:
        typer.echo(f"{_shown(document)} halted before its first start: it has no account yet")
        return

    def latched(now: Document) -> bool:  # or held back, when there is no account to latch
        return acted(now, HALT, mark) or (now.get("status") or {}).get("haltedReason") == reason.strip()

    await awaited(cluster, key, latched, seconds=seconds)
    typer.echo(f"{_shown(document)} halted")


async def _resume(cluster: Cluster, document: Document, reason: str, seconds: float) -> None:
    from cappuccino.controllers.requests import HALT, RESUME, read
    from cappuccino.entrypoints.cli.asking import acted, ask_for, awaited

    key = _key(document)
    pending = read(document["metadata"].get("annotations") or {}, HALT)
    if pending and pending.new:  # a resume lifts what the status has told
        document = await awaited(cluster, key, _halted, seconds=seconds)
    if not _halted(document):
        raise InvalidInput(f"{_shown(document)} is not halted: there is nothing to lift")
    mark = await ask_for(cluster, key, document, RESUME, reason, reason=reason)
    await awaited(cluster, key, lambda now: acted(now, RESUME, mark), seconds=seconds)
    try:
        await awaited(cluster, key, lambda now: not _halted(now), seconds=_WORDS_SECONDS)
    except RetryLater as error:
        refusals = [event["message"] for event in await cluster.events(key) if event["reason"] == "ResumeRefused"]
        raise InvalidInput(f"{_shown(document)} stays halted: {refusals[-1] if refusals else 'halted again'}") from error


async def _trader(cluster: Cluster, word: str) -> Document:
    from cappuccino.controllers.decision import Key

    kind, name = kinds.one([word]) if "/" in word else ("Trader", word)
    if kind != "Trader":
        raise InvalidInput(f"{kinds.shown(kind, name)} does not trade: name a Trader, or halt --all")
    document = await cluster.objects.get(Key("Trader", cluster.namespace, name))
    if document is None:
        raise kinds.absent("Trader", name, cluster.namespace)
    return document


def _halted(document: Document) -> bool:
    return bool((document.get("status") or {}).get("haltedReason"))


def _key(document: Document) -> Key:
    from cappuccino.controllers.decision import Key

    return Key("Trader", document["metadata"]["namespace"], document["metadata"]["name"])


def _shown(document: Document) -> str:
    return kinds.shown("Trader", document["metadata"]["name"])
