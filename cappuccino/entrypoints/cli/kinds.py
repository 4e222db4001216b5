"""Names of kinds and objects as kubectl takes them: trader/mine, trader mine, traders, mtd, studies,trials, all."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from cappuccino.core.errors import InvalidInput, NotFound

ALL = "all"


def resolve(word: str) -> str:
    """The kind that `word` names: singular, plural, short, or plural with the group; in any case.

    Raises:
        InvalidInput: unknown; says the nearest.
    """
    from cappuccino.api import GROUP, KINDS

    names = {
        name: kind
        for kind, model in KINDS.items()
        for name in (kind.lower(), model.info.plural, *model.info.short_names, f"{model.info.plural}.{GROUP}")
    }
    if word.lower() in names:
        return names[word.lower()]
    close = difflib.get_close_matches(word.lower(), names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"use {', '.join(model.info.plural for model in KINDS.values())} or all"
    raise InvalidInput(f"kind {word!r} is unknown: {hint}")


def targets(words: Sequence[str]) -> list[tuple[str, str | None]]:
    """(kind, name or None for every one) of `kind/name ...`, `kind name ...`, `kind[,kind]` or `all`.

    Raises:
        InvalidInput: nothing is named, or the two forms are mixed.
    """
    from cappuccino.api import KINDS

    if not words:
        raise InvalidInput("name what: a kind (studies), an object (study/quickstart) or all")
    if any("/" in word for word in words):
        mixed = [word for word in words if "/" not in word]
        if mixed:
            raise InvalidInput(f"{mixed[0]!r} stands beside kind/name: write every object as kind/name")
        pairs = [word.partition("/") for word in words]
        if unnamed := [kind for kind, _, name in pairs if not name]:
            raise InvalidInput(f"'{unnamed[0]}/' has no name: write {unnamed[0]}/NAME, or {unnamed[0]} for all of them")
        return [(resolve(kind), name) for kind, _, name in pairs]
    kinds = list(KINDS) if words[0] == ALL else [resolve(kind) for kind in words[0].split(",") if kind]
    names: list[str | None] = [*words[1:]] or [None]
    return [(kind, name) for kind in kinds for name in names]


def one(words: Sequence[str]) -> tuple[str, str]:
    """A single object.

    Raises:
        InvalidInput: none, or more than one.
    """
    found = targets(words)
    if len(found) != 1 or found[0][1] is None:
        raise InvalidInput(f"name one object, as trader/quickstart-0, got {' '.join(words)!r}")
    return found[0][0], found[0][1]


def shown(kind: str, name: str) -> str:
    """study/quickstart: how an object is named in answers."""
    return f"{kind.lower()}/{name}"


def absent(kind: str, name: str, namespace: str) -> NotFound:
    from cappuccino.api import KINDS

    return NotFound(
        f"{shown(kind, name)} is not in namespace {namespace}: `cappuccino get {KINDS[kind].info.plural}` lists them"
    )
