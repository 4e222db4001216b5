"""The keyed queue: which key is due, one pass at a time per key, several keys at once.

Invariants: a key is worked on by at most one caller of `get` at a time; a key that is added while it is worked on comes again
after it; a key added ten times before it is taken comes once. A failed key comes back after an exponential back-off with
jitter (seconds of a monotonic clock); any success resets it. It knows since when work waits and when anything last moved.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Backoff:
    """Seconds before the n-th retry of a key: base x 2^(n-1) up to `ceiling`, times a random factor in [1 - jitter, 1]."""

    def __init__(
        self, *, base: float = 0.2, ceiling: float = 60.0, jitter: float = 0.5, uniform: Callable[[], float] = random.random
    ) -> None:
        self._base = base
        self._ceiling = ceiling
        self._jitter = jitter
        self._uniform = uniform

    def seconds(self, failures: int) -> float:
        """`failures` in a row, from 1."""
        full = min(self._ceiling, self._base * 2.0 ** min(failures - 1, 60))
        return full * (1.0 - self._jitter * self._uniform())


class KeyedQueue(Generic[K]):
    """Used from one event loop. `monotonic` is the clock that everything here goes by."""

    def __init__(self, *, backoff: Backoff | None = None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._backoff = backoff or Backoff()
        self._monotonic = monotonic
        self._ready: OrderedDict[K, float] = OrderedDict()  # with the time since when each is due, as in the next three
        self._active: dict[K, float] = {}
        self._again: dict[K, float] = {}  # added while active
        self._unserved: dict[K, float] = {}  # failed: since when the pass that is to come was wanted
        self._failures: dict[K, int] = {}
        self._due: dict[K, float] = {}  # the earliest time that was asked for
        self._heap: list[tuple[float, int, K]] = []
        self._order = itertools.count()
        self._changed = asyncio.Event()
        self._closed = False
        self._moved_at = float("-inf")  # when a pass last ended

    def add(self, key: K) -> None:
        """Due now."""
        self._enqueue(key, self._monotonic())

    def add_after(self, key: K, seconds: float) -> None:
        """Due after `seconds`, or earlier when it is due earlier anyway."""
        if seconds <= 0:
            self.add(key)
            return
        due = self._monotonic() + seconds
        if key not in self._ready and due < self._due.get(key, float("inf")):
            self._due[key] = due
            heapq.heappush(self._heap, (due, next(self._order), key))
            self._changed.set()

    def failed(self, key: K, *, at_least_seconds: float = 0.0) -> float:
        """Count a failure and make the key due after its back-off; returns the seconds."""
        self._failures[key] = self._failures.get(key, 0) + 1
        if key in self._active:
            self._unserved[key] = self._active[key]
        seconds = max(at_least_seconds, self._backoff.seconds(self._failures[key]))
        self.add_after(key, seconds)
        return seconds

    def succeeded(self, key: K) -> None:
        self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        return self._failures.get(key, 0)

    async def get(self) -> K | None:
        """The next due key, which is then the caller's until `done`; None once the queue is closed."""
        while not self._closed:
            wait = self._promote()
            if self._ready:
                key, since = self._ready.popitem(last=False)
                self._active[key] = self._unserved.pop(key, since)
                return key
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), wait)
            except TimeoutError:
                continue
        return None

    def done(self, key: K) -> None:
        self._active.pop(key, None)
        self._moved_at = self._monotonic()
        if key in self._again:
            self._enqueue(key, self._again.pop(key))

    def close(self) -> None:
        """`get` answers None from now on."""
        self._closed = True
        self._changed.set()

    def __len__(self) -> int:
        return len(self._ready) + len(self._active) + len(self._due)

    # --- how it is ----------------------------------------------------------------------------------

    def wanted_seconds(self, key: K) -> float:
        """Since when the pass that is under way was wanted: its failed attempts count, its back-off too."""
        now = self._monotonic()
        return now - self._active.get(key, now)

    def depth(self) -> int:
        """Keys that are due and wait for a worker."""
        self._promote()
        return len(self._ready)

    def oldest_seconds(self) -> float:
        """How long the oldest of them has waited; 0 when none does."""
        self._promote()
        now = self._monotonic()
        return now - min(self._ready.values(), default=now)

    def still_seconds(self) -> float:
        """For how long work has been due without a pass coming to its end; 0 when none is due."""
        oldest = self.oldest_seconds()
        return min(oldest, self._monotonic() - self._moved_at) if oldest else 0.0

    def _enqueue(self, key: K, since: float) -> None:
        self._due.pop(key, None)
        (self._again if key in self._active else self._ready).setdefault(key, since)
        self._changed.set()

    def _promote(self) -> float | None:
        """Move what is due to the ready ones; seconds until the next one is, None when nothing waits."""
        now = self._monotonic()
        while self._heap:
            due, _, key = self._heap[0]
            if self._due.get(key) != due:  # overtaken by an earlier wish
                heapq.heappop(self._heap)
            elif due <= now:
                heapq.heappop(self._heap)
                self._enqueue(key, due)
            else:
                return due - now
        return None
