"""An object for a person: what it says, how it stands, what happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import yaml

from cappuccino.core.clock import iso
from cappuccino.entrypoints.cli.tables import NOTHING, table


def described(document: Mapping[str, Any], events: Sequence[Mapping[str, Any]] = ()) -> str:
    """`events` are rows with last_at, type, reason, message and count."""
    metadata, status = document["metadata"], dict(document.get("status") or {})
    conditions = status.pop("conditions", [])
    head = {
        "Name": metadata["name"],
        "Namespace": metadata.get("namespace", "default"),
        "Kind": document["kind"],
        "Labels": _pairs(metadata.get("labels")),
        "Annotations": _pairs(metadata.get("annotations")),
        "Created": metadata.get("creationTimestamp") or NOTHING,
        "Generation": metadata.get("generation", 1),
    }
    if metadata.get("deletionTimestamp"):
        head["Deleting since"] = metadata["deletionTimestamp"]
    owners = [f"{owner['kind'].lower()}/{owner['name']}" for owner in metadata.get("ownerReferences", [])]
    if owners:
        head["Controlled by"] = ", ".join(owners)
    width = max(map(len, head)) + 2
    parts = ["\n".join(f"{name + ':':<{width}}{value}" for name, value in head.items())]
    parts.append("Spec:\n" + _indented(document["spec"]))
    if status:
        parts.append("Status:\n" + _indented(status))
    if conditions:
        lines = [
            [c["type"], c["status"], c["reason"], c.get("lastTransitionTime", ""), c.get("message", "")] for c in conditions
        ]
        parts.append("Conditions:\n" + _shifted(table(["Type", "Status", "Reason", "Since", "Message"], lines)))
    if events:
        lines = [[_time(e["last_at"]), e["type"], e["reason"], f"x{e['count']}", e["message"]] for e in events]
        parts.append("Events:\n" + _shifted(table(["Last", "Type", "Reason", "Count", "Message"], lines)))
    else:
        parts.append(f"Events: {NOTHING}")
    return "\n".join(parts)


def _pairs(values: Mapping[str, str] | None) -> str:
    return ", ".join(f"{key}={value}" for key, value in (values or {}).items()) or NOTHING


def _indented(value: Any) -> str:
    return _shifted(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120).rstrip())


def _shifted(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _time(value: datetime | str) -> str:
    return value if isinstance(value, str) else iso(value)
