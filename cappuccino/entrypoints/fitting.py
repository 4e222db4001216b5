"""Fits of trials that are trained together, through the artifact store: a policy's files, kept until its trial has a result.

Trials of one group have one market, one contract and one network shape, so that their policies are one batched model. Each
keeps its own files. A run that goes on has one checkpoint, which names whom it is of: trials that have finished since are
dropped from it. A trial that is a group by itself keeps everything in its own place.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cappuccino.core.blobs import Blobs
from cappuccino.core.errors import IntegrityError, InvalidInput, NotFound, UserError
from cappuccino.core.identifiers import seed_of
from cappuccino.entrypoints.recipe import Prepared, Recipe
from cappuccino.search.trials import TrialRow
from cappuccino.telemetry.traces import span

POLICY, WEIGHTS, FIT = "policy.onnx", "weights.safetensors", "fit.json"

Files = Mapping[str, bytes]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A policy to be fitted on rows lo <= t < hi; `name` tells the fit apart (fold-0, refit), `step` orders it."""

    step: int
    name: str
    rows: tuple[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    row: TrialRow
    made: Recipe

    @property
    def number(self) -> int:
        return self.row.number


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Who may be trained as one model, in order; also those that have finished, so that a group is always called the same."""

    members: Sequence[Member]

    @property
    def checkpoints(self) -> str:
        """Where the group's own are; those of a trial alone are its own."""
        first = self.members[0].row
        if len(self.members) == 1:
            return checkpoints(first)
        return f"checkpoints/{first.study_uid}/together-{first.number:05d}"


def shape_of(made: Recipe) -> tuple[Any, ...]:
    """Recipes with the same can be fitted together.

    Raises:
        InvalidInput: a parameter that the strategy does not know.
    """
    if made.kind != "ppo":
        return (made.kind, made.contract)
    from cappuccino.training.config import SHAPE, PPOConfig

    config = PPOConfig.from_parameters(made.values)
    return (made.kind, made.contract, *(getattr(config, name) for name in SHAPE))


def checkpoints(row: TrialRow) -> str:
    return f"checkpoints/{row.study_uid}/{row.number:05d}"


def forget(blobs: Blobs, folder: str) -> None:
    for key in blobs.keys(f"{folder}/"):
        blobs.delete(key)


class Fitter:
    """`finished` answers which trials have a final state in the record, by number; it is asked between updates."""

    def __init__(
        self,
        group: Group,
        market: Prepared,
        blobs: Blobs,
        *,
        checkpoint_seconds: float,
        should_stop: Callable[[], bool],
        finished: Callable[[], Collection[int]],
    ) -> None:
        self._group, self._market, self._blobs = group, market, blobs
        self._seconds, self._should_stop, self._finished = checkpoint_seconds, should_stop, finished

    def fit(self, members: Sequence[Member], fit: Fit) -> list[Files | UserError | None]:
        """In the order of `members`: its files, why there is no policy, or None for a trial that has finished meanwhile."""
        missing = [member for member in members if not all(map(self._blobs.exists, self._keys(member, fit).values()))]
        failed: dict[int, UserError | None] = {}
        if missing:
            with span("fit", fit=fit.name, trials=len(missing)):
                try:
                    failed = self._train(missing, fit)
                except UserError as error:  # of what they have in common
                    failed = dict.fromkeys((member.number for member in missing), error)
        return [failed[member.number] if member.number in failed else self._files(member, fit) for member in members]

    def _keys(self, member: Member, fit: Fit) -> dict[str, str]:
        return {file: f"{checkpoints(member.row)}/{fit.name}/{file}" for file in (POLICY, WEIGHTS, FIT)}

    def _files(self, member: Member, fit: Fit) -> Files:
        return {file: self._blobs.get(key) for file, key in self._keys(member, fit).items()}

    def _train(self, missing: Sequence[Member], fit: Fit) -> dict[int, UserError | None]:
        """Trains and keeps files; what came of those that have none."""
        import torch

        from cappuccino.training import learning
        from cappuccino.training.config import PPOConfig

        torch.set_num_threads(1)
        running = Running(self._blobs, f"{self._group.checkpoints}/{fit.name}/running", self._seconds)
        members = running.members(self._group.members, missing)
        made, market, began = members[0].made, self._market, time.monotonic()

        def goes_on(index: int, _: Mapping[str, float]) -> bool:
            return members[index].number not in self._finished()

        outcomes = learning.train_policies(
            [
                learning.Member(
                    config=PPOConfig.from_parameters(member.made.values),
                    rows=fit.rows,
                    seed=seed_of(member.row.seed, fit.name),
                )
                for member in members
            ],
            bars=market.bars,
            features=market.features,
            lookback=made.contract.lookback,
            interval=made.contract.interval,
            sizing=made.sizing,
            barriers=made.barriers,
            costs=made.costs,
            rules=market.rules,
            capital_usd=made.capital_usd,
            on_update=goes_on,
            checkpoints=running.checkpoints(),
            should_stop=self._should_stop,
            device="cuda" if torch.cuda.is_available() else "cpu",
        )
        together = {"seconds": round(time.monotonic() - began, 3), "trials": len(members)}
        failed: dict[int, UserError | None] = {}
        asking = {member.number for member in missing}
        for member, outcome in zip(members, outcomes, strict=True):
            if member.number not in asking:
                continue
            if isinstance(outcome, learning.Dropped):
                failed[member.number] = None
            elif isinstance(outcome, UserError):
                failed[member.number] = outcome
            elif outcome.trades == 0:
                failed[member.number] = InvalidInput(
                    f"{fit.name}: the agent never traded in {outcome.timesteps} steps: widen its search space"
                )
            else:
                self._keep(member, fit, outcome, together)
        running.forget()
        return failed

    def _keep(self, member: Member, fit: Fit, trained: Any, together: Mapping[str, Any]) -> None:
        files = trained.export(member.made.contract)
        told = {
            **together,
            "timesteps": trained.timesteps,
            "trades": trained.trades,
            "exposure": trained.exposure,
            "parity": files.parity,
            "curve": [dict(row) for row in trained.curve[:: max(1, len(trained.curve) // 50)]],
        }
        payloads = {POLICY: files.onnx, WEIGHTS: files.weights, FIT: json.dumps(told).encode()}
        for file, key in self._keys(member, fit).items():
            self._blobs.replace(key, payloads[file])


class Running:
    """The checkpoint of a run that goes on: a line with the numbers of its trials, then what training keeps."""

    def __init__(self, blobs: Blobs, key: str, seconds: float) -> None:
        self._blobs, self._key, self._seconds = blobs, key, seconds
        self._numbers: list[int] = []
        self._payload: bytes | None = None
        self._last = time.monotonic()
        try:
            head, _, self._payload = blobs.get(key).partition(b"\n")
            self._numbers = json.loads(head)
        except NotFound:
            return
        except ValueError as error:
            raise IntegrityError(f"checkpoint {key} does not begin with trial numbers: delete it to start again") from error

    def members(self, group: Sequence[Member], asking: Sequence[Member]) -> list[Member]:
        """Whom to train: those of the checkpoint when all that ask are among them, else those that ask, from the beginning."""
        if not {member.number for member in asking} <= set(self._numbers):
            self._numbers, self._payload = [member.number for member in asking], None
        by_number = {member.number: member for member in group}
        return [by_number[number] for number in self._numbers]

    def checkpoints(self) -> Any:
        from cappuccino.training.checkpoint import Checkpoints

        return Checkpoints(load=lambda: self._payload, save=self._save, due=self._due)

    def forget(self) -> None:
        self._blobs.delete(self._key)

    def _save(self, payload: bytes) -> None:
        self._blobs.replace(self._key, json.dumps(self._numbers).encode() + b"\n" + payload)
        self._last = time.monotonic()

    def _due(self) -> bool:
        return time.monotonic() - self._last >= self._seconds
