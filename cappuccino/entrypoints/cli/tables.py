"""Objects as kubectl prints them: the printer columns of the kind, evaluated over the wire document."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

_STEP = re.compile(r"\.([A-Za-z0-9_]+)(?:\[\?\(@\.(\w+)==\"([^\"]*)\"\)\])?")
NOTHING = "<none>"


def value_at(document: Mapping[str, Any], path: str) -> Any:
    """What a printer column's JSON path finds, or None. Knows fields and one filter by equality."""
    value: Any = document
    for field, key, wanted in _STEP.findall(path):
        value = value.get(field) if isinstance(value, Mapping) else None
        if key and isinstance(value, list):
            value = next((item for item in value if item.get(key) == wanted), None)
    return value


def cell(value: Any, form: str, now: datetime) -> str:
    if value in (None, ""):
        return NOTHING
    if form == "date":
        return age((now - datetime.fromisoformat(value)).total_seconds())
    if form == "number":
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.2f}"
    return str(value)


def age(seconds: float) -> str:
    """Two units at most, as kubectl: 45s, 3m12s, 5h, 12d."""
    whole = max(0, int(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < 120:
        return f"{whole}s"
    if minutes < 10:
        return f"{minutes}m{whole % 60}s" if whole % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 48:
        return f"{hours}h"
    return f"{days}d"


def rows(documents: Sequence[Mapping[str, Any]], columns: Sequence[tuple[str, str, str]], now: datetime) -> list[list[str]]:
    return [[d["metadata"]["name"], *(cell(value_at(d, path), form, now) for _, form, path in columns)] for d in documents]


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Aligned columns, three spaces apart, without trailing space."""
    lines = [[name.upper() for name in head], *body]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("   ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines)
