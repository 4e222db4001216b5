"""Portfolio heat: what is lost if every open position is sold at its stop.

    heat = sum over positions of  qty x max(0, price - level)

`level` is where the position's barriers would sell it now (stop-loss, or the trail once it is armed); 0 without one, so
that a position without a stop is at risk as a whole. The limit is a fraction of equity. This is the total open risk of
fixed-fractional sizing: A. Elder, Come Into My Trading Room (2002), whose "6 % rule" bounds it for a month, and V. Tharp,
Trade Your Way to Financial Freedom (1998). Gaps, slippage and fees are not in it: a stop that gaps loses more.

A buy of notional n at price p moves the average entry to it. Against the stop-loss s alone (a trail may disarm when
the entry rises) the symbol's risk becomes  qty (p - (1 - s) entry) + s n: linear in n, and an upper bound.
"""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from cappuccino.core.money import ZERO, dec
from cappuccino.risk.barriers import Barriers, exit_level


def at_risk(*, qty: Decimal, price: Decimal, entry: Decimal, peak: Decimal, barriers: Barriers) -> Decimal:
    """What one position loses at its barriers' level, quote currency."""
    level, _ = exit_level(np, entry=np.float64(entry), peak=np.float64(peak), barriers=barriers)
    return qty * max(ZERO, price - dec(float(level)))


def at_risk_to_stop(*, qty: Decimal, price: Decimal, entry: Decimal, barriers: Barriers) -> Decimal:
    """What one position loses at its stop-loss, its trail not counted."""
    return qty * max(ZERO, price - entry * (1 - stop_fraction(barriers)))


def stop_fraction(barriers: Barriers) -> Decimal:
    """Share of a buy that is at risk: all of it without a stop-loss."""
    return Decimal(1) if barriers.stop is None else dec(barriers.stop)
