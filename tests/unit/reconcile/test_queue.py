"""The keyed queue."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappuccino.reconcile.queue import Backoff, KeyedQueue


def queue(**options: Any) -> KeyedQueue[str]:
    return KeyedQueue(backoff=Backoff(base=0.01, ceiling=0.05, jitter=0.0), **options)


async def nothing_is_due(queue: KeyedQueue[str], *, within_seconds: float = 0.02) -> bool:
    waiting = asyncio.ensure_future(queue.get())
    done, _ = await asyncio.wait({waiting}, timeout=within_seconds)
    waiting.cancel()
    return not done


async def test_a_key_added_many_times_comes_once() -> None:
    keys = queue()
    for _ in range(5):
        keys.add("a")
    keys.add("b")
    assert [await keys.get(), await keys.get()] == ["a", "b"]
    assert await nothing_is_due(keys)


async def test_a_key_is_with_one_worker_at_a_time_and_comes_again_when_added_meanwhile() -> None:
    keys = queue()
    keys.add("a")
    assert await keys.get() == "a"
    keys.add("a")
    keys.add("a")
    assert await nothing_is_due(keys)
    keys.done("a")
    assert await keys.get() == "a"
    keys.done("a")
    assert await nothing_is_due(keys)


async def test_a_key_comes_after_its_delay_and_the_earlier_of_two_wishes_counts() -> None:
    keys, loop = queue(), asyncio.get_running_loop()
    began = loop.time()
    keys.add_after("a", 5.0)
    keys.add_after("a", 0.05)
    keys.add_after("a", 9.0)
    assert await keys.get() == "a"
    assert 0.045 <= loop.time() - began < 4.0
    keys.done("a")
    assert await nothing_is_due(keys)


async def test_adding_a_key_now_cancels_its_later_wish() -> None:
    keys = queue()
    keys.add_after("a", 0.03)
    keys.add("a")
    assert await keys.get() == "a"
    keys.done("a")
    assert await nothing_is_due(keys, within_seconds=0.06)


async def test_failures_back_off_further_each_time_until_a_success() -> None:
    keys = queue()
    assert [keys.failed("a") for _ in range(5)] == [0.01, 0.02, 0.04, 0.05, 0.05]
    assert keys.failed("b") == 0.01
    assert keys.failed("b", at_least_seconds=3.0) == 3.0
    keys.succeeded("a")
    assert keys.failed("a") == 0.01


@given(failures=st.integers(1, 10_000), drawn=st.floats(0, 1))
def test_a_back_off_is_positive_and_below_its_ceiling(failures: int, drawn: float) -> None:
    seconds = Backoff(base=0.2, ceiling=60.0, jitter=0.5, uniform=lambda: drawn).seconds(failures)
    assert 0.1 <= seconds <= 60.0


async def test_a_closed_queue_sends_its_workers_home() -> None:
    keys = queue()
    workers = [asyncio.ensure_future(keys.get()) for _ in range(3)]
    await asyncio.sleep(0)
    keys.close()
    assert await asyncio.gather(*workers) == [None, None, None]


@pytest.mark.parametrize("workers", [1, 3])
async def test_under_load_no_key_is_worked_on_twice_at_once_and_the_last_wish_is_served(workers: int) -> None:
    keys, active, served = queue(), set[str](), dict[str, int]()
    wished = dict.fromkeys("abcde", 0)

    async def work() -> None:
        while (key := await keys.get()) is not None:
            assert key not in active
            active.add(key)
            seen = wished[key]
            await asyncio.sleep(0)
            served[key] = seen
            active.discard(key)
            keys.done(key)

    tasks = [asyncio.create_task(work()) for _ in range(workers)]
    for round_ in range(1, 50):
        for key in wished:
            wished[key] = round_
            keys.add(key)
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        while len(keys):
            await asyncio.sleep(0)
    keys.close()
    await asyncio.gather(*tasks)
    assert served == wished
