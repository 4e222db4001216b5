"""halt and resume: what a person does while bundles trade.

The record is written directly where it is at hand, because a halt must act at once. Elsewhere, and for a Trader that has no
account yet, annotations ask for it, and the controller does it (controllers/latch.py).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from cappuccino.core.errors import CappuccinoError, InvalidInput, NotFound
from cappuccino.entrypoints.asking import ask_to_halt, ask_to_resume, halted, resumed
from cappuccino.entrypoints.cli import kinds, options
from cappuccino.entrypoints.cli.connection import Cluster, ask
from cappuccino.entrypoints.cli.target import Target

if TYPE_CHECKING:
    from cappuccino.reconcile.ports import Document, Record

_AT_ONCE = 20  # requests under way


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
        looked: list[Document | BaseException]
        if everything and cluster.record is not None:
            looked = [*await _without_account(cluster, halted=await _halt_accounts(cluster, cluster.record, reason))]
        elif everything:
            looked = [*await cluster.objects.list("Trader", namespace=None if all_namespaces else cluster.namespace)]
            if not looked:
                raise NotFound("there is no Trader: there is nothing to halt")
        else:
            looked = await asyncio.gather(*(_trader(cluster, word) for word in names or []), return_exceptions=True)
        actor, at_once = await cluster.user(), asyncio.Semaphore(_AT_ONCE)

        async def begun(document: Document) -> Halting:
            async with at_once:
                return await _halt(cluster, document, reason, actor)

        # All are asked for before any is waited for, and a wrong name among them holds up nobody.
        found = [each for each in looked if not isinstance(each, BaseException)]
        halting = await asyncio.gather(*map(begun, found), return_exceptions=True)
        waits = [_halted_soon(cluster, each, reason, timeout) for each in halting if not isinstance(each, BaseException)]
        ended = await asyncio.gather(*waits, return_exceptions=True)
        _raise([each for each in (*looked, *halting, *ended) if isinstance(each, BaseException)])

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
            mark = await ask_to_resume(cluster, document, reason, actor=await cluster.user(), seconds=timeout)
            await resumed(cluster, document, mark, seconds=timeout)
        typer.echo(f"{_shown(document)} resumed")

    ask(target, run)


async def _halt_accounts(cluster: Cluster, record: Record, reason: str) -> set[str]:
    """Every account that the record knows, in every namespace; their names."""
    accounts = [account.name for account in await record.accounts()]
    for name in accounts:
        await record.halt(name=name, reason=reason, actor=await cluster.user())
        typer.echo(f"account {name} halted")
    return set(accounts)


async def _without_account(cluster: Cluster, *, halted: set[str]) -> list[Document]:
    """Traders that are not started yet. Raises NotFound when there is nobody at all to halt."""
    traders = await cluster.objects.list("Trader")
    if not traders and not halted:
        raise NotFound("no account has traded yet, and there is no Trader: there is nothing to halt")
    return [document for document in traders if document["spec"]["account"] not in halted]


def _raise(wrong: list[BaseException]) -> None:
    """Whatever went wrong, as one error; one that is nobody's fault but ours as it is."""
    if not wrong:
        return
    first = wrong[0]
    if len(wrong) == 1 or not isinstance(first, CappuccinoError):
        raise first
    raise type(first)(f"{len(wrong)} traders are not known to be halted: {'; '.join(map(str, wrong))}")


@dataclass(frozen=True, kw_only=True)
class Halting:
    """What became of asking. mark: of the annotation, when the record was not written directly."""

    document: Document
    mark: str = ""


async def _halt(cluster: Cluster, document: Document, reason: str, actor: str) -> Halting:
    account = document["spec"]["account"]
    if cluster.record is not None and await cluster.record.account(account) is not None:
        await cluster.record.halt(name=account, reason=reason, actor=actor)
        return Halting(document=document)
    return Halting(document=document, mark=await ask_to_halt(cluster, document, reason, actor=actor))


async def _halted_soon(cluster: Cluster, halting: Halting, reason: str, seconds: float) -> None:
    """Say so when it is halted; one that has no account yet is, by the annotation alone, when this machine runs it."""
    unstarted = halting.mark and cluster.record is not None
    if halting.mark and not unstarted:
        await halted(cluster, halting.document, halting.mark, reason, seconds=seconds)
    typer.echo(f"{_shown(halting.document)} halted{' before its first start: it has no account yet' if unstarted else ''}")


async def _trader(cluster: Cluster, word: str) -> Document:
    from cappuccino.controllers.decision import Key

    kind, name = kinds.one([word]) if "/" in word else ("Trader", word)
    if kind != "Trader":
        raise InvalidInput(f"{kinds.shown(kind, name)} does not trade: name a Trader, or halt --all")
    document = await cluster.objects.get(Key("Trader", cluster.namespace, name))
    if document is None:
        raise kinds.absent("Trader", name, cluster.namespace)
    return document


def _shown(document: Document) -> str:
    return kinds.shown("Trader", document["metadata"]["name"])
