from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from cappuccino.search.packing import pack_of, proposed_together
from cappuccino.search.trials import TrialRow

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def rows(*together: int, phase: str = "") -> list[TrialRow]:
    """Rows that were inserted in so large lots, a second apart."""
    made: list[TrialRow] = []
    for second, count in enumerate(together):
        at = NOW + timedelta(seconds=second)
        made += [
            TrialRow(
                study_uid="s", number=n, phase=phase, parameters={}, distributions={}, seed=n, state="Waiting", created_at=at
            )
            for n in range(len(made), len(made) + count)
        ]
    return made


def numbers(history: list[TrialRow], number: int, pack: int) -> list[int]:
    return [row.number for row in pack_of(history, number, pack=pack)]


def test_a_pack_is_a_block_of_what_was_proposed_together() -> None:
    history = rows(8, 3)
    assert [numbers(history, n, 4) for n in (0, 3, 4, 7)] == [[0, 1, 2, 3], [0, 1, 2, 3], [4, 5, 6, 7], [4, 5, 6, 7]]
    assert numbers(history, 9, 4) == [8, 9, 10]


def test_trials_that_came_later_do_not_join_a_pack_that_has_room() -> None:
    """The budget of the Study grew: trial 4 may have been trained already."""
    assert numbers(rows(5, 5), 4, 4) == [4]
    assert numbers(rows(5, 5), 5, 4) == [5, 6, 7, 8]


def test_a_pack_does_not_straddle_phases() -> None:
    history = [*rows(2, phase="market"), *rows(4, phase="ppo")[2:]]
    assert numbers(history, 1, 4) == [0, 1]
    assert numbers(history, 2, 4) == [2, 3]


def test_whole_blocks_are_proposed_but_for_the_last() -> None:
    def proposed(room: int, left: int, pack: int = 4, parallelism: int = 8) -> int:
        return proposed_together(room, left, pack=pack, parallelism=parallelism)

    assert [proposed(room, 100) for room in (-1, 0, 3, 4, 7, 8)] == [0, 0, 0, 4, 4, 8]
    assert proposed(3, 3) == 3  # nothing comes after them
    assert proposed(8, 6) == 6
    assert [proposed(room, 100, parallelism=3) for room in (2, 3)] == [0, 3]  # no room for more than three at any time
    assert [proposed(room, 100, pack=1) for room in (0, 1, 3)] == [0, 1, 3]
    assert proposed(0, 5, parallelism=0) == 0


@given(
    st.integers(1, 9),
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=12),
    st.integers(1, 40),
)
def test_packs_divide_the_trials_whatever_the_parallelism_was(pack: int, passes: list[tuple[int, int]], budget: int) -> None:
    """Each pass has a parallelism and trials that still run. The packs of a trial's companions are its own."""
    lots: list[int] = []
    for parallelism, running in passes:
        left = budget - sum(lots)
        lots.append(proposed_together(parallelism - running, left, pack=pack, parallelism=parallelism))
        assert 0 <= lots[-1] <= min(left, max(0, parallelism - running))
    history = rows(*lots)
    for row in history:
        block = pack_of(history, row.number, pack=pack)
        assert row in block
        assert 1 <= len(block) <= pack
        assert all(pack_of(history, other.number, pack=pack) == block for other in block)


@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 40))
def test_a_search_with_all_its_room_always_goes_on(pack: int, parallelism: int, left: int) -> None:
    assert proposed_together(parallelism, left, pack=pack, parallelism=parallelism) > 0
