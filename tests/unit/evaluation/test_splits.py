from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappuccino.core.errors import InvalidInput
from cappuccino.evaluation.splits import Span, cpcv, cpcv_paths, walk_forward, windows


@given(n=st.integers(300, 5000), folds=st.integers(1, 4), gap=st.integers(0, 48))
def test_folds_expand_and_their_tests_tile_the_end_of_the_data(n: int, folds: int, gap: int) -> None:
    made = walk_forward(n, folds, gap)
    assert len(made) == folds
    assert made[-1].test_hi == n
    assert all(a.test_hi == b.test_lo and b.train_hi - a.train_hi == len(a.test) for a, b in pairwise(made))
    assert all(len(f.train) >= len(f.test) >= 50 and f.train_lo == 0 for f in made)


@given(n=st.integers(400, 5000), folds=st.integers(1, 4), gap=st.integers(0, 48))
def test_defect_04_the_gap_really_keeps_training_bars_away_from_test_bars(n: int, folds: int, gap: int) -> None:
    for fold in walk_forward(n, folds, gap):
        assert fold.test_lo - fold.train_hi == gap


@given(n=st.integers(600, 3000), gap=st.integers(0, 50))
def test_defect_04_cpcv_purges_before_and_embargoes_after_every_test_span(n: int, gap: int) -> None:
    for split in cpcv(n, 5, 2, gap):
        tested = {bar for span in split.test for bar in range(span.lo, span.hi)}
        forbidden = {bar + shift for bar in tested for shift in (-gap, gap)} | tested
        trained = {bar for span in split.train for bar in range(span.lo, span.hi)}
        assert not trained & forbidden
        # and nothing more than that was taken
        edges = [s.lo for s in split.test if s.lo > 0] + [s.hi for s in split.test if s.hi < n]
        assert n - len(tested) - len(trained) == gap * len(edges)


def test_defect_05_bars_that_are_not_adjacent_never_share_a_span() -> None:
    split = next(s for s in cpcv(100, 5, 2) if s.groups == (1, 3))
    assert split.test == (Span(20, 40), Span(60, 80))
    assert split.train == (Span(0, 20), Span(40, 60), Span(80, 100))
    joined = next(s for s in cpcv(100, 5, 2) if s.groups == (1, 2))
    assert joined.test == (Span(20, 60),)  # adjacent groups are one run


def test_cpcv_is_every_choice_of_test_groups_and_covers_each_group_equally() -> None:
    splits = cpcv(1000, 5, 2, 10)
    assert [s.groups for s in splits] == list(combinations(range(5), 2))
    assert cpcv_paths(5, 2) == 4
    for group in range(5):
        assert sum(group in s.groups for s in splits) == 4  # one for each path


def test_defect_12_no_fold_and_no_training_ever_sees_the_gate_window() -> None:
    cut = windows(3120 + 48, 720, 48)
    for fold in walk_forward(len(cut.dev), 3, 48):
        assert fold.test_hi <= cut.dev.hi < cut.gate.lo
        assert not set(range(*fold.train.rows.indices(9999))) & set(range(*fold.test.rows.indices(9999)))


def test_defect_13_the_refit_is_on_all_of_dev_and_not_on_any_folds_training_bars() -> None:
    cut = windows(3168, 720, 48)
    assert all(fold.train != cut.dev for fold in walk_forward(len(cut.dev), 3, 48))
    assert cut.dev == Span(0, 2400)


@given(n=st.integers(900, 9000), gate=st.integers(50, 400), gap=st.integers(0, 60), paper=st.integers(0, 200))
def test_windows_tile_the_data_in_order(n: int, gate: int, gap: int, paper: int) -> None:
    cut = windows(n, gate, gap, paper)
    spans = (cut.dev, cut.gap, cut.gate, cut.second_gap, cut.paper)
    assert spans[0].lo == 0
    assert spans[-1].hi == n
    assert all(a.hi == b.lo for a, b in pairwise(spans))
    assert (len(cut.gap), len(cut.gate), len(cut.second_gap), len(cut.paper)) == (gap, gate, gap if paper else 0, paper)


def test_too_few_bars_are_refused_with_the_number_that_is_needed() -> None:
    with pytest.raises(InvalidInput, match="at least 248 are needed"):
        walk_forward(247, 3, 48)
    assert len(walk_forward(248, 3, 48)) == 3


def test_windows_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(InvalidInput, match="need more than 768"):
        windows(768, 720, 48)
    assert len(windows(769, 720, 48).dev) == 1


@pytest.mark.parametrize("call", [lambda: cpcv(100, 5, 5), lambda: cpcv(100, 5, 2, 10), lambda: walk_forward(100, 0, 0)])
def test_impossible_splits_are_refused(call: object) -> None:
    with pytest.raises(InvalidInput):
        call()  # type: ignore[operator]
