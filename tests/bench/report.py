"""From a section's figures to Markdown: its tables, what was wanted of it, and where both stand in docs/benchmarks.md.

A section's text stands there between two comments, which only a run with --write replaces:

    <!-- bench memory -->
    <!-- end of memory -->
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cappuccino.core.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class Target:
    """`measured` should be `wanted` at least. low, high: the range of the rounds, where there were several."""

    what: str
    wanted: float
    measured: float
    low: float = 0.0
    high: float = 0.0
    more_than: bool = False  # measured is a lower bound, because what it is compared with did not come to an end

    @property
    def met(self) -> bool:
        return self.measured >= self.wanted

    @classmethod
    def of_ratio(cls, what: str, wanted: float, ratio: Mapping[str, float]) -> Target:
        return cls(what=what, wanted=wanted, measured=ratio["median"], low=ratio["min"], high=ratio["max"])

    def row(self) -> list[str]:
        measured = ("more than " if self.more_than else "") + number(self.measured) + _range(self.low, self.high, number)
        return [self.what, number(self.wanted), measured, self.verdict]

    @property
    def verdict(self) -> str:
        if self.met:
            return "met"
        return "**not shown**" if self.more_than else "**missed**"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """tables: each is its header and its rows. notes: sentences below them."""

    tables: Sequence[tuple[Sequence[str], Sequence[Sequence[str]]]]
    targets: Sequence[Target] = ()
    notes: Sequence[str] = field(default_factory=tuple)

    def markdown(self) -> str:
        tables = [table(*each) for each in self.tables]
        if self.targets:
            tables.append(table(("wanted", "at least", "measured", ""), [target.row() for target in self.targets]))
        return "\n\n".join([*tables, *self.notes])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned, so that it reads well in a terminal too."""
    widths = [max(len(row[place]) for row in (header, *rows)) for place in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        return f"| {' | '.join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)])} |"

    rule = "|".join(["", "-" * (widths[0] + 2), *(f"{'-' * (width + 1)}:" for width in widths[1:]), ""])
    return "\n".join([line(header), rule, *map(line, rows)])


def number(value: float) -> str:
    """Three digits that count, with a suffix from a thousand on."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def ranged(figures: Mapping[str, Any], name: str = "median", *, show: Callable[[float], str] = number) -> str:
    """The median, and the range of the rounds where there were several."""
    return show(figures[name]) + _range(figures["min"], figures["max"], show)


def _range(low: float, high: float, show: Callable[[float], str]) -> str:
    return f" ({show(low)} to {show(high)})" if low < high else ""


def written(document: str, section: str, text: str) -> str:
    """The document with this as the section's text.

    Raises:
        InvalidInput: the document has no place for it.
    """
    begin, end = f"<!-- bench {section} -->\n", f"<!-- end of {section} -->"
    before, found, rest = document.partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise InvalidInput(f"the document has no place for {section}: add the lines {begin.strip()} and {end}")
    return f"{before}{begin}\n{text}\n\n{end}{after}"


def write(path: Path, section: str, text: str) -> None:
    path.write_text(written(path.read_text(), section, text))
