"""What a rule for deciding earns in the training environment, on paths that it has not seen.

All rules run side by side on the same paths (common random numbers), so that their differences are known better than their
growth. Shape suffixes: P paths, N assets, A account values.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
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
from cappuccino.training.observation import Scaling
from tests.learning.markets import CAPITAL_USD, RULES, Paths, Planted
from tests.learning.optimum import HOLD, Filter, Optimum

Decide = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From t [P], account [P, N, A] and cash weight [P] to actions [P, N]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """[P], one value per path: mean log growth, invested share, traded notional over equity, exits by barriers; all a bar."""

    growth: npt.NDArray[np.float64]
    exposure: npt.NDArray[np.float64]
    turnover: npt.NDArray[np.float64]
    stops: npt.NDArray[np.float64]


def execute(market: Planted, paths: Paths, rules: Sequence[Decide], *, barriers: Barriers) -> list[Result]:
    """One result per rule; each has an account of its own on every path."""
    width = paths.features.shape[2]
    table = Market.build(
        bars=paths.bars,
        features_TNF=paths.features,
        scaling=Scaling(mean=np.zeros(width, np.float32), std=np.ones(width, np.float32)),
        lookback=1,
        costs=market.costs,
        rules=RULES,
    )
    starts = torch.from_numpy(paths.starts).repeat(len(rules))
    env = TradingEnv(
        table,
        rows=(0, len(paths.bars)),
        num_envs=len(starts),
        sizing=Sizing(),
        barriers=barriers,
        capital_usd=CAPITAL_USD,
        episode_steps=len(paths.bars),
    )
    env.reset(starts)
    growth = torch.zeros(len(starts), dtype=torch.float64)
    bars = paths.length - 1
    for _ in range(bars):
        seen = env.observe()
        own = zip(*(all_.chunk(len(rules)) for all_ in (seen.t_B, seen.account_BNA, seen.cash_weight_B)), strict=True)
        action = torch.cat([decide(*part) for decide, part in zip(rules, own, strict=True)])
        growth += env.step(action, seen.t_B + 1).reward_B  # who is ruined goes on with a fresh account
    count = env.take_counters()
    per_bar = [
        (value / bars).reshape(len(rules), -1).numpy() for value in (growth, count.exposure, count.turnover, count.stops)
    ]
    return [
        Result(growth=growth_P, exposure=exposure_P, turnover=turnover_P, stops=stops_P)
        for growth_P, exposure_P, turnover_P, stops_P in zip(*per_bar, strict=True)
    ]


def learned(trained: TrainedPolicy, paths: Paths) -> Decide:
    """The deterministic policy, as it is exported and served: raw values in, its normaliser inside."""
    features_TNF = torch.from_numpy(paths.features.astype(np.float32))

    @torch.no_grad()
    def decide(t_P: Tensor, account_PNA: Tensor, cash_weight_P: Tensor) -> Tensor:
        action_PN: Tensor = trained.policy(
            features_TNF[t_P].unsqueeze(2), account_PNA.float(), cash_weight_P.float().unsqueeze(-1)
        )
        return action_PN.double()

    return decide


def optimal(optimum: Optimum, market: Planted, paths: Paths) -> Decide:
    estimates_TN = estimates(optimum.filter, market, paths)
    traded = list(market.traded)

    def decide(t_P: Tensor, account_PNA: Tensor, _: Tensor) -> Tensor:
        weight_PN = account_PNA[..., 0].numpy()
        action_PN = np.full(weight_PN.shape, HOLD)
        action_PN[:, traded] = optimum.action(estimates_TN[t_P.numpy()][:, traded], weight_PN[:, traded])
        return torch.from_numpy(action_PN)

    return decide


def threshold(filter_: Filter, market: Planted, paths: Paths, *, buy: float, sell: float) -> Decide:
    """All in above one estimate, out below another; both in standard deviations of the estimate."""
    estimates_TN = torch.from_numpy(estimates(filter_, market, paths) / filter_.sd)

    def decide(t_P: Tensor, _account: Tensor, _cash: Tensor) -> Tensor:
        at_PN = estimates_TN[t_P]
        return torch.where(at_PN > buy, 1.0, torch.where(at_PN < sell, -1.0, HOLD)).double()

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
