from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappuccino.core.errors import InvalidInput
from cappuccino.core.timeframe import Timeframe
from cappuccino.market.features import spec_of
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.cash import Cash
from cappuccino.strategies.hold import Hold
from cappuccino.strategies.interface import Contract, Decision, View
from cappuccino.strategies.trend import Trend, TrendParameters

SYMBOLS = ("BTC/USD", "ETH/USD", "SOL/USD")
RETURN = spec_of("return", {"bars": 24})
RSI = spec_of("rsi", {"period": 14})


def contract(symbols: tuple[str, ...] = SYMBOLS, features: tuple[Any, ...] = (RETURN,), lookback: int = 1) -> Contract:
    return Contract(symbols=symbols, timeframe=Timeframe.parse("1h"), features=features, lookback=lookback, warmup_bars=25)


def view(newest: Any = None, **changes: Any) -> View:
    """`newest`: [N][F] the newest row of features; older rows of a lookback are NaN."""
    N = len(newest) if newest is not None else len(changes.get("weights", SYMBOLS))
    features = np.zeros((N, 1, 0)) if newest is None else np.asarray(newest, dtype=float).reshape(N, 1, -1)
    values: dict[str, Any] = {
        "at": datetime(2024, 1, 1, tzinfo=UTC),
        "features": features,
        "close": np.full(N, 100.0),
        "weights": np.zeros(N),
        "cash_weight": 1.0,
        "equity_usd": 10_000.0,
        "entry_return": np.zeros(N),
        "bars_held": np.zeros(N, dtype=np.int64),
        "bars_since_stop": np.full(N, 255, dtype=np.int64),
        "tradable": np.ones(N, dtype=bool),
    }
    return View(**(values | {key: np.asarray(v) if isinstance(v, list) else v for key, v in changes.items()}))


def targets(decision: Decision) -> dict[str, float]:
    return {intent.symbol: intent.weight for intent in decision.intents}


def trend(features: tuple[Any, ...] = (RETURN,), sizing: Sizing | None = None, **values: str) -> Trend:
    text = {"feature": "return", "feature_bars": "24", "enter": "0.02", "exit": "-0.01"} | values
    return Trend(contract=contract(features=features), parameters=TrendParameters.parse(text), sizing=sizing or Sizing())


# --- trend ------------------------------------------------------------------------------------------


def test_trend_enters_above_enter_leaves_below_exit_and_holds_between() -> None:
    decision = trend().decide(view([[0.03], [0.0], [-0.02]]), {})
    assert targets(decision) == {"BTC/USD": 0.30, "SOL/USD": 0.0}
    assert decision.trace["action"] == [1.0, 0.0, -1.0]


def test_trend_turned_around_buys_what_fell() -> None:
    decision = trend(direction="-1").decide(view([[0.03], [0.0], [-0.03]]), {})
    assert targets(decision) == {"BTC/USD": 0.0, "SOL/USD": 0.30}


def test_trend_size_is_a_fraction_of_the_largest_weight() -> None:
    assert targets(trend(size="0.5").decide(view([[0.03], [0], [0]]), {})) == {"BTC/USD": 0.15}


def test_trend_compares_the_difference_of_two_features() -> None:
    rule = trend(features=(RSI, RETURN), minus="rsi", minus_period="14")
    assert targets(rule.decide(view([[0.02, 0.05], [0.05, 0.05], [0.05, 0.02]]), {})) == {"BTC/USD": 0.30, "SOL/USD": 0.0}


def test_trend_reads_the_newest_row_of_a_lookback() -> None:
    rule = Trend(contract=contract(lookback=3), parameters=trend().parameters, sizing=Sizing())
    rows = np.array([[[-1.0], [-1.0], [0.03]]] * 3)
    assert targets(rule.decide(view(features=rows), {})) == dict.fromkeys(SYMBOLS, 0.30)


def test_trend_asks_for_nothing_while_its_feature_warms_up() -> None:
    decision = trend().decide(view([[np.nan]] * 3), {})
    assert decision.intents == ()
    assert decision.trace["signal"] == [None, None, None]


def test_trend_whose_contract_lacks_its_feature_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="return_24, which the contract lacks"):
        trend(features=(RSI,))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"feature": "return", "enter": "0.1", "exit": "0", "speed": "3"}, "'speed' is unknown"),
        ({"enter": "0.1", "exit": "0"}, "feature is missing"),
        ({"feature": "return", "exit": "0"}, "enter is missing"),
        ({"feature": "return", "enter": "0.1", "exit": "0.2"}, "exit 0.2 is above enter 0.1"),
        ({"feature": "return", "enter": "high", "exit": "0"}, "enter is 'high'"),
        ({"feature": "return", "enter": "nan", "exit": "0"}, "enter is 'nan'"),
        ({"feature": "return", "enter": "0.1", "exit": "0", "size": "1.5"}, "size is '1.5'"),
        ({"feature": "return", "enter": "0.1", "exit": "0", "direction": "0"}, "direction '0'"),
        ({"feature": "return", "enter": "0.1", "exit": "0", "minus_bars": "3"}, "minus_bars is given without minus"),
        ({"feature": "retrun", "enter": "0.1", "exit": "0"}, "'retrun' is not in the catalogue"),
        ({"feature": "return", "feature_period": "3", "enter": "0.1", "exit": "0"}, "'period' is unknown"),
    ],
)
def test_bad_trend_parameters_are_refused_with_the_value(values: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        TrendParameters.parse(values)


@given(
    enter=st.floats(-1000, 1000),
    gap=st.floats(0, 1000),
    size=st.floats(0.01, 1),
    direction=st.sampled_from(["1", "-1"]),
    bars=st.integers(1, 2000),
    minus=st.booleans(),
)
def test_trend_parameters_survive_their_text_form(
    enter: float, gap: float, size: float, direction: str, bars: int, minus: bool
) -> None:
    text = {
        "feature": "return",
        "feature_bars": str(bars),
        "enter": repr(enter),
        "exit": repr(max(enter - gap, -1000.0)),
        "size": repr(size),
        "direction": direction,
    } | ({"minus": "rsi"} if minus else {})
    parameters = TrendParameters.parse(text)
    assert TrendParameters.parse(parameters.to_values()) == parameters
    assert len(parameters.specs) == 1 + minus


# --- hold -------------------------------------------------------------------------------------------


def test_hold_asks_once_for_equal_weights_and_never_rebalances() -> None:
    hold = Hold(contract=contract())
    first = hold.decide(view(), {})
    assert targets(first) == dict.fromkeys(SYMBOLS, pytest.approx(1 / 3))
    second = hold.decide(view(weights=[0.33, 0.33, 0.33]), first.memory)
    assert second.intents == ()
    assert second.memory == {"bought": list(SYMBOLS)}
    drifted = hold.decide(view(weights=[0.8, 0.1, 0.0]), second.memory)
    assert drifted.intents == ()


def test_hold_does_not_buy_again_what_was_filled_in_part() -> None:
    hold = Hold(contract=contract())
    first = hold.decide(view(), {})
    assert targets(hold.decide(view(weights=[0.33, 0.05, 0.33]), first.memory)) == {}


def test_hold_asks_again_for_a_symbol_of_which_nothing_was_filled() -> None:
    hold = Hold(contract=contract())
    first = hold.decide(view(), {})
    assert set(targets(hold.decide(view(weights=[0.33, 0.0, 0.33]), first.memory))) == {"ETH/USD"}


def test_hold_waits_for_a_symbol_that_cannot_trade() -> None:
    hold = Hold(contract=contract())
    first = hold.decide(view(tradable=[True, False, True]), {})
    assert set(targets(first)) == {"BTC/USD", "SOL/USD"}
    assert set(targets(hold.decide(view(weights=[0.3, 0.0, 0.3]), first.memory))) == {"ETH/USD"}


def test_hold_leaves_alone_what_a_barrier_sold_before_it_was_seen() -> None:
    hold = Hold(contract=contract())
    decision = hold.decide(view(weights=[0.3, 0.0, 0.3], bars_since_stop=[255, 1, 255]), {"bought": []})
    assert decision.intents == ()
    assert hold.decide(view(weights=[0.3, 0.0, 0.3]), decision.memory).intents == ()


def test_cash_never_asks_for_anything() -> None:
    decision = Cash(contract=contract()).decide(view(), {})
    assert decision.intents == ()
