"""From bars and features to trained policies: runs at a fixed budget, whose last weights are the result.

Several runs of one network shape train together as a pack, each on its own rows with its own settings and seed; the
results are those of separate runs. Scaling is fitted on a run's training rows only, and it sees no others. The best
checkpoint on training data is never chosen. A stop request or a crash loses at most what came after the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from cappuccino.core.errors import RetryLater, UserError
from cappuccino.exchange.venue import AssetRules, Costs
from cappuccino.market.bars import Bars
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.interface import Contract
from cappuccino.training.checkpoint import Checkpoints, Curve, Record, from_bytes, to_bytes
from cappuccino.training.config import PPOConfig
from cappuccino.training.export import PolicyFiles, export_policy
from cappuccino.training.networks import Policy
from cappuccino.training.observation import Scaling
from cappuccino.training.pack import Member, Pack
from cappuccino.training.ppo import PPO, Diverged

__all__ = ["Dropped", "Member", "Outcome", "TrainedPolicy", "TrainingStopped", "train_policies", "train_policy"]

PARITY_ROWS = 256
Progress = dict[str, float]


class TrainingStopped(RetryLater):
    """Asked to stop between two updates; the checkpoint, if there is a place for one, has been written."""


class Dropped(UserError):
    """`on_update` ended this run before its budget: it has no policy."""


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


Outcome = TrainedPolicy | Diverged | Dropped
_LEFT: dict[str, type[Diverged] | type[Dropped]] = {"Diverged": Diverged, "Dropped": Dropped}


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
    compiled: bool = False,
) -> TrainedPolicy:
    """Train one policy: a pack of one, see `train_policies`.

    Raises:
        Diverged: a loss or parameter became NaN; and what `train_policies` raises.
    """
    (outcome,) = train_policies(
        [Member(config=config, rows=rows, seed=seed)],
        bars=bars,
        features=features,
        lookback=lookback,
        sizing=sizing,
        barriers=barriers,
        costs=costs,
        rules=rules,
        capital_usd=capital_usd,
        on_update=None if on_update is None else lambda _, progress: on_update(progress),
        checkpoints=checkpoints,
        should_stop=should_stop,
        interval=interval,
        device=device,
        compiled=compiled,
    )
    if not isinstance(outcome, TrainedPolicy):
        raise outcome
    return outcome


def train_policies(
    members: Sequence[Member],
    *,
    bars: Bars,
    features: npt.NDArray[np.float64],
    lookback: int,
    sizing: Sizing,
    barriers: Barriers,
    costs: Costs,
    rules: Mapping[str, AssetRules],
    capital_usd: float,
    on_update: Callable[[int, Progress], bool | None] | None = None,
    checkpoints: Checkpoints | None = None,
    should_stop: Callable[[], bool] | None = None,
    interval: int = 1,
    device: str = "cpu",
    compiled: bool = False,
) -> list[Outcome]:
    """Train policies together; the outcome of each, in their order. The number of torch's threads is the caller's choice.

    Args:
        features: [T, N, F] raw, of the same bars.
        interval: bars from one decision to the next.
        on_update: gets a member's number and its `METRICS` with `update`, `updates` and `timesteps`, once per update;
            when it answers False the member is dropped and the others go on without it.
        compiled: run the environment through torch.compile, which takes a C++ compiler and a while to begin.

    Raises:
        InvalidInput: members of different shape, bad shapes, too few rows, NaN in features, or a capital too small
            for the venue.
        TrainingStopped: `should_stop` said so.
        Conflict, IntegrityError: the checkpoint is of another run, or unreadable.
    """
    pack = Pack(
        members=members,
        bars=bars,
        features=features,
        lookback=lookback,
        sizing=sizing,
        barriers=barriers,
        costs=costs,
        rules=rules,
        capital_usd=capital_usd,
        interval=interval,
        device=device,
        compiled=compiled,
    )
    pack.check()
    fingerprint = pack.fingerprint()
    saved = checkpoints.load() if checkpoints else None
    checkpoint = None if saved is None else from_bytes(saved, fingerprint=fingerprint)
    record = checkpoint.record if checkpoint else Record(curves=[[] for _ in members])
    ppo = pack.learner(record.present)
    if checkpoint:
        checkpoint.restore(ppo)

    while record.present and ppo.update < ppo.config.num_updates:
        if should_stop and should_stop():
            if checkpoints:
                checkpoints.save(to_bytes(ppo, record, fingerprint=fingerprint))
            raise TrainingStopped(
                f"training stopped after update {ppo.update} of {ppo.config.num_updates}: start it again to resume"
            )
        before = record.present
        for number, result in zip(before, ppo.step(), strict=True):
            if isinstance(result, Diverged):
                record.left[number] = ("Diverged", str(result))
                continue
            record.curves[number].append(result)
            progress = {**result, "update": ppo.update, "updates": ppo.config.num_updates, "timesteps": ppo.timesteps}
            if on_update and on_update(number, progress) is False:
                record.left[number] = ("Dropped", f"dropped after update {ppo.update} of {ppo.config.num_updates}")
        if record.present and record.present != before:
            ppo.keep([before.index(number) for number in record.present], pack.environment(record.present))
        if record.present and checkpoints and checkpoints.due():
            checkpoints.save(to_bytes(ppo, record, fingerprint=fingerprint))

    trained = {number: _trained(pack, ppo, number, place, record) for place, number in enumerate(record.present)}
    return [trained[n] if n in trained else _LEFT[record.left[n][0]](record.left[n][1]) for n in range(len(members))]


def _trained(pack: Pack, ppo: PPO, number: int, place: int, record: Record) -> TrainedPolicy:
    lo, hi = pack.members[number].rows
    scaling, curve = pack.scaling((lo, hi)), record.curves[number]
    t = np.linspace(lo, hi - 1, min(PARITY_ROWS, hi - lo)).astype(int)
    windows = np.stack([pack.features[t - pack.lookback + 1 + step] for step in range(pack.lookback)], axis=2)
    mean_F, std_F = torch.from_numpy(scaling.mean), torch.from_numpy(scaling.std)
    return TrainedPolicy(
        policy=Policy(ppo.stack.member(place), mean_F=mean_F, std_F=std_F).eval(),
        scaling=scaling,
        curve=curve,
        timesteps=ppo.timesteps,
        trades=int(sum(row["trades"] for row in curve)),
        exposure=curve[-1]["exposure"],
        real_features_BNLF=windows.astype(np.float32),
    )
