"""The two engines in this process: the training environment, as PPO walks it, and the backtest.

Both begin afresh at the same rows, so that many stretches of one market can go through the environment at once.
Shape suffixes: B stretches, K bars, N assets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np
import torch
from torch import Tensor

from cappuccino.bundle import strategy_of
from cappuccino.core.clock import from_epoch
from cappuccino.evaluation.backtest import BacktestResult, backtest
from cappuccino.strategies.interface import Strategy, View
from cappuccino.training.environment import TradingEnv
from cappuccino.training.market import Market
from cappuccino.training.observation import Observation, Scaling, scale_account
from tests.parity.compare import FloatArray, Track
from tests.parity.scene import Scene


def stretches(scene: Scene, count: int) -> list[Scene]:
    """`count` scenes of equal length, one after the other, that cover this one but for a rest at its end."""
    length = (scene.last - scene.first) // count
    firsts = range(scene.first, scene.first + count * length, length)
    return [replace(scene, first=first, last=first + length) for first in firsts]


def backtested(scene: Scene) -> Track:
    bundle = scene.bundle
    result = backtest(
        strategy_of(bundle),
        scene.bars,
        scene.prepared.features,
        first_decision=scene.first,
        last=scene.last,
        capital_usd=bundle.capital_usd,
        costs=bundle.costs,
        sizing=bundle.sizing,
        barriers=bundle.barriers,
        rules=scene.prepared.rules,
    )
    return Track(at=result.at, equity=result.equity, actions=_actions(result), exits=_exits(result))


def walked(scenes: Sequence[Scene]) -> list[Track]:
    """Scenes of one length, side by side in the training environment; a policy decides as in training, without its noise."""
    scene, K = scenes[0], scenes[0].last - scenes[0].first
    env = _environment(scene, num_envs=len(scenes), bars=K)
    starts_B = torch.tensor([each.first for each in scenes])
    env.reset(starts_B)
    equity_KB, actions_KBN = np.empty((K + 1, len(scenes))), np.empty((K, len(scenes), len(scene.bars.symbols)))
    equity_KB[0] = scene.bundle.capital_usd
    strategy, growth_B = strategy_of(scene.bundle), np.zeros(len(scenes))
    for k in range(K):
        seen = env.observe()
        action_BN = _policy_actions(scene, env, seen) if scene.policy else _rule_actions(strategy, scene, env, seen)
        actions_KBN[k] = action_BN.numpy()
        step = env.step(torch.nan_to_num(action_BN), starts_B)
        if bool(step.terminated_B.any()):
            raise ValueError(f"{scene.name}: ruined after {k} bars: choose another bundle")
        growth_B += step.reward_B.numpy()
        equity_KB[k + 1] = scene.bundle.capital_usd * np.exp(growth_B)
    at = scene.bars.close_ts
    return [
        Track(at=at[each.first : each.last + 1], equity=equity_KB[:, b], actions=actions_KBN[:, b])
        for b, each in enumerate(scenes)
    ]


def _environment(scene: Scene, *, num_envs: int, bars: int) -> TradingEnv:
    bundle, prepared = scene.bundle, scene.prepared
    width, first = prepared.features.shape[2], prepared.warmup
    none = Scaling(mean=np.zeros(width, np.float32), std=np.ones(width, np.float32))
    market = Market.build(
        bars=prepared.bars,
        features_TNF=prepared.features,
        scaling=scene.policy.scaling if scene.policy else none,
        lookback=bundle.contract.lookback,
        costs=bundle.costs,
        rules=prepared.rules,
    )
    return TradingEnv(
        market,
        rows=(first, len(prepared.bars)),
        num_envs=num_envs,
        sizing=bundle.sizing,
        barriers=bundle.barriers,
        capital_usd=bundle.capital_usd,
        episode_steps=bars + 1,
    )


@torch.no_grad()
def _policy_actions(scene: Scene, env: TradingEnv, seen: Observation) -> Tensor:
    assert scene.policy is not None
    net = scene.policy.policy.net
    x = net.encode(
        env.market.windows(seen.row_B), scale_account(seen.account_BNA.float()), seen.cash_weight_B.float().unsqueeze(-1)
    )
    return net.mean(x).double()


def _rule_actions(strategy: Strategy, scene: Scene, env: TradingEnv, seen: Observation) -> Tensor:
    rows, bars, lookback = seen.t_B.tolist(), scene.bars, scene.bundle.contract.lookback
    account_BNA, cash_B, equity_B = seen.account_BNA.numpy(), seen.cash_weight_B.numpy(), env.accounts.equity_B.numpy()
    decisions = [
        strategy.decide(
            View(
                at=_at(scene, t),
                features=scene.prepared.features[t - lookback + 1 : t + 1].transpose(1, 0, 2),
                close=bars.close[t],
                weights=account_BNA[b, :, 0],
                cash_weight=float(cash_B[b]),
                equity_usd=float(equity_B[b]),
                entry_return=account_BNA[b, :, 1],
                bars_held=account_BNA[b, :, 2].astype(np.int64),
                bars_since_stop=account_BNA[b, :, 3].astype(np.int64),
                tradable=~bars.missing[t],
            ),
            {},
        )
        for b, t in enumerate(rows)
    ]
    return torch.from_numpy(np.array([traced(decision.trace["action"]) for decision in decisions]))


def traced(action: Sequence[float | None]) -> FloatArray:
    """The action of a trace, which is JSON: NaN where it says null."""
    return np.array([np.nan if value is None else value for value in action], dtype=np.float64)


def _at(scene: Scene, t: int) -> datetime:
    return from_epoch(int(scene.bars.close_ts[t]))


def _actions(result: BacktestResult) -> FloatArray:
    return np.stack([traced(decision.trace["action"]) for decision in result.decisions])


def _exits(result: BacktestResult) -> list[tuple[int, float]]:
    """At the close of the bar in which it sold."""
    found, step = [], int(result.at[1] - result.at[0])
    for fill in result.fills:
        if fill.reason != "signal":
            k = int(np.searchsorted(result.at, fill.ts + step))
            found.append((int(result.at[k]), fill.notional_usd / float(result.equity[k])))
    return found
