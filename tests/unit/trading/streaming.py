"""A market that does not wait: its time passes while somebody waits, quotes stream all the while, bars close by the clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from cappuccino.core.clock import from_epoch, to_epoch
from cappuccino.exchange.commands import Advance
from cappuccino.trading.ports import Event, Quote, Stop, Tick

from .builders import HOUR, Venue, _at

GRACE = timedelta(seconds=5)
RENEW_SECONDS = 4.0  # of the lease


@dataclass
class StreamingVenue(Venue):
    """`at`: what happens at a market time, once. `quoted`: bid and ask where they are not the tape's price."""

    lockstep: bool = False
    quote_seconds: float = 10.0
    silent: set[str] = field(default_factory=set)  # symbols that the stream does not quote
    quoted: dict[str, tuple[Decimal, Decimal]] = field(default_factory=dict)
    at: dict[datetime, Callable[[], None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._origin = _at(self.exchange.tick.at_us) - timedelta(seconds=self.time.now)
        self._quote_due = self._renewal_due = self.time.now
        self._closes = self._next_close()

    @property
    def clock(self) -> datetime:
        return self._origin + timedelta(seconds=self.time.now)

    def _next_close(self) -> datetime:
        return from_epoch(to_epoch(self.clock) // HOUR * HOUR + HOUR)

    def now(self) -> datetime:
        self._read("clock")
        return self.clock

    def start(self) -> None: ...

    def next(self, timeout_seconds: float) -> Event | None:
        if not self.inbox:
            until = self.time.now + max(timeout_seconds, 0.001)
            while not self.inbox and self.time.now < until:
                self.time.now = max(min(until, self._quote_due, self._renewal_due), self.time.now)
                self._pass()
        return self.inbox.popleft() if self.inbox else None

    def _pass(self) -> None:
        """What has happened until now."""
        tape = self.exchange.tape
        while not self.exchange.ended and _at(self.exchange.tick.at_us) < self.clock:
            number = self.exchange.tick.number + 1
            if number < len(tape) and _at(tape.tick(number).at_us) > self.clock:
                break
            self._advance()
        for when in sorted(when for when in self.at if when <= self.clock):
            self.at.pop(when)()
        if self.time.now >= self._renewal_due:
            self._renewal_due = self.time.now + RENEW_SECONDS
            self.renew()
        if self.time.now >= self._quote_due:
            self._quote_due = self.time.now + self.quote_seconds
            self.inbox.extend(self._quote(s) for s in self.exchange.tape.symbols if s not in self.silent)
        if self.clock >= self._closes + GRACE:
            tick = Tick(at=self._closes, bar_closed=True, age_seconds=(self.clock - self._closes).total_seconds())
            self._closes = self._next_close()
            self.ticks.append(tick)
            self.inbox.append(tick)

    def _advance(self) -> None:
        self._tell(self.exchange.apply(Advance()).events)
        if self.exchange.ended:
            self.inbox.append(Stop(reason="ended", finished=True))

    def done(self, tick: Tick, *, until: datetime | None) -> None: ...

    def _quote(self, symbol: str) -> Quote:
        price = self.exchange.price(symbol)
        bid, ask = self.quoted.get(symbol, (price, price))
        return Quote(symbol=symbol, bid=bid, ask=ask, at=self.clock)
