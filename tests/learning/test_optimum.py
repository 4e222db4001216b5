"""The computed optimum against brute force, against the environment and against simpler rules."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from cappuccino.exchange.venue import Costs
from cappuccino.market.features import spec_of
from cappuccino.market.generator import ORIGIN, GeneratorBars
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing
from cappuccino.training.environment import TradingEnv
from cappuccino.training.market import Market
from cappuccino.training.observation import Scaling
from tests.learning.execution import Result, estimates, execute, optimal, threshold
from tests.learning.markets import CAPITAL_USD, HOUR, MARKETS, RULES, SYMBOLS, USUAL, Paths, Planted
from tests.learning.optimum import ACTIONS, Grid, Optimum, bar, solve, steady_state, trade

FREE = Costs(fee_bps=0, slippage_bps=0)
torch.set_num_threads(1)


def planted(name: str, **changes) -> Planted:
    """The feature is there for its warm-up: the filter settles before the trading begins."""
    return replace(MARKETS[name], features=(spec_of("return", {"bars": 64}),), **changes)


def solved(market: Planted) -> Optimum:
    filter_ = steady_state(market.edge, HOUR)
    return solve(filter_, market.costs, grid=Grid.of(filter_, estimates=121), tolerance=1e-7)


@cache
def paths_of(name: str) -> Paths:
    """The same whatever trading costs."""
    return Paths.draw(planted(name), seeds=range(200), length=200)


@pytest.mark.parametrize("name", MARKETS)
def test_the_filter_knows_the_drift_as_well_as_it_says_and_no_past_return_tells_more(name):
    edge = planted(name).edge
    filter_ = steady_state(edge, HOUR)
    source, bars = GeneratorBars(config=edge), 60_000
    drift = source.planted_drift(SYMBOLS, HOUR, ORIGIN, ORIGIN + 3600 * bars)[:, -1]
    frame = source.fetch(SYMBOLS, HOUR, ORIGIN, ORIGIN + 3600 * bars)
    close = np.stack([rows["close"].to_numpy() for rows in frame.partition_by("symbol", maintain_order=True)], axis=1)
    returns = np.diff(np.log(close), axis=0, prepend=np.log(close[:1]))
    seen = returns[:, [0, 2]] if edge.leader else returns[:, [2]]
    missed = drift[301:] - filter_.estimates(seen)[300:-1]
    assert missed.std() == pytest.approx(np.sqrt(filter_.error), rel=0.05)
    for lag in (0, 1, 3, 9, 27):
        for past in seen[300 - lag : -1 - lag].T:
            assert abs(np.corrcoef(missed, past)[0, 1]) < 0.03


def test_what_an_action_costs_is_what_the_environment_charges():
    weights = np.linspace(0.003, 0.5, 26)  # none at a threshold, where rounding decides
    flat = np.full((3, len(SYMBOLS)), 100.0)
    empty = np.zeros((3, len(SYMBOLS), 0))
    bars = replace(
        Paths.draw(planted("trending"), seeds=[0], length=1).bars.rows(0, 3), open=flat, high=flat, low=flat, close=flat
    )
    market = Market.build(
        bars=bars,
        features_TNF=empty,
        scaling=Scaling(mean=np.zeros(0, np.float32), std=np.ones(0, np.float32)),
        lookback=1,
        costs=USUAL,
        rules=RULES,
    )
    pairs = list(itertools.product(range(len(weights)), range(len(ACTIONS))))
    env = TradingEnv(
        market, rows=(0, 3), num_envs=len(pairs), sizing=Sizing(), barriers=Barriers.off(), capital_usd=CAPITAL_USD
    )
    before = torch.tensor([weights[w] for w, _ in pairs])
    env.accounts.holdings_BN[:, 0] = before * CAPITAL_USD / 100.0
    env.accounts.cash_B[:] = (1 - before) * CAPITAL_USD
    action = torch.zeros(len(pairs), len(SYMBOLS), dtype=torch.float64)
    action[:, 0] = torch.tensor([ACTIONS[a] for _, a in pairs])
    step = env.step(action, env.accounts.t_B)
    ours = trade(weights, USUAL)
    np.testing.assert_allclose(step.reward_B.numpy(), np.log(ours.kept).ravel(), atol=1e-9)
    np.testing.assert_allclose(step.last.account_BNA[:, 0, 0].numpy(), ours.weight.ravel(), atol=1e-9)


@pytest.mark.parametrize("name", MARKETS)
def test_brute_force_over_all_policies_finds_the_same_growth(name):
    """Two estimates, two weights: each of the 11^4 deterministic policies has its growth from a linear system."""
    filter_ = steady_state(MARKETS[name].edge, HOUR)
    grid = Grid.of(filter_, estimates=2, weights=2, span=1.5, top=0.4)
    optimum = solve(filter_, USUAL, grid=grid, tolerance=1e-12)

    passed, done = bar(filter_, grid), trade(grid.weight, USUAL)
    share = done.weight / grid.weight[1]
    taken = np.stack([1 - share, share], -1)  # [W, A, W]: from a weight, by an action, to a weight
    next_state = passed.next_state.toarray().reshape(2, 2, 4)
    moves = np.einsum("wau,dus->adws", taken, next_state).reshape(len(ACTIONS), 4, 4)
    growth = np.einsum("wau,du->adw", taken, passed.growth.reshape(2, 2)) + np.log(done.kept).T[:, None, :]
    growth = growth.reshape(len(ACTIONS), 4)

    policies, state = np.array(list(itertools.product(range(len(ACTIONS)), repeat=4))), np.arange(4)
    # Mean growth g and relative values v of a policy: g + v = growth + moves v, v[0] = 0; g takes v[0]'s column.
    system = np.eye(4) - moves[policies, state]
    system[:, :, 0] = 1.0
    settled = np.linalg.cond(system) < 1e9  # a policy with two closed classes has two growths
    growths = np.linalg.solve(system[settled], growth[policies, state][settled][..., None])[:, 0, 0]
    assert optimum.growth == pytest.approx(growths.max(), abs=1e-11)
    assert growths.max() > 1e-5
    assert len(growths) > 10_000


@pytest.mark.parametrize("name", MARKETS)
def test_the_growth_it_predicts_is_what_the_environment_pays(name):
    market = planted(name)
    paths, optimum = paths_of(name), solved(market)
    (result,) = execute(market, paths, [optimal(optimum, market, paths)], barriers=Barriers.off())
    predicted = optimum.growth * len(market.traded)
    assert predicted > 2e-4
    assert abs(result.growth.mean() - predicted) < 4 * _error(result)
    assert 4 * _error(result) < predicted / 2


@pytest.mark.parametrize("name", MARKETS)
def test_free_of_costs_it_beats_every_threshold(name):
    market = planted(name, costs=FREE)
    paths, optimum = paths_of(name), solved(market)
    bounds = ((0.0, 0.0), (0.5, 0.5), (0.5, -0.5), (1.5, 0.0), (-0.5, -0.5))
    rules = [threshold(optimum.filter, market, paths, buy=buy, sell=sell) for buy, sell in bounds]
    best, *others = execute(market, paths, [optimal(optimum, market, paths), *rules], barriers=Barriers.off())
    for rule, bound in zip(others, bounds, strict=True):
        ahead = best.growth - rule.growth
        assert ahead.mean() > -3 * ahead.std(ddof=1) / np.sqrt(len(ahead)), bound


@pytest.mark.parametrize("name", MARKETS)
def test_where_costs_make_the_edge_worthless_it_stays_in_cash(name):
    market = planted(name).costly()
    paths, optimum = Paths.draw(market, seeds=range(50), length=60), solved(market)
    assert optimum.growth < 1e-7
    assert np.abs(estimates(optimum.filter, market, paths)).max() > 3 * optimum.filter.sd  # the edge is there
    (result,) = execute(market, paths, [optimal(optimum, market, paths)], barriers=Barriers.off())
    assert result.turnover.max() == 0


def test_what_a_market_has_that_the_optimum_cannot_know_is_refused():
    edge = MARKETS["trending"].edge
    for change in ({"regimes": True}, {"jumps_per_year": 12.0}, {"correlation": 0.3}):
        with pytest.raises(AssertionError, match=next(iter(change))):
            steady_state(replace(edge, **change), HOUR)


def _error(result: Result) -> float:
    return float(result.growth.std(ddof=1)) / np.sqrt(len(result.growth))
