"""Which trials share one workload: those that were proposed together, in blocks of the Study's pack.

A block is made once, by the one INSERT that made its rows, and never changes: not when the budget or the parallelism does, and
not when a trial of it finishes. It does not straddle phases. The first of its trials leads: the workload has its name.
"""

from __future__ import annotations

from collections.abc import Sequence

from cappuccino.search.trials import TrialRow


def proposed_together(room: int, left: int, *, pack: int, parallelism: int) -> int:
    """How many trials to propose now: whole blocks, but for the last of a phase, whose `left` trials are not proposed yet.

    Where parallelism is below the pack, blocks are as large as parallelism lets them be.
    """
    count = min(room, left)
    if count <= 0 or count == left:
        return max(0, count)
    return count - count % min(pack, parallelism)


def pack_of(rows: Sequence[TrialRow], number: int, *, pack: int) -> tuple[TrialRow, ...]:
    """The block of trial `number`, in order; `rows` are all of the Study's, so that a number is a place."""

    def together(place: int) -> bool:
        row, mine = rows[place], rows[number]
        return (row.created_at, row.phase) == (mine.created_at, mine.phase)

    first = number
    while first > 0 and together(first - 1):
        first -= 1
    first += (number - first) // pack * pack
    return tuple(rows[place] for place in range(first, min(first + pack, len(rows))) if together(place))
