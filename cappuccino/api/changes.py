"""Which changes of a spec are refused. Kubernetes refuses them by CEL rules made from the same declarations (`crd.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cappuccino.api.meta import Resource
from cappuccino.core.errors import InvalidInput

Spec = Mapping[str, Any]


def remedy(kind: str) -> str:
    return f"make another {kind} under a new name"


def refuse_change(kind: type[Resource], name: str, before: Spec, after: Spec, *, pinned: bool) -> None:
    """Compare two complete specs of one object, in wire form with defaults filled in. `pinned`: status.snapshot is set.

    Raises:
        InvalidInput: `after` changes what is immutable, or pinned by the first pass, or shrinks what may only grow.
    """
    info, where = kind.info, f"{kind.__name__} {name}"
    always = sorted({*before, *after}) if info.immutable == ("*",) else info.immutable
    for field in (*always, *(info.pinned if pinned else ())):
        if before.get(field) != after.get(field):
            since = "" if field in always else " once the search has begun"
            scalar = not isinstance(after.get(field), dict | list)
            shown = f" (from {before.get(field)!r} to {after.get(field)!r})" if scalar else ""
            raise InvalidInput(f"{where}: spec.{field} is immutable{since}{shown}: {remedy(kind.__name__)}")
    for path in info.growing:
        was, wanted = _number(before, path), _number(after, path)
        if wanted < was:
            raise InvalidInput(f"{where}: spec.{path} may grow, not shrink (from {was} to {wanted})")


def _number(spec: Spec, path: str) -> int:
    value: Any = spec
    for step in path.split("."):
        value = value[step]
    return int(value)
