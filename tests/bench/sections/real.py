"""A search on real bars, when a file of them is named: it is no part of the repository."""

from __future__ import annotations

from pathlib import Path

from tests.bench import real
from tests.bench.section import Figures, Machine, Section


def measure(machine: Machine, *, bars: str, fast: bool) -> Figures:
    """On the device that the trainer finds by itself; `bars`: a file as examples/five-minutes wants it."""
    return real.measure(Path(bars), fast=fast)


SECTION = Section(
    title="A Study on real bars",
    measure=measure,
    summary=real.summary,
    full={"bars": "../shared/data/crypto-5m-2024-01-07.parquet", "fast": False},
    fast={"fast": True},
)
