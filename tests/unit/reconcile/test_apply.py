"""In which order, and how many at a time, the actions of a pass go out."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from cappuccino.controllers.decision import ApplyObject, CreateObject, Document
from cappuccino.core.errors import InvalidInput
from cappuccino.reconcile.apply import apply_all

from .builders import Memory, stored


async def test_what_a_pass_makes_goes_out_together_and_the_rest_stays_in_order() -> None:
    order: list[str] = []
    under_way = most = 0

    class Slow:
        async def create(self, document: Document) -> Document:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.005)
            under_way -= 1
            if document["metadata"]["name"] == "bad":
                raise InvalidInput("name bad is bad: choose another")
            order.append("create")
            return document

        async def apply(self, document: Document) -> Document:
            order.append("apply")
            return document

    made = [CreateObject(document=stored(name=f"t{n}")) for n in range(40)]
    objects: Any = Slow()
    ports = replace(Memory().ports(), objects=objects)
    await apply_all([ApplyObject(document=stored()), *made, ApplyObject(document=stored())], ports)
    assert order == ["apply", *["create"] * 40, "apply"]
    assert 1 < most <= 16
    order.clear()
    bad = CreateObject(document=stored(name="bad"))
    with pytest.raises(InvalidInput, match="bad"):
        await apply_all([bad, *made[:3], ApplyObject(document=stored())], ports)
    assert order == ["create"] * 3
