"""What each member of a pod is told: who they are to all of them, what the process is to be to the first alone."""

from __future__ import annotations

from typing import Any

from cappuccino.controllers.decision import Document, Key
from cappuccino.controllers.pod import LABEL
from cappuccino.reconcile.pods import Pods
from tests.unit.controllers.builders import trader

from .builders import Memory


def stored(name: str, **spec: Any) -> Document:
    made = trader(name=name, labels={LABEL: "p"}, spec={"pod": "p", "account": name} | spec)
    found: Document = made.to_json()
    return found


class Counted(Memory):
    """`listed` counts how often all were read."""

    listed = 0

    async def index(self, kind: str, **_: Any) -> list[Any]:
        found = await super().index(kind)
        self.listed -= 1
        return found

    async def list(self, kind: str = "", **_: Any) -> list[Any]:
        self.listed += 1
        return await super().list(kind)


def key(name: str) -> Key:
    return Key("Trader", "default", name)


async def test_only_the_first_reads_what_the_members_are_and_counts_since_when() -> None:
    memory, now = Counted(documents={key(name): stored(name) for name in ("b", "a")}), [100.0]
    pods: Any = Pods(memory, monotonic=lambda: now[0])  # type: ignore[arg-type]
    other = await pods.sharing(key("b"), "p")
    assert ([member.key.name for member in other.members], other.wanted, memory.listed) == (["a", "b"], None, 0)
    first = await pods.sharing(key("a"), "p")
    assert (first.wanted.keys, first.still_seconds, memory.listed) == ((key("a"), key("b")), 0.0, 1)
    now[0] += 2
    assert (await pods.sharing(key("a"), "p")).still_seconds == 2
    memory.documents[key("b")] = stored("b", capitalUsd=5)
    assert (await pods.sharing(key("a"), "p")).still_seconds == 0
    now[0] += 1
    memory.documents[key("c")] = stored("c")
    assert (await pods.sharing(key("a"), "p")).still_seconds == 0
    now[0] += 7
    assert (await pods.sharing(key("a"), "p")).still_seconds == 7


async def test_a_stored_trader_that_cannot_be_read_holds_up_nobody() -> None:
    odd = stored("b")
    odd["spec"]["colour"] = "red"
    memory: Any = Memory(documents={key("a"): stored("a"), key("b"): odd})
    assert (await Pods(memory).sharing(key("a"), "p")).wanted.keys == (key("a"),)  # type: ignore[union-attr]
