"""Trials an hour: one worker for a pack of them against a worker for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.bench import packing
from tests.bench.report import Summary, number
from tests.bench.section import Figures, Machine, Section


def measure(machine: Machine, **sizes: int) -> Figures:
    """On the device that the trainer finds by itself."""
    return sizes | packing.packing(**sizes)


def summary(figures: Mapping[str, Any]) -> Summary:
    rows = [
        [f"{figures['pack']} in one worker", number(figures["trials_per_hour_pack"]), ""],
        *(
            [f"a worker each, {how}", number(figures[f"trials_per_hour_{name}"]), f"{figures[f'gain_over_{name}']:.2f}x"]
            for how, name in (("one after another", "one_by_one"), ("two at a time", "two_at_a_time"))
        ),
    ]
    return Summary(
        tables=[(("trials", "an hour", "the pack's gain"), rows)],
        notes=[
            f"A trial is two folds and a refit of {figures['timesteps']:,} steps at hidden {figures['hidden']}, with the start "
            f"of its process; one thread a worker, measured once. The objectives of a trial in the three ways lie within "
            f"{figures['largest_difference_of_objectives']:.1e} of a Sharpe ratio of each other.",
        ],
    )


SECTION = Section(
    title="Trials in a pack",
    measure=measure,
    summary=summary,
    full={"pack": 8, "timesteps": 65_536, "hidden": 32},
    fast={"pack": 2},
)
