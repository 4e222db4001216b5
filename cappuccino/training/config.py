"""PPO's settings, in CleanRL's terms, with the ranges in which they make sense.

Manifests carry parameters as text; `from_parameters` reads them and refuses what it does not know. The defaults are
what learned reliably over seeds on planted markets with AR(1) drift (tests/unit/training/test_learning.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from cappuccino.core.errors import InvalidInput
from cappuccino.training.networks import NETWORKS, Network

_RANGES: dict[str, tuple[float, float]] = {
    "total_timesteps": (1, 1e12),
    "num_envs": (1, 1 << 20),
    "num_steps": (1, 256),  # at most one truncation per environment and rollout
    "group_size": (1, 1 << 20),
    "num_minibatches": (1, 1 << 16),
    "update_epochs": (1, 100),
    "learning_rate": (1e-6, 1.0),
    "gamma": (0.0, 1.0),
    "gae_lambda": (0.0, 1.0),
    "clip_coef": (0.01, 1.0),
    "ent_coef": (0.0, 1.0),
    "vf_coef": (0.0, 10.0),
    "max_grad_norm": (1e-3, 1e3),
    "target_kl": (1e-6, 10.0),
    "reward_scale": (1e-3, 1e6),
    "log_std": (-5.0, 2.0),
    "hidden": (1, 8192),
    "layers": (1, 8),
}

# What runs must have in common to be trained together; in all else they may differ.
SHAPE = (
    "total_timesteps",
    "num_envs",
    "num_steps",
    "group_size",
    "num_minibatches",
    "update_epochs",
    "network",
    "hidden",
    "layers",
)


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """One run. A batch is num_envs x num_steps transitions; the last checkpoint at total_timesteps is the result.

    In groups of group_size, environments walk the same bars: faster by far where windows are wide, with fewer distinct
    bars in a batch, from which a joint network learns less per step. A minibatch is made of whole groups.

    Raises:
        InvalidInput: a value out of range; names it and the range.
    """

    total_timesteps: int = 300_000
    num_envs: int = 256
    num_steps: int = 32
    group_size: int = 1
    num_minibatches: int = 8
    update_epochs: int = 4
    learning_rate: float = 3e-3
    anneal_lr: bool = True
    gamma: float = 0.9
    gae_lambda: float = 0.8
    norm_adv: bool = True
    clip_coef: float = 0.2
    ent_coef: float = 0.0
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5
    target_kl: float | None = None
    reward_scale: float = 100.0  # log returns of a bar are about 1e-3
    log_std: float = 0.5  # at the start: what acts little never learns what acting brings
    network: Network = "shared"
    hidden: int = 32
    layers: int = 2

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InvalidInput(f"PPO parameter {name} is {value}: use {low:g} to {high:g}")
        if self.network not in NETWORKS:
            raise InvalidInput(f"PPO parameter network is {self.network!r}: use {' or '.join(NETWORKS)}")
        if self.num_envs % self.group_size:
            raise InvalidInput(f"PPO parameter group_size is {self.group_size}: it must divide num_envs = {self.num_envs}")
        groups = self.batch_size // self.group_size
        if groups % self.num_minibatches:
            raise InvalidInput(
                f"PPO parameter num_minibatches is {self.num_minibatches}: "
                f"it must divide num_envs x num_steps / group_size = {groups}"
            )
        if self.total_timesteps < self.batch_size:
            raise InvalidInput(
                f"PPO parameter total_timesteps is {self.total_timesteps}: "
                f"use at least num_envs x num_steps = {self.batch_size}"
            )

    @property
    def batch_size(self) -> int:
        return self.num_envs * self.num_steps

    @property
    def num_updates(self) -> int:
        return self.total_timesteps // self.batch_size

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Self:
        """From text values, as a Trial holds them; what is absent keeps its default.

        Raises:
            InvalidInput: an unknown name, text that is not a number or a choice, or a value out of range.
        """
        types = {field.name: str(field.type) for field in fields(cls)}
        unknown = sorted(set(parameters) - set(types))
        if unknown:
            raise InvalidInput(f"PPO has no parameter {', '.join(unknown)}: it has {', '.join(sorted(types))}")
        return cls(**{name: _parse(name, types[name], text) for name, text in parameters.items()})


def _parse(name: str, kind: str, text: str) -> Any:
    text = text.strip()
    if kind == "Network":
        return text
    if kind == "bool":
        if text not in ("true", "false"):
            raise InvalidInput(f"PPO parameter {name} is {text!r}: use true or false")
        return text == "true"
    if "None" in kind and text == "none":
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (kind == "int" and number != int(number)):
        wanted = "a whole number" if kind == "int" else "a number" + (" or none" if "None" in kind else "")
        raise InvalidInput(f"PPO parameter {name} is {text!r}: use {wanted}")
    return int(number) if kind == "int" else number
