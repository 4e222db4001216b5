"""Which bars train, which bars judge, and which nobody may look at.

The data of a Study is cut into dev | gap | gate window | gap | paper. Inside dev, walk-forward folds expand; the bundle
that is traded is a refit on all of dev, never one of the folds' agents. CPCV serves at most three finalists.

Invariants: spans are half-open ranges of bar indexes; no training bar lies within `gap` bars of a test bar, on
either side (purge before, embargo after); a fold never joins bars that are not adjacent: CPCV hands out several spans,
and whoever runs over them starts afresh in each.

CPCV: Lopez de Prado, Advances in Financial Machine Learning, ch. 12.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb

from cappuccino.core.errors import InvalidInput

MIN_FOLD_BARS = 50  # fewer bars than this cannot hold the twenty trades that a score needs


@dataclass(frozen=True)
class Span:
    """Bars lo <= t < hi."""

    lo: int
    hi: int

    def __len__(self) -> int:
        return self.hi - self.lo

    @property
    def rows(self) -> slice:
        return slice(self.lo, self.hi)


@dataclass(frozen=True)
class Fold:
    """One walk-forward fold: train on [train_lo, train_hi), judge on [test_lo, test_hi)."""

    train_lo: int
    train_hi: int
    test_lo: int
    test_hi: int

    @property
    def train(self) -> Span:
        return Span(self.train_lo, self.train_hi)

    @property
    def test(self) -> Span:
        return Span(self.test_lo, self.test_hi)


@dataclass(frozen=True, kw_only=True)
class Windows:
    """dev | gap | gate | gap | paper; without paper bars the last two spans are empty."""

    dev: Span
    gap: Span
    gate: Span
    second_gap: Span
    paper: Span


@dataclass(frozen=True, kw_only=True)
class CpcvSplit:
    """`train` and `test` are separate runs of adjacent bars, in order of time, never to be joined."""

    train: tuple[Span, ...]
    test: tuple[Span, ...]
    groups: tuple[int, ...]


def walk_forward(n_bars: int, folds: int, gap: int, *, min_fold_bars: int = MIN_FOLD_BARS) -> tuple[Fold, ...]:
    """Expanding folds over `n_bars`: equal test spans at the end, one after another, each trained on all before it
    but the last `gap` bars. The first training span is at least as long as a test span.

    Raises:
        InvalidInput: fewer bars than folds, gap and the shortest useful fold need; the message says how many.
    """
    if folds < 1 or gap < 0:
        raise InvalidInput(f"walk-forward with {folds} folds and a gap of {gap} bars: folds start at 1, gap at 0")
    needed = gap + (folds + 1) * min_fold_bars
    if n_bars < needed:
        raise InvalidInput(
            f"{n_bars} bars are too few for {folds} folds with a gap of {gap}: at least {needed} are needed;"
            " give more history, fewer folds or a smaller gap"
        )
    test = (n_bars - gap) // (folds + 1)
    starts = [n_bars - (folds - k) * test for k in range(folds)]
    return tuple(Fold(0, start - gap, start, start + test) for start in starts)


def windows(n_bars: int, gate_bars: int, gap_bars: int, paper_bars: int = 0) -> Windows:
    """Cut `n_bars` from the end: paper (if any), a gap, the gate window, a gap; the rest is dev.

    Raises:
        InvalidInput: nothing would be left for dev.
    """
    if gate_bars < 1 or gap_bars < 0 or paper_bars < 0:
        raise InvalidInput(f"gate {gate_bars}, gap {gap_bars}, paper {paper_bars} bars: the gate needs 1, the others 0 or more")
    paper_lo = n_bars - paper_bars
    gate_hi = paper_lo - (gap_bars if paper_bars else 0)
    gate_lo = gate_hi - gate_bars
    dev_hi = gate_lo - gap_bars
    if dev_hi < 1:
        raise InvalidInput(
            f"{n_bars} bars leave none to train on: gate window {gate_bars}, gaps {gap_bars}, paper {paper_bars}"
            f" need more than {n_bars - dev_hi}; give more history or shorten the gate window"
        )
    return Windows(
        dev=Span(0, dev_hi),
        gap=Span(dev_hi, gate_lo),
        gate=Span(gate_lo, gate_hi),
        second_gap=Span(gate_hi, paper_lo),
        paper=Span(paper_lo, n_bars),
    )


def cpcv(n_bars: int, groups: int = 5, test_groups: int = 2, gap: int = 0) -> tuple[CpcvSplit, ...]:
    """Every choice of `test_groups` out of `groups` equal groups as the test set: C(5, 2) = 10 splits.

    Raises:
        InvalidInput: the choice is not possible, or a gap swallows whole groups.
    """
    if not 0 < test_groups < groups or gap < 0:
        raise InvalidInput(
            f"CPCV({groups}, {test_groups}) with gap {gap}: test groups lie between 1 and groups - 1, gap from 0"
        )
    if n_bars // groups <= 2 * gap:
        raise InvalidInput(
            f"{n_bars} bars in {groups} groups leave nothing between two gaps of {gap}:"
            f" at least {groups * (2 * gap + 1)} are needed"
        )
    bounds = [n_bars * g // groups for g in range(groups + 1)]
    return tuple(_cpcv_split(bounds, chosen, gap) for chosen in combinations(range(groups), test_groups))


def cpcv_paths(groups: int = 5, test_groups: int = 2) -> int:
    """Complete out-of-sample paths that the splits make up: C(n, k) k / n, 4 for (5, 2)."""
    return comb(groups, test_groups) * test_groups // groups


def _cpcv_split(bounds: list[int], chosen: tuple[int, ...], gap: int) -> CpcvSplit:
    groups = len(bounds) - 1
    test, train = [], []
    for is_test in (True, False):
        members = [g for g in range(groups) if (g in chosen) == is_test]
        for g in members:
            if g - 1 in members:
                continue  # part of the span that began before it
            last = g
            while last + 1 in members:
                last += 1
            lo, hi = bounds[g], bounds[last + 1]
            if is_test:
                test.append(Span(lo, hi))
            else:
                train.append(Span(lo + (gap if g > 0 else 0), hi - (gap if last + 1 < groups else 0)))
    return CpcvSplit(train=tuple(train), test=tuple(test), groups=chosen)
