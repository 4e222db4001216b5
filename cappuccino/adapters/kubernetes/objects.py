"""The `Objects` port on an API server: its schema, its rules and its resourceVersions are the model; the index answers `index`
and `watch`.

`apply` is server-side apply. The status is replaced by a JSON patch that tests the uid first: server-side apply of the status
subresource does not look at it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from cappuccino.adapters.kubernetes.answers import AnotherUid, Exists
from cappuccino.adapters.kubernetes.client import OURS, Client, selector
from cappuccino.adapters.kubernetes.index import ClusterIndex
from cappuccino.controllers.decision import Document, Key, Summary
from cappuccino.core.errors import Conflict, InvalidInput, NotFound


class KubernetesObjects:
    def __init__(self, client: Client, index: ClusterIndex) -> None:
        self._client = client
        self._index = index

    async def get(self, key: Key) -> Document | None:
        return await self._client.get(OURS[key.kind], key.namespace, key.name)

    async def list(self, kind: str, *, namespace: str | None = None, labels: Mapping[str, str] | None = None) -> list[Document]:
        found = [
            document
            for where in ([namespace] if namespace else self._index.namespaces)
            for document in await self._client.all(OURS[kind], namespace=where, labels=selector(labels))
        ]
        return sorted(found, key=lambda document: (document["metadata"]["name"], document["metadata"]["namespace"]))

    async def index(
        self, kind: str, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[Summary]:
        return self._index.summaries(kind, namespace=namespace, labels=labels)

    async def create(self, document: Document) -> Document:
        key, sent = _checked(document)
        try:
            return self._noted(await self._client.create(OURS[key.kind], sent))
        except Exists as error:
            raise Conflict(f"{key} exists already: apply it to change it, or choose another name") from error

    async def apply(self, document: Document) -> Document:
        key, sent = _checked(document)
        given = sent["metadata"].get("resourceVersion")
        before = await self.get(key)
        if before is None and given:
            raise Conflict(f"{key} is gone: apply it without metadata.resourceVersion to make it again")
        if before is not None:
            if "deletionTimestamp" in before["metadata"]:
                raise Conflict(f"{key} is being deleted: wait until it is gone, then apply again")
            sent["metadata"]["uid"] = before["metadata"]["uid"]  # no younger object of this name is meant
        try:
            return self._noted(await self._client.apply(OURS[key.kind], sent))
        except Conflict as error:
            raise Conflict(f"{key} changed since it was read: read again ({error})") from error

    async def patch_status(self, key: Key, status: Document, *, uid: str) -> None:
        try:
            self._noted(await self._client.replace_status(OURS[key.kind], key.namespace, key.name, status, uid=uid))
        except NotFound:
            return
        except InvalidInput:
            now = await self.get(key)  # a failed test is answered like a status that is wrong
            if now is not None and now["metadata"]["uid"] == uid:
                raise

    async def patch_metadata(
        self,
        key: Key,
        *,
        uid: str,
        annotations: Mapping[str, str | None] | None = None,
        labels: Mapping[str, str | None] | None = None,
        finalizers: Sequence[str] | None = None,
    ) -> None:
        metadata: Document = {"uid": uid}
        metadata |= {"annotations": dict(annotations)} if annotations else {}
        metadata |= {"labels": dict(labels)} if labels else {}
        metadata |= {"finalizers": list(finalizers)} if finalizers is not None else {}
        try:
            self._noted(await self._client.patch(OURS[key.kind], key.namespace, key.name, {"metadata": metadata}))
        except (NotFound, AnotherUid):
            return

    async def delete(self, key: Key, *, uid: str | None = None) -> None:
        try:
            answer = await self._client.delete(OURS[key.kind], key.namespace, key.name, uid=uid)
        except (NotFound, AnotherUid):
            return
        if answer["kind"] == "Status":
            self._index.ended(key, answer["details"]["uid"])
        else:
            self._noted(answer)

    def watch(self) -> AsyncIterator[Key]:
        return self._index.object_keys()

    def _noted(self, document: Document) -> Document:
        """What was just written is in the index before the caller goes on."""
        metadata = document["metadata"]
        if "deletionTimestamp" in metadata and not metadata.get("finalizers"):
            self._index.ended(Key(document["kind"], metadata["namespace"], metadata["name"]), metadata["uid"])
        else:
            self._index.note("MODIFIED", document)
        return document


def _checked(document: Document) -> tuple[Key, Document]:
    """The object's key and what is sent of it: in a namespace, without a status.

    Raises:
        InvalidInput: its kind is none of ours, or it has no name.
    """
    kind, metadata = document.get("kind"), document.get("metadata")
    if kind not in OURS:
        raise InvalidInput(f"kind {kind!r} is unknown: use one of {', '.join(OURS)}")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise InvalidInput(f"{kind}: metadata.name is absent: give the object a name")
    namespace = str(metadata.get("namespace") or "default")
    sent = {name: part for name, part in document.items() if name != "status"}
    sent["metadata"] = {**metadata, "namespace": namespace}
    return Key(str(kind), namespace, metadata["name"]), sent
