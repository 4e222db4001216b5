"""Our objects in memory: a Summary each, found by kind, name and our own labels without looking at all of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cappuccino.adapters.kubernetes.wakeups import Wakeups
from cappuccino.api import GROUP
from cappuccino.controllers.decision import Document, Key, Summary
from cappuccino.reconcile.wake import key_of, summary_of
from cappuccino.telemetry.operations import state_of

_REMEMBERED = 20_000
_LABELS = f"{GROUP}/"  # labels that are looked up by
_REFERRED_TO = frozenset({"Dataset", "Study"})  # by the name of another object's spec (reconcile/wake.py)


class Ended:
    """The uids of what ended lately, so that an event that was under way does not bring it back."""

    def __init__(self) -> None:
        self._uids: OrderedDict[str, None] = OrderedDict()

    def add(self, uid: str) -> None:
        self._uids[uid] = None
        if len(self._uids) > _REMEMBERED:
            self._uids.popitem(last=False)

    def __contains__(self, uid: str) -> bool:
        return uid in self._uids


@dataclass(slots=True)
class _Entry:
    summary: Summary
    version: int
    owners: tuple[Key, ...]
    state: str
    conditions: int  # a hash of what they say
    rest: int  # a hash of what a person can change besides: the spec, annotations, finalizers


class Catalogue:
    """A watch tells the key of what changed, and its owners when it comes, goes, or its Summary or its conditions change.

    Of a change of nothing but the status only those are told who decide on it: the owners, and who refers to it by name. It is
    the operator's own writing, and a Trial or a Trader need not be looked at again for it.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, dict[Key, _Entry]] = {}
        self._labelled: dict[tuple[str, str, str, str], dict[Key, None]] = {}
        self._ended = Ended()
        self.wakeups = Wakeups(lambda: (key for table in self._kinds.values() for key in table))

    def note(self, document: Document, *, deleted: bool) -> None:
        key, uid = key_of(document), document["metadata"]["uid"]
        if deleted:
            self.end(key, uid)
            return
        before = self._kinds.get(key.kind, {}).get(key)
        version = int(document["metadata"]["resourceVersion"])
        if uid in self._ended or (before is not None and version <= before.version):
            return
        entry = _Entry(
            summary=summary_of(document),
            version=version,
            owners=_owners(document, key.namespace),
            state=state_of(document.get("status")),
            conditions=_conditions(document.get("status")),
            rest=_rest(document["metadata"]),
        )
        if before is not None:
            self._unlabel(before.summary)
        self._kinds.setdefault(key.kind, {})[key] = entry
        for name, value in _ours(entry.summary.labels):
            self._labelled.setdefault((key.kind, key.namespace, name, value), {})[key] = None
        self.wakeups.tell(_concerned(before, entry))

    def end(self, key: Key, uid: str) -> None:
        self._ended.add(uid)
        entry = self._kinds.get(key.kind, {}).get(key)
        if entry is not None and entry.summary.uid == uid:
            del self._kinds[key.kind][key]
            self._unlabel(entry.summary)
            self.wakeups.tell((key, *entry.owners))

    def keep_only(self, kind: str, namespace: str | None, uids: set[str], *, version: int) -> None:
        """A list of `version` had `uids` and no others: what is older than it and not among them is gone."""
        for key, entry in list(self._kinds.get(kind, {}).items()):
            if namespace in (None, key.namespace) and entry.version <= version and entry.summary.uid not in uids:
                self.end(key, entry.summary.uid)

    def get(self, key: Key) -> Summary | None:
        entry = self._kinds.get(key.kind, {}).get(key)
        return entry.summary if entry else None

    def select(self, kind: str, namespace: str | None, labels: Mapping[str, str]) -> list[Summary]:
        table = self._kinds.get(kind, {})
        indexed = next(iter(_ours(labels)), None)
        keys = table if indexed is None or namespace is None else self._labelled.get((kind, namespace, *indexed), {})
        found = [
            table[key].summary
            for key in keys
            if namespace in (None, key.namespace) and labels.items() <= table[key].summary.labels.items()
        ]
        return sorted(found, key=lambda summary: (summary.key.name, summary.key.namespace))

    def states(self) -> Iterator[tuple[str, str]]:
        return ((kind, entry.state) for kind, table in self._kinds.items() for entry in table.values())

    def _unlabel(self, summary: Summary) -> None:
        key = summary.key
        for name, value in _ours(summary.labels):
            bucket = self._labelled[(key.kind, key.namespace, name, value)]
            bucket.pop(key)
            if not bucket:
                del self._labelled[(key.kind, key.namespace, name, value)]


def _ours(labels: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    return ((name, value) for name, value in labels.items() if name.startswith(_LABELS))


def _owners(document: Document, namespace: str) -> tuple[Key, ...]:
    references = document["metadata"].get("ownerReferences") or ()
    return tuple(Key(owner["kind"], namespace, owner["name"]) for owner in references)


def _concerned(before: _Entry | None, now: _Entry) -> tuple[Key, ...]:
    key = now.summary.key
    if before is None or before.summary != now.summary:
        return (key, *now.owners)
    if before.conditions != now.conditions:
        return (key, *now.owners) if key.kind in _REFERRED_TO or before.rest != now.rest else now.owners
    return (key,) if before.rest != now.rest else ()


def _conditions(status: Mapping[str, Any] | None) -> int:
    conditions = (status or {}).get("conditions") or ()
    return hash(tuple((c.get("type"), c.get("status"), c.get("reason")) for c in conditions))


def _rest(metadata: Mapping[str, Any]) -> int:
    annotations, finalizers = metadata.get("annotations") or {}, metadata.get("finalizers") or ()
    return hash((metadata["generation"], tuple(sorted(annotations.items())), tuple(finalizers)))
