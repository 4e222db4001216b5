"""From bars and features to a trained policy: one run, at a fixed budget, whose last weights are the result.

Scaling is fitted on the training rows only, and the run sees no others. The best checkpoint on training data is never
chosen. A stop request or a crash loses at most what came after the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch

from cappuccino.core.errors import RetryLater
from cappuccino.core.identifiers import digest_of, sha256_hex
from cappuccino.exchange.venue import AssetRules, Costs
from cappuccino.market.bars import Bars
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.interface import Contract
from cappuccino.training.checkpoint import Checkpoints, Curve, restore, to_bytes
from cappuccino.training.config import PPOConfig
from cappuccino.training.environment import TradingEnv
from cappuccino.training.export import PolicyFiles, export_policy
from cappuccino.training.market import Market
from cappuccino.training.networks import ActorCritic, Policy
from cappuccino.training.observation import Scaling, check_finite
from cappuccino.training.ppo import PPO

PARITY_ROWS = 256
Progress = dict[str, float]


class TrainingStopped(RetryLater):
    """Asked to stop between two updates; the checkpoint, if there is a place for one, has been written."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedPolicy:
    """The last weights of a run.

    curve: one row of `ppo.METRICS` per update. trades: closed in the whole run, exploration included; 0 says that the
    agent never traded. exposure: mean invested share in the last rollout.
    """

    policy: Policy
    scaling: Scaling
    curve: Curve
    timesteps: int
    trades: int
    exposure: float
    real_features_BNLF: npt.NDArray[np.float32]

    def export(self, contract: Contract) -> PolicyFiles:
        """The files of a bundle; see `export.export_policy`."""
        return export_policy(self.policy, contract=contract, real_features_BNLF=self.real_features_BNLF)


def train_policy(
    *,
    bars: Bars,
    features: npt.NDArray[np.float64],
    rows: tuple[int, int],
    lookback: int,
    config: PPOConfig,
    sizing: Sizing,
    barriers: Barriers,
    costs: Costs,
    rules: Mapping[str, AssetRules],
    capital_usd: float,
    seed: int,
    on_update: Callable[[Progress], None] | None = None,
    checkpoints: Checkpoints | None = None,
    should_stop: Callable[[], bool] | None = None,
    interval: int = 1,
    device: str = "cpu",
) -> TrainedPolicy:
    """Train one policy. The number of torch's threads is the caller's choice.

    Args:
        features: [T, N, F] raw, of the same bars.
        rows: training rows lo <= t < hi; windows may reach back before lo, nothing reaches hi.
        interval: bars from one decision to the next.
        on_update: gets `METRICS` with `update`, `updates` and `timesteps`, once per update.

    Raises:
        InvalidInput: bad shapes, too few rows, NaN in features, or a capital too small for the venue.
        Diverged: a loss or parameter became NaN.
        TrainingStopped: `should_stop` said so.
        Conflict, IntegrityError: the checkpoint is of another run, or unreadable.
    """
    check_finite(features, rows=rows, symbols=bars.symbols, lookback=lookback)
    scaling = Scaling.fit(features, rows)
    market = Market.build(
        bars=bars, features_TNF=features, scaling=scaling, lookback=lookback, costs=costs, rules=rules, device=device
    )
    generator = torch.Generator(device=device).manual_seed(seed)
    net = ActorCritic(
        network=config.network,
        assets=len(bars.symbols),
        lookback=lookback,
        features=features.shape[2],
        hidden=config.hidden,
        layers=config.layers,
        log_std=config.log_std,
        generator=torch.Generator().manual_seed(seed),
    ).to(device)
    env = TradingEnv(
        market,
        rows=rows,
        num_envs=config.num_envs,
        sizing=sizing,
        barriers=barriers,
        capital_usd=capital_usd,
        generator=generator,
        interval=interval,
    )
    ppo = PPO(env, net, config, generator=generator)
    fingerprint = digest_of(
        {
            "bars": sha256_hex(
                b"".join(np.ascontiguousarray(a).tobytes() for a in (bars.open, bars.high, bars.low, bars.close))
            ),
            "missing": sha256_hex(np.ascontiguousarray(bars.missing).tobytes()),
            "features": sha256_hex(np.ascontiguousarray(features[: rows[1]]).tobytes()),
            "symbols": bars.symbols,
            "rows": rows,
            "lookback": lookback,
            "interval": interval,
            "config": config.to_json(),
            "sizing": asdict(sizing),
            "barriers": asdict(barriers),
            "market": [
                [float(v) for v in t.tolist()] for t in (market.min_order_size_N, market.increment_N, market.min_notional_N)
            ],
            "costs": [market.fee, *(float(v) for v in market.slippage_N.tolist())],
            "capital_usd": capital_usd,
            "seed": seed,
        }
    )
    saved = checkpoints.load() if checkpoints else None
    curve: Curve = restore(saved, ppo, fingerprint=fingerprint) if saved is not None else []

    while ppo.update < config.num_updates:
        if should_stop and should_stop():
            if checkpoints:
                checkpoints.save(to_bytes(ppo, curve, fingerprint=fingerprint))
            raise TrainingStopped(
                f"training stopped after update {ppo.update} of {config.num_updates}: start it again to resume"
            )
        curve.append(ppo.step())
        if on_update:
            on_update({**curve[-1], "update": ppo.update, "updates": config.num_updates, "timesteps": ppo.timesteps})
        if checkpoints and checkpoints.due():
            checkpoints.save(to_bytes(ppo, curve, fingerprint=fingerprint))

    t = np.linspace(rows[0], rows[1] - 1, min(PARITY_ROWS, rows[1] - rows[0])).astype(int)
    windows = np.stack([features[t - lookback + 1 + step] for step in range(lookback)], axis=2)
    return TrainedPolicy(
        policy=Policy(net.cpu(), mean_F=torch.from_numpy(scaling.mean), std_F=torch.from_numpy(scaling.std)).eval(),
        scaling=scaling,
        curve=curve,
        timesteps=ppo.timesteps,
        trades=int(sum(row["trades"] for row in curve)),
        exposure=curve[-1]["exposure"],
        real_features_BNLF=windows.astype(np.float32),
    )
