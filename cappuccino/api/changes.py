"""Which changes of a spec are refused. Kubernetes refuses them by CEL rules made from the same declarations (`crd.py`)."""

from __future__ import annotations

from functools import reduce
from typing import Any

from cappuccino.api.meta import Resource
from cappuccino.core.errors import InvalidInput

Document = dict[str, Any]


def remedy(kind: str) -> str:
    return f"delete the {kind} and make another"


def refuse_change(kind: type[Resource], old: Document, new: Document) -> None:
    """Compare two complete wire documents of one object, defaults filled in.

    Raises:
        InvalidInput: `new` changes what is immutable, or pinned by the first pass, or shrinks what may only grow.
    """
    info = kind.info
    where = f"{kind.__name__} {new['metadata']['name']}"
    before, after = old["spec"], new["spec"]
    frozen = sorted({*before, *after}) if info.immutable == ("*",) else list(info.immutable)
    if (old.get("status") or {}).get("snapshot"):
        frozen += info.pinned
    for name in frozen:
        if before.get(name) != after.get(name):
            scalar = not isinstance(after.get(name), dict | list)
            shown = f" (from {before.get(name)!r} to {after.get(name)!r})" if scalar else ""
            raise InvalidInput(f"{where}: spec.{name} is immutable{shown}: {remedy(kind.__name__)}")
    for path in info.growing:
        was, wanted = (reduce(lambda part, step: part[step], path.split("."), spec) for spec in (before, after))
        if wanted < was:
            raise InvalidInput(f"{where}: spec.{path} may grow, not shrink (from {was} to {wanted})")
