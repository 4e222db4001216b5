"""What is run: markets, searches, and how many Studies of each.

noise: nobody has an edge; prices drift and their volatility clusters. There are no barriers: what one fills at inside a bar
is a model (risk/barriers.py), a little too kind even on noise, and here the gates are judged. noise-barriers: with the
barriers that a manifest has by default, so that this kindness shows. noise-ppo: policies trained for a moment, with the same
barriers. edge-...: the noise market with an AR(1) drift planted, whose standard deviation is so many basis points a bar.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.calibrate.study import Setup

RULE = {
    "strategy": {"kind": "trend", "parameters": {"feature": "trend", "feature_period": "12"}},
    "searchSpace": {
        "interval": {"type": "int", "low": 1, "high": 8},
        "direction": {"type": "categorical", "choices": ["1", "-1"]},
        "enter": {"type": "float", "low": 0.0, "high": 0.3},
        "exit": {"type": "float", "low": -0.3, "high": 0.0},
    },
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
STRENGTHS_BPS = (3, 5, 7, 9, 12, 15, 20)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """`most`: what the upper limit of the rate of false passes may be; None: nothing is asked."""

    name: str
    setup: Setup
    studies: int
    fast: int
    most: float | None = None


def edge(bps: float) -> Scenario:
    setup = Setup(search=RULE, trials=16, drift_volatility=bps / 1e4)
    return Scenario(name=f"edge-{bps:g}bp", setup=setup, studies=100, fast=6)


NOISE = Scenario(name="noise", setup=Setup(search=RULE, trials=16), studies=1000, fast=30, most=0.05)
BARRIERS = Scenario(name="noise-barriers", setup=Setup(search=RULE, trials=16, barriers=True), studies=200, fast=6)
POLICIES = Scenario(name="noise-ppo", setup=Setup(search=PPO, trials=4, pack=4, folds=2, barriers=True), studies=100, fast=2)
EDGES = tuple(edge(bps) for bps in STRENGTHS_BPS)
SCENARIOS = (NOISE, *EDGES, BARRIERS, POLICIES)
