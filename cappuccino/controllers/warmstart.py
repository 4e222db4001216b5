"""Warm start: what a Study takes over from an earlier one.

On the first pass the earlier Study is pinned: its uid, and how many trials it had when it was complete. Those rows never
change, so that the same proposals come out at any time after. Its best trials' parameters, where they lie in the space, are the
first proposals; with `history` its trials are also rows that the sampler learns from, numbered below 0.

Two things keep this honest. The earlier Study's trials stay in the record, and count against every candidate of this one where
both saw the same bars (entrypoints/gating.py). And its gate window must not begin later than this one's: what it searched on
would reach into bars on which this one's candidates are tested. By induction that holds for what it started from itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from cappuccino.api.meta import Condition
from cappuccino.api.search import WarmStart
from cappuccino.api.study import Study, StudySpec
from cappuccino.controllers.conditions import false, stalled
from cappuccino.controllers.rows import StudyRow
from cappuccino.core.clock import iso
from cappuccino.search.goal import Goal
from cappuccino.search.space import Space, parse_space, to_wire, values_of
from cappuccino.search.trials import TrialRow


@dataclass(frozen=True, kw_only=True)
class Source:
    """The earlier Study as it is now: the object, what it pinned, its rows."""

    study: Study | None = None
    pinned: StudyRow | None = None
    trials: Sequence[TrialRow] = ()


NO_SOURCE = Source()


def pin(spec: StudySpec, source: Source, gate_starts_at: datetime) -> StudySpec | tuple[Condition, ...]:
    """`spec` with its source pinned, or why it cannot be yet or at all."""
    warm = spec.warm_start
    if warm is None:
        return spec
    name, study, pinned = warm.study_ref.name, source.study, source.pinned
    if study is None or pinned is None:
        what = "has not begun" if study else "does not exist: apply it"
        return (false("Ready", "WarmStartNotFound", f"Study {name} of warmStart {what}"),)
    complete, failed = study.condition("Complete"), study.condition("Failed")
    if failed and failed.status == "True":
        return stalled(
            "WarmStartFailed", f"Study {name} of warmStart failed: {failed.message}; name another, or drop warmStart"
        )
    if complete is None or complete.status != "True" or not all(row.finished for row in source.trials):
        return (false("Ready", "WarmStartSearching", f"Study {name} of warmStart is not complete yet"),)
    if pinned.gate_starts_at > gate_starts_at:
        return stalled(
            "WarmStartPeeks",
            f"Study {name} of warmStart searched on bars up to its gate window at {iso(pinned.gate_starts_at)}, and "
            f"the one here begins before, at {iso(gate_starts_at)}: take later bars, fewer gateBars, or no warmStart",
        )
    pinned_warm = warm.model_copy(update={"study_uid": study.uid, "trials": len(source.trials)})
    space = parse_space({key: parameter.to_json() for key, parameter in spec.search_space.items()})
    if not (repeated(pinned_warm, source.trials, spec.goal, space) or lessons(pinned_warm, source.trials, space)):
        return stalled("WarmStartEmpty", f"no trial of Study {name} lies in this searchSpace: widen it, or drop warmStart")
    return spec.model_copy(update={"warm_start": pinned_warm})


def repeated(warm: WarmStart, trials: Sequence[TrialRow], goal: Goal, space: Space) -> tuple[dict[str, str], ...]:
    """Parameters to try first: those of the source's best trials that lie in `space`, best first, each once."""
    fitting: list[dict[str, str]] = []
    for row in goal.chosen(trials[: warm.trials]):
        if len(fitting) == warm.best:
            break
        if values_of(space, row.parameters) is not None and (values := _within(space, row)) not in fitting:
            fitting.append(values)
    return tuple(fitting)


def lessons(warm: WarmStart, trials: Sequence[TrialRow], space: Space) -> tuple[TrialRow, ...]:
    """The source's trials as if they had been drawn from `space`, before the first of this Study's."""
    if not warm.history:
        return ()
    count, wire = len(trials[: warm.trials]), to_wire(space)
    return tuple(
        replace(row, number=row.number - count, parameters=_within(space, row), distributions=wire)
        for row in trials[: warm.trials]
        if values_of(space, row.parameters) is not None
    )


def _within(space: Space, row: TrialRow) -> dict[str, str]:
    return {name: row.parameters[name] for name in space}
