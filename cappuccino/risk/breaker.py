"""The circuit breaker: what halts an account until a person lifts it, with a reason.

    drawdown            equity lost `max_drawdown` of the persisted baseline (never of this process's start)
    daily_loss          the day was closed by its loss, with `daily_loss_halts`
    losing_trades       `max_consecutive_losses` trades in a row, flat to flat and net of fees, lost money
    rejected_orders     the venue rejected `max_rejected_orders` orders in a row
    failed_decisions    the strategy gave no decision `max_failed_decisions` times in a row

The reason, with its numbers, goes into the account row, where it survives every restart; what happens to orders and
positions then is `on_halt`. Lifting it starts the counts again. It does not lift a drawdown: while equity is that far
below the baseline the breaker trips again, so a person raises the limit first, or goes on with another account.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from cappuccino.core.money import dec
from cappuccino.risk.day import DAILY_LOSS, Day
from cappuccino.risk.limits import Limits


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What the breaker looks at. Counts are in a row, since the last halt was lifted; `failure`: of the last decision."""

    equity: Decimal
    baseline: Decimal
    day_before: Day | None
    day: Day
    losing_trades: int = 0
    rejected_orders: int = 0
    failed_decisions: int = 0
    failure: str = ""


def trip(standing: Standing, limits: Limits) -> str | None:
    """Why the account must halt, with the numbers; None when it need not."""
    s = standing
    if limits.max_drawdown and s.baseline > 0 and (loss := 1 - s.equity / s.baseline) >= dec(limits.max_drawdown):
        return (
            f"drawdown {loss:.4f} of the baseline {s.baseline} reached the limit {limits.max_drawdown} "
            f"(equity {s.equity:.2f}): it halts again after a resume unless maxDrawdown is raised"
        )
    closed_now = s.day.closed_by == DAILY_LOSS and (s.day_before is None or s.day_before.closed_by != DAILY_LOSS)
    if limits.daily_loss_halts and closed_now:
        loss = 1 - s.equity / s.day.opening_equity
        return (
            f"daily loss {loss:.4f} of {s.day.opening_equity:.2f}, the equity at which the UTC day began, reached the limit "
            f"{limits.max_daily_loss} (equity {s.equity:.2f})"
        )
    if _reached(s.losing_trades, limits.max_consecutive_losses):
        return f"{s.losing_trades} losing trades in a row reached the limit {limits.max_consecutive_losses}"
    if _reached(s.rejected_orders, limits.max_rejected_orders):
        return f"{s.rejected_orders} orders in a row were rejected by the venue: the limit is {limits.max_rejected_orders}"
    if _reached(s.failed_decisions, limits.max_failed_decisions):
        return (
            f"the strategy failed on {s.failed_decisions} decisions in a row: the limit is {limits.max_failed_decisions} "
            f"({s.failure})"
        )
    return None


def _reached(count: int, limit: int) -> bool:
    return bool(limit) and count >= limit
