"""What every section of `make bench` is: sizes, a measurement, and how its figures read.

`full` sizes are chosen for two cores and twenty minutes in all, `fast` ones for three, to see that everything runs.
Figures are plain numbers, text, lists and dicts, because they are written as JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.bench.peers import Peers
from tests.bench.report import Summary

Figures = dict[str, Any]
MARKET = {"bars": 10_000, "assets": 10, "features": 14, "lookback": 10}  # arguments of `Tables.random`


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where it runs: a device as torch names it, torch's threads, and the process for the peers, who know only the CPU."""

    device: str
    threads: int
    peers: Peers

    @property
    def cuda(self) -> bool:
        return self.device != "cpu"


@dataclass(frozen=True, kw_only=True)
class Section:
    """`measure(machine, **sizes)`; `fast` and `gpu` are the sizes that differ there from the full ones."""

    title: str
    measure: Callable[..., Figures]
    summary: Callable[[Mapping[str, Any]], Summary]
    full: Figures
    fast: Figures
    gpu: Figures = field(default_factory=dict)

    def sizes(self, machine: Machine, *, fast: bool) -> Figures:
        return self.full | (self.gpu if machine.cuda else {}) | (self.fast if fast else {})
