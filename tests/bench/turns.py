"""Programs compared in turns: each once a round, every other round backwards, so that a drift of the machine hits all alike.

A contender is a call that measures itself once and answers a Result whose `RATES` figure counts. Over the rounds a figure is
the median beside min and max; a ratio is that of the two figures of one round, its median and range that of the rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

Result = dict[str, Any]
Contenders = Mapping[str, Callable[[], Result]]
RATES = ("steps_per_second", "gb_per_second", "gflop_per_second")


def in_turns(contenders: Contenders, rounds: int) -> dict[str, Result]:
    measured: dict[str, list[Result]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in list(contenders)[:: -1 if number % 2 else 1]:
            measured[name].append(contenders[name]())
    return {name: _over_rounds(results) for name, results in measured.items()}


def _over_rounds(results: Sequence[Result]) -> Result:
    rate = next(name for name in RATES if name in results[0])
    values = [result[rate] for result in results]
    return results[0] | spread(values, rate) | {"repeats": len(values), "rounds": values}


def spread(values: Sequence[float], name: str = "median") -> dict[str, float]:
    return {name: median(values), "min": min(values), "max": max(values)}


def ratio(ours: Result, theirs: Result) -> dict[str, float]:
    return spread([mine / other for mine, other in zip(ours["rounds"], theirs["rounds"], strict=True)])
