"""Connections that several accounts have together are handed on in the order in which they were asked for."""

from __future__ import annotations

import threading
import time

from cappuccino.adapters.alpaca.rest import _Turns

REQUESTS = 4


def test_nobody_sends_a_second_request_before_all_that_wait_have_sent_their_first() -> None:
    turns, came, sent = _Turns(1), threading.Barrier(3), []

    def send(name: str) -> None:
        came.wait()
        for _ in range(REQUESTS):
            with turns:
                sent.append(name)
                while len(turns._waiting) < 2 and sent.count(name) < REQUESTS and len(set(sent)) < 3:
                    time.sleep(0.001)

    threads = [threading.Thread(target=send, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(set(sent[:3])) == 3
    assert sorted(sent) == sorted("abc" * REQUESTS)


def test_as_many_as_there_are_places_are_in_at_once() -> None:
    turns = _Turns(2)
    with turns, turns:
        third = threading.Thread(target=lambda: turns.__enter__())
        third.start()
        third.join(0.05)
        assert third.is_alive()
    third.join(10)
    assert not third.is_alive()
