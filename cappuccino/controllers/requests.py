"""What a person asks of an object by annotations, and whether it has been acted on.

    cappuccino.dev/halt      why       halted-by, halted-at
    cappuccino.dev/resume    why       resumed-by, resumed-at
    cappuccino.dev/approve   which     approved-by, approved-at, approve-reason, approved-generation

A setting is the text with all its companions: whatever changes one of them sets the request anew. `-acted` keeps the mark of
the setting that was acted on last, and goes with the request, so that the same text set again is acted on again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cappuccino.api.meta import GROUP
from cappuccino.core.identifiers import digest_of

NOBODY = "annotation"  # the actor of a request that does not say who
TEXT_MAX = 1000  # characters of what a person writes, as far as it is kept


def key(name: str) -> str:
    """An annotation of ours."""
    return f"{GROUP}/{name}"


@dataclass(frozen=True, kw_only=True)
class Verb:
    """Names of the annotations of one kind of request. `why` is the request's own where its text is the reason. `generation`
    is of the object that was read by who asks; only where the request is about what the spec says."""

    name: str
    by: str
    at: str
    why: str
    generation: str = ""

    @property
    def acted(self) -> str:
        return key(f"{self.name}-acted")

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(key(part) for part in (self.name, self.by, self.at, self.why, self.generation) if part))


HALT = Verb(name="halt", by="halted-by", at="halted-at", why="halt")
RESUME = Verb(name="resume", by="resumed-by", at="resumed-at", why="resume")
APPROVE = Verb(name="approve", by="approved-by", at="approved-at", why="approve-reason", generation="approved-generation")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One setting. `new`: it has not been acted on."""

    text: str
    actor: str
    reason: str
    generation: str
    mark: str
    new: bool


def read(annotations: Mapping[str, str], verb: Verb) -> Request | None:
    """The present setting; one with an empty text is a setting too."""
    if key(verb.name) not in annotations:
        return None
    mark = digest_of({each: annotations[each] for each in verb.keys if each in annotations})[:16]
    return Request(
        text=_said(annotations, verb.name),
        actor=_said(annotations, verb.by) or NOBODY,
        reason=_said(annotations, verb.why),
        generation=_said(annotations, verb.generation),
        mark=mark,
        new=annotations.get(verb.acted) != mark,
    )


def forgotten(annotations: Mapping[str, str], *verbs: Verb) -> dict[str, str | None]:
    """A patch that removes the marks of requests that are gone."""
    return {verb.acted: None for verb in verbs if key(verb.name) not in annotations and verb.acted in annotations}


def setting(verb: Verb, text: str, *, actor: str, at: str, reason: str = "", generation: int = 0) -> dict[str, str]:
    """The annotations that make a request; `at` makes each one new, even with the same text."""
    of = {key(verb.generation): str(generation)} if verb.generation else {}
    return {key(verb.why): reason, key(verb.name): text, key(verb.by): actor, key(verb.at): at, **of}


def _said(annotations: Mapping[str, str], name: str) -> str:
    return annotations.get(key(name), "").strip()[:TEXT_MAX]
