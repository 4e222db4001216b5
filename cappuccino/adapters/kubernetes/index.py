"""The cluster in memory, in slim projections: our objects as Summaries, and the runs that serve them.

Filled by one paginated list per kind, then by `note`: from a watch (kopf's handlers, or watch.py) and at once from what this
adapter writes. Invariants: what is noted late never undoes what is newer; what this adapter removed stays removed. `fill` again
compares with the server, and finds what was deleted while no watch looked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from cappuccino.adapters.kubernetes.catalogue import Catalogue
from cappuccino.adapters.kubernetes.client import JOB, OURS, POD, STATEFULSET, ApiResource, Client
from cappuccino.adapters.kubernetes.naming import SELECTOR
from cappuccino.adapters.kubernetes.runs import Run, Runs
from cappuccino.adapters.kubernetes.views import PodView
from cappuccino.controllers.decision import Document, Key, Summary
from cappuccino.core.errors import InvalidInput, NotFound, RetryLater

OBJECTS: tuple[ApiResource, ...] = tuple(OURS.values())
RUNS: tuple[ApiResource, ...] = (JOB, STATEFULSET, POD)  # workloads before their pods


class ClusterIndex:
    """`namespaces` are those that are looked at; none: all."""

    def __init__(self, client: Client, *, namespaces: Sequence[str] = ()) -> None:
        self._client = client
        self.namespaces: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self._objects = Catalogue()
        self._runs = Runs()
        self.ready = False

    async def fill(self) -> None:
        """Raises RetryLater, also when a kind is not served or may not be listed."""
        for resource in (*OBJECTS, *RUNS):
            for namespace in self.namespaces:
                await self.relist(resource, namespace)
        self.ready = True

    async def relist(self, resource: ApiResource, namespace: str | None) -> str:
        """Note what there is, forget what is not; the resourceVersion to watch from."""
        version, seen = "", set[str]()
        labels = "" if resource in OBJECTS else SELECTOR
        try:
            async for version, page in self._client.pages(resource, namespace=namespace, labels=labels):  # noqa: B007
                for item in page:
                    seen.add(item["metadata"]["uid"])
                    self.note(None, item)
        except (NotFound, InvalidInput) as error:
            raise RetryLater(f"{resource} cannot be listed: {error}") from error
        store = self._objects if resource in OBJECTS else self._runs
        store.keep_only(resource.kind, namespace, seen, version=int(version))
        return version

    def note(self, event: str | None, body: Mapping[str, Any]) -> None:
        """`event` is ADDED, MODIFIED, DELETED, or None for an item of a list; a kind that is not ours is ignored."""
        document, deleted = dict(body), event == "DELETED"
        group = document["apiVersion"].rpartition("/")[0]
        kind = document["kind"]
        if kind in OURS and group == OURS[kind].group:
            self._objects.note(document, deleted=deleted)
        elif kind in ("Job", "StatefulSet", "Pod"):
            self._runs.note(document, deleted=deleted)

    # --- objects ------------------------------------------------------------------------------------

    def summaries(self, kind: str, *, namespace: str | None, labels: Mapping[str, str] | None) -> list[Summary]:
        """Ordered by name."""
        return self._objects.select(kind, namespace, labels or {})

    def summary(self, key: Key) -> Summary | None:
        return self._objects.get(key)

    def ended(self, key: Key, uid: str) -> None:
        """This adapter has seen the end of an object of ours: no late event brings it back."""
        self._objects.end(key, uid)

    def object_keys(self) -> AsyncIterator[Key]:
        return self._objects.wakeups.watch()

    def counts(self) -> Mapping[tuple[str, str], int]:
        """Objects by kind and state (telemetry/operations.py)."""
        return Counter(self._objects.states())

    # --- workloads ----------------------------------------------------------------------------------

    def run(self, workload: str) -> Run | None:
        return self._runs.get(workload)

    def pods(self, workload: str) -> list[PodView]:
        """All of that name, also those whose Job or StatefulSet is gone, oldest first."""
        return self._runs.pods(workload)

    def runs(self) -> list[Run]:
        """Ordered by the workloads' names."""
        return self._runs.all()

    def runs_for(self, key: Key) -> list[Run]:
        return self._runs.serving(key)

    def run_ended(self, workload: str, uid: str) -> None:
        self._runs.end(workload, uid)

    def run_keys(self) -> AsyncIterator[Key]:
        return self._runs.wakeups.watch()

    def run_settled(self, document: Document, pods: Sequence[str]) -> None:
        """`document` is the workload as it was written; what became of these pods, by uid, is in its history now."""
        self._runs.settled(document, pods)
