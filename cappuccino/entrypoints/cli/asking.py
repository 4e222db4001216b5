"""What a person asks of an object: annotations, set once, and then the wait until they have been acted on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from cappuccino.core.errors import InvalidInput, RetryLater

if TYPE_CHECKING:
    from cappuccino.controllers.requests import Verb
    from cappuccino.entrypoints.cli.connection import Cluster
    from cappuccino.reconcile.ports import Document, Key

_POLL_SECONDS = 0.25
_ROLES = {"halt": "<release>-halter", "resume": "<release>-halter", "approve": "<release>-approver"}


async def ask_for(cluster: Cluster, document: Document, verb: Verb, text: str, *, reason: str, actor: str) -> str:
    """Set the request on the object that `document` is; the mark by which it is seen that it has been acted on."""
    from cappuccino.controllers.requests import read, setting
    from cappuccino.core.clock import SystemClock
    from cappuccino.reconcile.wake import key_of

    at = SystemClock().now().isoformat(timespec="microseconds")
    annotations = setting(verb, text, actor=actor, at=at, reason=reason)
    try:
        await cluster.objects.patch_metadata(key_of(document), uid=document["metadata"]["uid"], annotations=annotations)
    except InvalidInput as error:
        if " cannot patch " not in str(error):
            raise
        raise InvalidInput(f"{error}; the chart's role {_ROLES[verb.name]} holds it") from error
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
        RetryLater: not within `seconds`, or the object is gone.
    """
    until = time.monotonic() + seconds
    while (document := await cluster.objects.get(key)) is not None and not seen(document):
        if time.monotonic() >= until:
            raise RetryLater(
                f"{key.kind.lower()}/{key.name}: asked for, and not acted on within {seconds:g} s: it stays asked for;"
                " see whether the operator (or `cappuccino run`) is running"
            )
        await asyncio.sleep(_POLL_SECONDS)
    if document is None:
        raise RetryLater(f"{key.kind.lower()}/{key.name} is gone: it was deleted meanwhile")
    return document
