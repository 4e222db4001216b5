"""What arrives for one session, in its order, from any number of threads.

Of a symbol's quotes only the newest waits: a session that is behind looks at the market as it is, and is woken once for each
symbol. In lockstep that loses nothing, since the next tick waits for the session.
"""

from __future__ import annotations

import queue
import threading

from cappuccino.trading.ports import Event, Quote


class Inbox:
    """Thread-safe for many writers and one reader."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Event | str] = queue.SimpleQueue()
        self._quotes: dict[str, Quote] = {}  # by symbol; each has its place in the queue
        self._lock = threading.Lock()

    def put(self, event: Event) -> None:
        if isinstance(event, Quote):
            with self._lock:
                waiting = event.symbol in self._quotes
                self._quotes[event.symbol] = event
            if not waiting:
                self._queue.put(event.symbol)
        else:
            self._queue.put(event)

    def get(self, timeout_seconds: float) -> Event | None:
        """The next event, None when none came in time."""
        try:
            event = self._queue.get(timeout=max(timeout_seconds, 0.0))
        except queue.Empty:
            return None
        if isinstance(event, str):
            with self._lock:
                return self._quotes.pop(event)
        return event
