"""Whom a change concerns. An object's owners are woken by the watch itself; here is what refers to it by name, and what a new
row of the record is about. Missing one costs a resync period, never correctness.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cappuccino.reconcile.ports import Document, Key, Objects


def _spec(document: Document, *path: str) -> Any:
    value: Any = document.get("spec", {})
    for part in path:
        value = value.get(part, {}) if isinstance(value, Mapping) else {}
    return value


def key_of(document: Document) -> Key:
    metadata = document["metadata"]
    return Key(document["kind"], metadata.get("namespace", "default"), metadata["name"])


# kind of what changed -> (kind that refers to it, path of the name in its spec)
_REFERENCES: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "Dataset": (("Study", ("datasetRef", "name")),),
    "Study": (("Deployment", ("studyRef", "name")), ("Trial", ("studyName",))),
}


def _uid(document: Document, parts: list[str]) -> bool:
    return bool(document["metadata"].get("uid") == parts[0])


def _trial(document: Document, parts: list[str]) -> bool:
    return [_spec(document, "studyUid"), str(_spec(document, "number"))] == parts[:2]


def _account(document: Document, parts: list[str]) -> bool:
    return bool(_spec(document, "account") == parts[0])


_ROWS: dict[str, tuple[tuple[str, Callable[[Document, list[str]], bool]], ...]] = {
    "dataset_snapshot": (("Dataset", _uid),),
    "trial": (("Study", _uid), ("Trial", _trial)),
    "trial_report": (("Trial", _trial),),
    "trial_result": (("Trial", _trial),),
    "evidence": (("Deployment", _uid),),
    "promotion": (("Deployment", _uid),),
    "account": (("Trader", _account),),
}


async def referrers(objects: Objects, key: Key) -> list[Key]:
    """Objects in the same namespace that name `key` in their spec."""
    found = []
    for kind, path in _REFERENCES.get(key.kind, ()):
        for document in await objects.list(kind, namespace=key.namespace):
            if _spec(document, *path) == key.name:
                found.append(key_of(document))
    return found


async def concerned(objects: Objects, table: str, row_key: str) -> list[Key]:
    """Objects that a new row of `table` is about; `row_key` as in Record.watch."""
    parts = row_key.split("/")
    found = []
    for kind, concerns in _ROWS.get(table, ()):
        found += [key_of(document) for document in await objects.list(kind) if concerns(document, parts)]
    return found
