"""What a rule for deciding earns in the training environment, on paths that it has not seen.

All rules run on the same paths (common random numbers), so that their differences are known better than their growth.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing
from cappuccino.training.environment import TradingEnv
from cappuccino.training.learning import TrainedPolicy
from cappuccino.training.market import Market
from cappuccino.training.observation import Observation, Scaling
from tests.learning.markets import CAPITAL_USD, RULES, Paths, Planted
from tests.learning.optimum import HOLD, Filter, Optimum

Decide = Callable[[Observation], Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """[P], one value per path: mean log growth, invested share, traded notional over equity, exits by barriers; all a bar."""

    growth: npt.NDArray[np.float64]
    exposure: npt.NDArray[np.float64]
    turnover: npt.NDArray[np.float64]
    stops: npt.NDArray[np.float64]


def execute(market: Planted, paths: Paths, decide: Decide, *, barriers: Barriers) -> Result:
    width = paths.features.shape[2]
    table = Market.build(
        bars=paths.bars,
        features_TNF=paths.features,
        scaling=Scaling(mean=np.zeros(width, np.float32), std=np.ones(width, np.float32)),
        lookback=1,
        costs=market.costs,
        rules=RULES,
    )
    env = TradingEnv(
        table,
        rows=(0, len(paths.bars)),
        num_envs=len(paths.starts),
        sizing=Sizing(),
        barriers=barriers,
        capital_usd=CAPITAL_USD,
        episode_bars=len(paths.bars),
    )
    env.reset(torch.from_numpy(paths.starts))
    growth = torch.zeros(len(paths.starts), dtype=torch.float64)
    bars = paths.length - 1
    for _ in range(bars):
        seen = env.observe()
        growth += env.step(decide(seen), seen.t_B + 1).reward_B  # who is ruined goes on with a fresh account
    count = env.take_counters()
    per_bar = [(value / bars).numpy() for value in (growth, count.exposure, count.turnover, count.stops)]
    return Result(growth=per_bar[0], exposure=per_bar[1], turnover=per_bar[2], stops=per_bar[3])


def learned(trained: TrainedPolicy, paths: Paths) -> Decide:
    """The deterministic policy, as it is exported and served: raw values in, its normaliser inside."""
    features = torch.from_numpy(paths.features.astype(np.float32)).unsqueeze(2)

    @torch.no_grad()
    def decide(seen: Observation) -> Tensor:
        action: Tensor = trained.policy(features[seen.t_B], seen.account_BNA.float(), seen.cash_weight_B.float().unsqueeze(-1))
        return action

    return decide


def optimal(optimum: Optimum, market: Planted, paths: Paths) -> Decide:
    estimates_TN = estimates(optimum.filter, market, paths)
    traded = list(market.traded)

    def decide(seen: Observation) -> Tensor:
        weight = seen.account_BNA[..., 0].numpy()
        action = np.full(weight.shape, HOLD)
        action[:, traded] = optimum.action(estimates_TN[seen.t_B.numpy()][:, traded], weight[:, traded])
        return torch.from_numpy(action)

    return decide


def threshold(filter_: Filter, market: Planted, paths: Paths, *, buy: float, sell: float) -> Decide:
    """All in above one estimate, out below another; both in standard deviations of the estimate."""
    estimates_TN = torch.from_numpy(estimates(filter_, market, paths) / filter_.sd)

    def decide(seen: Observation) -> Tensor:
        at = estimates_TN[seen.t_B]
        return torch.where(at > buy, 1.0, torch.where(at < sell, -1.0, HOLD))

    return decide


def estimates(filter_: Filter, market: Planted, paths: Paths) -> npt.NDArray[np.float64]:
    """[T, N] of the next bar's drift; 0 for an asset without an edge. Each path begins anew."""
    close = np.log(paths.bars.close)
    out = np.zeros_like(close)
    bounds = [*(paths.starts - paths.starts[0]).tolist(), len(close)]
    for lo, hi in itertools.pairwise(bounds):
        returns = np.diff(close[lo:hi], axis=0, prepend=close[lo : lo + 1])
        for n in market.traded:
            seen = [n] if market.edge.leader is None else [paths.bars.symbols.index(market.edge.leader), n]
            out[lo:hi, n] = filter_.estimates(returns[:, seen])
    return out
