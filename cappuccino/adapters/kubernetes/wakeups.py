"""Keys for whoever watches: everything there is at first, then what changes. Nothing is lost; a key may repeat."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable

from cappuccino.controllers.decision import Key


class Wakeups:
    """`present` tells the keys of what is there when a watch begins."""

    def __init__(self, present: Callable[[], Iterable[Key]]) -> None:
        self._present = present
        self._queues: list[asyncio.Queue[Key]] = []

    def tell(self, keys: Iterable[Key]) -> None:
        for key in keys:
            for queue in self._queues:
                queue.put_nowait(key)

    async def watch(self) -> AsyncIterator[Key]:
        queue: asyncio.Queue[Key] = asyncio.Queue()
        self._queues.append(queue)
        try:
            for key in list(self._present()):
                yield key
            while True:
                yield await queue.get()
        finally:
            self._queues.remove(queue)
