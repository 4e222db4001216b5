"""The `Events` port: core/v1 Events. The name is a digest of what happened to whom, so a repeated event counts up."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime

from cappuccino.adapters.kubernetes.answers import Exists
from cappuccino.adapters.kubernetes.client import EVENT, Client
from cappuccino.api import API_VERSION
from cappuccino.controllers.decision import Document, Event, Key
from cappuccino.core.clock import iso
from cappuccino.core.errors import NotFound
from cappuccino.core.identifiers import digest_of

COMPONENT = "cappuccino-operator"
_REMEMBERED = 5_000
_MESSAGE_MAX = 1024


class KubernetesEvents:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._counts: OrderedDict[str, int] = OrderedDict()  # of what was emitted lately, by the Event's name

    async def emit(self, key: Key, uid: str, event: Event, *, at: datetime) -> None:
        document = _document(key, uid, event, at)
        name = document["metadata"]["name"]
        count = self._counts.get(name)
        if count is None:
            try:
                await self._create(document)
            except Exists:
                found = await self._client.get(EVENT, key.namespace, name)
                count = found["count"] if found else 0
            else:
                return
        try:
            await self._client.patch(EVENT, key.namespace, name, {"count": count + 1, "lastTimestamp": iso(at)})
            self._remember(name, count + 1)
        except NotFound:  # the server keeps events for an hour
            await self._create(document)

    async def _create(self, document: Document) -> None:
        await self._client.create(EVENT, document)
        self._remember(document["metadata"]["name"], 1)

    def _remember(self, name: str, count: int) -> None:
        self._counts[name] = count
        self._counts.move_to_end(name)
        if len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)


def _document(key: Key, uid: str, event: Event, at: datetime) -> Document:
    digest = digest_of([uid, event.type, event.reason, event.message])[:16]
    about = {"apiVersion": API_VERSION, "kind": key.kind, "namespace": key.namespace, "name": key.name, "uid": uid}
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {"name": f"{key.name}.{digest}", "namespace": key.namespace},
        "involvedObject": about,
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:_MESSAGE_MAX],
        "count": 1,
        "firstTimestamp": iso(at),
        "lastTimestamp": iso(at),
        "source": {"component": COMPONENT},
    }
