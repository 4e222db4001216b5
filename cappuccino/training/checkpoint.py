"""All of a run as bytes, so that a killed trainer goes on exactly where it was: safetensors with JSON inside, never pickle.

A run is a pack of members that train together, one ordinarily. Held: networks, optimiser, environments and generators
of the members that are still in it, finished updates, everyone's curve, why the others left, and a fingerprint of what is
trained on what. A resumed run equals an uninterrupted one bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from cappuccino.core.errors import Conflict, IntegrityError
from cappuccino.core.identifiers import canonical_json
from cappuccino.training.environment import Accounts
from cappuccino.training.ppo import PPO

SCHEMA = "cappuccino/checkpoint/v2"
Curve = list[dict[str, float]]


def _always() -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """Where checkpoints go. `load` answers None when there is none; `save` must be atomic; `due` is asked after each update."""

    load: Callable[[], bytes | None]
    save: Callable[[bytes], None]
    due: Callable[[], bool] = _always


@dataclass(kw_only=True)
class Record:
    """What is known of every member of a run: its curve, and for those that left, (name of the error, message).

    present: numbers of the members that are still in it, in the order of the stack.
    """

    curves: list[Curve]
    left: dict[int, tuple[str, str]] = field(default_factory=dict)

    @property
    def present(self) -> list[int]:
        return [number for number in range(len(self.curves)) if number not in self.left]


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """A checkpoint that was read: `record` says who is in it, `restore` puts a PPO of just these where it was."""

    record: Record
    update: int
    tensors: dict[str, Tensor]

    def restore(self, ppo: PPO) -> None:
        device = ppo.env.device
        with torch.no_grad():
            ppo.stack.parameters_KP.copy_(self.tensors["parameters"])
        for member, group in enumerate(ppo.optimizer.param_groups):
            slots = self._part(f"adam.{member}.")
            if slots:
                state = {name: value if name == "step" else value.to(device) for name, value in slots.items()}
                ppo.optimizer.state[group["params"][0]] = state
        ppo.env.accounts = Accounts(**{name: value.to(device) for name, value in self._part("env.").items()})
        for member, generator in enumerate(ppo.generators):
            generator.set_state(self.tensors[f"generator.{member}"])
        ppo.update = self.update

    def _part(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}


def to_bytes(ppo: PPO, record: Record, *, fingerprint: str) -> bytes:
    tensors: dict[str, Tensor] = {"parameters": ppo.stack.parameters_KP}
    tensors |= {f"generator.{member}": generator.get_state() for member, generator in enumerate(ppo.generators)}
    tensors |= {f"env.{name}": value for name, value in ppo.env.accounts.tensors().items()}
    for member, group in enumerate(ppo.optimizer.param_groups):
        slots = ppo.optimizer.state.get(group["params"][0], {})
        tensors |= {f"adam.{member}.{name}": value for name, value in slots.items()}
    meta = {
        "schema": SCHEMA,
        "fingerprint": fingerprint,
        "update": ppo.update,
        "curves": record.curves,
        "left": {str(number): list(reason) for number, reason in record.left.items()},
    }
    tensors["meta"] = torch.frombuffer(bytearray(canonical_json(meta)), dtype=torch.uint8)
    return save({name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()})


def from_bytes(payload: bytes, *, fingerprint: str) -> Checkpoint:
    """
    Raises:
        IntegrityError: not a checkpoint, or of another schema.
        Conflict: a checkpoint of another run (data, parameters or seed differ).
    """
    try:
        tensors = load(payload)
        meta: dict[str, Any] = json.loads(bytes(tensors.pop("meta").numpy()))
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
    record = Record(curves=meta["curves"], left={int(number): (kind, text) for number, (kind, text) in meta["left"].items()})
    return Checkpoint(record=record, update=int(meta["update"]), tensors=tensors)
