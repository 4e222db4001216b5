"""Runs that train together give what they give alone: bit for bit with one thread, whatever else is in the pack."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cappuccino.core.errors import Conflict, InvalidInput
from cappuccino.training.checkpoint import Checkpoints
from cappuccino.training.learning import (
    Dropped,
    Member,
    Outcome,
    TrainedPolicy,
    TrainingStopped,
    train_policies,
)
from cappuccino.training.networks import ActorCritic
from cappuccino.training.ppo import Diverged
from cappuccino.training.stack import Stack

from .builders import tiny_config, training_arguments

OWN: list[dict[str, Any]] = [
    {},
    {"learning_rate": 1e-3, "gamma": 0.5, "target_kl": 1e-5, "norm_adv": False, "ent_coef": 0.01, "max_grad_norm": 0.1},
    {"clip_coef": 0.1, "anneal_lr": False, "reward_scale": 10.0, "vf_coef": 1.0, "gae_lambda": 0.3, "log_std": 0.1},
]
ROWS = [(20, 200), (20, 150), (60, 190)]


def members(**common: Any) -> list[Member]:
    return [
        Member(config=tiny_config(**common, **own), rows=rows, seed=7 + number)
        for number, (own, rows) in enumerate(zip(OWN, ROWS, strict=True))
    ]


def train(pack: list[Member], **changes: Any) -> list[Outcome]:
    arguments = {name: value for name, value in training_arguments().items() if name not in ("config", "rows", "seed")}
    return train_policies(pack, **(arguments | changes))


def assert_the_same(ours: Outcome, theirs: Outcome) -> None:
    assert isinstance(ours, TrainedPolicy)
    assert isinstance(theirs, TrainedPolicy)
    assert ours.curve == theirs.curve
    assert np.array_equal(ours.scaling.mean, theirs.scaling.mean)
    for name, value in ours.policy.state_dict().items():
        assert torch.equal(value, theirs.policy.state_dict()[name]), name


@pytest.mark.parametrize("network", ["shared", "joint"])
@pytest.mark.parametrize("group_size", [1, 4])
def test_packed_members_learn_what_they_learn_alone(network: str, group_size: int) -> None:
    pack = members(network=network, group_size=group_size)
    together = train(pack)
    for member, outcome in zip(pack, together, strict=True):
        (alone,) = train([member])
        assert_the_same(outcome, alone)
    curves = [outcome.curve for outcome in together if isinstance(outcome, TrainedPolicy)]
    assert curves[0] != curves[1] != curves[2]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_dropped_member_leaves_the_others_unchanged(which: int) -> None:
    pack, seen = members(), []

    def on_update(number: int, progress: dict[str, float]) -> bool | None:
        seen.append((number, progress["update"]))
        return False if number == which and progress["update"] == 2 else None

    outcomes = train(pack, on_update=on_update)
    dropped = outcomes[which]
    assert isinstance(dropped, Dropped)
    assert "update 2 of 4" in str(dropped)
    assert [update for number, update in seen if number == which] == [1, 2]
    for number in {0, 1, 2} - {which}:
        assert_the_same(outcomes[number], train([pack[number]])[0])
        assert [update for n, update in seen if n == number] == [1, 2, 3, 4]


def test_a_dropped_member_frees_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    original = Stack.networks

    def recording(stack: Stack) -> Any:
        sizes.append(len(stack))
        return original(stack)

    monkeypatch.setattr(Stack, "networks", recording)
    train(members(), on_update=lambda number, progress: number == 2 or progress["update"] < 2 + number)
    assert sorted(set(sizes)) == [1, 2, 3]
    assert sizes == sorted(sizes, reverse=True)


def test_all_members_may_leave() -> None:
    assert all(isinstance(outcome, Dropped) for outcome in train(members(), on_update=lambda *_: False))


def test_a_member_that_diverges_leaves_the_others_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    pack = members()
    expected = [train([pack[0]])[0], train([pack[2]])[0]]
    poison(monkeypatch, seed=pack[1].seed)
    outcomes = train(pack)
    assert isinstance(outcomes[1], Diverged)
    assert "update 1 of 4" in str(outcomes[1])
    assert_the_same(outcomes[0], expected[0])
    assert_the_same(outcomes[2], expected[1])


def poison(monkeypatch: pytest.MonkeyPatch, *, seed: int) -> None:
    """The network that begins with this seed has a weight that is not a number."""
    original = ActorCritic.__init__

    def poisoned(net: ActorCritic, **arguments: Any) -> None:
        original(net, **arguments)
        if arguments["generator"].initial_seed() == seed:
            with torch.no_grad():
                net.actor[0].weight[0, 0] = float("nan")

    monkeypatch.setattr(ActorCritic, "__init__", poisoned)


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_an_interrupted_pack_goes_on_bit_for_bit(stop_after: int) -> None:
    pack = members(network="joint", group_size=2)

    def judge(number: int, progress: dict[str, float]) -> bool:
        updates.add(int(progress["update"]))
        return not (number == 1 and progress["update"] == 2)

    updates: set[int] = set()
    whole = train(pack, on_update=judge)
    store: list[bytes] = []
    places = Checkpoints(load=lambda: store[-1] if store else None, save=store.append, due=lambda: False)
    updates.clear()
    with pytest.raises(TrainingStopped):
        train(pack, on_update=judge, checkpoints=places, should_stop=lambda: len(updates) == stop_after)
    resumed = train(pack, on_update=judge, checkpoints=places)
    assert updates == {1, 2, 3, 4}
    assert isinstance(resumed[1], Dropped)
    assert str(resumed[1]) == str(whole[1])
    for number in (0, 2):
        assert_the_same(resumed[number], whole[number])


def test_a_checkpoint_belongs_to_all_members_of_a_pack() -> None:
    store: list[bytes] = []
    train(members(), checkpoints=Checkpoints(load=lambda: None, save=store.append))
    for other in (members()[:2], members()[::-1], members(total_timesteps=640)):
        with pytest.raises(Conflict):
            train(other, checkpoints=Checkpoints(load=lambda: store[-1], save=store.append))


@pytest.mark.parametrize(
    ("name", "values"),
    [("hidden", (8, 16)), ("network", ("shared", "joint")), ("num_envs", (8, 16)), ("update_epochs", (4, 2))],
)
def test_members_of_different_shape_are_refused_by_name(name: str, values: tuple[Any, Any]) -> None:
    pack = [Member(config=tiny_config(**{name: value}), rows=(20, 200), seed=1) for value in values]
    with pytest.raises(InvalidInput, match=rf"{name} is {min(map(str, values))}, {max(map(str, values))}"):
        train(pack)


def test_no_members_are_refused() -> None:
    with pytest.raises(InvalidInput, match="0 members"):
        train([])


@pytest.mark.parametrize("network", ["shared", "joint"])
@pytest.mark.parametrize("layers", [1, 3])
def test_a_stack_computes_what_its_networks_compute(network: Any, layers: int) -> None:
    shape: dict[str, Any] = {"network": network, "assets": 3, "lookback": 2, "features": 5, "hidden": 8, "layers": layers}
    nets = [ActorCritic(**shape, log_std=0.1 * n, generator=torch.Generator().manual_seed(n)) for n in range(4)]
    stack = Stack(nets)
    windows, account, cash = torch.randn(4, 5, 3, 2, 5), torch.rand(4 * 5 * 6, 3, 4), torch.rand(4 * 5 * 6)
    networks = stack.networks()
    mean, value = networks(networks.market(windows), stack.states(account, cash).view(4, 5, 6, -1))
    for k, net in enumerate(nets):
        part = slice(30 * k, 30 * (k + 1))
        x = net.encode(windows[k].repeat_interleave(6, 0), account[part], cash[part, None])
        torch.testing.assert_close(mean[k].flatten(0, 1), net.mean(x))
        torch.testing.assert_close(value[k].flatten(), net.value(x))
        for name, parameter in net.state_dict().items():
            assert torch.equal(parameter, stack.member(k).state_dict()[name]), name
