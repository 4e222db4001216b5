"""What a Trader has to do with its pod (controllers/pod.py), read through the ports.

Every member is told who the members are, from the index. Only the first reads what they are, because only it acts on that, and
only how long that has been so is kept here: an operator that starts anew waits that little longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from cappuccino.api import Trader
from cappuccino.controllers import pod as pods
from cappuccino.controllers.trader import trace_of
from cappuccino.core.errors import InvalidInput
from cappuccino.reconcile.ports import Document, Key, Objects
from cappuccino.reconcile.wake import summary_of


class Pods:
    def __init__(self, objects: Objects, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._objects = objects
        self._monotonic = monotonic
        self._since: dict[str, tuple[str, float]] = {}  # by workload: what is wanted of it, and since when

    async def sharing(self, key: Key, pod: str) -> pods.Sharing:
        labels = {pods.LABEL: pod}
        members = pods.members(await self._objects.index("Trader", namespace=key.namespace, labels=labels), pod)
        if not members or members[0].key != key:
            return pods.Sharing(members=members)
        documents = await self._objects.list("Trader", namespace=key.namespace, labels=labels)
        members = pods.members([summary_of(document) for document in documents], pod)
        if not members or members[0].key != key:  # the index was behind
            return pods.Sharing(members=members)
        chosen = {member.key.name for member in members}
        traders = [trader for trader in _readable(documents) if trader.name in chosen]
        wanted = pods.workload(pod, traders, trace=_trace(traders))
        return pods.Sharing(members=members, wanted=wanted, still_seconds=self._still(wanted.name, wanted.fingerprint))

    def _still(self, workload: str, fingerprint: str) -> float:
        now = self._monotonic()
        before, since = self._since.get(workload, ("", now))
        if before != fingerprint:
            since = now
            self._since[workload] = (fingerprint, now)
        return now - since


def _readable(documents: Sequence[Document]) -> Iterator[Trader]:
    """Without what an earlier version has stored and this one refuses: that Trader's own pass says so."""
    for document in documents:
        with suppress(InvalidInput):
            yield Trader.parse(document, source="stored Trader")


def _trace(traders: Sequence[Trader]) -> dict[str, str]:
    """That of all of them, if they have one in common."""
    traces = [trace_of(trader) for trader in traders]
    return traces[0] if all(trace == traces[0] for trace in traces) else {}
