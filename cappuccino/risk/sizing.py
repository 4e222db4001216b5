"""From an action to the orders it asks for. The same functions serve every engine.

Shapes: the last axis is the symbol, [..., N]; `equity` and `cash` are [...]. `xp` is numpy or torch.

Rules (docs/architecture.md):
- an action is a target weight: a > 0.1 -> max_weight * a of equity at the decision; a < -0.1 -> 0; else hold;
- actions are quantised to 1/128, so that float32 and decimal engines decide alike;
- a change below max(1.1 x venue minimum, 2 % of equity) is skipped; a close only below 1.1 x venue minimum,
  so that a shrunken position can still be closed;
- what drifted above max_weight is not sold: a reduction is measured from min(current, max_weight);
- sells go first; then all buys shrink by one factor to fit the cash less 1 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Array = Any  # numpy.ndarray or torch.Tensor

QUANTUM = 128
MINIMUM_MARGIN = 1.1


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """Weights are fractions of equity. Part of a bundle: training and serving read the same one."""

    max_weight: float = 0.30
    dead_zone: float = 0.10
    min_change: float = 0.02
    cash_buffer: float = 0.01


def quantise(xp: Any, action: Array) -> Array:
    """`action` clipped to [-1, 1] and rounded to 1/128."""
    return xp.round(xp.clip(action, -1.0, 1.0) * QUANTUM) / QUANTUM


def decode(xp: Any, action: Array, sizing: Sizing) -> tuple[Array, Array]:
    """Action in [-1, 1] -> (target weight [..., N], hold mask [..., N])."""
    quantised = quantise(xp, action)
    target = xp.where(quantised > sizing.dead_zone, quantised * sizing.max_weight, xp.zeros_like(quantised))
    return target, (quantised <= sizing.dead_zone) & (quantised >= -sizing.dead_zone)


def plan(
    xp: Any,
    *,
    target: Array,
    hold: Array,
    equity: Array,
    holdings: Array,
    close: Array,
    min_notional: Array,
    sizing: Sizing,
) -> tuple[Array, Array]:
    """What to sell and buy to reach the target weights.

    Args:
        target, hold, holdings, close, min_notional: [..., N]; `min_notional` is the venue's minimum in
            quote currency at this price; `hold` is true where nothing is asked or nothing can trade.
        equity: [...] in quote currency, marked at `close`.

    Returns:
        (sell_qty [..., N] in base units, buy_notional [..., N] in quote currency), both >= 0 and not
        yet rounded to increments; a symbol has at most one of them above zero.
    """
    equity = equity[..., None]
    current = holdings * close
    cap = xp.zeros_like(current) + sizing.max_weight * equity
    wanted = target * equity
    closing = (target <= 0) & ~hold
    reference = xp.where((current > cap) & (wanted < current), cap, current)
    gap = xp.where(closing, -current, wanted - reference)
    minimum = min_notional * MINIMUM_MARGIN
    threshold = xp.where(sizing.min_change * equity > minimum, sizing.min_change * equity + 0 * minimum, minimum)
    threshold = xp.where(closing, minimum, threshold)
    act = ~hold & (abs(gap) >= threshold)
    sell_qty = xp.where(act & (gap < 0), xp.where(closing, holdings, -gap / close), xp.zeros_like(gap))
    buy_notional = xp.where(act & (gap > 0), gap, xp.zeros_like(gap))
    return sell_qty, buy_notional


def shrink(xp: Any, *, buy_notional: Array, cash: Array, min_notional: Array, sizing: Sizing) -> Array:
    """Buys [..., N] that fit into `cash` [...] less the buffer: one factor for all, no order of symbols.

    What shrinks below 1.1 x the venue minimum is dropped.
    """
    total = xp.sum(buy_notional, -1)
    spendable = cash * (1.0 - sizing.cash_buffer)
    factor = xp.where(total > spendable, spendable / xp.where(total > 0, total, xp.ones_like(total)), xp.ones_like(total))
    factor = xp.where(factor > 0, factor, xp.zeros_like(factor))
    fitted = buy_notional * factor[..., None]
    return xp.where(fitted >= min_notional * MINIMUM_MARGIN, fitted, xp.zeros_like(fitted))


def floor_qty(xp: Any, qty: Array, increment: Array) -> Array:
    """`qty` at the venue's increment, toward zero. A multiple stays what it is although the division rounds (0.7 / 0.1 < 7)."""
    return xp.floor(qty / increment * (1.0 + 2.0**-50)) * increment


def capital_needed(min_notional: float, sizing: Sizing) -> float:
    """The smallest capital (quote currency) whose full action clears the venue minimum of one asset."""
    return MINIMUM_MARGIN * min_notional / sizing.max_weight
