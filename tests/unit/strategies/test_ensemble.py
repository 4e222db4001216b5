from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappuccino.core.errors import InvalidInput
from cappuccino.core.timeframe import Timeframe
from cappuccino.market.spec import FeatureSpec
from cappuccino.strategies.ensemble import Ensemble
from cappuccino.strategies.interface import Contract, Decision, Json, Target, View

SYMBOLS = ("A/USD", "B/USD")


def contract(**changes: Any) -> Contract:
    base = Contract(symbols=SYMBOLS, timeframe=Timeframe.parse("1h"), features=(), lookback=1, warmup_bars=1)
    return replace(base, **changes)


MARKET = contract()


@dataclass(frozen=True)
class Says:
    """Gives the n-th of its answers at its n-th decision; the count is its memory."""

    answers: tuple[Mapping[str, float], ...]
    contract: Contract = MARKET

    def decide(self, view: View, memory: Json) -> Decision:
        turn = memory.get("turn", 0)
        answer = self.answers[min(turn, len(self.answers) - 1)]
        return Decision(
            intents=tuple(Target(symbol=symbol, weight=weight) for symbol, weight in answer.items()),
            memory={"turn": turn + 1},
            trace={"shape": list(view.features.shape), "first": view.features.ravel()[:1].tolist()},
        )


def view(features: Any = None, since_stop: tuple[int, int] = (255, 255), weights: tuple[float, float] = (0.0, 0.0)) -> View:
    return View(
        at=datetime(2024, 1, 1, tzinfo=UTC),
        features=np.zeros((2, 1, 0)) if features is None else features,
        close=np.ones(2),
        weights=np.array(weights),
        cash_weight=1.0,
        equity_usd=1.0,
        entry_return=np.zeros(2),
        bars_held=np.zeros(2, dtype=np.int64),
        bars_since_stop=np.array(since_stop),
        tradable=np.ones(2, dtype=bool),
    )


def ensemble(*answers: Mapping[str, float], vote: Any = "majority", **changes: Any) -> Ensemble:
    return Ensemble(members=tuple(Says((answer,)) for answer in answers), vote=vote, source_study="uid-1", **changes)


def targets(decision: Decision) -> dict[str, float]:
    return {intent.symbol: intent.weight for intent in decision.intents}


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        (({"A/USD": 0.3}, {"A/USD": 0.1}, {}), {"A/USD": 0.2}),
        (({"A/USD": 0.3}, {"A/USD": 0.1}, {"A/USD": 0.2}), {"A/USD": 0.2}),
        (({"A/USD": 0.3}, {"A/USD": 0.0}, {"A/USD": 0.0}), {"A/USD": 0.0}),
        (({"A/USD": 0.3}, {"A/USD": 0.0}, {}), {}),
        (({"A/USD": 0.3}, {"A/USD": 0.0}), {}),
        (({"A/USD": 0.3}, {"A/USD": 0.2}, {}, {}), {}),
        (({}, {}, {}), {}),
        (({"A/USD": 0.3},), {"A/USD": 0.3}),
    ],
    ids=["two buy", "three buy", "two sell", "no majority", "tie", "half is not more than half", "all hold", "alone"],
)
def test_majority_vote(says: tuple[dict[str, float], ...], expected: dict[str, float]) -> None:
    assert targets(ensemble(*says).decide(view(), {})) == pytest.approx(expected)


def test_votes_are_counted_for_each_symbol_by_itself() -> None:
    decision = ensemble({"A/USD": 0.3, "B/USD": 0.0}, {"A/USD": 0.3, "B/USD": 0.0}, {"B/USD": 0.2}).decide(view(), {})
    assert targets(decision) == {"A/USD": 0.3, "B/USD": 0.0}


def test_the_mean_vote_weighs_targets() -> None:
    decision = ensemble({"A/USD": 0.3}, {"A/USD": 0.0}, vote="mean", weights=(3.0, 1.0)).decide(view(), {})
    assert targets(decision) == {"A/USD": pytest.approx(0.225)}


def test_a_single_buyer_does_not_accumulate_under_the_mean_vote() -> None:
    voters = ensemble({"A/USD": 0.3}, {}, {}, vote="mean")
    memory: Json = {}
    weight = 0.0
    for _ in range(10):
        decision = voters.decide(view(weights=(weight, 0.0)), memory)
        memory, weight = decision.memory, targets(decision)["A/USD"]
        assert weight == pytest.approx(0.1)


def test_a_target_stands_while_its_member_holds() -> None:
    buyer, other = Says(({"A/USD": 0.3}, {})), Says(({}, {"A/USD": 0.1}))
    voters = Ensemble(members=(buyer, other), vote="mean", source_study="uid-1")
    first = voters.decide(view(), {})
    assert targets(first) == {"A/USD": pytest.approx(0.15)}
    assert targets(voters.decide(view(), first.memory)) == {"A/USD": pytest.approx(0.2)}


def test_a_barrier_ends_the_standing_targets_of_its_symbol() -> None:
    buyer, other = Says(({"A/USD": 0.3, "B/USD": 0.3}, {})), Says(({}, {"A/USD": 0.1, "B/USD": 0.1}))
    voters = Ensemble(members=(buyer, other), vote="mean", source_study="uid-1")
    first = voters.decide(view(), {})
    second = voters.decide(view(since_stop=(1, 255)), first.memory)
    assert targets(second) == {"A/USD": pytest.approx(0.05), "B/USD": pytest.approx(0.2)}
    third = voters.decide(view(since_stop=(2, 255)), second.memory)
    assert targets(third)["A/USD"] == pytest.approx(0.05), "the stop counts once"


def test_memories_of_members_are_nested_and_handed_back() -> None:
    voters = ensemble({}, {})
    memory = voters.decide(view(), voters.decide(view(), {}).memory).memory
    assert memory["members"] == [{"turn": 2}, {"turn": 2}]


def test_members_with_different_features_see_their_own() -> None:
    one, two = FeatureSpec(name="one"), FeatureSpec(name="two")
    first = Says(({},), contract(features=(one,), lookback=2, warmup_bars=5))
    second = Says(({},), contract(features=(two, one), lookback=1, warmup_bars=9))
    voters = Ensemble(members=(first, second), vote="majority", source_study="uid-1")
    assert voters.contract == contract(features=(one, two), lookback=2, warmup_bars=9)
    seen = voters.decide(view(features=np.arange(8.0).reshape(2, 2, 2)), {}).trace["members"]
    assert seen[0] == {"shape": [2, 2, 1], "first": [0.0]}
    assert seen[1] == {"shape": [2, 1, 2], "first": [3.0]}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"source_study": ""}, "no source study"),
        ({"members": ()}, "no members"),
        ({"vote": "loudest"}, "'loudest' is unknown"),
        ({"weights": (1.0,)}, "do not fit 2 members"),
        ({"weights": (0.0, 0.0)}, "not all zero"),
        ({"members": (Says(({},)), Says(({},), contract(symbols=("C/USD",))))}, "C/USD"),
        ({"members": (Says(({},)), Says(({},), contract(timeframe=Timeframe.parse("4h"))))}, "4h"),
    ],
)
def test_an_ensemble_that_cannot_be_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    arguments: dict[str, Any] = {"members": (Says(({},)), Says(({},))), "vote": "majority", "source_study": "uid-1"} | changes
    with pytest.raises(InvalidInput, match=named):
        Ensemble(**arguments)


@given(st.lists(st.one_of(st.none(), st.floats(0, 0.3)), min_size=1, max_size=7), st.sampled_from(["majority", "mean"]))
def test_the_order_of_members_does_not_matter_and_no_target_exceeds_the_largest(said: list[float | None], vote: Any) -> None:
    answers = [{} if weight is None else {"A/USD": weight} for weight in said]
    forward = targets(ensemble(*answers, vote=vote).decide(view(), {}))
    assert targets(ensemble(*reversed(answers), vote=vote).decide(view(), {})) == pytest.approx(forward)
    assert all(0 <= weight <= 0.3 + 1e-12 for weight in forward.values())
