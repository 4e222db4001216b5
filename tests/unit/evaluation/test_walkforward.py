from __future__ import annotations

import json
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from cappuccino.core.errors import InvalidInput
from cappuccino.core.timeframe import Timeframe
from cappuccino.evaluation import metrics
from cappuccino.evaluation.backtest import backtest
from cappuccino.evaluation.splits import Fold, walk_forward
from cappuccino.evaluation.walkforward import Demands, WalkForward, evaluate
from cappuccino.exchange.venue import AssetRules, Costs
from cappuccino.market.bars import Bars
from cappuccino.market.spec import FeatureSpec
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.actions import targets_of, traced
from cappuccino.strategies.cash import Cash
from cappuccino.strategies.hold import Hold
from cappuccino.strategies.interface import Contract, Decision, Json, Strategy, View

SYMBOLS = ("A/USD", "B/USD")
ROWS = 400
SIZING = Sizing()
CONTRACT = Contract(
    symbols=SYMBOLS, timeframe=Timeframe.parse("1h"), features=(FeatureSpec(name="ahead"),), lookback=1, warmup_bars=1
)
RULES = {
    symbol: AssetRules(
        symbol=symbol,
        min_order_size=Decimal("0.0001"),
        min_trade_increment=Decimal("0.000001"),
        price_increment=Decimal("0.01"),
    )
    for symbol in SYMBOLS
}


def random_bars(seed: int = 0, rows: int = ROWS) -> Bars:
    step = np.random.default_rng(seed).standard_normal((rows, 2)) * 0.01
    close = 100 * np.exp(np.cumsum(step, axis=0))
    open_ = np.vstack([close[:1], close[:-1]])
    return Bars(
        symbols=SYMBOLS,
        timeframe=Timeframe.parse("1h"),
        ts=1_704_067_200 + 3600 * np.arange(rows),
        open=open_,
        high=np.maximum(open_, close),
        low=np.minimum(open_, close),
        close=close,
        volume=np.ones((rows, 2)),
        missing=np.zeros((rows, 2), dtype=bool),
    )


def knows_the_next_return(bars: Bars) -> Any:
    """A feature [T, N, 1] that gives the next bar away, so that a rule on it must earn."""
    ahead = np.zeros((len(bars), 2))
    ahead[:-1] = np.log(bars.close[1:] / bars.close[:-1])
    return ahead[:, :, None]


@dataclass(frozen=True)
class Follow:
    """Holds what its feature says will rise, `gain` times as strongly."""

    gain: float = 1e6
    sizing: Sizing = SIZING
    contract: Contract = CONTRACT

    def decide(self, view: View, memory: Json) -> Decision:
        action = np.clip(self.gain * view.features[:, -1, 0], -1, 1)
        return Decision(intents=targets_of(action, self.contract.symbols, self.sizing), trace={"action": traced(action)})


def judge(strategy: Strategy | None = None, **changes: Any) -> WalkForward:
    bars = changes.pop("bars", None) or random_bars()
    arguments: dict[str, Any] = {
        "fit": lambda index, lo, hi: strategy or Follow(),
        "folds": walk_forward(len(bars), 2, 10),
        "report": lambda step, value: False,
        "capital_usd": 10_000.0,
        "costs": Costs(fee_bps=0, slippage_bps=0),
        "sizing": Sizing(),
        "barriers": Barriers.off(),
        "rules": RULES,
        "demands": Demands(),
    } | changes
    features, folds, fit = arguments.pop("features", knows_the_next_return(bars)), arguments.pop("folds"), arguments.pop("fit")
    walk = evaluate(bars, features, folds, **arguments)
    try:
        asked = next(walk)
        while True:
            asked = walk.send(fit(*asked))
    except StopIteration as end:
        outcome: WalkForward = end.value
        return outcome


def test_the_objective_is_the_mean_sharpe_of_folds_that_were_traded_apart() -> None:
    bars = random_bars()
    folds = walk_forward(ROWS, 2, 10)
    result = judge(bars=bars)
    alone = [
        backtest(
            Follow(),
            bars,
            knows_the_next_return(bars),
            first_decision=fold.test_lo,
            last=fold.test_hi - 1,
            capital_usd=10_000,
            costs=Costs(fee_bps=0, slippage_bps=0),
            sizing=Sizing(),
            barriers=Barriers.off(),
            rules=RULES,
        )
        for fold in folds
    ]
    assert result.state == "Complete"
    assert result.objective == pytest.approx(np.mean([metrics.sharpe(run.returns, 8760) for run in alone]))
    assert result.objective > 10, "it knows the future"
    for fold_result in result.folds:
        assert fold_result.run.equity[0] == 10_000
        assert fold_result.run.holdings[0].tolist() == [0, 0]
        assert (
            len(fold_result.run.returns)
            == len(fold_result.hodl.returns)
            == fold_result.fold.test_hi - fold_result.fold.test_lo - 1
        )


def test_what_a_search_may_minimise_is_the_deepest_drawdown_of_any_fold_and_the_mean_turnover() -> None:
    result = judge(costs=Costs(fee_bps=100, slippage_bps=20), demands=Demands(closed_trades=1))
    told = result.record["metrics"]
    folds = result.record["folds"]
    assert told["max_drawdown"] == max(fold["max_drawdown"] for fold in folds)
    assert told["turnover"] == pytest.approx(sum(fold["turnover"] for fold in folds) / len(folds))
    assert folds[0]["max_drawdown"] != folds[1]["max_drawdown"]
    assert judge(demands=Demands(closed_trades=100_000)).record["metrics"] == {}


def test_fit_is_given_the_training_rows_of_each_fold() -> None:
    asked = []

    def fit(index: int, lo: int, hi: int) -> Strategy:
        asked.append((index, lo, hi))
        return Follow()

    judge(fit=fit)
    assert asked == [(n, f.train_lo, f.train_hi) for n, f in enumerate(walk_forward(ROWS, 2, 10))]


def test_bars_outside_the_test_rows_do_not_change_the_score() -> None:
    bars, fold = random_bars(), Fold(0, 200, 220, 300)
    other = random_bars(seed=1)
    rows = np.r_[0:219, 300:ROWS]  # the test row before the first decision is the last that is kept
    changed = {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close")}
    for name, values in changed.items():
        values[rows] = getattr(other, name)[rows]
    features = knows_the_next_return(bars)
    garbled = features.copy()
    garbled[rows] = 7.0
    one = judge(bars=bars, folds=(fold,), features=features)
    two = judge(bars=replace(bars, **changed), folds=(fold,), features=garbled)
    assert two.objective == one.objective


def test_hodl_runs_beside_it_on_the_same_rows_at_the_same_costs() -> None:
    bars, costs = random_bars(), Costs(fee_bps=100, slippage_bps=10)
    result = judge(bars=bars, folds=(Fold(0, 100, 110, 390),), costs=costs, barriers=Barriers())
    (fold,) = result.folds
    assert [fill.side for fill in fold.hodl.fills] == ["buy", "buy"], "no barrier sells a HODL"
    assert fold.hodl.fees_usd > 50
    assert fold.hodl_sharpe == pytest.approx(metrics.sharpe(fold.hodl.returns, 8760))


def test_the_mean_so_far_is_reported_after_every_fold_but_the_last() -> None:
    told = []
    result = judge(folds=walk_forward(ROWS, 3, 10), report=lambda step, value: bool(told.append((step, value))))
    sharpes = [fold.sharpe for fold in result.folds]
    assert told == [(0, pytest.approx(sharpes[0])), (1, pytest.approx(np.mean(sharpes[:2])))]


def test_a_pruned_trial_stops_at_once_and_has_no_objective() -> None:
    result = judge(folds=walk_forward(ROWS, 3, 10), report=lambda step, value: step == 1)
    assert (result.state, result.objective, len(result.folds)) == ("Pruned", None, 2)
    assert "after fold 1" in result.reason


def test_trials_that_did_not_trade_fail_and_say_so() -> None:
    untraded = judge(Cash(contract=CONTRACT))
    assert (untraded.state, untraded.objective) == ("Failed", None)
    assert "fold 0: no closed trade" in untraded.reason
    bought = judge(Hold(contract=CONTRACT))
    assert "no closed trade in" in bought.reason
    assert "2 fills" in bought.reason


def test_too_little_exposure_fails() -> None:
    assert "exposure" in judge(demands=Demands(exposure=0.9)).reason
    assert judge(demands=Demands(exposure=0.05)).state == "Complete"


def test_too_few_closed_trades_over_all_folds_fail() -> None:
    closed = sum(len(fold.run.trades) for fold in judge().folds)
    assert judge(demands=Demands(closed_trades=closed)).state == "Complete"
    result = judge(demands=Demands(closed_trades=closed + 1))
    assert (result.state, result.objective) == ("Failed", None)
    assert f"{closed} closed trades" in result.reason


def test_an_action_that_is_not_a_number_fails() -> None:
    result = judge(Follow(gain=float("nan")))
    assert result.state == "Failed"
    assert "not a number in" in result.reason


def test_ruin_fails() -> None:
    bars = random_bars()
    prices = {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close")}
    for values in prices.values():
        values[300:] *= 0.01
    features = np.ones((ROWS, 2, 1))
    sizing = Sizing(max_weight=0.5)
    result = judge(Follow(sizing=sizing), bars=replace(bars, **prices), folds=(Fold(0, 200, 220, 390),), features=features)
    assert result.state == "Failed"
    assert "ruined" in result.reason


def test_the_record_is_json_with_everything_a_gate_needs() -> None:
    result = judge()
    record = json.loads(json.dumps(result.record, allow_nan=False))
    assert record["objective"] == result.objective
    assert record["sharpe_deviation"] == pytest.approx(np.std([fold.sharpe for fold in result.folds]))
    assert record["closed_trades"] == sum(fold["closed_trades"] for fold in record["folds"])
    first = record["folds"][0]
    assert first["test_rows"] == [result.folds[0].fold.test_lo, result.folds[0].fold.test_hi]
    assert first["test_between"][0].endswith("Z")
    assert len(first["returns"]) == len(first["hodl_returns"]) == first["test_rows"][1] - first["test_rows"][0] - 1
    assert sum(first["exits"].values()) == first["closed_trades"]


@pytest.mark.parametrize(
    "fold", [Fold(0, 100, 90, 200), Fold(0, 100, 110, ROWS + 1), Fold(0, 100, 110, 111), Fold(5, 5, 10, 20)]
)
def test_folds_that_leak_or_leave_the_bars_are_refused(fold: Fold) -> None:
    with pytest.raises(InvalidInput, match="fold 0"):
        judge(folds=(fold,))
    with pytest.raises(InvalidInput, match="no folds"):
        judge(folds=())
