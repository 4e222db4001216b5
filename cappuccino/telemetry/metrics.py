"""Prometheus metrics. A process has its own registry; labels are bounded: side, outcome, reason, never a name or an id.

Which trader it is, the scraper knows from its target.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_LATENCY_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class FillNumbers(Protocol):
    """What a fill tells the metrics."""

    @property
    def qty(self) -> Decimal: ...
    @property
    def price(self) -> Decimal: ...


class TraderMetrics:
    """Metrics of one trader process. Money in quote currency, times in seconds."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self._orders = Counter(
            "cappuccino_trader_orders", "Orders sent, by what the venue answered", ["side", "outcome"], registry=r
        )
        self._latency = Histogram(
            "cappuccino_trader_order_seconds", "From sending an order to the answer", buckets=_LATENCY_BUCKETS, registry=r
        )
        self._fills = Counter("cappuccino_trader_fills", "Fills", ["side"], registry=r)
        self._turnover = Counter("cappuccino_trader_turnover_usd", "Value of all fills", ["side"], registry=r)
        self._exits = Counter("cappuccino_trader_exits", "Protective exits, by barrier", ["reason"], registry=r)
        self._refusals = Counter(
            "cappuccino_trader_refusals", "Orders that risk refused or shrank, by rule", ["rule"], registry=r
        )
        self._decisions = Counter("cappuccino_trader_decisions", "Decisions committed", registry=r)
        self._decision_seconds = Histogram(
            "cappuccino_trader_bar_seconds", "From a closed bar to its orders settled", buckets=_LATENCY_BUCKETS, registry=r
        )
        self.equity = Gauge("cappuccino_trader_equity_usd", "Equity at the last close", registry=r)
        self.drawdown = Gauge("cappuccino_trader_drawdown", "Loss from the persisted baseline, a fraction", registry=r)
        self.halted = Gauge("cappuccino_trader_halted", "1 while the account is halted", registry=r)
        self.last_bar = Gauge("cappuccino_trader_last_bar_close_seconds", "Close of the newest bar, market time", registry=r)
        self.reconciled = Gauge(
            "cappuccino_trader_reconciled_seconds", "Last agreement with the venue, market time", registry=r
        )

    def submitted(self, side: Literal["buy", "sell"], outcome: str, seconds: float) -> None:
        self._orders.labels(side, outcome).inc()
        self._latency.observe(seconds)

    def filled(self, side: Literal["buy", "sell"], fill: FillNumbers) -> None:
        self._fills.labels(side).inc()
        self._turnover.labels(side).inc(float(fill.qty * fill.price))

    def exited(self, reason: str) -> None:
        self._exits.labels(reason).inc()

    def refused(self, rule: str) -> None:
        self._refusals.labels(rule).inc()

    def decided(self, seconds: float) -> None:
        self._decisions.inc()
        self._decision_seconds.observe(seconds)

    def render(self) -> bytes:
        """The text form that Prometheus scrapes."""
        return generate_latest(self.registry)
