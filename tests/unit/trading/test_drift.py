"""What trading costs against what the bundle assumes: one row per rule, then a whole session at a dearer venue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import numpy as np
import pytest
from scipy.stats import t as exact_t

from cappuccino.core.clock import iso
from cappuccino.exchange.terms import Terms
from cappuccino.exchange.venue import Costs, flat_fee
from cappuccino.telemetry.metrics import TraderMetrics
from cappuccino.trading.book import Fill
from cappuccino.trading.drift import CONFIDENCE, MINIMUM, DriftMeter, student_t

from .builders import HOUR, SYMBOLS, T0, Script, Trader, Venue, make_bars

COSTS = Costs(fee_bps=25, slippage_bps=5, slippage_by_symbol_bps={"BBB/USD": 40})
THRESHOLD = 5.0  # bps, as the chart's rule has it


@dataclass(frozen=True, kw_only=True)
class Executed:
    """One execution; order None: of an order of its own."""

    side: str = "buy"
    quote: str | None = "100"
    price: str = "100.05"
    fee: str = "0.0025"
    qty: str = "1"
    symbol: str = "AAA/USD"
    order: str | None = None
    fee_asset: str | None = None  # None: the asset received
    reason: str = "target"
    seconds: float = 0.0  # after the close of its decision's bar


def meter_of(executions: Sequence[Executed], *, window: int = 200) -> DriftMeter:
    meter = DriftMeter(COSTS, bar_seconds=HOUR, window=window)
    for number, each in enumerate(executions):
        fill = Fill(
            execution_id=f"e{number}",
            client_order_id=each.order or f"o{number}",
            symbol=each.symbol,
            side=each.side,  # type: ignore[arg-type]
            qty=Decimal(each.qty),
            price=Decimal(each.price),
            fee=Decimal(each.fee),
            fee_asset=each.fee_asset or (each.symbol.partition("/")[0] if each.side == "buy" else "USD"),
            filled_at=T0 + timedelta(hours=1, seconds=each.seconds),
        )
        decision = iso(T0) if each.reason == "target" else "o0"
        quote = None if each.quote is None else Decimal(each.quote)
        meter.count(fill, decision=decision, reason=each.reason, quote_price=quote)
    return meter


E = Executed
SALE = {"side": "sell", "fee": "0.249875"}  # 25 bps of 99.95


@pytest.mark.parametrize(
    ("executions", "slippage", "fee", "excess"),
    [
        ([E()], 5, 25, 0),  # as modelled
        ([E(price="100.15")], 15, 25, 10),  # a buy above the quote costs
        ([E(price="99.90")], -10, 25, -15),  # and below it gains
        ([E(price="99.95", **SALE)], 5, 25, 0),
        ([E(price="99.85", **(SALE | {"fee": "0.249625"}))], 15, 25, 10),  # a sale below the quote costs
        ([E(fee="0.0010")], 5, 10, -15),  # the fee of a buy is in units
        ([E(price="99.95", side="sell", fee="0.09995")], 5, 10, -15),  # that of a sale in money
        ([E(fee="0.250125", fee_asset="USD")], 5, 25, 0),  # of a venue that takes it in money, also that of a buy
        ([E(price="3000.15", quote="3000", fee="18.0009", qty="2", fee_asset="USD")], 0.5, 30, 0.5),
        ([E(symbol="BBB/USD")], 5, 25, -35),  # each symbol has its own assumption
        ([E(), E(price="100.15")], 10, 25, 5),  # orders count alike
        ([E(qty="3", fee="0.0075", order="o"), E(price="100.45", order="o")], 15, 25, 10),  # executions by their quantity
        ([E(reason="stop_loss", price="99.95", **SALE)], 5, 25, 0),
    ],
)
def test_what_an_order_cost(executions: Sequence[Executed], slippage: float, fee: float, excess: float) -> None:
    drift = meter_of(executions).drift()
    assert drift is not None
    assert drift.slippage_bps == pytest.approx(slippage, abs=1e-6)
    assert drift.fee_bps == pytest.approx(fee, abs=1e-6)
    assert drift.excess_bps == pytest.approx(excess, abs=1e-6)
    assert drift.modelled_fee_bps == 25


def test_an_order_without_a_quote_says_nothing() -> None:
    assert meter_of([E(quote=None), E(quote="0")]).drift() is None


@pytest.mark.parametrize(
    ("executions", "delay"),
    [
        ([E(seconds=6)], 6),
        ([E(seconds=6, order="o"), E(seconds=10, order="o")], 10),  # until the last of its executions
        ([E(seconds=6), E(seconds=0)], 3),
        ([E(seconds=6), E(seconds=900, reason="stop_loss", **SALE)], 6),  # a barrier waits for no bar
        ([E(reason="stop_loss", **SALE)], None),
    ],
)
def test_the_delay_is_that_of_decisions(executions: Sequence[Executed], delay: float | None) -> None:
    drift = meter_of(executions).drift()
    assert drift is not None
    assert drift.delay_seconds == delay


def test_only_the_newest_orders_count() -> None:
    drift = meter_of([E(price="101")] * 50 + [E()] * 30, window=30).drift()
    assert drift is not None
    assert (drift.orders, drift.excess_bps) == (30, pytest.approx(0, abs=1e-6))


def test_nothing_is_certain_of_few_orders() -> None:
    few, enough = (meter_of([E(price="101")] * n).drift() for n in (MINIMUM - 1, MINIMUM))
    assert few is not None
    assert enough is not None
    assert few.excess_low_bps is None
    assert not few.beyond(THRESHOLD)
    assert enough.excess_low_bps == pytest.approx(95, abs=1e-6)  # all alike: as certain as the mean
    assert enough.beyond(THRESHOLD)


def noisy(rng: np.random.Generator, *, mean_bps: float, sd_bps: float, orders: int) -> list[Executed]:
    return [E(price=f"{100 * (1 + bps / 1e4):.8f}") for bps in rng.normal(5 + mean_bps, sd_bps, orders)]


def test_noise_around_the_model_is_no_alarm_and_a_dearer_venue_is_one() -> None:
    rng = np.random.default_rng(5)
    alarms, found = 0, 0
    for _ in range(200):
        calm = meter_of(noisy(rng, mean_bps=THRESHOLD, sd_bps=30, orders=100)).drift()
        dear = meter_of(noisy(rng, mean_bps=THRESHOLD + 20, sd_bps=30, orders=100)).drift()
        assert calm is not None
        assert dear is not None
        alarms += calm.beyond(THRESHOLD)
        found += dear.beyond(THRESHOLD)
    assert alarms <= 2  # 0.2 expected
    assert found >= 195


@pytest.mark.parametrize("degrees", [MINIMUM - 1, 50, 199])
def test_students_t(degrees: int) -> None:
    assert student_t(CONFIDENCE, degrees) == pytest.approx(exact_t.ppf(CONFIDENCE, degrees), abs=1e-3)


# --- in a session -----------------------------------------------------------------------------------

A, B = SYMBOLS
SWAPS = {n: {A: 0.3, B: 0.0} if n % 2 else {A: 0.0, B: 0.3} for n in range(20)}


def trader_at(slippage_bps: int) -> Trader:
    terms = Terms(slippage_bps=Decimal(slippage_bps), fee_tiers=flat_fee(Decimal(25)))
    return Trader(
        venue=Venue.over(make_bars(bars=20), terms=terms), strategy=Script(SWAPS), costs=Costs(fee_bps=25, slippage_bps=5)
    )


def gauge(metrics: TraderMetrics, name: str) -> float:
    value = metrics.registry.get_sample_value(f"cappuccino_trader_{name}")
    assert value is not None
    return value


@pytest.mark.parametrize(("slippage_bps", "alarms"), [(5, False), (30, True)])
def test_a_session_at_a_dearer_exchange_says_so(slippage_bps: int, alarms: bool) -> None:
    trader = trader_at(slippage_bps)
    trader.run()
    assert gauge(trader.metrics, "drift_orders") > MINIMUM
    assert gauge(trader.metrics, "slippage_bps") == pytest.approx(slippage_bps, abs=0.05)
    assert gauge(trader.metrics, "modelled_slippage_bps") == pytest.approx(5)
    assert gauge(trader.metrics, "fee_bps") == pytest.approx(25, abs=0.01)
    assert gauge(trader.metrics, "excess_bps") == pytest.approx(slippage_bps - 5, abs=0.1)
    assert gauge(trader.metrics, "delay_seconds") == pytest.approx(0, abs=1e-3)  # the exchange waits for us
    assert (gauge(trader.metrics, "excess_low_bps") > THRESHOLD) is alarms  # the alert's expression


def test_a_restart_remembers_what_was_measured() -> None:
    trader = trader_at(30)
    trader.run()
    before = gauge(trader.metrics, "excess_low_bps")
    trader.session().start()
    trader.lease.close(release=False)
    assert gauge(trader.metrics, "excess_low_bps") == pytest.approx(before)


def test_before_the_first_fill_nothing_is_known() -> None:
    metrics = TraderMetrics()
    assert gauge(metrics, "drift_orders") == 0
    assert math.isnan(gauge(metrics, "excess_low_bps"))
