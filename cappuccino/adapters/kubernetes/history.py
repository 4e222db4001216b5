"""From an end of a run to the workload's History, which is written once for each.

continuous   every end of a run of the container: how many, how many failures in a row, and the outcome once it is final
finite       `restarts` counts the pods that are gone; those that are there are counted by themselves

It misses what happened and vanished while nobody watched: at worst a restart too few.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from cappuccino.adapters.kubernetes.views import History, PodView
from cappuccino.core.clock import iso
from cappuccino.core.errors import AWAY_EXIT_CODE, FINAL_EXIT_CODES, PREEMPTED_EXIT_CODE

SETTLED_SECONDS = 60.0  # a run that lasted longer ends a row of failures


def advanced(history: History, pod: PodView, *, gone: bool = False) -> History:
    """`history` with what `pod` tells of its container's ends. `gone`: the pod was removed, and its last run with it."""
    if history.over:
        return history
    running_at_the_end = gone and pod.running_since is not None
    ends = pod.ends + running_at_the_end
    new = ends - (history.ends if pod.uid == history.pod else 0)
    if new <= 0:
        return history
    counted = replace(history, pod=pod.uid, ends=ends, restarts=history.restarts + new)
    end = None if running_at_the_end else pod.last_end
    if end is None:  # nobody saw how
        return counted
    told = replace(
        counted, code=end.code, message=end.message, started_at=_text(end.started_at), finished_at=_text(end.finished_at)
    )
    if end.code == 0 or end.code in FINAL_EXIT_CODES:
        return replace(told, restarts=counted.restarts - 1, over=True)
    forgiven = pod.leaving or end.code in (AWAY_EXIT_CODE, PREEMPTED_EXIT_CODE)
    row = 0 if end.seconds >= SETTLED_SECONDS else history.failures
    return replace(told, failures=row if forgiven else row + 1)


def _text(at: datetime | None) -> str:
    return iso(at) if at else ""
