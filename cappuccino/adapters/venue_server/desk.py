"""The one way into the exchange: apply, journal, make durable, tell. Faults of the plan befall it here.

Commands are applied in the order in which they arrive on the event loop, and their events are told in that same order, after
the journal has them. A failing disk is fatal: an exchange that cannot keep its book must not go on, so `broken` is set and
whoever serves ends the process. A fault is in the journal before it has any effect.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from cappuccino.adapters.venue_server.journal import Journal
from cappuccino.core.errors import IntegrityError, InvariantViolation
from cappuccino.exchange.commands import Advance, Command, Submit, decode, encode
from cappuccino.exchange.faults import Fault, Faults, Incident, Operation, Plan
from cappuccino.exchange.orders import Event, Refused
from cappuccino.exchange.simulator import Outcome, SimulatedExchange

Listener = Callable[[Event], None]


class Desk:
    """`exchange` is read freely and changed only by `execute`, `advance` and `strike`. `absorbed`: how often an order was sent
    again under the same client order id since this process began, by that id."""

    def __init__(self, exchange: SimulatedExchange, journal: Journal, *, plan: Plan = Plan()) -> None:  # noqa: B008 frozen
        self.exchange = exchange
        self._journal = journal
        self._listeners: list[Listener] = []
        self.absorbed = Counter[str]()
        self._later: set[asyncio.Task[None]] = set()
        self.broken = asyncio.Event()
        self.error: BaseException | None = None
        number = 1
        for number, line in enumerate(journal.replay(), start=2):
            self._replay(line, number)
        self._faults = Faults(plan, symbols=exchange.tape.symbols, start=number)

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
        if isinstance(command, Submit):
            command = self._distort(command)
        try:
            outcome = self.exchange.apply(command)
        except Refused as refused:
            if isinstance(command, Submit) and refused.reason == "duplicate_client_order_id":
                self.absorbed[command.request.client_order_id] += 1
            raise
        await self._keep(command, durable=True)
        self._tell(outcome)
        return outcome

    async def advance(self) -> None:
        """One tick. It waits for the disk only when somebody was filled: ticks alone are told again after a restart."""
        self._alive()
        outcome = self.exchange.apply(Advance())
        await self._keep(Advance(), durable=bool(outcome.events))
        self._tell(outcome)
        if not self.undisturbed:
            self.strike("tick", "")
            for name in self.exchange.accounts:
                self.strike("book", name)

    # --- faults ----------------------------------------------------------------------------------

    @property
    def plan(self) -> Plan:
        """What is still to go wrong."""
        return self._faults.plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self._faults.plan = plan

    @property
    def undisturbed(self) -> bool:
        return not self._faults.plan

    def later(self, request: Coroutine[None, None, None]) -> None:
        """Carry out a request whose sender has gone."""
        task = asyncio.create_task(request)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    def strike(self, operation: Operation, account: str, *, subject: str = "") -> Fault | None:
        """The fault that befalls this opportunity; what it does to the book is done. One that cannot be is none."""
        fault = self._faults.at(operation, account)
        if fault is None:
            return None
        tick = self.exchange.tick
        incident = Incident(
            fault=fault, operation=operation, account=account, subject=subject, tick=tick.number, at_us=tick.at_us
        )
        try:
            self.exchange.apply(incident)
        except Refused:
            return None
        self._append(incident)
        return fault

    def _distort(self, command: Submit) -> Submit:
        """Raises Refused."""
        request = command.request
        fault = self.strike("order", command.account, subject=request.client_order_id)
        if fault is None:
            return command
        if fault.kind == "rejected_size":
            raise Refused("below_minimum", f"quantity of {request.symbol} is below the minimal order size today")
        return replace(command, share=fault.share)

    # --- the book --------------------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """The exchange cannot go on; the first error is the one that is told."""
        self.error = self.error or error
        self.broken.set()

    def _alive(self) -> None:
        if self.error is not None:
            raise InvariantViolation(f"the exchange stopped: {self.error}")

    async def _keep(self, command: Command, *, durable: bool) -> None:
        self._append(command)
        if durable:
            try:
                await self._journal.durable()
            except OSError as error:
                raise self._unwritten(error) from error

    def _append(self, command: Command) -> None:
        try:
            self._journal.append(encode(command))
        except OSError as error:
            raise self._unwritten(error) from error

    def _unwritten(self, error: OSError) -> InvariantViolation:
        self.fail(error)
        return InvariantViolation(f"the exchange's journal cannot be written ({error}): free the disk and restart")

    def _tell(self, outcome: Outcome) -> None:
        for event in outcome.events:
            for listener in self._listeners:
                listener(event)
