"""What moves the clock: in lockstep the sessions' consent, in free running the wall's time.

Lockstep: a tick is told to the joined sessions, and the next one comes when all of these have acknowledged it. A session that
said `until` is neither told nor waited for before that instant. A joined session without a connection is waited for until it
joins again or leaves; that it joined is in the journal, so this holds over a restart of the exchange too. With nobody joined
the clock stands still. `speed` is the largest number of bars per wall second (0: no limit); free running needs one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cappuccino.adapters.venue_server.desk import Desk
from cappuccino.adapters.venue_server.outbox import Outbox
from cappuccino.exchange.commands import Join, Leave, Start
from cappuccino.exchange.tape import MICROSECONDS

LARGEST_LAG_SECONDS = 1.0  # what a slow stretch may be made up for; more is let go
ENDED = json.dumps({"ended": True})


@dataclass(slots=True)
class _Session:
    outbox: Outbox | None = None
    acknowledged: int = -1
    until_us: int = 0


class Metronome:
    """Args: `publish` tells the market data of the present tick, before the sessions hear of it. `start_with`: sessions with
    which the clock starts by itself, 0: only when told."""

    def __init__(self, desk: Desk, *, publish: Callable[[], None], speed: float, free: bool, start_with: int = 0) -> None:
        self._desk = desk
        self._exchange = desk.exchange
        self._publish = publish
        self.speed = speed
        self.free = free
        self._start_with = start_with
        self._sessions: dict[str, _Session] = {name: _Session() for name in self._exchange.joined}
        self._waiting: set[str] = set()
        self._changed = asyncio.Event()
        self._due = 0.0
        self._announced = -1

    # --- the sessions' side ----------------------------------------------------------------------

    async def start(self) -> None:
        if not self._exchange.started:
            await self._desk.execute(Start())
        self._changed.set()

    async def join(self, account: str, outbox: Outbox) -> None:
        """Raises Refused for an unknown account. A connection that had joined for it before is closed."""
        if account not in self._exchange.joined:
            await self._desk.execute(Join(account=account))
        session = self._sessions.setdefault(account, _Session())
        if session.outbox is not None and session.outbox is not outbox:
            session.outbox.put(json.dumps({"error": f"account {account} joined from another connection", "account": account}))
            if not any(other.outbox is session.outbox for other in self._sessions.values() if other is not session):
                session.outbox.close()
        session.outbox, session.acknowledged, session.until_us = outbox, -1, 0
        if self._exchange.ended:
            outbox.put(ENDED)
        elif self._announced == self._exchange.tick.number:
            self._waiting.add(account)
            outbox.put(self._message())
        self._changed.set()

    def acknowledge(self, account: str, outbox: Outbox, number: int, until_us: int) -> None:
        """An old tick's acknowledgement, or one from a connection that was replaced, changes nothing."""
        session = self._sessions.get(account)
        if session is not None and session.outbox is outbox and number == self._exchange.tick.number:
            session.acknowledged, session.until_us = number, until_us
            self._waiting.discard(account)
            if not self._waiting:
                self._changed.set()

    async def leave(self, account: str) -> None:
        if account in self._exchange.joined:
            await self._desk.execute(Leave(account=account))
        self._sessions.pop(account, None)
        self._waiting.discard(account)
        self._changed.set()

    def lost(self, account: str, outbox: Outbox) -> None:
        session = self._sessions.get(account)
        if session is not None and session.outbox is outbox:
            session.outbox = None

    def sessions(self) -> list[dict[str, Any]]:
        """Who joined, who is connected, and whom the clock waits for."""
        return [
            {"account": name, "connected": session.outbox is not None, "waited_for": name in self._waiting}
            for name, session in self._sessions.items()
        ]

    # --- the clock's side ------------------------------------------------------------------------

    async def run(self) -> None:
        """Until the tape ends. The clock of an exchange that is restarted goes on at the tick at which it was."""
        while not self._exchange.started:
            if self._start_with and len(self._sessions) >= self._start_with:
                await self._desk.execute(Start())
                break
            await self._change()
        self._due = asyncio.get_running_loop().time()
        while not self._exchange.ended:
            self._announce()
            await self._everyone()
            await self._pace()
            await self._desk.advance()
        for outbox in {session.outbox for session in self._sessions.values() if session.outbox is not None}:
            outbox.put(ENDED)

    def _announce(self) -> None:
        tick = self._exchange.tick
        self._publish()
        message = self._message()
        self._announced = tick.number
        told: set[Outbox] = set()  # a connection that joined for several accounts is told once
        for name, session in self._sessions.items():
            if tick.at_us >= session.until_us:
                self._waiting.add(name)
                if session.outbox is not None and session.outbox not in told:
                    told.add(session.outbox)
                    session.outbox.put(message)

    def _message(self) -> str:
        tick = self._exchange.tick
        whole, rest = divmod(tick.at_us, MICROSECONDS)
        at = whole if rest == 0 else tick.at_us / MICROSECONDS
        return json.dumps({"tick": tick.number, "at": at, "bar_closed": tick.bar_closed})

    async def _everyone(self) -> None:
        if self.free:
            self._waiting.clear()
            return
        while self._waiting or not self._sessions:
            await self._change()
        await asyncio.sleep(0)  # a stretch without anyone to wait for must not starve requests

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _pace(self) -> None:
        if not self.speed:
            return
        tape, tick = self._exchange.tape, self._exchange.tick
        ticks = tape.tick_count(tick.bar) if tick.bar < len(tape.bars.ts) else 1
        now = asyncio.get_running_loop().time()
        self._due = max(self._due + 1 / self.speed / ticks, now - LARGEST_LAG_SECONDS)
        if self._due > now:
            await asyncio.sleep(self._due - now)
