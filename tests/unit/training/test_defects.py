"""The parent's defects that lie in the environment or in PPO, by their number in the list of facts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cappuccino.core.errors import InvalidInput
from cappuccino.risk.barriers import Barriers
from cappuccino.training.ppo import clipped_surrogate_loss, estimate_advantages

from .builders import SYMBOLS, advance, environment, random_bars, venue


def test_defect_02_rewards_are_log_returns_of_equity_never_dollars() -> None:
    bars = random_bars(seed=3, drift=-0.004)
    for capital in (5_000.0, 5_000_000.0):
        env = environment(bars, t=[0], capital_usd=capital, barriers=Barriers.off())
        rewards = [float(advance(env, torch.ones(1, 3)).reward_B[0]) for _ in range(100)]
        assert np.isfinite(rewards).all()
        assert sum(rewards) < 0
        assert sum(rewards) == pytest.approx(float(torch.log(env.accounts.equity_B[0] / capital)), abs=1e-9)


def test_defect_06_nothing_of_an_episode_reaches_the_next() -> None:
    bars = random_bars(seed=1, sd=0.05)
    env = environment(bars, num_envs=16, t=[0] * 16, episode_steps=10)
    rng = np.random.default_rng(0)
    for _ in range(10):
        step = advance(env, torch.from_numpy(rng.uniform(-1, 1, (16, 3))))
    assert bool(step.truncated_B.all())
    fresh = environment(bars, num_envs=16, t=env.accounts.t_B.tolist(), episode_steps=10)
    for name, value in env.accounts.tensors().items():
        torch.testing.assert_close(value, fresh.accounts.tensors()[name], msg=name)
    assert not torch.equal(step.last.account_BNA, step.observation.account_BNA)


@pytest.mark.parametrize("end", ["truncated", "ruined"])
def test_defect_07_the_last_reward_of_an_episode_is_a_reward_like_any_other(end: str) -> None:
    bars = random_bars(seed=2, sd=0.05)
    ending, going_on = (environment(bars, t=[0], episode_steps=n, barriers=Barriers.off()) for n in (8, 100))
    if end == "ruined":
        ending = environment(bars, t=[0], barriers=Barriers.off())
        ending.capital_usd = 1e9  # what is left of it is below a fifth: every step ends in ruin
    rng = np.random.default_rng(1)
    for number in range(8):
        action = torch.from_numpy(rng.uniform(-1, 1, (1, 3)))
        step, other = advance(ending, action), advance(going_on, action)
        assert float(step.reward_B[0]) == float(other.reward_B[0])
        if end == "ruined":
            assert bool(step.terminated_B[0])
            return
        assert bool(step.truncated_B[0]) == (number == 7)


def reference_advantages(
    reward: list[float], value: list[float], following: list[float], ended: list[str], g: float, lam: float
) -> list[float]:
    """By the definition: a sum of discounted temporal differences up to the episode's end."""
    steps = len(reward)
    deltas = [reward[t] + g * following[t] * (ended[t] != "ruined") - value[t] for t in range(steps)]
    result = []
    for t in range(steps):
        total, weight = 0.0, 1.0
        for k in range(t, steps):
            total += weight * deltas[k]
            if ended[k]:
                break
            weight *= g * lam
        result.append(total)
    return result


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(0.9, 0.8), (0.99, 0.0), (0.5, 1.0)])
def test_defect_08_advantages_use_their_own_lambda_and_stop_at_an_episodes_end(gamma: float, gae_lambda: float) -> None:
    rng = np.random.default_rng(0)
    reward, value, following = (rng.standard_normal((12, 5)) for _ in range(3))
    ended = rng.choice(["", "", "", "ruined", "truncated"], (12, 5))
    ours = estimate_advantages(
        reward_SB=torch.from_numpy(reward),
        value_SB=torch.from_numpy(value),
        next_value_SB=torch.from_numpy(following),
        terminated_SB=torch.from_numpy(ended == "ruined"),
        done_SB=torch.from_numpy(ended != ""),
        gamma=gamma,
        gae_lambda=gae_lambda,
    )
    for b in range(5):
        expected = reference_advantages(
            reward[:, b].tolist(), value[:, b].tolist(), following[:, b].tolist(), ended[:, b].tolist(), gamma, gae_lambda
        )
        np.testing.assert_allclose(ours[:, b], expected, atol=1e-12)


def test_defect_10_sizes_belong_to_symbols_not_to_positions_in_a_list() -> None:
    bars = random_bars()
    rules = venue()
    backwards = dict(reversed(rules.items()))
    for symbols in (SYMBOLS, tuple(reversed(SYMBOLS))):
        market = environment(bars.select(symbols), rules=backwards).market
        assert market.min_order_size_N.tolist() == [float(rules[symbol].min_order_size) for symbol in symbols]
        assert market.increment_N.tolist() == [float(rules[symbol].min_trade_increment) for symbol in symbols]
        assert market.slippage_N.tolist() == [0.004 if symbol == "DOGE/USD" else 0.0005 for symbol in symbols]


def test_defect_14_a_capital_whose_full_action_cannot_trade_is_refused_and_any_other_trades() -> None:
    bars = random_bars(sd=0.001, missing=0)
    with pytest.raises(InvalidInput, match="at least"):
        environment(bars, capital_usd=10)
    env = environment(bars, t=[0], capital_usd=16)
    advance(env, torch.ones(1, 3))
    assert int(env.take_counters().fills[0]) == 3
    assert bool((env.accounts.holdings_BN > 0).all())


def test_defect_15_actions_are_not_discarded() -> None:
    bars = random_bars(sd=0.01, drift=0.01)
    paths = {}
    for action in (1.0, 0.0):
        env = environment(bars, t=[0], barriers=Barriers.off())
        for _ in range(50):
            advance(env, torch.full((1, 3), action))
        paths[action] = float(env.accounts.equity_B[0])
    assert paths[0.0] == 10_000
    assert paths[1.0] > 10_500


def test_defect_15_the_surrogate_clips() -> None:
    for advantage, gains_nothing, still_pays in ((1.0, 1.5, 0.5), (-1.0, 0.5, 1.5)):
        for ratio, gradient in ((gains_nothing, 0.0), (still_pays, -advantage), (1.0, -advantage)):
            x = torch.tensor([ratio], requires_grad=True)
            clipped_surrogate_loss(x, torch.tensor([advantage]), 0.2).backward()
            assert x.grad is not None
            assert float(x.grad[0]) == gradient, (advantage, ratio)


def test_defect_15_an_asset_is_sold_by_its_own_action_only() -> None:
    env = environment(random_bars(sd=0.001), t=[0], barriers=Barriers.off())
    advance(env, torch.ones(1, 3))
    held = env.accounts.holdings_BN[0].clone()
    advance(env, torch.tensor([[0.0, -1.0, 0.0]]))
    now = env.accounts.holdings_BN[0]
    assert [bool(now[n] == held[n]) for n in range(3)] == [True, False, True]
    assert float(now[1]) < 1e-3


def test_defect_12_episodes_start_all_over_the_rows_not_in_one_place() -> None:
    env = environment(random_bars(bars=400), num_envs=256, episode_steps=50)
    assert len(set(env.accounts.t_B.tolist())) > 100
