"""One trace from a Study to its orders, over OTLP to a receiver; and nothing at all where nobody asked for traces."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cappuccino.controllers.decision import Decision, Key
from cappuccino.controllers.trader import TRACEPARENT_ANNOTATION
from cappuccino.core.errors import InvalidInput
from cappuccino.core.identifiers import TRACEPARENT, traceparent
from cappuccino.reconcile.loop import Loop
from cappuccino.telemetry import traces
from cappuccino.telemetry.logs import get_logger

from ..reconcile.builders import Memory, Scripted, loop_of, stored
from ..trading.builders import SYMBOLS, Script, Trader, Venue, make_bars
from .conftest import Lines
from .receiver import Receiver, receiving

UID = "0f4a6f0e-6f43-4a53-9a3a-3f1f4f0f7a10"
TRACE, ROOT = traceparent(UID).split("-")[1:3]
OTHER = "00-" + "c" * 32 + "-" + "d" * 16 + "-01"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv(TRACEPARENT, raising=False)
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        yield receiver


def loop_over(*documents: dict[str, Any], answer: Decision | Exception) -> tuple[Loop, list[Key]]:
    keys = {Key(d["kind"], "default", d["metadata"]["name"]): d for d in documents}
    return loop_of(Memory(documents=keys), Scripted([answer]), kinds=[key.kind for key in keys]), list(keys)


async def test_one_trace_leads_from_a_study_to_its_orders(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = stored("Trial", "s-00001", spec={"studyUid": UID, "number": 1}, uid="trial")
    deployment = stored("Deployment", "d", spec={"studyRef": {"name": "s"}}, uid="deployment")
    trader = stored("Trader", "d-00001", spec={"account": "a"}, uid="trader")
    trader["metadata"]["annotations"] = {TRACEPARENT_ANNOTATION: traceparent(UID)}
    documents = (stored(uid=UID), trial, deployment, trader)
    loop, keys = loop_over(*documents, answer=Decision(status={"phase": "acted"}))
    with traces.exported("operator"):
        for key in keys:
            await loop.reconcile(key)

    environment = {
        **os.environ,
        TRACEPARENT: traceparent(UID),
        "CAPPUCCINO_DATABASE_URL": "mysql://u:hidden@nowhere/x",
        "CAPPUCCINO_ARTIFACTS_URL": "file:///nowhere",
    }
    command = [sys.executable, "-m", "cappuccino.entrypoints.worker", "validate", "gates"]
    assert subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False).returncode == 2

    monkeypatch.setenv(TRACEPARENT, traceparent(UID))
    trading = Trader(venue=Venue.over(make_bars(bars=6)), strategy=Script({0: {SYMBOLS[0]: 0.3}, 2: {SYMBOLS[0]: 0.0}}))
    with traces.exported("trade"):
        assert trading.run().finished

    assert {span.trace_id for span in receiver.spans} == {TRACE}
    passes, gates = receiver.named("reconcile"), receiver.named("gates")
    decisions, orders = receiver.named("decision"), receiver.named("order")
    assert [span.attributes["cappuccino.kind"] for span in passes] == ["Study", "Trial", "Deployment", "Trader"]
    assert [(span.service, span.parent_id) for span in passes] == [("cappuccino-operator", ROOT)] * 4
    assert [(span.service, span.parent_id) for span in gates] == [("cappuccino-validate", ROOT)]
    assert {(span.service, span.parent_id) for span in decisions} == {("cappuccino-trade", ROOT)}
    assert len(decisions) == 5
    assert [span.attributes["cappuccino.side"] for span in orders] == ["buy", "sell"]
    assert [span.attributes["cappuccino.client_order_id"] for span in orders] == list(trading.ledger.intents)
    assert {span.parent_id for span in orders} < {span.span_id for span in decisions}
    assert "hidden" not in "".join(span.failed for span in receiver.spans)


async def test_a_pass_that_changed_nothing_is_not_exported(receiver: Receiver) -> None:
    loop, (key,) = loop_over(stored(uid=UID), answer=Decision(requeue_after=3.0))
    with traces.exported("operator"):
        await loop.reconcile(key)
    assert receiver.spans == []


async def test_a_pass_that_failed_says_why(receiver: Receiver) -> None:
    error = InvalidInput("database postgresql://u:hidden@h/d is wrong: correct it")
    loop, (key,) = loop_over(stored(uid=UID), answer=error)
    with traces.exported("operator"), pytest.raises(InvalidInput):
        await loop.reconcile(key)
    assert [span.failed for span in receiver.spans] == [
        "InvalidInput: database postgresql://u:[redacted]@h/d is wrong: correct it"
    ]


def test_the_parent_is_what_is_given_else_the_span_around_else_the_environment(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRACEPARENT, traceparent(UID))
    with traces.exported("train"), traces.span("around"), traces.span("inside"), traces.span("given", traceparent=OTHER):
        pass
    (around,), (inside,), (given,) = (receiver.named(name) for name in ("around", "inside", "given"))
    assert (around.trace_id, around.parent_id) == (TRACE, ROOT)
    assert (inside.trace_id, inside.parent_id) == (TRACE, around.span_id)
    assert (given.trace_id, given.parent_id) == ("c" * 32, "d" * 16)


def test_a_log_line_inside_a_span_carries_its_trace(receiver: Receiver, lines: Lines) -> None:
    with traces.exported("test"):
        get_logger("x").info("outside")
        with traces.span("around", traceparent=traceparent(UID)):
            get_logger("x").info("inside")
            logging.getLogger("library").warning("inside as well")
    assert [line.get("trace_id") for line in lines()] == [None, TRACE, TRACE]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "x"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"},
    ],
)
def test_where_nobody_asks_for_traces_opentelemetry_is_not_even_imported(environment: dict[str, str]) -> None:
    program = (
        "import sys; from cappuccino.telemetry import traces\n"
        "with traces.exported('x'), traces.span('y', number=1) as span: span.set(more=2); span.drop()\n"
        "assert traces.trace_id() is None and not traces.enabled()\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    assert subprocess.run([sys.executable, "-c", program], env=clean | environment, timeout=60, check=False).returncode == 0


def test_a_collector_that_is_away_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    with traces.exported("train"), traces.span("work"):
        pass
    assert time.monotonic() - began < traces.CLOSE_SECONDS + 2


def test_an_exporter_that_is_unknown_is_said_and_nothing_is_traced(monkeypatch: pytest.MonkeyPatch, lines: Lines) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with traces.exported("train"), traces.span("work"):
        assert not traces.enabled()
    (line,) = lines()
    assert "zipkin" in line["event"]
