"""What the queue knows of itself: how much waits, for how long, and whether anything moves. On a clock that is set."""

from __future__ import annotations

from cappuccino.reconcile.queue import Backoff, KeyedQueue


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def queue(clock: Clock) -> KeyedQueue[str]:
    return KeyedQueue(backoff=Backoff(base=5.0, ceiling=5.0, jitter=0.0), monotonic=clock)


async def test_work_that_waits_while_no_pass_ends_stands_still() -> None:
    clock = Clock()
    keys = queue(clock)
    keys.add("a")
    keys.add("b")
    assert await keys.get() == "a"
    clock.now += 59
    assert keys.still_seconds() == 59
    clock.now += 2
    assert keys.still_seconds() == 61


async def test_work_that_waits_long_behind_passes_that_end_does_not_stand_still() -> None:
    clock = Clock()
    keys = queue(clock)
    for n in range(100):
        keys.add(f"key-{n}")
    for _ in range(99):
        key = await keys.get()
        assert key is not None
        clock.now += 10
        keys.done(key)
        assert keys.still_seconds() == 0
    assert keys.oldest_seconds() == 990
    clock.now += 61
    assert keys.still_seconds() == 61


async def test_nothing_stands_still_while_all_work_is_delayed_or_under_way() -> None:
    clock = Clock()
    keys = queue(clock)
    keys.add_after("later", 1000)
    keys.add("long")
    assert await keys.get() == "long"
    clock.now += 900
    assert (keys.still_seconds(), keys.depth(), keys.oldest_seconds()) == (0, 0, 0)


async def test_delayed_work_waits_from_when_it_is_due_although_nobody_asks_for_it() -> None:
    clock = Clock()
    keys = queue(clock)
    keys.add_after("a", 10)
    clock.now += 75
    assert (keys.depth(), keys.oldest_seconds(), keys.still_seconds()) == (1, 65, 65)


async def test_a_pass_was_wanted_since_the_change_that_its_failed_attempts_saw() -> None:
    clock = Clock()
    keys = queue(clock)
    keys.add("a")
    clock.now += 1
    assert await keys.get() == "a"
    keys.failed("a")
    keys.done("a")
    clock.now += 6
    assert await keys.get() == "a"
    clock.now += 0.5
    assert keys.wanted_seconds("a") == 7.5
    keys.succeeded("a")
    keys.done("a")
    keys.add("a")
    assert await keys.get() == "a"
    assert keys.wanted_seconds("a") == 0


async def test_a_change_during_a_pass_is_wanted_since_it_came() -> None:
    clock = Clock()
    keys = queue(clock)
    keys.add("a")
    assert await keys.get() == "a"
    clock.now += 3
    keys.add("a")
    clock.now += 2
    keys.succeeded("a")
    keys.done("a")
    assert await keys.get() == "a"
    assert keys.wanted_seconds("a") == 2
