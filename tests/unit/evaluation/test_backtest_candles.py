"""Candle tables: rows of one symbol's OHLC, what is asked for at each close, and what must come of it.

Costs are zero unless a row gives them, increments are fine, and the capital is 1,000 with targets of up to 30 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from cappuccino.core.errors import InvalidInput, InvariantViolation
from cappuccino.core.timeframe import Timeframe
from cappuccino.evaluation.backtest import BacktestResult, backtest
from cappuccino.exchange.venue import AssetRules, Costs
from cappuccino.market.bars import Bars
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.interface import Contract, Decision, Json, Target, View

Candle = tuple[float, float, float, float]
FLAT: Candle = (100, 100, 100, 100)
START = 1_704_067_200


@dataclass
class Scripted:
    """Asks for what its script says at its n-th decision; keeps the views it was shown."""

    contract: Contract
    script: Sequence[dict[str, float]]
    seen: list[View] = field(default_factory=list)

    def decide(self, view: View, memory: Json) -> Decision:
        turn = len(self.seen)
        self.seen.append(view)
        asked = self.script[turn] if turn < len(self.script) else {}
        return Decision(intents=tuple(Target(symbol=s, weight=w) for s, w in asked.items()), memory={"turn": turn + 1})


def asset(symbol: str, **changes: Any) -> AssetRules:
    base = AssetRules(
        symbol=symbol,
        min_order_size=Decimal("0.0001"),
        min_trade_increment=Decimal("0.000000001"),
        price_increment=Decimal("0.01"),
    )
    return replace(base, **changes)


def panel(candles: dict[str, Sequence[Candle]], missing: dict[str, Sequence[int]] | None = None) -> Bars:
    ohlc = np.array(list(candles.values()), dtype=float).transpose(1, 2, 0)
    absent = np.zeros((ohlc.shape[0], ohlc.shape[2]), dtype=bool)
    for n, symbol in enumerate(candles):
        absent[list((missing or {}).get(symbol, ())), n] = True
    return Bars(
        symbols=tuple(candles),
        timeframe=Timeframe.parse("1h"),
        ts=START + 3600 * np.arange(len(ohlc)),
        open=ohlc[:, 0],
        high=ohlc[:, 1],
        low=ohlc[:, 2],
        close=ohlc[:, 3],
        volume=np.ones_like(absent, dtype=float),
        missing=absent,
    )


def run(
    candles: Sequence[Candle] | dict[str, Sequence[Candle]],
    script: Sequence[float | dict[str, float] | None],
    *,
    missing: Any = (),
    rules: dict[str, AssetRules] | None = None,
    costs: Costs | None = None,
    barriers: Barriers | None = None,
    sizing: Sizing | None = None,
    capital: float = 1000.0,
    interval: int = 1,
) -> tuple[BacktestResult, Scripted]:
    panels = candles if isinstance(candles, dict) else {"X/USD": candles}
    bars = panel(panels, missing if isinstance(missing, dict) else {"X/USD": missing})
    asked = [entry if isinstance(entry, dict) else {} if entry is None else {"X/USD": entry} for entry in script]
    contract = Contract(symbols=bars.symbols, timeframe=bars.timeframe, features=(), lookback=1, warmup_bars=1)
    strategy = Scripted(contract, asked)
    result = backtest(
        strategy,
        bars,
        np.zeros((len(bars), len(bars.symbols), 0)),
        first_decision=0,
        last=len(bars) - 1,
        capital_usd=capital,
        costs=costs or Costs(fee_bps=0, slippage_bps=0),
        sizing=sizing or Sizing(),
        barriers=barriers or Barriers.off(),
        rules=rules or {symbol: asset(symbol) for symbol in bars.symbols},
        interval=interval,
    )
    return result, strategy


BUY = 0.3
STOP = Barriers(stop=0.10, trail=None)
TRAIL = Barriers(stop=0.10, trail=0.015, trail_arms_at=0.015)
TAKE = Barriers(stop=None, trail=None, take_profit=0.05)
HOLD_2 = Barriers(stop=None, trail=None, max_hold_bars=2)


@dataclass(frozen=True, kw_only=True)
class Row:
    name: str
    candles: Sequence[Candle]
    barriers: Barriers
    exit: tuple[int, float, str] | None  # bar, price, reason
    script: Sequence[float | None] = (BUY,)


ROWS = [
    Row(name="a stop fills at its level", candles=[FLAT, FLAT, (100, 101, 89, 95)], barriers=STOP, exit=(2, 90, "stop_loss")),
    Row(name="a stop just missed does not fill", candles=[FLAT, FLAT, (100, 101, 90.01, 95)], barriers=STOP, exit=None),
    Row(
        name="a gap below the stop fills at the open",
        candles=[FLAT, FLAT, (85, 88, 84, 86)],
        barriers=STOP,
        exit=(2, 85, "stop_loss"),
    ),
    Row(
        name="a stop works in the bar of the entry",
        candles=[FLAT, (100, 100, 89, 89)],
        barriers=STOP,
        exit=(1, 90, "stop_loss"),
    ),
    Row(
        name="an unarmed trail sells nothing",
        candles=[FLAT, FLAT, (100, 101.4, 99, 100), (100, 100, 98, 98.5)],
        barriers=TRAIL,
        exit=None,
    ),
    Row(
        name="an armed trail fills at its level",
        candles=[FLAT, FLAT, (100, 104, 100, 103.9), (103.9, 103.9, 101, 101)],
        barriers=TRAIL,
        exit=(3, 104 * 0.985, "trailing_stop"),
    ),
    Row(
        name="a trail armed by the high is looked at on the way to the close",
        candles=[FLAT, FLAT, (100, 104, 100, 102)],
        barriers=TRAIL,
        exit=(2, 104 * 0.985, "trailing_stop"),
    ),
    Row(
        name="a trail does not look at a low that came before its high",
        candles=[FLAT, FLAT, (100, 104, 99, 103)],
        barriers=TRAIL,
        exit=None,
    ),
    Row(
        name="a gap below an armed trail fills at the open",
        candles=[FLAT, FLAT, (100, 104, 100, 104), (101, 101, 101, 101)],
        barriers=TRAIL,
        exit=(3, 101, "trailing_stop"),
    ),
    Row(
        name="a take profit fills at its level",
        candles=[FLAT, FLAT, (100, 107, 99, 106)],
        barriers=TAKE,
        exit=(2, 105, "take_profit"),
    ),
    Row(
        name="a gap above the take profit fills at the open",
        candles=[FLAT, FLAT, (108, 109, 107, 108)],
        barriers=TAKE,
        exit=(2, 108, "take_profit"),
    ),
    Row(
        name="low comes before high: stop and target in one bar is a stop",
        candles=[FLAT, FLAT, (100, 107, 89, 100)],
        barriers=replace(TAKE, stop=0.10),
        exit=(2, 90, "stop_loss"),
    ),
    Row(
        name="the time limit sells at the open",
        candles=[FLAT, FLAT, FLAT, (99, 99, 99, 99), FLAT],
        barriers=HOLD_2,
        exit=(3, 99, "time_limit"),
    ),
    Row(
        name="a decision to sell fills at the next open",
        candles=[FLAT, FLAT, (97, 98, 90, 92)],
        barriers=STOP,
        script=(BUY, 0.0),
        exit=(2, 97, "signal"),
    ),
    Row(
        name="the decision's order comes before the barrier at one open",
        candles=[FLAT, FLAT, (80, 80, 80, 80)],
        barriers=STOP,
        script=(BUY, 0.0),
        exit=(2, 80, "signal"),
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_exits(row: Row) -> None:
    result, _ = run(row.candles, row.script, barriers=row.barriers)
    got = [((trade.exit_ts - START) // 3600, trade.exit_price, trade.exit_reason) for trade in result.trades]
    assert got == ([] if row.exit is None else [(row.exit[0], pytest.approx(row.exit[1]), row.exit[2])])


def test_a_decision_at_the_close_fills_at_the_next_open_and_is_marked_at_closes() -> None:
    result, _ = run([(90, 90, 90, 100), (110, 120, 100, 115), (115, 115, 115, 121)], [BUY])
    (fill,) = result.fills
    assert (fill.ts, fill.side, fill.price) == (START + 3600, "buy", 110)
    assert fill.qty == pytest.approx(300 / 110)
    assert result.equity == pytest.approx([1000, 700 + 300 / 110 * 115, 700 + 300 / 110 * 121])
    assert result.at.tolist() == [START + 3600, START + 7200, START + 10_800]


def test_what_a_barrier_sold_is_not_bought_again_before_the_next_decision() -> None:
    bars = [FLAT, FLAT, (100, 100, 85, 100), (100, 100, 100, 100), FLAT]
    result, strategy = run(bars, [BUY, BUY, BUY], barriers=STOP)
    assert [(f.side, (f.ts - START) // 3600) for f in result.fills] == [("buy", 1), ("sell", 2), ("buy", 3)]
    assert [int(view.bars_since_stop[0]) for view in strategy.seen] == [255, 255, 1, 2]
    assert result.holdings[2, 0] < 1e-6


def test_bars_held_counts_decisions_from_one_and_starts_again() -> None:
    _, strategy = run([FLAT] * 7, [BUY, None, None, 0.0, BUY])
    assert [int(view.bars_held[0]) for view in strategy.seen] == [0, 1, 2, 3, 0, 1]


def test_decisions_come_every_interval_and_barriers_watch_every_bar() -> None:
    result, strategy = run([FLAT, FLAT, (100, 100, 80, 80), FLAT, FLAT, FLAT, FLAT], [BUY], barriers=STOP, interval=3)
    assert [view.at.hour for view in strategy.seen] == [1, 4]
    assert [trade.exit_reason for trade in result.trades] == ["stop_loss"]
    assert result.n_decisions == 2


def test_sales_pay_for_the_buys_of_the_same_open() -> None:
    both = {"A/USD": [FLAT] * 4, "B/USD": [FLAT] * 4}
    result, _ = run(both, [{"A/USD": 0.95}, {"A/USD": 0.0, "B/USD": 0.95}], sizing=Sizing(max_weight=0.95))
    assert [(f.symbol, f.side, f.ts) for f in result.fills][1:] == [
        ("A/USD", "sell", START + 7200),
        ("B/USD", "buy", START + 7200),
    ]
    assert result.weights[2] == pytest.approx([0, 0.95])


def test_buys_shrink_by_one_factor_to_the_cash_less_its_buffer() -> None:
    four = {symbol: [FLAT] * 2 for symbol in ("A/USD", "B/USD", "C/USD", "D/USD")}
    result, _ = run(four, [{"A/USD": 0.4, "B/USD": 0.4, "C/USD": 0.2, "D/USD": 0.2}], sizing=Sizing(max_weight=0.4))
    assert result.weights[1] == pytest.approx(np.array([0.4, 0.4, 0.2, 0.2]) / 1.2 * 0.99)
    assert result.cash[1] == pytest.approx(10)


def test_buys_are_sized_by_the_cash_that_earlier_ones_left() -> None:
    two = {"A/USD": [FLAT] * 3, "B/USD": [FLAT] * 3}
    result, _ = run(two, [{"A/USD": 0.6}, {"B/USD": 0.6}], sizing=Sizing(max_weight=0.6))
    assert result.weights[2] == pytest.approx([0.6, 0.4 * 0.99])


def test_a_change_below_two_percent_of_equity_is_skipped() -> None:
    assert run([FLAT] * 3, [0.019])[0].fills == ()
    assert len(run([FLAT] * 3, [0.021])[0].fills) == 1


def test_a_change_below_the_margin_over_the_venue_minimum_is_skipped() -> None:
    big = {"X/USD": asset("X/USD", min_notional=Decimal("100"))}
    assert run([FLAT] * 3, [0.109], rules=big)[0].fills == ()
    assert len(run([FLAT] * 3, [0.111], rules=big)[0].fills) == 1


def test_the_minimum_size_in_units_counts_at_the_price_of_the_decision() -> None:
    big = {"X/USD": asset("X/USD", min_order_size=Decimal("1"))}
    assert run([FLAT] * 3, [0.109], rules=big)[0].fills == ()
    assert len(run([FLAT] * 3, [0.111], rules=big)[0].fills) == 1


def test_a_position_is_closed_even_below_two_percent_of_equity() -> None:
    small, _ = run([FLAT, FLAT, (10, 10, 10, 10), (10, 10, 10, 10)], [0.03, None, 0.0])
    assert [f.side for f in small.fills] == ["buy", "sell"]


def test_the_fee_is_taken_from_the_asset_received() -> None:
    result, _ = run([FLAT] * 3, [BUY, 0.0], costs=Costs(fee_bps=100, slippage_bps=0))
    buy, sell = result.fills
    assert buy.qty == pytest.approx(3)
    assert result.holdings[1, 0] == pytest.approx(2.97)
    assert result.cash[1] == pytest.approx(700), "the buy's fee is paid in units, not in cash"
    assert sell.qty == pytest.approx(2.97)
    assert result.cash[2] == pytest.approx(700 + 297 * 0.99)
    assert result.fees_usd == pytest.approx(3 + 2.97)
    (trade,) = result.trades
    assert trade.pnl_usd == pytest.approx(297 * 0.99 - 300)
    assert trade.return_ == pytest.approx(0.99 * 0.99 - 1)


def test_slippage_moves_every_fill_against_the_taker() -> None:
    costs = Costs(fee_bps=0, slippage_bps=5, slippage_by_symbol_bps={"X/USD": 100})
    result, _ = run([FLAT] * 3, [BUY, 0.0], costs=costs)
    assert [fill.price for fill in result.fills] == pytest.approx([101, 99])
    stopped, _ = run([FLAT, FLAT, (100, 100, 80, 80)], [BUY], barriers=STOP, costs=costs)
    assert stopped.trades[0].exit_price == pytest.approx(101 * 0.9 * 0.99), "the level is from the average entry"


def test_no_order_fills_on_a_missing_bar_nor_after_a_decision_on_one() -> None:
    assert run([FLAT] * 4, [BUY], missing=[1])[0].fills == ()
    assert run([FLAT] * 4, [BUY], missing=[0])[0].fills == ()
    assert len(run([FLAT] * 4, [BUY], missing=[2])[0].fills) == 1


def test_a_missing_bar_stops_its_own_symbol_alone() -> None:
    both = {"A/USD": [FLAT] * 3, "B/USD": [FLAT] * 3}
    result, strategy = run(both, [{"A/USD": 0.3, "B/USD": 0.3}], missing={"A/USD": [1]})
    assert [fill.symbol for fill in result.fills] == ["B/USD"]
    assert strategy.seen[1].tradable.tolist() == [False, True]


def test_barriers_do_not_look_at_a_missing_bar() -> None:
    result, _ = run([FLAT, FLAT, (80, 80, 80, 80), (80, 80, 80, 80)], [BUY], barriers=STOP, missing=[2])
    assert [(trade.exit_ts - START) // 3600 for trade in result.trades] == [3]


def test_what_drifted_above_the_largest_weight_is_not_sold() -> None:
    result, _ = run([FLAT, FLAT, (200, 200, 200, 200), (200, 200, 200, 200)], [BUY, BUY, BUY])
    assert len(result.fills) == 1
    assert result.weights[-1, 0] == pytest.approx(600 / 1300)


def test_the_average_entry_is_weighted_by_quantity() -> None:
    up = (200.0, 200.0, 200.0, 200.0)
    result, strategy = run([FLAT, FLAT, FLAT, up, (200, 200, 151, 200)], [0.1, None, BUY], barriers=STOP)
    # 1 unit at 100, then 200 USD at the open of 200: 1 more unit; the average is 150 and the stop at 135.
    assert result.fills[1].qty == pytest.approx(1)
    assert strategy.seen[3].entry_return[0] == pytest.approx(200 / 150 - 1)
    assert result.trades == ()


def test_quantities_are_floored_to_the_increment_and_dust_is_marked_but_no_position() -> None:
    coarse = {"X/USD": asset("X/USD", min_trade_increment=Decimal("0.125"), min_order_size=Decimal("0.125"))}
    result, strategy = run([FLAT] * 5, [BUY, 0.0, BUY], rules=coarse, costs=Costs(fee_bps=100, slippage_bps=0))
    assert [fill.qty for fill in result.fills] == pytest.approx([3.0, 2.875, 2.875])
    assert result.holdings[2, 0] == pytest.approx(2.97 - 2.875)
    assert result.equity[2] == pytest.approx(result.cash[2] + 100 * (2.97 - 2.875))
    assert len(result.trades) == 1
    assert strategy.seen[2].bars_held[0] == 0
    assert strategy.seen[2].entry_return[0] == 0


def test_dust_of_an_earlier_position_has_no_part_in_the_next_entry() -> None:
    coarse = {"X/USD": asset("X/USD", min_trade_increment=Decimal("0.125"), min_order_size=Decimal("0.125"))}
    up = (200.0, 200.0, 200.0, 200.0)
    _, strategy = run([FLAT, FLAT, FLAT, up, up], [BUY, 0.0, BUY], rules=coarse, costs=Costs(fee_bps=100, slippage_bps=0))
    assert strategy.seen[3].weights[0] > 0.2
    assert strategy.seen[3].entry_return[0] == 0


def test_ruin_ends_the_run() -> None:
    crash = (10.0, 10.0, 10.0, 10.0)
    result, strategy = run([FLAT, FLAT, crash, FLAT, FLAT], [0.95], sizing=Sizing(max_weight=0.95))
    assert result.ruined
    assert len(result.equity) == 3
    assert len(strategy.seen) == 2


def test_a_capital_whose_full_action_is_below_a_minimum_is_refused_with_what_it_takes() -> None:
    with pytest.raises(InvalidInput, match=r"capital_usd 3: .* X/USD.* at least 3\.67"):
        run([FLAT] * 2, [BUY], capital=3.0)


def test_a_target_for_a_symbol_outside_the_contract_is_our_own_error() -> None:
    with pytest.raises(InvariantViolation, match="Y/USD"):
        run([FLAT] * 2, [{"Y/USD": 0.1}])
