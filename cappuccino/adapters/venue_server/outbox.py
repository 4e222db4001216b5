"""What is sent to one websocket, in order, without anyone waiting for its reader."""

from __future__ import annotations

import asyncio
from types import TracebackType

from aiohttp import web

LIMIT = 20_000  # messages a reader may be behind before it is let go: streams do not replay, it must ask REST


class Outbox:
    """Used as a context: inside it a task writes, and `everyone` has it; a reader that falls too far behind is disconnected."""

    def __init__(self, socket: web.WebSocketResponse, everyone: set[Outbox]) -> None:
        self._socket = socket
        self._everyone = everyone
        self._queue: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._writer: asyncio.Task[None] | None = None
        self._cut = False

    def put(self, message: str | bytes) -> None:
        if self._queue.qsize() < LIMIT:
            self._queue.put_nowait(message)
        elif self._writer is not None:
            self._writer.cancel()

    def close(self) -> None:
        """Disconnect once everything before has been sent."""
        self._queue.put_nowait(None)

    def cut(self) -> None:
        """Disconnect now; what waits is lost."""
        self._cut = True
        if self._writer is not None:
            self._writer.cancel()

    async def __aenter__(self) -> Outbox:
        self._writer = asyncio.create_task(self._write())
        self._everyone.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._writer is not None
        self._everyone.discard(self)
        self._writer.cancel()
        await asyncio.gather(self._writer, return_exceptions=True)

    async def _write(self) -> None:
        try:
            while (message := await self._queue.get()) is not None:
                if isinstance(message, str):
                    await self._socket.send_str(message)
                else:
                    await self._socket.send_bytes(message)
            await self._socket.close()
        except (ConnectionError, RuntimeError):
            return  # the reader has gone; its handler ends by itself
        except asyncio.CancelledError:
            if not self._socket.closed and self._cut:
                await self._socket.close(code=1011)
            elif not self._socket.closed and self._queue.qsize() >= LIMIT:
                await self._socket.close(code=1013, message=b"too slow")
            raise


OUTBOXES = web.AppKey("outboxes", set[Outbox])
