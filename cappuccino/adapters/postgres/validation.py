"""What an API server would refuse: a document that its model refuses, and a change of what is immutable.

The rules on changes are those of the CRDs' CEL, so that a manifest behaves alike on both clusters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cappuccino.api import KINDS, Resource
from cappuccino.api.changes import refuse_change
from cappuccino.controllers.decision import Document, Key
from cappuccino.core.errors import InvalidInput


def key_of(document: Document) -> Key:
    """Raises InvalidInput when kind or metadata.name is not there."""
    kind, metadata = document.get("kind"), document.get("metadata")
    if kind not in KINDS:
        raise InvalidInput(f"kind {kind!r} is unknown: use one of {', '.join(KINDS)}")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise InvalidInput(f"{kind}: metadata.name is absent: give the object a name")
    return Key(str(kind), str(metadata.get("namespace") or "default"), metadata["name"])


def validated(document: Document) -> Resource:
    key = key_of(document)
    return KINDS[key.kind].parse(document, source=f"{key.kind} {key.name}")


def refuse_immutable_change(key: Key, before: Mapping[str, Any], after: Mapping[str, Any], *, pinned: bool) -> None:
    """`pinned`: the Study has a snapshot in its status.

    Raises:
        InvalidInput: names the field that may not change.
    """
    refuse_change(KINDS[key.kind], key.name, before, after, pinned=pinned)


def merge(stored: Any, applied_before: Any, applied: Any) -> Any:
    """Three-way merge of wire values: what was applied before and is no longer is removed, what is applied is set (null
    removes), what others set stays. Mappings merge by key, everything else is replaced whole."""
    if not isinstance(applied, dict) or not isinstance(stored, dict):
        return applied
    before = applied_before if isinstance(applied_before, dict) else {}
    result = {name: value for name, value in stored.items() if name not in before or name in applied}
    for name, value in applied.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), before.get(name), value)
    return result
