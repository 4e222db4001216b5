"""Runs of one network shape that train together on one market: what they share, and the learner made of it.

Members may differ in rows, seed and all settings but `config.SHAPE`. Scaling is fitted on each member's training rows
only, and it sees no others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch

from cappuccino.core.errors import InvalidInput
from cappuccino.core.identifiers import digest_of, sha256_hex
from cappuccino.exchange.venue import AssetRules, Costs
from cappuccino.market.bars import Bars
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing
from cappuccino.training.config import SHAPE, PPOConfig
from cappuccino.training.environment import TradingEnv
from cappuccino.training.market import Market
from cappuccino.training.networks import ActorCritic
from cappuccino.training.observation import Scaling, check_finite
from cappuccino.training.ppo import PPO
from cappuccino.training.stack import Stack


@dataclass(frozen=True, kw_only=True)
class Member:
    """One run. rows: training rows lo <= t < hi; windows may reach back before lo, nothing reaches hi."""

    config: PPOConfig
    rows: tuple[int, int]
    seed: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Pack:
    """All members, by number, and what they share. features: [T, N, F] raw."""

    members: Sequence[Member]
    bars: Bars
    features: npt.NDArray[np.float64]
    lookback: int
    sizing: Sizing
    barriers: Barriers
    costs: Costs
    rules: Mapping[str, AssetRules]
    capital_usd: float
    interval: int
    device: str
    compiled: bool

    def check(self) -> None:
        """
        Raises:
            InvalidInput: no members, members of different shape, or features that one would read and that are not finite.
        """
        if not self.members:
            raise InvalidInput("a pack has 0 members: give at least one")
        for name in SHAPE:
            values = {str(getattr(member.config, name)) for member in self.members}
            if len(values) > 1:
                raise InvalidInput(f"PPO parameter {name} is {', '.join(sorted(values))} in one pack: use one value of it")
        for rows in dict.fromkeys(member.rows for member in self.members):
            check_finite(self.features, rows=rows, symbols=self.bars.symbols, lookback=self.lookback)

    def scaling(self, rows: tuple[int, int]) -> Scaling:
        return Scaling.fit(self.features, rows)

    def environment(self, numbers: Sequence[int]) -> TradingEnv:
        """Of these members, in this order."""
        ranges = [self.members[number].rows for number in numbers]
        market = Market.build(
            bars=self.bars,
            features_TNF=self.features,
            scaling=[self.scaling(rows) for rows in dict.fromkeys(ranges)],
            lookback=self.lookback,
            costs=self.costs,
            rules=self.rules,
            device=self.device,
        )
        config = self.members[numbers[0]].config
        return TradingEnv(
            market,
            rows=ranges,
            num_envs=config.num_envs,
            group_size=config.group_size,
            sizing=self.sizing,
            barriers=self.barriers,
            capital_usd=self.capital_usd,
            interval=self.interval,
            compiled=self.compiled,
        )

    def learner(self, numbers: Sequence[int]) -> PPO:
        """Of these members, in this order, before their first update."""
        members = [self.members[number] for number in numbers]
        return PPO(
            self.environment(numbers),
            Stack([self._network(member) for member in members], device=self.device),
            [member.config for member in members],
            generators=[torch.Generator(device=self.device).manual_seed(member.seed) for member in members],
        )

    def _network(self, member: Member) -> ActorCritic:
        return ActorCritic(
            network=member.config.network,
            assets=len(self.bars.symbols),
            lookback=self.lookback,
            features=self.features.shape[2],
            hidden=member.config.hidden,
            layers=member.config.layers,
            log_std=member.config.log_std,
            generator=torch.Generator().manual_seed(member.seed),
        )

    def fingerprint(self) -> str:
        """Of everything that the results depend on."""
        bars, last = self.bars, max(member.rows[1] for member in self.members)
        return digest_of(
            {
                "bars": _digest(bars.open, bars.high, bars.low, bars.close),
                "missing": _digest(bars.missing),
                "features": _digest(self.features[:last]),
                "symbols": bars.symbols,
                "members": [
                    {"config": member.config.to_json(), "rows": member.rows, "seed": member.seed} for member in self.members
                ],
                "lookback": self.lookback,
                "interval": self.interval,
                "sizing": asdict(self.sizing),
                "barriers": asdict(self.barriers),
                "rules": [
                    [symbol, str(rule.min_order_size), str(rule.min_trade_increment), str(rule.min_notional)]
                    for symbol, rule in sorted(self.rules.items())
                    if symbol in bars.symbols
                ],
                "costs": [self.costs.fee, *(self.costs.slippage(symbol) for symbol in bars.symbols)],
                "capital_usd": self.capital_usd,
            }
        )


def _digest(*arrays: npt.NDArray[np.generic]) -> str:
    return sha256_hex(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays))
