"""The one way into the exchange: apply, journal, make durable, tell.

Commands are applied in the order in which they arrive on the event loop, and their events are told in that same order, after
the journal has them. A failing disk is fatal: an exchange that cannot keep its book must not go on, so `broken` is set and
whoever serves ends the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from cappuccino.adapters.venue_server.journal import Journal
from cappuccino.core.errors import IntegrityError, InvariantViolation
from cappuccino.exchange.commands import Advance, Command, decode, encode
from cappuccino.exchange.orders import Event, Refused
from cappuccino.exchange.simulator import Outcome, SimulatedExchange

Listener = Callable[[Event], None]


class Desk:
    """`exchange` is read freely and changed only by `execute` and `advance`."""

    def __init__(self, exchange: SimulatedExchange, journal: Journal) -> None:
        self.exchange = exchange
        self._journal = journal
        self._listeners: list[Listener] = []
        self.broken = asyncio.Event()
        self.error: BaseException | None = None
        for number, line in enumerate(journal.replay(), start=2):
            self._replay(line, number)
        self.replayed_to = exchange.tick.number

    def _replay(self, line: Any, number: int) -> None:
        try:
            self.exchange.apply(decode(line))
        except (KeyError, IndexError, TypeError, ValueError, ArithmeticError, Refused) as error:
            raise IntegrityError(
                f"journal line {number} cannot be replayed ({error}): restore the file or name another"
            ) from error

    def listen(self, listener: Listener) -> None:
        """`listener` is told every event that is durable, in order."""
        self._listeners.append(listener)

    async def execute(self, command: Command) -> Outcome:
        """Raises Refused; then nothing has changed. Returns when the command is durable."""
        self._alive()
        outcome = self.exchange.apply(command)
        await self._keep(command, durable=True)
        self._tell(outcome)
        return outcome

    async def advance(self) -> None:
        """One tick. It waits for the disk only when somebody was filled: ticks alone are told again after a restart."""
        self._alive()
        outcome = self.exchange.apply(Advance())
        await self._keep(Advance(), durable=bool(outcome.events))
        self._tell(outcome)

    def fail(self, error: BaseException) -> None:
        """The exchange cannot go on; the first error is the one that is told."""
        self.error = self.error or error
        self.broken.set()

    def _alive(self) -> None:
        if self.error is not None:
            raise InvariantViolation(f"the exchange stopped: {self.error}")

    async def _keep(self, command: Command, *, durable: bool) -> None:
        try:
            self._journal.append(encode(command))
            if durable:
                await self._journal.durable()
        except OSError as error:
            self.fail(error)
            raise InvariantViolation(
                f"the exchange's journal cannot be written ({error}): free the disk and restart"
            ) from error

    def _tell(self, outcome: Outcome) -> None:
        for event in outcome.events:
            for listener in self._listeners:
                listener(event)
