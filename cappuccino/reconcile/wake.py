"""Whom a change concerns. An object's owners are woken by the watch itself; here is what refers to it by name, and what a new
row of the record is about. Missing one costs a resync period, never correctness.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cappuccino.core.identifiers import trial_name
from cappuccino.reconcile.ports import Document, Key, Objects, Summary


def key_of(document: Document) -> Key:
    metadata = document["metadata"]
    return Key(document["kind"], metadata.get("namespace", "default"), metadata["name"])


# What a Summary keeps of a spec, by kind: paths of its fields.
_REFERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "Study": (("datasetRef", "name"), ("warmStart", "studyRef", "name")),
    "Trial": (("studyUid",), ("number",)),
    "Deployment": (("studyRef", "name"),),
    "Trader": (("account",), ("pod",)),
}
# kind of what changed -> (kind that refers to it, the first part of that field's path)
_REFERENCES: dict[str, tuple[tuple[str, str], ...]] = {
    "Dataset": (("Study", "datasetRef"),),
    "Study": (("Deployment", "studyRef"), ("Study", "warmStart")),
}


def summary_of(document: Document) -> Summary:
    metadata = document["metadata"]
    return Summary(
        key=key_of(document),
        uid=metadata["uid"],
        deleting=bool(metadata.get("deletionTimestamp")),
        labels=metadata.get("labels") or {},
        refers={path[0]: str(_field(document, path)) for path in _REFERS.get(document["kind"], ())},
    )


def _field(document: Document, path: tuple[str, ...]) -> Any:
    value: Any = document.get("spec", {})
    for part in path:
        value = value.get(part, "") if isinstance(value, Mapping) else ""
    return value


# table -> (kind, whether a row of it, by the parts of its key, is about an object of that kind)
_ROWS: dict[str, tuple[tuple[str, Callable[[Summary, list[str]], bool]], ...]] = {
    "dataset_snapshot": (("Dataset", lambda summary, parts: summary.uid == parts[0]),),
    "evidence": (("Deployment", lambda summary, parts: summary.uid == parts[0]),),
    "promotion": (("Deployment", lambda summary, parts: summary.uid == parts[0]),),
    "account": (("Trader", lambda summary, parts: summary.refers.get("account") == parts[0]),),
}


async def referrers(objects: Objects, key: Key) -> list[Key]:
    """Objects in the same namespace that name `key` in their spec."""
    return [
        summary.key
        for kind, name in _REFERENCES.get(key.kind, ())
        for summary in await objects.index(kind, namespace=key.namespace)
        if summary.refers.get(name) == key.name
    ]


async def concerned(objects: Objects, table: str, row_key: str) -> list[Key]:
    """Objects that a new row of `table` is about; `row_key` as in Record.watch."""
    parts = row_key.split("/")
    if table in ("trial", "trial_report", "trial_result"):
        studies = [summary.key for summary in await objects.index("Study") if summary.uid == parts[0]]
        if table == "trial":  # which the Study and the Trial's own pass write; what a trainer writes is for the Trial
            return studies
        return [Key("Trial", key.namespace, trial_name(key.name, int(parts[1]))) for key in studies]
    return [
        summary.key
        for kind, concerns in _ROWS.get(table, ())
        for summary in await objects.index(kind)
        if concerns(summary, parts)
    ]
