from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cappuccino.core.errors import InvalidInput
from cappuccino.exchange.venue import Costs
from cappuccino.risk.barriers import Barriers

from .builders import COSTS, SYMBOLS, environment, make_bars, random_bars, returns_features, venue
from .oracle import Oracle

EVERY_BARRIER = Barriers(stop=0.04, take_profit=0.06, trail=0.02, trail_arms_at=0.01, max_hold_bars=6)
FREE = Costs(fee_bps=0, slippage_bps=0)


@pytest.mark.parametrize("interval", [1, 4])
@pytest.mark.parametrize("barriers", [Barriers(), Barriers.off(), EVERY_BARRIER], ids=["usual", "off", "every"])
@pytest.mark.parametrize(
    ("seed", "sd", "capital", "max_weight"),  # at 60 % each, three assets ask for more cash than there is
    [(0, 0.004, 10_000, 0.3), (1, 0.03, 10_000, 0.3), (2, 0.1, 200, 0.3), (3, 0.02, 45, 0.3), (4, 0.02, 45, 0.6)],
)
def test_environments_and_the_oracle_agree_step_for_step(
    seed: int, sd: float, capital: float, max_weight: float, barriers: Barriers, interval: int
) -> None:
    bars = random_bars(seed=seed, sd=sd, missing=0.08, bars=200)
    rules = venue(min_notional="1") if seed % 2 else venue()
    starts = [1, 2, 17, 30]
    market = {"costs": COSTS, "rules": rules, "barriers": barriers, "max_weight": max_weight}
    # Close to the least capital that is accepted, minimums matter.
    least = max(float(rules[s].min_order_size) * high for s, high in zip(SYMBOLS, bars.high.max(0), strict=True))
    capital = max(capital, 1.1 * least / max_weight)
    env = environment(bars, num_envs=4, t=starts, capital_usd=capital, interval=interval, episode_bars=160, **market)
    env.episode_steps = 10**6  # resets in this test come from ruin alone
    oracles = [Oracle(bars, t=t, capital=capital, **market) for t in starts]
    rng = np.random.default_rng(seed)
    for number in range(160 // interval):
        action = rng.uniform(-1.2, 1.2, (4, 3))
        seen = env.observe()
        step = env.step(torch.from_numpy(action))
        for b, oracle in enumerate(oracles):
            expected = [oracle.view(symbol) for symbol in SYMBOLS]
            np.testing.assert_allclose(seen.account_BNA[b].numpy(), expected, rtol=1e-9, atol=1e-9, err_msg=f"step {number}")
            assert float(seen.cash_weight_B[b]) == pytest.approx(oracle.cash / oracle.equity(), abs=1e-9)
            reward, ruined = oracle.step(dict(zip(SYMBOLS, action[b], strict=True)), interval)
            assert float(step.reward_B[b]) == pytest.approx(reward, abs=1e-9)
            assert bool(step.terminated_B[b]) == ruined
            if ruined:  # begins anew, as the environment does
                oracles[b] = Oracle(bars, t=int(env.accounts.t_B[b]), capital=capital, **market)
        if int(env.accounts.t_B.max()) + interval >= len(bars):
            break
    assert int(env.take_counters().fills.sum()) > 40


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    sd=st.floats(0.0, 0.3),
    missing=st.floats(0.0, 0.5),
    fee=st.floats(0, 500),
    capital=st.floats(5_000, 1e6),
)
def test_cash_and_holdings_are_never_negative(seed: int, sd: float, missing: float, fee: float, capital: float) -> None:
    bars = random_bars(seed=seed, sd=sd, missing=missing, bars=60)
    bars = make_bars(close=np.clip(bars.close, 1e-3, 6e6), missing=bars.missing)
    env = environment(
        bars, num_envs=8, capital_usd=max(capital, 2_000 + 6e6 * 0.0004), costs=Costs(fee_bps=fee), episode_bars=20
    )
    rng = np.random.default_rng(seed)
    for _ in range(40):
        step = env.step(torch.from_numpy(rng.choice([-1.0, 0.0, 0.3, 1.0, 5.0], (8, 3))))
        assert float(env.accounts.cash_B.min()) >= 0
        assert float(env.accounts.holdings_BN.min()) >= 0
        assert bool(torch.isfinite(step.reward_B).all())


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), fee=st.floats(0, 300), slippage=st.floats(0, 100))
def test_at_constant_prices_value_is_conserved_less_costs(seed: int, fee: float, slippage: float) -> None:
    bars = make_bars(close=np.tile([40_000.0, 2_500.0, 0.1], (40, 1)))
    costs = Costs(fee_bps=fee, slippage_bps=slippage)
    env = environment(bars, num_envs=4, t=[0] * 4, costs=costs, barriers=Barriers.off())
    rng = np.random.default_rng(seed)
    for _ in range(35):
        env.step(torch.from_numpy(rng.uniform(-1, 1, (4, 3))))
    counted = env.take_counters()
    lost = 10_000 - env.equity()
    assert bool((counted.fills > 0).all())
    # Of what is lost, fees are counted; slippage is a share of what was traded: bounded by the traded value.
    slipped = lost - counted.fees
    assert float(slipped.min()) >= -1e-6
    if slippage == 0:
        assert float(slipped.abs().max()) < 1e-6
    assert float((slipped - slippage / 1e4 * counted.turnover * 10_000 * 1.001).max()) <= 1e-6


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.permutations(range(3)))
def test_symbols_in_any_order_give_the_same_result(seed: int, order: list[int]) -> None:
    bars = random_bars(seed=seed, sd=0.03, missing=0.05)
    shuffled = bars.select([SYMBOLS[n] for n in order])
    ours, theirs = (environment(b, num_envs=3, t=[0, 5, 9]) for b in (bars, shuffled))
    rng = np.random.default_rng(seed)
    for _ in range(40):
        action = rng.uniform(-1, 1, (3, 3))
        mine = ours.step(torch.from_numpy(action))
        other = theirs.step(torch.from_numpy(np.ascontiguousarray(action[:, order])))
        np.testing.assert_allclose(mine.reward_B, other.reward_B, atol=1e-12)
    np.testing.assert_allclose(ours.accounts.holdings_BN[:, order], theirs.accounts.holdings_BN, rtol=1e-12)


def test_an_environment_does_not_depend_on_its_neighbours() -> None:
    bars = random_bars(seed=4)
    rng = np.random.default_rng(0)
    alone, among = environment(bars, t=[3]), environment(bars, num_envs=5, t=[9, 20, 3, 1, 0])
    for _ in range(80):
        action = torch.from_numpy(rng.uniform(-1, 1, (5, 3)))
        assert float(alone.step(action[2:3]).reward_B[0]) == float(among.step(action).reward_B[2])


def test_a_decision_fills_at_the_next_open_and_is_marked_at_its_close() -> None:
    bars = make_bars(open_=[[100.0], [110.0]], close=[[100.0], [121.0]], symbols=("ETH/USD",))
    env = environment(bars, t=[0], costs=FREE, barriers=Barriers.off())
    step = env.step(torch.tensor([[1.0]]))
    spent = np.floor(3_000 / 110 / 1e-4) * 1e-4 * 110
    assert float(step.reward_B[0]) == pytest.approx(np.log((10_000 + spent * 0.1) / 10_000), abs=1e-12)


def test_nothing_after_the_next_bar_changes_a_step() -> None:
    bars = random_bars(seed=1, bars=40)
    changed = make_bars(
        **{
            **{
                name: np.where(np.arange(40)[:, None] > 21, getattr(bars, name) * 3, getattr(bars, name))
                for name in ("close", "high", "low")
            },
            "open_": np.where(np.arange(40)[:, None] > 21, bars.open * 3, bars.open),
        }
    )
    features = returns_features(bars)
    results = []
    for panel in (bars, changed):
        env = environment(panel, t=[20], features=features, capital_usd=1e6)
        step = env.step(torch.tensor([[1.0, 0.5, -0.4]]))
        results.append((float(step.reward_B[0]), step.last.account_BNA.tolist()))
    assert results[0] == results[1]


def test_there_is_no_trade_on_a_missing_bar() -> None:
    close = np.tile([100.0], (6, 1))
    for gap in (2, 3):  # the bar of the decision, the bar of the fill
        missing = np.zeros((6, 1), dtype=bool)
        missing[gap] = True
        env = environment(make_bars(close=close, missing=missing, symbols=("ETH/USD",)), t=[2])
        env.step(torch.ones(1, 1))
        assert float(env.accounts.holdings_BN[0, 0]) == 0
        env.step(torch.ones(1, 1))
        assert (float(env.accounts.holdings_BN[0, 0]) > 0) == (gap == 2)


def test_a_stop_is_observed_and_not_bought_back_before_the_next_decision() -> None:
    bars = make_bars(
        open_=[[100.0], [100.0], [99.0], [95.0], [95.0]],
        low=[[100.0], [100.0], [80.0], [95.0], [95.0]],
        close=[[100.0], [100.0], [95.0], [95.0], [95.0]],
        symbols=("ETH/USD",),
    )
    env = environment(bars, t=[0], costs=FREE)
    env.step(torch.ones(1, 1))
    assert env.observe().account_BNA[0, 0, 2:].tolist() == [1, 255]
    env.step(torch.ones(1, 1))
    weight, entry_return, held, since = env.observe().account_BNA[0, 0].tolist()
    assert weight < 1e-4
    assert [entry_return, held, since] == [0, 0, 1]
    assert float(env.accounts.cash_B[0]) == pytest.approx(10_000 - 3_000 * 0.1, rel=1e-4)
    env.step(torch.ones(1, 1))
    assert env.observe().account_BNA[0, 0, 3].item() == 2
    assert float(env.observe().account_BNA[0, 0, 0]) > 0.29


def test_ruin_terminates_and_a_full_episode_truncates() -> None:
    fall = np.array([100.0] * 3 + [100.0 * 0.05**n for n in range(1, 4)])[:, None]
    env = environment(
        make_bars(close=fall, symbols=("ETH/USD",)), t=[0], barriers=Barriers.off(), episode_bars=4, max_weight=1.0
    )
    flags = []
    for _ in range(3):
        step = env.step(torch.ones(1, 1))
        flags.append((bool(step.terminated_B[0]), bool(step.truncated_B[0])))
    assert flags == [(False, False), (False, False), (True, False)]

    env = environment(random_bars(bars=40), t=[0], episode_bars=5)
    flags = [bool(env.step(torch.zeros(1, 3)).truncated_B[0]) for _ in range(10)]
    assert flags == ([False] * 4 + [True]) * 2


def test_resets_stay_inside_the_allowed_rows() -> None:
    env = environment(random_bars(bars=300), num_envs=64, rows=(50, 120), episode_bars=32)
    seen: set[int] = set()
    for _ in range(100):
        seen |= set(env.accounts.t_B.tolist())
        env.step(torch.zeros(64, 3))
    assert min(seen) == 50
    assert max(seen) == 118  # its fill is at row 119, the last allowed


def test_windows_hold_the_last_bars_with_the_newest_last() -> None:
    bars = random_bars(bars=50)
    features = np.random.default_rng(0).standard_normal((50, 3, 4))
    env = environment(bars, features=features, lookback=5, t=[10])
    windows = env.market.windows(torch.tensor([10, 30]))
    assert windows.shape == (2, 3, 5, 4)
    torch.testing.assert_close(windows[1, 2], env.market.features_TNF[26:31, 2])


def test_float32_accounts_follow_float64_ones() -> None:
    bars = random_bars(seed=5, sd=0.01)
    precise, quick = (environment(bars, num_envs=4, t=[0, 1, 2, 3], dtype=dtype) for dtype in (torch.float64, torch.float32))
    rng = np.random.default_rng(0)
    for _ in range(60):
        action = torch.from_numpy(rng.uniform(-1, 1, (4, 3)))
        a, b = precise.step(action).reward_B, quick.step(action).reward_B
        np.testing.assert_allclose(a, b, atol=2e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"capital_usd": 10.0}, ["capital_usd 10", "BTC/USD", "at least"]),
        ({"rows": (0, 1)}, ["0..1", "120"]),
        ({"rows": (0, 500)}, ["0..500", "120"]),
        ({"features": np.zeros((7, 3, 1)), "rows": (0, 7)}, ["(7, 3, 1)", "(120, 3)"]),
        ({"rules": venue(SYMBOLS[:2])}, ["DOGE/USD"]),
    ],
)
def test_what_cannot_be_traded_is_refused(arguments: dict[str, object], words: list[str]) -> None:
    with pytest.raises(InvalidInput) as refused:
        environment(random_bars(sd=0.001), **arguments)  # type: ignore[arg-type]
    assert all(word in str(refused.value) for word in words), str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_capital_named_in_a_refusal_is_enough() -> None:
    bars = random_bars(sd=0.001)
    with pytest.raises(InvalidInput) as refused:
        environment(bars, capital_usd=1.0)
    needed = float(str(refused.value).rsplit(" ", 1)[1])
    environment(bars, capital_usd=needed)
    with pytest.raises(InvalidInput):
        environment(bars, capital_usd=needed - 0.02)
