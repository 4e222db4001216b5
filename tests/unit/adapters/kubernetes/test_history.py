"""Counting ends of runs: each once, whatever of them is seen and how often."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappuccino.adapters.kubernetes.history import advanced
from cappuccino.adapters.kubernetes.views import History, PodView, pod_view

from .builders import pod, running, statefulset, terminated, waiting

OF = statefulset()


def view(**options: Any) -> PodView:
    return pod_view(pod(OF, **options))


def after(*pods: PodView, history: History | None = None) -> History:
    told = history or History()
    for shown in pods:
        told = advanced(told, shown)
    return told


def life(codes: list[int], *, uid: str = "p", seconds: float = 5) -> list[PodView]:
    """What a pod shows while its container ends with each code in turn, and runs at last."""
    shown = [view(uid=uid, state=running())]
    for count, code in enumerate(codes):
        end = terminated(code, f"said {code}", seconds=seconds)
        shown.append(view(uid=uid, state=end, restarts=count))
        shown.append(view(uid=uid, state=waiting("CrashLoopBackOff"), before=end, restarts=count))
        shown.append(view(uid=uid, state=running(), before=end, restarts=count + 1))
    return shown


def test_crashes_in_a_row_are_counted_and_75_and_143_are_not_failures() -> None:
    told = after(*life([1, 143, 75, 1]))
    assert (told.restarts, told.failures, told.code, told.message) == (4, 2, 1, "said 1")


def test_a_run_of_a_minute_ends_the_row() -> None:
    told = after(*life([1, 1, 1], seconds=60))
    assert (told.restarts, told.failures) == (3, 1)


@pytest.mark.parametrize("code", [0, 2, 3, 70])
def test_the_first_final_end_is_the_outcome_whatever_follows(code: int) -> None:
    told = after(*life([1, code, 1, 0]))
    assert (told.over, told.code, told.restarts, told.failures) == (True, code, 1, 1)


def test_a_pod_that_is_told_to_go_does_not_fail() -> None:
    target = {"type": "DisruptionTarget", "status": "True"}
    for leaving in ({"deleting": True}, {"conditions": [target]}):
        told = after(view(state=terminated(137), **leaving))
        assert (told.restarts, told.failures) == (1, 0)


def test_the_next_pod_is_counted_on_top_of_the_one_before() -> None:
    told = after(*life([1, 1], uid="one"), *life([1], uid="two"))
    assert (told.restarts, told.failures) == (3, 3)


def test_a_pod_that_vanished_while_it_ran_counts_once_and_without_a_failure() -> None:
    ran = life([1])
    told = advanced(after(*ran), ran[-1], gone=True)
    assert (told.restarts, told.failures) == (2, 1)
    assert advanced(told, ran[-1], gone=True) == told


def test_a_pod_that_vanished_in_its_back_off_or_before_it_ran_counts_nothing_more() -> None:
    ran = life([1])[:-1]
    assert advanced(after(*ran), ran[-1], gone=True) == after(*ran)
    assert advanced(History(), view(state=waiting("ContainerCreating")), gone=True) == History()


@given(codes=st.lists(st.sampled_from([1, 4, 75, 137, 143]), max_size=6), data=st.data())
def test_seeing_it_twice_or_with_another_operator_changes_nothing(codes: list[int], data: st.DataObject) -> None:
    shown = life(codes)
    repeated = [picture for picture in shown for _ in range(data.draw(st.integers(1, 2)))]
    told = History()
    for picture in repeated:
        told = History.read(advanced(told, picture).write()) if data.draw(st.booleans()) else advanced(told, picture)
    assert told == after(*shown)


@given(codes=st.lists(st.sampled_from([1, 4, 75, 143]), min_size=1, max_size=6), data=st.data())
def test_what_was_missed_still_counts_as_restarts(codes: list[int], data: st.DataObject) -> None:
    shown = life(codes)
    kept = [picture for picture in shown[:-1] if data.draw(st.booleans())]
    told = after(*kept, shown[-1])
    assert told.restarts == len(codes)
    assert told.failures <= after(*shown).failures
