"""A policy learns what is there, beats cash out of sample, and stays in cash where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cappuccino.core.timeframe import Timeframe
from cappuccino.exchange.venue import AssetRules, Costs
from cappuccino.market.bars import Bars
from cappuccino.market.features import DEFAULT_FEATURES, compute, warmup_bars
from cappuccino.market.generator import ORIGIN, GeneratorBars, GeneratorConfig
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing
from cappuccino.training.config import PPOConfig
from cappuccino.training.learning import TrainedPolicy, train_policy
from cappuccino.training.observation import scale_account

from .builders import SYMBOLS, advance, environment, make_bars, venue

COSTS = Costs(fee_bps=25, slippage_bps=5)
RULES: dict[str, AssetRules] = venue()
WARMUP = warmup_bars(DEFAULT_FEATURES)


def planted(seed: int, *, bars: int, drift: float) -> Bars:
    """AR(1) drift of half-life 24 bars, sd 0.5 % a bar; `drift` is the drift's own sd a bar."""
    source = GeneratorBars(config=GeneratorConfig(seed=seed, volatility=0.005, drift_volatility=drift))
    frame = source.fetch(SYMBOLS, Timeframe.parse("1h"), ORIGIN, ORIGIN + 3600 * bars)

    def panel(column: str) -> np.ndarray:
        return np.stack([frame.filter(frame["symbol"] == symbol)[column].to_numpy() for symbol in SYMBOLS], axis=1)

    return make_bars(open_=panel("open"), high=panel("high"), low=panel("low"), close=panel("close"))


def train(bars: Bars, seed: int) -> TrainedPolicy:
    return train_policy(
        bars=bars,
        features=compute(bars, DEFAULT_FEATURES),
        rows=(WARMUP, len(bars)),
        lookback=1,
        config=PPOConfig(),
        sizing=Sizing(),
        barriers=Barriers(),
        costs=COSTS,
        rules=RULES,
        capital_usd=10_000_000.0,
        seed=seed,
    )


def growth(trained: TrainedPolicy, bars: Bars, parts: int = 20) -> float:
    """Mean log growth a bar of the deterministic policy; cash has 0. The path is cut into parts that run side by side."""
    length = (len(bars) - WARMUP) // parts
    env = environment(
        bars,
        num_envs=parts,
        t=[WARMUP + part * length for part in range(parts)],
        rows=(WARMUP, len(bars)),
        capital_usd=10_000_000.0,
        costs=COSTS,
        features=np.nan_to_num(compute(bars, DEFAULT_FEATURES)),
        rules=RULES,
    )
    mean, std = (torch.from_numpy(values) for values in (trained.scaling.mean, trained.scaling.std))
    raw = torch.from_numpy(np.nan_to_num(compute(bars, DEFAULT_FEATURES)).astype(np.float32))
    assert torch.equal(mean, trained.policy.mean)
    assert torch.equal(std, trained.policy.std)
    total = torch.zeros(parts, dtype=torch.float64)
    for _ in range(length - 1):
        seen = env.observe()
        with torch.no_grad():
            action = trained.policy(
                raw[seen.t_B].unsqueeze(2), seen.account_BNA.float(), seen.cash_weight_B.float().unsqueeze(-1)
            )
        total += advance(env, action).reward_B
    return float(total.mean()) / (length - 1)


@pytest.mark.slow
def test_the_default_parameters_learn_a_planted_drift() -> None:
    trained = train(planted(0, bars=2_400, drift=0.0035), seed=0)
    assert trained.trades > 0
    fresh = [growth(trained, planted(1_001 + n, bars=4_000, drift=0.0035)) for n in range(2)]
    assert min(fresh) > 5e-4  # 5 bp a bar; 10 are usual


@pytest.mark.slow
def test_without_an_edge_costs_teach_it_to_stay_in_cash() -> None:
    trained = train(planted(0, bars=2_400, drift=0.0), seed=0)
    assert growth(trained, planted(1_001, bars=4_000, drift=0.0)) > -2e-5
    assert trained.exposure < 0.05


def test_account_values_are_scaled_to_about_one() -> None:
    raw = torch.tensor([[0.3, 0.05, 255.0, 255.0], [0.0, 0.0, 0.0, 0.0], [1.0, -3.0, 9_999.0, 1.0]])
    scaled = scale_account(raw)
    torch.testing.assert_close(scaled[0], torch.tensor([0.9, 0.5, 1.0, 1.0]))
    assert scaled[1].tolist() == [0, 0, 0, 0]
    torch.testing.assert_close(scaled[2], torch.tensor([3.0, -5.0, 1.0, float(np.log(2) / np.log(256))]))
