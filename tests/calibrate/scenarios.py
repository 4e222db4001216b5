"""What is run: markets, searches, and how many Studies of each.

noise: nobody has an edge; prices drift and their volatility clusters. There are no barriers: what one fills at inside a bar
is a model (risk/barriers.py), a little too kind even on noise, and here the gates are judged. noise-barriers: with the
barriers that a manifest has by default, so that this kindness shows. noise-ppo: policies trained for a moment, with the same
barriers. edge-...: the noise market with an AR(1) drift planted, whose standard deviation is so many basis points a bar;
-both-ways: searched by a rule that may also bet against it, so that trials truly differ.

`feature_volatility` is longer than any searched period asks for: all trials are warm at the same bar, so that PBO can
compare them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.calibrate.study import Setup

RULE = {
    "strategy": {"kind": "trend", "parameters": {"feature": "trend", "feature_volatility": "240"}},
    "searchSpace": {
        "interval": {"type": "int", "low": 4, "high": 12},
        "feature_period": {"type": "int", "low": 4, "high": 23, "log": True},
        "enter": {"type": "float", "low": 0.0, "high": 0.15},
        "exit": {"type": "float", "low": -0.15, "high": 0.0},
    },
}
BOTH_WAYS = {
    **RULE,
    "searchSpace": {**RULE["searchSpace"], "direction": {"type": "categorical", "choices": ["1", "-1"]}},
}
PPO = {
    "strategy": {
        "kind": "ppo",
        "parameters": {
            "network": "shared",
            "hidden": "16",
            "num_envs": "64",
            "num_steps": "16",
            "num_minibatches": "4",
            "total_timesteps": "30720",
        },
    },
    "searchSpace": {
        "learning_rate": {"type": "float", "low": 0.003, "high": 0.03, "log": True},
        "gamma": {"type": "float", "low": 0.5, "high": 0.98},
        "ent_coef": {"type": "float", "low": 0.0001, "high": 0.01, "log": True},
    },
}
STRENGTHS_BPS = (4, 6, 8, 10, 13, 17)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """`most`: what the upper limit may be of the rates at which the window gate and all statistical gates pass; None: any."""

    name: str
    setup: Setup
    studies: int
    fast: int
    most: float | None = None


def rule(*, search: Mapping[str, Any] = RULE, barriers: bool = False, edge_bps: float = 0.0) -> Setup:
    return Setup(search=search, trials=16, pack=4, barriers=barriers, drift_volatility=edge_bps / 1e4)


NOISE = Scenario(name="noise", setup=rule(), studies=1000, fast=30, most=0.05)
EDGES = tuple(Scenario(name=f"edge-{bps}bp", setup=rule(edge_bps=bps), studies=60, fast=6) for bps in STRENGTHS_BPS)
POLICIES = Scenario(name="noise-ppo", setup=Setup(search=PPO, trials=8, pack=8, folds=2, barriers=True), studies=100, fast=2)
BARRIERS = Scenario(name="noise-barriers", setup=rule(barriers=True), studies=200, fast=6)
OPPOSED = Scenario(name="edge-13bp-both-ways", setup=rule(search=BOTH_WAYS, edge_bps=13), studies=60, fast=6)
SCENARIOS = (NOISE, POLICIES, *EDGES, OPPOSED, BARRIERS)
