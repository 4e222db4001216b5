"""The `Objects` port over the table `object`: what an API server does for us, on one machine.

Every write of a row takes the next number of one sequence as its resourceVersion. `generation` grows when the spec changes and
when deletion begins. Defaults of the models are stored, as an API server stores those of a CRD. What was last applied is kept
beside the metadata (key `lastApplied`, never shown), so that a field that left the manifest leaves the object.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from cappuccino.adapters.postgres.engine import away_is_retry
from cappuccino.adapters.postgres.listen import notifications
from cappuccino.adapters.postgres.validation import key_of, merge, refuse_immutable_change, validated
from cappuccino.api import API_VERSION
from cappuccino.controllers.decision import Document, Key, Summary
from cappuccino.core.clock import Clock, iso
from cappuccino.core.errors import Conflict, InvalidInput
from cappuccino.reconcile.wake import summary_of

Pool = AsyncConnectionPool[AsyncConnection[tuple[Any, ...]]]
_COLUMNS = "kind, namespace, name, uid, generation, resource_version, metadata, spec, status"
_UPDATE = (
    "update object set resource_version = nextval('object_version'), generation = %s, metadata = %s, spec = %s,"  # noqa: S608
    f" status = coalesce(%s, status) where uid = %s returning {_COLUMNS}"
).encode()


@dataclass(frozen=True, kw_only=True)
class _Row:
    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: int
    metadata: dict[str, Any]
    spec: dict[str, Any]
    status: dict[str, Any] | None

    @property
    def key(self) -> Key:
        return Key(self.kind, self.namespace, self.name)

    @property
    def deleting(self) -> bool:
        return "deletionTimestamp" in self.metadata

    def document(self) -> Document:
        shown = {name: value for name, value in self.metadata.items() if name != "lastApplied" and value not in ({}, [])}
        metadata = {
            "name": self.name,
            "namespace": self.namespace,
            "uid": self.uid,
            "generation": self.generation,
            "resourceVersion": str(self.resource_version),
            **shown,
        }
        document: Document = {"apiVersion": API_VERSION, "kind": self.kind, "metadata": metadata, "spec": self.spec}
        return document if self.status is None else {**document, "status": self.status}


class PostgresObjects:
    """`pool` has the role operator; `clock` is wall time."""

    def __init__(self, pool: Pool, *, clock: Clock, poll_seconds: float = 15.0) -> None:
        self._pool = pool
        self._clock = clock
        self._poll_seconds = poll_seconds

    async def get(self, key: Key) -> Document | None:
        with away_is_retry():
            async with self._pool.connection() as connection:
                row = await _read(connection, key)
        return row.document() if row else None

    async def list(self, kind: str, *, namespace: str | None = None, labels: Mapping[str, str] | None = None) -> list[Document]:
        query = f"select {_COLUMNS} from object where kind = %s and (%s::text is null or namespace = %s)"  # noqa: S608
        query += " and coalesce(metadata -> 'labels', '{}') @> %s order by name, namespace"
        with away_is_retry():
            async with self._pool.connection() as connection, connection.cursor(row_factory=class_row(_Row)) as cursor:
                await cursor.execute(query.encode(), [kind, namespace, namespace, Jsonb(dict(labels or {}))])
                return [row.document() for row in await cursor.fetchall()]

    async def index(
        self, kind: str, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[Summary]:
        return [summary_of(document) for document in await self.list(kind, namespace=namespace, labels=labels)]

    async def create(self, document: Document) -> Document:
        with away_is_retry():
            async with self._pool.connection() as connection, connection.transaction():
                return await self._insert(connection, document, applied=None)

    async def apply(self, document: Document) -> Document:
        key = key_of(document)
        with away_is_retry():
            async with self._pool.connection() as connection, connection.transaction():
                row = await _read(connection, key, lock=True)
                if row is None:
                    if document["metadata"].get("resourceVersion"):
                        raise Conflict(f"{key} is gone: apply it without metadata.resourceVersion to make it again")
                    return await self._insert(connection, document, applied=document)
                return await self._merge(connection, row, document)

    async def patch_status(self, key: Key, status: Document, *, uid: str) -> None:
        with away_is_retry():
            async with self._pool.connection() as connection, connection.transaction():
                row = await _read(connection, key, lock=True)
                if row is None or row.uid != uid:
                    return
                model = validated({**row.document(), "status": status})
                wire = model.status.to_json() if model.status is not None else {}
                if wire != row.status:
                    await _update(connection, row, status=wire)

    async def patch_metadata(
        self,
        key: Key,
        *,
        uid: str,
        annotations: Mapping[str, str | None] | None = None,
        labels: Mapping[str, str | None] | None = None,
        finalizers: Sequence[str] | None = None,
    ) -> None:
        with away_is_retry():
            async with self._pool.connection() as connection, connection.transaction():
                row = await _read(connection, key, lock=True)
                if row is None or row.uid != uid:
                    return
                metadata = dict(row.metadata)
                for name, patch in (("annotations", annotations), ("labels", labels)):
                    metadata[name] = merge(metadata.get(name, {}), {}, dict(patch or {}))
                if finalizers is not None:
                    added = set(finalizers) - set(metadata.get("finalizers", ()))
                    if row.deleting and added:
                        raise InvalidInput(f"{key} is being deleted: finalizer {min(added)} cannot be added any more")
                    metadata["finalizers"] = list(finalizers)
                if row.deleting and not metadata.get("finalizers"):
                    await self._remove(connection, row)
                elif _meaning(metadata) != _meaning(row.metadata):
                    await _update(connection, row, metadata=metadata)

    async def delete(self, key: Key, *, uid: str | None = None) -> None:
        with away_is_retry():
            async with self._pool.connection() as connection, connection.transaction():
                row = await _read(connection, key, lock=True)
                if row is not None and uid in (None, row.uid):
                    await self._delete(connection, row)

    async def watch(self) -> AsyncIterator[Key]:
        async for note in notifications(str(self._pool.conninfo), poll_seconds=self._poll_seconds):
            if note is None:
                for key in await self._all_keys():
                    yield key
            elif note[0] == "object":
                _, kind, namespace, name, owners = note
                yield Key(kind, namespace, name)
                for owner_kind, owner_name in owners:
                    yield Key(owner_kind, namespace, owner_name)

    # --- inside a transaction -----------------------------------------------------------------------

    async def _insert(self, connection: AsyncConnection[Any], document: Document, *, applied: Document | None) -> Document:
        model = validated({**document, "status": None})
        meta = model.metadata
        metadata: dict[str, Any] = {
            "creationTimestamp": iso(self._clock.now()),
            "labels": dict(meta.labels),
            "annotations": dict(meta.annotations),
            "finalizers": list(meta.finalizers),
            "ownerReferences": [owner.to_json() for owner in meta.owner_references],
        }
        if applied is not None:
            metadata["lastApplied"] = _applied(applied)
        key = key_of(document)
        async with connection.cursor(row_factory=class_row(_Row)) as cursor:
            await cursor.execute(
                f"insert into object ({_COLUMNS}) values (%s, %s, %s, %s, 1, nextval('object_version'), %s, %s, null)"  # noqa: S608
                f" on conflict do nothing returning {_COLUMNS}".encode(),
                [*key, str(uuid.uuid4()), Jsonb(metadata), Jsonb(model.spec.to_json())],
            )
            row = await cursor.fetchone()
        if row is None:
            raise Conflict(f"{key} exists already: apply it to change it, or choose another name")
        if meta.owner_references and not await _any_exists(connection, [owner.uid for owner in meta.owner_references]):
            await self._delete(connection, row)  # its owners went before it came: it is garbage already
        return row.document()

    async def _merge(self, connection: AsyncConnection[Any], row: _Row, document: Document) -> Document:
        given = document["metadata"]
        if given.get("resourceVersion") not in (None, "", str(row.resource_version)):
            raise Conflict(
                f"{row.key} changed since it was read ({given['resourceVersion']}, now {row.resource_version}): read again"
            )
        if row.deleting:
            raise Conflict(f"{row.key} is being deleted: wait until it is gone, then apply again")
        before, now = row.metadata.get("lastApplied", {}), _applied(document)
        merged = {part: merge(row.metadata.get(part, {}), before.get(part), now[part]) for part in ("labels", "annotations")}
        metadata = {**row.metadata, **merged, "lastApplied": now}
        spec = merge(row.spec, before.get("spec"), now["spec"])
        shown = {"name": row.name, "namespace": row.namespace, **merged}
        validated({**document, "metadata": {**given, **shown}, "status": None})  # what is wrong in the manifest itself
        model = validated({"apiVersion": API_VERSION, "kind": row.kind, "metadata": shown, "spec": spec})
        wire = model.spec.to_json()
        pinned = bool((row.status or {}).get("snapshot"))
        refuse_immutable_change(row.key, row.spec, wire, pinned=pinned)
        if wire == row.spec and _meaning(metadata) == _meaning(row.metadata):
            return row.document()
        return (await _update(connection, row, metadata=metadata, spec=wire)).document()

    async def _delete(self, connection: AsyncConnection[Any], row: _Row) -> None:
        if not row.metadata.get("finalizers"):
            await self._remove(connection, row)
        elif not row.deleting:
            metadata = {**row.metadata, "deletionTimestamp": iso(self._clock.now())}
            await _update(connection, row, metadata=metadata, generation=row.generation + 1)

    async def _remove(self, connection: AsyncConnection[Any], row: _Row) -> None:
        """End `row`, then delete what no living object owns any more."""
        await connection.execute("delete from object where uid = %s", [row.uid])
        async with connection.cursor(row_factory=class_row(_Row)) as cursor:
            await cursor.execute(
                f"select {_COLUMNS} from object where metadata -> 'ownerReferences' @> %s order by name for update".encode(),  # noqa: S608
                [Jsonb([{"uid": row.uid}])],
            )
            dependents = await cursor.fetchall()
        for dependent in dependents:
            if not await _any_exists(connection, [owner["uid"] for owner in dependent.metadata["ownerReferences"]]):
                await self._delete(connection, dependent)

    async def _all_keys(self) -> Sequence[Key]:
        with away_is_retry():
            async with self._pool.connection() as connection:
                cursor = await connection.execute("select kind, namespace, name from object order by kind, name")
                return [Key(*row) for row in await cursor.fetchall()]


async def _read(connection: AsyncConnection[Any], key: Key, *, lock: bool = False) -> _Row | None:
    query = f"select {_COLUMNS} from object where kind = %s and namespace = %s and name = %s"  # noqa: S608
    async with connection.cursor(row_factory=class_row(_Row)) as cursor:
        await cursor.execute((query + (" for update" if lock else "")).encode(), list(key))
        return await cursor.fetchone()


async def _update(
    connection: AsyncConnection[Any],
    row: _Row,
    *,
    metadata: dict[str, Any] | None = None,
    spec: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
    generation: int | None = None,
) -> _Row:
    if generation is None:
        generation = row.generation + (spec is not None and spec != row.spec)
    async with connection.cursor(row_factory=class_row(_Row)) as cursor:
        await cursor.execute(
            _UPDATE,
            [
                generation,
                Jsonb(row.metadata if metadata is None else metadata),
                Jsonb(row.spec if spec is None else spec),
                None if status is None else Jsonb(status),
                row.uid,
            ],
        )
        updated = await cursor.fetchone()
    assert updated is not None  # the row is locked by this transaction
    return updated


async def _any_exists(connection: AsyncConnection[Any], uids: Sequence[str]) -> bool:
    cursor = await connection.execute("select 1 from object where uid = any(%s) limit 1", [list(uids)])
    return await cursor.fetchone() is not None


def _applied(document: Document) -> dict[str, Any]:
    metadata = document["metadata"]
    parts = {"labels": metadata.get("labels"), "annotations": metadata.get("annotations"), "spec": document.get("spec")}
    return {name: part or {} for name, part in parts.items()}


def _meaning(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata without what is not shown, and without the difference between absent and empty."""
    return {name: value for name, value in metadata.items() if name != "lastApplied" and value not in ({}, [])}
