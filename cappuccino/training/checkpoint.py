"""All of a run as bytes, so that a killed trainer goes on exactly where it was: safetensors with JSON inside, never pickle.

Held: networks, optimiser, environments, generator, finished updates, the curve, and a fingerprint of what is trained
on what. A resumed run equals an uninterrupted one bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from cappuccino.core.errors import Conflict, IntegrityError
from cappuccino.core.identifiers import canonical_json
from cappuccino.training.environment import Accounts
from cappuccino.training.ppo import PPO

SCHEMA = "cappuccino/checkpoint/v1"
Curve = list[dict[str, float]]


def _always() -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """Where checkpoints go. `load` answers None when there is none; `save` must be atomic; `due` is asked after each update."""

    load: Callable[[], bytes | None]
    save: Callable[[bytes], None]
    due: Callable[[], bool] = _always


def to_bytes(ppo: PPO, curve: Curve, *, fingerprint: str) -> bytes:
    tensors: dict[str, Tensor] = {"generator": ppo.generator.get_state()}
    tensors |= {f"net.{name}": value for name, value in ppo.net.state_dict().items()}
    tensors |= {f"env.{name}": value for name, value in ppo.env.accounts.tensors().items()}
    for index, slots in ppo.optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{name}": value for name, value in slots.items()}
    meta = {"schema": SCHEMA, "fingerprint": fingerprint, "update": ppo.update, "curve": curve}
    tensors["meta"] = torch.frombuffer(bytearray(canonical_json(meta)), dtype=torch.uint8)
    return save({name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()})


def restore(payload: bytes, ppo: PPO, *, fingerprint: str) -> Curve:
    """Put a freshly made `ppo` where the checkpoint was; returns the curve so far.

    Raises:
        IntegrityError: not a checkpoint, or of another schema.
        Conflict: a checkpoint of another run (data, parameters or seed differ).
    """
    try:
        tensors = load(payload)
        meta = json.loads(bytes(tensors.pop("meta").numpy()))
    except (SafetensorError, KeyError, ValueError) as error:
        raise IntegrityError(
            f"checkpoint of {len(payload)} bytes cannot be read ({error}): delete it to start again"
        ) from error
    if meta.get("schema") != SCHEMA:
        raise IntegrityError(
            f"checkpoint has schema {meta.get('schema')!r}, this version reads {SCHEMA}: delete it to start again"
        )
    if meta["fingerprint"] != fingerprint:
        raise Conflict(
            f"checkpoint belongs to run {meta['fingerprint'][:12]}, this one is {fingerprint[:12]}: "
            f"data, parameters or seed differ; delete it to start again"
        )

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    device = ppo.env.market.ohlc_T4N.device
    ppo.net.load_state_dict(part("net."))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in part("adam.").items():
        index, slot = name.split(".", 1)
        state.setdefault(int(index), {})[slot] = value
    ppo.optimizer.load_state_dict({"state": state, "param_groups": ppo.optimizer.state_dict()["param_groups"]})
    ppo.env.accounts = Accounts(**{name: value.to(device) for name, value in part("env.").items()})
    ppo.generator.set_state(tensors["generator"])
    ppo.update = int(meta["update"])
    curve: Curve = meta["curve"]
    return curve
