from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cappuccino.core.errors import InvalidInput
from cappuccino.exchange.venue import Costs
from cappuccino.risk.barriers import Barriers
from cappuccino.training.observation import scale_account
from tests.bench.environment import cappuccino_env
from tests.bench.single import SingleEnv, Tables

from .builders import COSTS, SYMBOLS, advance, environment, make_bars, random_bars, returns_features, scattered, venue
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
    steps = 160 // interval
    env = environment(bars, num_envs=4, t=starts, capital_usd=capital, interval=interval, episode_steps=steps, **market)
    oracles = [Oracle(bars, t=t, capital=capital, **market) for t in starts]
    rng = np.random.default_rng(seed)
    for number in range(steps):
        action = rng.uniform(-1.2, 1.2, (4, 3))
        seen = env.observe()
        step = advance(env, torch.from_numpy(action))
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


@pytest.mark.parametrize("group_size", [1, 3])
@pytest.mark.parametrize("interval", [1, 2])
def test_members_and_groups_follow_the_oracle_through_ruin_and_truncation(group_size: int, interval: int) -> None:
    bars = random_bars(seed=3, sd=0.25, drift=-0.15, bars=160)
    rules, capital, members = venue(min_notional="0.01"), 1e9, [(0, 26), (20, 160), (0, 26)]
    lengths = [min(40, (hi - lo - 1) // interval) for lo, hi in members]
    market = {"costs": COSTS, "rules": rules, "barriers": Barriers.off(), "max_weight": 1.0}
    env = environment(
        bars,
        num_envs=6,
        rows=members,
        group_size=group_size,
        capital_usd=capital,
        interval=interval,
        episode_steps=40,
        **market,
    )
    assert env.episode_steps == min(lengths)
    oracles = [Oracle(bars, t=t, capital=capital, **market) for t in env.accounts.t_B.tolist()]
    ages = env.accounts.age_B.tolist()
    rng = np.random.default_rng(0)
    ruins = truncations = 0
    for number in range(120):
        action = rng.uniform(-1, 1.5, (18, 3))
        starts = scattered(env, number)[0]
        step = env.step(torch.from_numpy(action), starts)
        for b in range(18):
            reward, ruined = oracles[b].step(dict(zip(SYMBOLS, action[b], strict=True)), interval)
            ages[b] += 1
            full = ages[b] >= lengths[b // 6]
            assert float(step.reward_B[b]) == pytest.approx(reward, abs=1e-9)
            assert bool(step.terminated_B[b]) == ruined
            assert bool(step.truncated_B[b]) == (full and not ruined)
            assert int(step.last.t_B[b]) == oracles[b].t
            ruins, truncations = ruins + ruined, truncations + (full and not ruined)
            if full or (ruined and group_size == 1):
                oracles[b], ages[b] = Oracle(bars, t=int(starts[b]), capital=capital, **market), 0
            elif ruined:  # it stays with its group
                oracles[b] = Oracle(bars, t=oracles[b].t, capital=capital, **market)
            assert step.observation.t_B[b] == oracles[b].t
            expected = [oracles[b].view(symbol) for symbol in SYMBOLS]
            np.testing.assert_allclose(step.observation.account_BNA[b].numpy(), expected, rtol=1e-9, atol=1e-9)
        groups = step.observation.t_B.view(-1, group_size)
        assert bool((groups == groups[:, :1]).all())
    assert ruins > 20
    assert truncations > 20


def test_members_packed_together_walk_as_each_alone() -> None:
    bars = random_bars(seed=5, bars=200)
    members = [(2, 90), (50, 200), (2, 90)]
    packed = environment(bars, num_envs=4, rows=members, lookback=3, episode_steps=30)
    alone = [environment(bars, num_envs=4, rows=rows, lookback=3, episode_steps=30) for rows in members]
    for env, (starts, ages) in zip(alone, zip(*(part.split(4) for part in scattered(packed)), strict=True), strict=True):
        env.reset(starts, ages)
    rng = np.random.default_rng(1)
    for number in range(80):
        action = torch.from_numpy(rng.uniform(-1, 1, (12, 3)))
        starts = scattered(packed, number)[0]
        together = packed.step(action, starts)
        apart = [env.step(*arguments) for env, *arguments in zip(alone, action.split(4), starts.split(4), strict=True)]
        assert torch.equal(together.reward_B, torch.cat([step.reward_B for step in apart]))
        windows = [env.market.windows(step.observation.row_B) for env, step in zip(alone, apart, strict=True)]
        assert torch.equal(packed.market.windows(together.observation.row_B), torch.cat(windows))
    assert not torch.equal(windows[0], windows[1])


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
        bars, num_envs=8, capital_usd=max(capital, 2_000 + 6e6 * 0.0004), costs=Costs(fee_bps=fee), episode_steps=20
    )
    rng = np.random.default_rng(seed)
    for _ in range(40):
        step = advance(env, torch.from_numpy(rng.choice([-1.0, 0.0, 0.3, 1.0, 5.0], (8, 3))))
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
        advance(env, torch.from_numpy(rng.uniform(-1, 1, (4, 3))))
    counted = env.take_counters()
    lost = 10_000 - env.accounts.equity_B
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
        mine = advance(ours, torch.from_numpy(action))
        other = advance(theirs, torch.from_numpy(np.ascontiguousarray(action[:, order])))
        np.testing.assert_allclose(mine.reward_B, other.reward_B, atol=1e-12)
    np.testing.assert_allclose(ours.accounts.holdings_BN[:, order], theirs.accounts.holdings_BN, rtol=1e-12)


def test_an_environment_does_not_depend_on_its_neighbours() -> None:
    bars = random_bars(seed=4)
    rng = np.random.default_rng(0)
    alone, among = environment(bars, t=[3]), environment(bars, num_envs=5, t=[9, 20, 3, 1, 0])
    for _ in range(80):
        action = torch.from_numpy(rng.uniform(-1, 1, (5, 3)))
        assert float(advance(alone, action[2:3]).reward_B[0]) == float(advance(among, action).reward_B[2])


def test_a_decision_fills_at_the_next_open_and_is_marked_at_its_close() -> None:
    bars = make_bars(open_=[[100.0], [110.0]], close=[[100.0], [121.0]], symbols=("ETH/USD",))
    env = environment(bars, t=[0], costs=FREE, barriers=Barriers.off())
    step = advance(env, torch.tensor([[1.0]]))
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
        step = advance(env, torch.tensor([[1.0, 0.5, -0.4]]))
        results.append((float(step.reward_B[0]), step.last.account_BNA.tolist()))
    assert results[0] == results[1]


def test_there_is_no_trade_on_a_missing_bar() -> None:
    close = np.tile([100.0], (6, 1))
    for gap in (2, 3):  # the bar of the decision, the bar of the fill
        missing = np.zeros((6, 1), dtype=bool)
        missing[gap] = True
        env = environment(make_bars(close=close, missing=missing, symbols=("ETH/USD",)), t=[2])
        advance(env, torch.ones(1, 1))
        assert float(env.accounts.holdings_BN[0, 0]) == 0
        advance(env, torch.ones(1, 1))
        assert (float(env.accounts.holdings_BN[0, 0]) > 0) == (gap == 2)


def test_a_stop_is_observed_and_not_bought_back_before_the_next_decision() -> None:
    bars = make_bars(
        open_=[[100.0], [100.0], [99.0], [95.0], [95.0]],
        low=[[100.0], [100.0], [80.0], [95.0], [95.0]],
        close=[[100.0], [100.0], [95.0], [95.0], [95.0]],
        symbols=("ETH/USD",),
    )
    env = environment(bars, t=[0], costs=FREE)
    advance(env, torch.ones(1, 1))
    assert env.observe().account_BNA[0, 0, 2:].tolist() == [1, 255]
    advance(env, torch.ones(1, 1))
    weight, entry_return, held, since = env.observe().account_BNA[0, 0].tolist()
    assert weight < 1e-4
    assert [entry_return, held, since] == [0, 0, 1]
    assert float(env.accounts.cash_B[0]) == pytest.approx(10_000 - 3_000 * 0.1, rel=1e-4)
    advance(env, torch.ones(1, 1))
    assert env.observe().account_BNA[0, 0, 3].item() == 2
    assert float(env.observe().account_BNA[0, 0, 0]) > 0.29


def test_ruin_terminates_and_a_full_episode_truncates() -> None:
    fall = np.array([100.0] * 3 + [100.0 * 0.05**n for n in range(1, 4)])[:, None]
    env = environment(
        make_bars(close=fall, symbols=("ETH/USD",)), t=[0], barriers=Barriers.off(), episode_steps=4, max_weight=1.0
    )
    flags = []
    for _ in range(3):
        step = advance(env, torch.ones(1, 1))
        flags.append((bool(step.terminated_B[0]), bool(step.truncated_B[0])))
    assert flags == [(False, False), (False, False), (True, False)]

    env = environment(random_bars(bars=40), t=[0], episode_steps=5)
    flags = [bool(advance(env, torch.zeros(1, 3)).truncated_B[0]) for _ in range(10)]
    assert flags == ([False] * 4 + [True]) * 2


def test_resets_stay_inside_the_rows_of_their_member() -> None:
    env = environment(random_bars(bars=300), num_envs=64, rows=[(50, 120), (10, 200)], episode_steps=32)
    seen: list[set[int]] = [set(), set()]
    for number in range(100):
        for member, t_B in enumerate(env.accounts.t_B.split(64)):
            seen[member] |= set(t_B.tolist())
        advance(env, torch.zeros(128, 3), seed=number)
    assert (min(seen[0]), max(seen[0])) == (50, 118)  # its fill is at row 119, the last allowed
    assert (min(seen[1]), max(seen[1])) == (10, 198)


def test_windows_hold_the_last_bars_with_the_newest_last() -> None:
    bars = random_bars(bars=50)
    features = np.random.default_rng(0).standard_normal((50, 3, 4))
    env = environment(bars, features=features, lookback=5, t=[10])
    windows = env.market.windows(torch.tensor([10, 30]))
    assert windows.shape == (2, 3, 5, 4)
    torch.testing.assert_close(windows[1, 2], env.market.features_RNF[26:31, 2])


def test_float32_accounts_follow_float64_ones() -> None:
    bars = random_bars(seed=5, sd=0.01)
    precise, quick = (environment(bars, num_envs=4, t=[0, 1, 2, 3], dtype=dtype) for dtype in (torch.float64, torch.float32))
    rng = np.random.default_rng(0)
    for _ in range(60):
        action = torch.from_numpy(rng.uniform(-1, 1, (4, 3)))
        a, b = advance(precise, action).reward_B, advance(quick, action).reward_B
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_the_step_observes_what_the_accounts_then_are() -> None:
    env = environment(random_bars(seed=3, sd=0.1), num_envs=32, lookback=2, episode_steps=7, max_weight=0.6)
    rng = np.random.default_rng(0)
    for number in range(30):
        step, seen = advance(env, torch.from_numpy(rng.uniform(-1, 1, (32, 3))), seed=number), env.observe()
        for name, value in vars(seen).items():
            assert torch.equal(getattr(step.observation, name), value), name


def test_the_environment_of_the_benchmark_follows_the_same_rules() -> None:
    tables = Tables.random(bars=600, assets=4, features=2, lookback=3)
    env = cappuccino_env(tables, num_envs=3, dtype="float64", compiled=False)
    starts = [10, 100, 200]
    env.reset(torch.tensor(starts))
    singles = [SingleEnv(tables) for _ in starts]
    for single, t in zip(singles, starts, strict=True):
        single.reset(t)
    rng = np.random.default_rng(0)
    for _ in range(255):
        action = rng.uniform(-0.3, 1.0, (3, 4))
        step = env.step(torch.from_numpy(action), env.accounts.t_B)
        account = scale_account(step.last.account_BNA).numpy()
        for b, single in enumerate(singles):
            reward, ruined, _ = single.step(action[b])
            assert reward == pytest.approx(float(step.reward_B[b]), abs=1e-12)
            assert ruined == bool(step.terminated_B[b])
            np.testing.assert_allclose(single.account(), account[b], atol=1e-6)
    assert int(env.take_counters().stops.sum()) > 20


@pytest.mark.slow
@pytest.mark.timeout(900)  # two compilations, on whatever machine
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_compiled_step_gives_what_an_eager_one_gives(dtype: torch.dtype) -> None:
    """Within rounding: another order of sums, and fused multiplications. float32 may decide an edge otherwise: few may."""
    bars = random_bars(seed=5, sd=0.03, missing=0.05, bars=200)
    options = {"num_envs": 6, "rows": [(0, 60), (20, 200)], "group_size": 2, "episode_steps": 40, "dtype": dtype}
    eager, compiled = (environment(bars, compiled=flag, **options) for flag in (False, True))
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    rng = np.random.default_rng(0)
    errors = []
    for number in range(60):
        action = torch.from_numpy(rng.uniform(-1, 1, (12, 3))).float()
        ours, theirs = (advance(env, action, seed=number) for env in (compiled, eager))
        assert torch.equal(ours.observation.row_B, theirs.observation.row_B)
        assert torch.equal(ours.terminated_B, theirs.terminated_B)
        assert torch.equal(ours.truncated_B, theirs.truncated_B)
        errors.append((ours.reward_B - theirs.reward_B).abs())
        errors.append((ours.observation.account_BNA - theirs.observation.account_BNA).abs().amax((1, 2)))
    assert float((torch.stack(errors) > tolerance).double().mean()) <= (0.0 if dtype == torch.float64 else 0.01)
    for name, value in vars(compiled.take_counters()).items():
        torch.testing.assert_close(value, getattr(eager.counters, name), rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.slow
def test_a_machine_that_cannot_compile_is_told_what_it_lacks() -> None:
    with (
        torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True}),
        pytest.raises(InvalidInput, match=r"no-such-compiler.*install a C\+\+ compiler.*`compiled` off") as refused,
    ):
        environment(random_bars(), compiled=True)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"capital_usd": 10.0}, ["capital_usd 10", "BTC/USD", "at least"]),
        ({"rows": (0, 1)}, ["0..1", "120"]),
        ({"rows": (0, 500)}, ["0..500", "120"]),
        ({"rows": [(0, 50), (60, 500)]}, ["60..500", "120"]),
        ({"num_envs": 6, "group_size": 4}, ["6 environments", "groups of 4"]),
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
