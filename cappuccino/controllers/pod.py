"""Pods: Traders of a namespace that name the same one share a process, which trades each of their accounts by itself.

label on the Trader ──▶ it is a member: its own pass sets it when it may start and there is room, and takes it away again
members or their specs changed, and then nothing for a while ──▶ the process is stopped, and started with what they are now
the first member, by name, starts and stops it; the others wake it when they have changed

Invariants: an account is traded once, nobody in mode live is a member, and the list is the same whoever makes it. A restart is
safe at any time: each portfolio begins with what its journal and its venue say. It costs all of them the time that it takes.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cappuccino.api.trader import PORTFOLIOS_MAX, Trader
from cappuccino.controllers.decision import Key, PodNeeds, Summary, Workload

LABEL = "cappuccino.dev/pod"
PORTFOLIOS = "CAPPUCCINO_PORTFOLIOS"
SETTLED_SECONDS = 3.0  # without a change, before the process is touched: objects that are applied together restart it once


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """What a Trader has to do with its pod. `wanted` is what the process is to be, told to the first of the members alone, and
    `still_seconds` for how long that has been so."""

    members: Sequence[Summary] = ()
    wanted: Workload | None = None
    still_seconds: float = 0.0


def workload_name(namespace: str, pod: str) -> str:
    return Key("Pod", namespace, pod).workload()


def members(labelled: Sequence[Summary], pod: str) -> tuple[Summary, ...]:
    """Who shares the process, by name: of those with the label the first of each account, as many as there is room for."""
    by_account: dict[str, Summary] = {}
    for summary in sorted(labelled, key=lambda each: each.key.name):
        if summary.refers["pod"] == pod and not summary.deleting:
            by_account.setdefault(summary.refers["account"], summary)
    return tuple(by_account.values())[:PORTFOLIOS_MAX]


def no_room(trader: Trader, present: Sequence[Summary]) -> str:
    """Why it cannot be a member besides those that are; empty when it can."""
    others = {each.refers["account"]: each.key.name for each in present if each.key.name != trader.name}
    account, pod = trader.spec.account, trader.spec.pod
    if account in others:
        return f"account {account} is traded by {others[account]} of the same pod {pod}: delete one of the two"
    if len(others) >= PORTFOLIOS_MAX:
        return f"pod {pod} has {len(others)} portfolios, and no more fit: make this Trader again with another pod"
    return ""


def workload(pod: str, traders: Sequence[Trader], *, trace: Mapping[str, str]) -> Workload:
    """The process of these members, in the order of their names. `trace`: traceparent of what all of them belong to."""
    paper = [trader for trader in sorted(traders, key=lambda each: each.name) if trader.spec.mode != "live"]
    namespace = paper[0].metadata.namespace
    secrets = {ref.name for trader in paper if (ref := trader.spec.venue.account_secret_ref) is not None}
    return Workload(
        name=workload_name(namespace, pod),
        kind="continuous",
        arguments=("trade", "--portfolios"),
        keys=tuple(Key("Trader", namespace, trader.name) for trader in paper),
        environment={PORTFOLIOS: packed(paper), **trace},
        pod=PodNeeds(secrets=tuple(sorted(secrets)), portfolios=len(paper)),
    )


def packed(traders: Sequence[Trader]) -> str:
    """For one variable of an environment, which holds 128 KiB at most: base64 of gzip of a JSON list. unpacked() reads it."""
    entries = [{"traderUid": trader.uid, "spec": trader.spec.to_json()} for trader in traders]
    return base64.b64encode(gzip.compress(json.dumps(entries).encode(), mtime=0)).decode()


def unpacked(text: str) -> bytes:
    """Raises ValueError, OSError or EOFError: it is not what packed() made."""
    return gzip.decompress(base64.b64decode(text, validate=True))


def places(deployment: str, present: Sequence[Trader], per_pod: int) -> Iterator[str | None]:
    """For one new Trader after the other the first of the Deployment's pods with a place; None: a process of its own."""
    if per_pod == 1:
        while True:
            yield None
    taken = [trader.spec.pod for trader in present]
    number = 0
    while True:
        pod = f"{deployment}-{number}"
        for _ in range(taken.count(pod), per_pod):
            yield pod
        number += 1
