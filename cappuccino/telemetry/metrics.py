"""Prometheus metrics. A process has its own registry; labels are bounded: side, outcome, reason, never a name or an id.

Which trader it is, the scraper knows from its target; from a process with several portfolios, by the label `account`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Literal, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

NAN = float("nan")  # not known: no comparison with it is true
_LATENCY_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class FillNumbers(Protocol):
    """What a fill tells the metrics."""

    @property
    def qty(self) -> Decimal: ...
    @property
    def price(self) -> Decimal: ...


class DriftNumbers(Protocol):
    """What trading costs against the model, over the newest orders (trading/drift.py)."""

    @property
    def orders(self) -> int: ...
    @property
    def slippage_bps(self) -> float: ...
    @property
    def modelled_slippage_bps(self) -> float: ...
    @property
    def fee_bps(self) -> float: ...
    @property
    def modelled_fee_bps(self) -> float: ...
    @property
    def excess_bps(self) -> float: ...
    @property
    def excess_low_bps(self) -> float | None: ...
    @property
    def delay_seconds(self) -> float | None: ...


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
        self.degraded = Gauge("cappuccino_trader_degraded", "1 while no decision is made and barriers go on", registry=r)
        self.last_bar = Gauge("cappuccino_trader_last_bar_close_seconds", "Close of the newest bar, market time", registry=r)
        self.reconciled = Gauge(
            "cappuccino_trader_reconciled_seconds", "Last agreement with the venue, market time", registry=r
        )

        self._drift = {
            name: Gauge(f"cappuccino_trader_{name}", f"{what}, mean of the newest orders", registry=r)
            for name, what in (
                ("slippage_bps", "Distance of fills from the quote, against us"),
                ("modelled_slippage_bps", "The same as the bundle assumes it"),
                ("fee_bps", "Fee of the asset received"),
                ("modelled_fee_bps", "The same as the bundle assumes it"),
                ("excess_bps", "Slippage and fee beyond the bundle's"),
                ("delay_seconds", "From a bar's close to its decision's fills"),
            )
        }
        self._drift["orders"] = Gauge("cappuccino_trader_drift_orders", "Orders that those means are of", registry=r)
        self._drift["excess_low_bps"] = Gauge(
            "cappuccino_trader_excess_low_bps", "Excess that is certain at 99.9 %; NaN with too few orders", registry=r
        )
        for gauge in self._drift.values():
            gauge.set(NAN)
        self._drift["orders"].set(0)

    def submitted(self, side: Literal["buy", "sell"], outcome: str, seconds: float) -> None:
        self._orders.labels(side, outcome).inc()
        self._latency.observe(seconds)

    def filled(self, side: Literal["buy", "sell"], fill: FillNumbers) -> None:
        self._fills.labels(side).inc()
        self._turnover.labels(side).inc(float(fill.qty * fill.price))

    def drifted(self, drift: DriftNumbers) -> None:
        for name, gauge in self._drift.items():
            value = getattr(drift, name)
            gauge.set(NAN if value is None else value)

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


class _Together(Collector):
    """The samples of several, each with its account as a label."""

    def __init__(self, by_account: Mapping[str, TraderMetrics]) -> None:
        self._by_account = by_account

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for account, metrics in self._by_account.items():
            for family in metrics.registry.collect():
                merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type, family.unit))
                merged.samples += [s._replace(labels={**s.labels, "account": account}) for s in family.samples]
        yield from families.values()


def render_together(by_account: Mapping[str, TraderMetrics]) -> bytes:
    """As `TraderMetrics.render`, for a process with several portfolios."""
    registry = CollectorRegistry()
    registry.register(_Together(by_account))
    return generate_latest(registry)
