"""What a fill costs when the venue does not say: the published taker schedule.

The rule of one fill is `exchange.venue.fee_taken`; here is the tier, which follows the account's own volume of the last
30 days of market time, before the fill.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal

from cappuccino.core.money import ZERO
from cappuccino.exchange.venue import fee_taken, fee_tier
from cappuccino.trading.book import Fill
from cappuccino.trading.orders import Execution, Side

_WINDOW = timedelta(days=30)


class FeeSchedule:
    """Charges executions in their order; remembers the volume that decides the tier."""

    def __init__(self, increments: Mapping[str, Decimal], *, taker_bps: Decimal | None = None) -> None:
        """`taker_bps` pins the fee; None follows the venue's tiers."""
        self._increments = increments
        self._pinned = taker_bps
        self._volume: deque[tuple[datetime, Decimal]] = deque()
        self._total = ZERO

    def fill(self, execution: Execution, *, client_order_id: str, symbol: str, side: Side) -> Fill:
        """The execution with its fee."""
        base, _, quote = symbol.partition("/")
        fee = execution.fee if execution.fee is not None else self._charge(execution, symbol, side)
        fill = Fill(
            execution_id=execution.execution_id,
            client_order_id=client_order_id,
            symbol=symbol,
            side=side,
            qty=execution.qty,
            price=execution.price,
            fee=fee,
            fee_asset=execution.fee_asset or (base if side == "buy" else quote),
            filled_at=execution.at,
        )
        self.count(fill)
        return fill

    def count(self, fill: Fill) -> None:
        """A fill that was charged before, from the journal."""
        value = fill.qty * fill.price
        self._volume.append((fill.filled_at, value))
        self._total += value

    def _charge(self, execution: Execution, symbol: str, side: Side) -> Decimal:
        while self._volume and execution.at - self._volume[0][0] >= _WINDOW:
            self._total -= self._volume.popleft()[1]
        bps = self._pinned if self._pinned is not None else fee_tier(self._total).taker_bps
        return fee_taken(side=side, qty=execution.qty, price=execution.price, fee_bps=bps, increment=self._increments[symbol])
