"""What trading costs against what its bundle was trained with: slippage, fee and delay, over the newest orders.

One order is one observation, all its executions together: they share its luck.

    slippage  average price of its executions against the venue's mid when it was made, against us; bps
    fee       of the units bought where it is taken in units, else of the value; bps. Where the venue does not say it, what
              the book was charged by the schedule
    delay     of a decision's order: from the close of its bar to its last execution; seconds of market time. The model
              fills at that close
    excess    (slippage - the model's for the symbol) + (fee - the model's); bps of every order's value

`excess_low_bps` is the one-sided lower confidence bound of the mean excess, mean - t s / sqrt(n) with Student's t at
CONFIDENCE and n - 1 degrees of freedom (Abramowitz and Stegun 26.7.5), and is not given below MINIMUM orders. The confidence
is high because it is looked at again after every order. Orders of one instant are treated as independent.

Orders made without a quote say nothing about slippage and are left out. Pure; statistics are floats, no money is counted here.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from statistics import NormalDist, fmean

from cappuccino.core.clock import parse_iso
from cappuccino.exchange.venue import Costs
from cappuccino.trading.book import Fill
from cappuccino.trading.orders import ENTRY_REASON

WINDOW = 200  # orders
MINIMUM = 20  # orders
CONFIDENCE = 0.999
BPS = 10_000


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Means over `orders` orders. Bounds and delay are None where there is too little to go by."""

    orders: int
    slippage_bps: float
    modelled_slippage_bps: float
    fee_bps: float
    modelled_fee_bps: float
    excess_bps: float
    excess_low_bps: float | None
    delay_seconds: float | None

    def beyond(self, threshold_bps: float) -> bool:
        """Whether trading costs more than modelled by over `threshold_bps`, with confidence."""
        return self.excess_low_bps is not None and self.excess_low_bps > threshold_bps


@dataclass(frozen=True, kw_only=True)
class _Order:
    """Executed so far. fee: in the fills' fee asset. The rest is as the module's docstring has it."""

    qty: Decimal
    value: Decimal
    fee: Decimal
    slippage_bps: float
    modelled_slippage_bps: float
    fee_bps: float
    delay_seconds: float | None


class DriftMeter:
    """Counts executions; forgets all but the newest `window` orders."""

    def __init__(self, costs: Costs, *, bar_seconds: int, window: int = WINDOW) -> None:
        """`costs`: the bundle's. `bar_seconds`: of its bars."""
        self._costs = costs
        self._bar = timedelta(seconds=bar_seconds)
        self._window = window
        self._orders: OrderedDict[str, _Order] = OrderedDict()

    def count(self, fill: Fill, *, decision: str, reason: str, quote_price: Decimal | None) -> None:
        """One execution; the rest is of its order's intent."""
        if quote_price is None or quote_price <= 0:
            return
        before = self._orders.get(fill.client_order_id)
        qty, value, fee = fill.qty, fill.qty * fill.price, fill.fee
        if before is not None:
            qty, value, fee = qty + before.qty, value + before.value, fee + before.fee
        buys = fill.side == "buy"
        away = float(value / qty / quote_price - 1) * BPS
        delay = None
        if reason == ENTRY_REASON:
            delay = (fill.filled_at - parse_iso(decision) - self._bar).total_seconds()
        self._orders[fill.client_order_id] = _Order(
            qty=qty,
            value=value,
            fee=fee,
            slippage_bps=away if buys else -away,
            modelled_slippage_bps=self._costs.slippage(fill.symbol) * BPS,
            fee_bps=float(fee / (qty if fill.fee_in_units else value)) * BPS,
            delay_seconds=delay,
        )
        if len(self._orders) > self._window:
            self._orders.popitem(last=False)

    def drift(self) -> Drift | None:
        """None before the first order."""
        orders = list(self._orders.values())
        if not orders:
            return None
        excess = [each.slippage_bps - each.modelled_slippage_bps + each.fee_bps - self._costs.fee_bps for each in orders]
        delays = [each.delay_seconds for each in orders if each.delay_seconds is not None]
        return Drift(
            orders=len(orders),
            slippage_bps=fmean(each.slippage_bps for each in orders),
            modelled_slippage_bps=fmean(each.modelled_slippage_bps for each in orders),
            fee_bps=fmean(each.fee_bps for each in orders),
            modelled_fee_bps=self._costs.fee_bps,
            excess_bps=fmean(excess),
            excess_low_bps=_lower_bound(excess) if len(excess) >= MINIMUM else None,
            delay_seconds=fmean(delays) if delays else None,
        )


def _lower_bound(values: Sequence[float]) -> float:
    count, mean = len(values), fmean(values)
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    return mean - student_t(CONFIDENCE, count - 1) * math.sqrt(variance / count)


def student_t(confidence: float, degrees: int) -> float:
    """The quantile of Student's t, to about 1e-3 from ten degrees of freedom on."""
    z, v = NormalDist().inv_cdf(confidence), float(degrees)
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    )
