"""Time that pruners save, on Studies that fit beside the other sections: `python -m tests.bench.search` has larger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.bench import search
from tests.bench.report import Summary, number, ranged
from tests.bench.section import Figures, Machine, Section


def measure(machine: Machine, *, fast: bool) -> Figures:
    return search.measure(fast=fast)


def summary(figures: Mapping[str, Any]) -> Summary:
    size = figures["size"]
    rows = [
        [
            pruner,
            ranged(each["seconds"]),
            ranged(each["time_saved"], show=lambda share: f"{share:.0%}"),
            ranged(each["pruned"]),
            ranged(each["best"]),
        ]
        for pruner, each in figures["pruners"].items()
    ]
    return Summary(
        tables=[(("pruner", "seconds", "time saved", "pruned", "best objective"), rows)],
        notes=[
            f"Studies of {size['trials']} trials with {size['folds']} folds of {number(size['timesteps'])} steps, "
            f"{size['parallelism']} at a time, from {size['seeds']} seeds.",
        ],
    )


SECTION = Section(title="Search with pruners", measure=measure, summary=summary, full={"fast": True}, fast={})
