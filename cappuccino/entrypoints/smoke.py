"""`helm test`: a Study of one trial through to a paper Trader and its halt, on the cluster in which it runs.

    python -m cappuccino.entrypoints.smoke --namespace NAMESPACE --symbol SYMBOL --seconds SECONDS

CAPPUCCINO_SPEC is the simulated exchange's market, a Dataset's spec: the trial learns on the first bars of one of its symbols,
which nothing else should use, because every trial on a symbol's bars counts against later candidates. Whatever the end, what
was made is deleted again. Exit code 1 and one line on stderr when a step fails or time is up.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from pydantic import ValidationError

from cappuccino.adapters.kubernetes.client import Client
from cappuccino.adapters.kubernetes.index import ClusterIndex
from cappuccino.adapters.kubernetes.objects import KubernetesObjects
from cappuccino.api.dataset import DatasetSpec
from cappuccino.api.meta import API_VERSION, explain
from cappuccino.controllers.decision import Document, Key
from cappuccino.controllers.requests import HALT, key
from cappuccino.core.clock import iso, parse_iso
from cappuccino.core.errors import CappuccinoError, InvalidInput, NotFound, RetryLater
from cappuccino.core.timeframe import Timeframe
from cappuccino.entrypoints.settings import SPEC, required
from cappuccino.reconcile.observers import DEPLOYMENT_LABEL
from cappuccino.reconcile.ports import Objects

BARS = 1_200  # warm-up, one fold, gap and gate window
GATE_BARS, GAP_BARS = 240, 24
POLL_SECONDS = 1.0
CLEAN_SECONDS = 120.0
T = TypeVar("T")
WRONG = ("Stalled", "Failed")  # conditions that end the wait for any other
TREND = {"feature": "trend", "feature_period": "11", "feature_volatility": "48", "exit": "0"}
# One trial on few bars proves nothing, and need not: as an observer it trades all the same.
GATES = {"backtest": {"minSharpe": -1000, "minClosedTrades": 1, "minExposure": 0, "maxDrawdown": 1}}


@dataclass(frozen=True, kw_only=True)
class Smoke:
    """One run. `name` is what all its objects are called."""

    objects: Objects
    namespace: str
    name: str
    say: Callable[[str], None]

    async def run(self, market: DatasetSpec) -> None:
        """From a Dataset to a halted Trader.

        Raises:
            InvalidInput: an object was refused, or its condition says that it will not come to what is waited for.
        """
        reference = {"name": self.name}
        await self._create("Dataset", market.to_json())
        await self._reached("Dataset", self.name, "Ready")
        await self._create("Study", {"datasetRef": reference, **study()})
        await self._reached("Study", self.name, "Complete")
        await self._create("Deployment", {"studyRef": reference, **deployment()})
        await self._reached("Deployment", self.name, "Ready")
        trader = await self._trader()
        found = await self._reached("Trader", trader, "Ready")
        await self.objects.patch_metadata(
            Key("Trader", self.namespace, trader), uid=found["metadata"]["uid"], annotations={key(HALT.name): "helm test"}
        )
        await self._reached("Trader", trader, "Halted")

    async def clean(self) -> None:
        """Delete what was made; traders leave their accounts first, so that the rest is still there for them."""
        await self._patiently(partial(self.objects.delete, Key("Deployment", self.namespace, self.name)))
        self.say("deleting: traders leave their accounts first")
        while True:
            if not await self._traders():
                break
            await asyncio.sleep(POLL_SECONDS)
        for other in (Key("Study", self.namespace, self.name), Key("Dataset", self.namespace, self.name)):
            await self._patiently(partial(self.objects.delete, other))

    async def _create(self, kind: str, spec: Mapping[str, Any]) -> None:
        metadata = {"name": self.name, "namespace": self.namespace}
        await self.objects.create({"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": dict(spec)})

    async def _reached(self, kind: str, name: str, condition: str) -> Document:
        """Wait until the condition is True; every new state of the object is said."""
        said = ""
        while True:
            document = await self._patiently(partial(self.objects.get, Key(kind, self.namespace, name)))
            if document is None:
                raise NotFound(f"{kind} {name} is gone: somebody else deleted it; run the test again")
            conditions = {each["type"]: each for each in document.get("status", {}).get("conditions", ())}
            telling = (each for each in conditions.values() if each["type"] == "Ready" or each["status"] == "True")
            state = ", ".join(map(described, telling))
            if state != said:
                self.say(f"{kind} {name}: {state}")
                said = state
            if conditions.get(condition, {}).get("status") == "True":
                return document
            for wrong in WRONG:
                if conditions.get(wrong, {}).get("status") == "True":
                    message = conditions[wrong].get("message", "")
                    raise InvalidInput(
                        f"{kind} {name} is {wrong}, not {condition}: {message}: see its events and its pod's log"
                    )
            await asyncio.sleep(POLL_SECONDS)

    async def _trader(self) -> str:
        """The one of the trial, which its Deployment makes in the pass that says Ready, or in the next."""
        while True:
            if names := await self._traders():
                return names[0]
            await asyncio.sleep(POLL_SECONDS)

    async def _traders(self) -> list[str]:
        listing = partial(self.objects.list, "Trader", namespace=self.namespace, labels={DEPLOYMENT_LABEL: self.name})
        documents = await self._patiently(listing)
        return [document["metadata"]["name"] for document in documents]

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Again and again while the API server is away; somebody else minds the time."""
        while True:
            try:
                return await call()
            except RetryLater as error:
                self.say(str(error))
            await asyncio.sleep(POLL_SECONDS)


def described(condition: Mapping[str, Any]) -> str:
    """Ready False (Starting: its process is being started)"""
    why = ": ".join(part for part in (condition.get("reason", ""), condition.get("message", "")) if part)
    return f"{condition['type']} {condition['status']} ({why})"


def dataset(text: str, symbol: str) -> DatasetSpec:
    """The first bars of one symbol of the exchange's market.

    Raises:
        InvalidInput: no such market or symbol, or too few bars.
    """
    try:
        market = DatasetSpec.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise InvalidInput(explain(error, DatasetSpec, source=SPEC)) from error
    if symbol not in market.symbols:
        raise InvalidInput(f"{symbol} is not a symbol of the exchange's market: name one of {', '.join(market.symbols)}")
    end = parse_iso(market.start) + timedelta(seconds=BARS * Timeframe.parse(market.timeframe).seconds)
    if market.end is None or parse_iso(market.end) < end:
        raise InvalidInput(
            f"the exchange's market ends at {market.end}, and the test needs {BARS} bars, to {iso(end)}: lengthen it"
        )
    return market.model_copy(update={"symbols": (symbol,), "end": iso(end), "features": ()})


def study() -> Document:
    return {
        "features": [{"name": "trend", "params": {"period": 11, "volatility": 48}}],
        "strategy": {"kind": "trend", "parameters": TREND},
        "searchSpace": {"enter": {"type": "float", "low": 0.05, "high": 0.1}},
        "validation": {"folds": 1, "gateBars": GATE_BARS, "gapBars": GAP_BARS, "minExposure": 0, "minClosedTrades": 1},
        "budget": {"trials": 1, "maxFailedTrials": 0},
        "template": {"timeoutSeconds": 600, "pod": {"requests": {"cpu": "100m", "memory": "512Mi"}, "sharedMemory": "64Mi"}},
    }


def deployment() -> Document:
    return {"top": 1, "observers": 1, "baselines": [], "gates": GATES, "traderTemplate": {"venue": {"kind": "simulated"}}}


async def attempt(smoke: Smoke, market: DatasetSpec, *, seconds: float) -> None:
    """Run it within so many seconds, and clean up behind it.

    Raises:
        RetryLater: time was up, for the run or for cleaning up; what it waited for was said last.
    """
    try:
        async with asyncio.timeout(seconds):
            await smoke.run(market)
    except TimeoutError as error:
        raise RetryLater(
            f"not through within {seconds:g} s: its last words are above; mind the events of what it waited for"
        ) from error
    except CappuccinoError as error:
        smoke.say(str(error))  # whatever becomes of cleaning up
        raise
    finally:
        try:
            async with asyncio.timeout(CLEAN_SECONDS):
                await smoke.clean()
        except TimeoutError as error:
            raise RetryLater(
                f"{smoke.name} is not deleted after {CLEAN_SECONDS:g} s: see the events of its Trader, "
                f"then kubectl delete mdep,mst,mds {smoke.name}"
            ) from error


async def _attempt(options: argparse.Namespace, market: DatasetSpec) -> None:
    started = time.monotonic()

    def say(line: str) -> None:
        sys.stdout.write(f"{time.monotonic() - started:5.0f} s  {line}\n")
        sys.stdout.flush()

    async with await Client.connect() as client:
        objects = KubernetesObjects(client, ClusterIndex(client, namespaces=(options.namespace,)))
        name = f"test-{uuid.uuid4().hex[:8]}"
        await attempt(Smoke(objects=objects, namespace=options.namespace, name=name, say=say), market, seconds=options.seconds)
    say("passed: trained, judged, traded on paper, halted, deleted")


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="smoke", description="One trial through to a paper Trader and its halt.")
    parser.add_argument("--namespace", required=True, help="where its objects are made")
    parser.add_argument("--symbol", required=True, help="of the exchange's market; one that nothing else uses")
    parser.add_argument("--seconds", type=float, default=600, help="within which it must be through (default %(default)s)")
    options = parser.parse_args(argv)
    try:
        asyncio.run(_attempt(options, dataset(required(SPEC), options.symbol)))
    except CappuccinoError as error:
        sys.stderr.write(f"failed: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
