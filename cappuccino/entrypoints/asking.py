"""What a person asks of an object: annotations, set once, and then the wait until they have been acted on.

The command line and the dashboard ask in this one way, each with the rights of the person. Whether a request may be made is
judged by the cluster; what it does is the controller's (controllers/latch.py, controllers/promotion.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from cappuccino.core.errors import Conflict, InvalidInput, RetryLater

if TYPE_CHECKING:
    from cappuccino.controllers.requests import Verb
    from cappuccino.reconcile.ports import Document, Key, Objects

_POLL_SECONDS = 0.25
_WORDS_SECONDS = 3.0  # for so long a refusal may be on its way after the mark
_ROLES = {"halt": "<release>-halter", "resume": "<release>-halter", "approve": "<release>-approver"}


class NotYet(RetryLater):
    """It is asked for, and has not been acted on."""


class Cluster(Protocol):
    """Where a person asks, as whom the cluster knows them."""

    @property
    def objects(self) -> Objects: ...

    async def events(self, key: Key) -> Sequence[Mapping[str, Any]]:
        """What happened to an object, oldest first: last_at, type, reason, message, count."""
        ...

    async def user(self) -> str:
        """As whom the cluster knows who is asking."""
        ...


# --- halt and resume ------------------------------------------------------------------------------------


async def ask_to_halt(cluster: Cluster, document: Document, reason: str, *, actor: str) -> str:
    """The mark of the request."""
    from cappuccino.controllers.requests import HALT

    return await ask_for(cluster, document, HALT, reason, reason=reason, actor=actor)


async def halted(cluster: Cluster, document: Document, mark: str, reason: str, *, seconds: float) -> Document:
    """The Trader as soon as the halt of that mark holds it. Raises NotYet."""
    from cappuccino.controllers.requests import HALT
    from cappuccino.reconcile.wake import key_of

    def latched(now: Document) -> bool:  # or held back, when there is no account to latch
        return is_halted(now) and (acted(now, HALT, mark) or now["status"]["haltedReason"] == reason.strip())

    return await awaited(cluster, key_of(document), latched, seconds=seconds)


async def ask_to_resume(cluster: Cluster, document: Document, reason: str, *, actor: str, seconds: float) -> str:
    """The mark of the request, which lifts the halt that the Trader's status tells.

    Raises:
        Conflict: it is not halted. NotYet: a halt of it was asked for and not acted on within `seconds`.
    """
    from cappuccino.controllers.requests import HALT, RESUME, read
    from cappuccino.reconcile.wake import key_of

    pending = read(document["metadata"].get("annotations") or {}, HALT)
    if pending and pending.new:  # a resume lifts what the status has told
        document = await awaited(cluster, key_of(document), is_halted, seconds=seconds)
    if not is_halted(document):
        raise Conflict(f"{_shown(document)} is not halted: there is nothing to lift")
    return await ask_for(cluster, document, RESUME, reason, reason=reason, actor=actor)


async def resumed(cluster: Cluster, document: Document, mark: str, *, seconds: float) -> Document:
    """The Trader as soon as the resume of that mark has lifted its halt.

    Raises:
        Conflict: it stays halted; says why. NotYet: not acted on within `seconds`.
    """
    from cappuccino.controllers.requests import RESUME
    from cappuccino.reconcile.wake import key_of

    key = key_of(document)
    await awaited(cluster, key, lambda now: acted(now, RESUME, mark), seconds=seconds)
    try:
        return await awaited(cluster, key, lambda now: not is_halted(now), seconds=_WORDS_SECONDS)
    except NotYet as error:
        why = await last_word(cluster, key, "ResumeRefused") or "it was halted again"
        raise Conflict(f"{_shown(document)} stays halted: {why}") from error


def is_halted(document: Document) -> bool:
    return bool((document.get("status") or {}).get("haltedReason"))


def _shown(document: Document) -> str:
    return f"{document['kind'].lower()}/{document['metadata']['name']}"


# --- any request ----------------------------------------------------------------------------------------


async def ask_for(cluster: Cluster, document: Document, verb: Verb, text: str, *, reason: str, actor: str) -> str:
    """Set the request on the object that `document` is; the mark by which it is seen that it has been acted on."""
    from cappuccino.controllers.requests import read, setting
    from cappuccino.core.clock import SystemClock
    from cappuccino.reconcile.wake import key_of

    at = SystemClock().now().isoformat(timespec="microseconds")
    generation = document["metadata"]["generation"]
    annotations = setting(verb, text, actor=actor, at=at, reason=reason, generation=generation)
    try:
        await cluster.objects.patch_metadata(key_of(document), uid=document["metadata"]["uid"], annotations=annotations)
    except InvalidInput as error:
        if " cannot patch " not in str(error):
            raise
        raise type(error)(f"{error}; the chart's role {_ROLES[verb.name]} holds it") from error
    request = read(annotations, verb)
    assert request is not None  # it was just written
    return request.mark


async def last_word(cluster: Cluster, key: Key, reason: str) -> str:
    """The message of the newest event of that reason; empty when there is none, or it may not be looked at."""
    try:
        told = [str(event["message"]) for event in await cluster.events(key) if event["reason"] == reason]
    except InvalidInput:
        return ""
    return told[-1] if told else ""


def acted(document: Document, verb: Verb, mark: str) -> bool:
    return bool((document["metadata"].get("annotations") or {}).get(verb.acted) == mark)


async def awaited(cluster: Cluster, key: Key, seen: Callable[[Document], bool], *, seconds: float) -> Document:
    """The object as soon as `seen` is true of it.

    Raises:
        NotYet: not within `seconds`. RetryLater: the object is gone.
    """
    until = time.monotonic() + seconds
    while (document := await cluster.objects.get(key)) is not None and not seen(document):
        if time.monotonic() >= until:
            raise NotYet(
                f"{key.kind.lower()}/{key.name}: asked for, and not acted on within {seconds:g} s: it stays asked for;"
                " see whether the operator (or `cappuccino run`) is running"
            )
        await asyncio.sleep(_POLL_SECONDS)
    if document is None:
        raise RetryLater(f"{key.kind.lower()}/{key.name} is gone: it was deleted meanwhile")
    return document
