"""When what could not be done is tried again: a venue or a database that is away is left alone for a while.

Pauses double, and are never shorter than the error asks. In lockstep the market waits for us: the pause is short, and stays.
"""

from __future__ import annotations

from collections.abc import Callable

from cappuccino.core.errors import RetryLater

FIRST_SECONDS, LONGEST_SECONDS = 0.2, 15.0


class Outage:
    def __init__(self, monotonic: Callable[[], float], *, lockstep: bool) -> None:
        self._monotonic, self._lockstep = monotonic, lockstep
        self._pause = 0.0
        self._again_at = float("-inf")

    @property
    def seconds_left(self) -> float:
        """Until the next try; 0 when nothing is away."""
        return max(self._again_at - self._monotonic(), 0.0)

    def failed(self, error: RetryLater) -> float:
        """Seconds until the next try."""
        self._pause = FIRST_SECONDS if self._lockstep else min(max(2 * self._pause, FIRST_SECONDS), LONGEST_SECONDS)
        wait = self._pause if self._lockstep else max(self._pause, error.after_seconds)
        self._again_at = self._monotonic() + wait
        return wait

    def ended(self) -> None:
        self._pause = 0.0
