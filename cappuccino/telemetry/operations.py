"""Metrics of the process that reconciles. Labels are bounded: kind, result, state, verb, resource, code; never a name.

What changes by itself (how deep the queue is, how many objects there are) is asked for when it is scraped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_PASS_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_CALL_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
# Condition types that can be an object's state, the most telling first.
_STATES = ("Failed", "Stalled", "Halted", "Complete", "Suspended", "Promoted", "Ready", "Reconciling")


def state_of(status: Mapping[str, Any] | None) -> str:
    """An object in one word: the most telling of its conditions that hold, New without any, Waiting when none holds."""
    conditions = (status or {}).get("conditions")
    if not conditions:
        return "New"
    held = {condition.get("type") for condition in conditions if condition.get("status") == "True"}
    return next((state for state in _STATES if state in held), "Waiting")


class OperatorMetrics:
    """Metrics of one operator. Times in seconds."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self._passes = Counter("cappuccino_reconciles", "Passes, by what came of them", ["kind", "result"], registry=r)
        self._pass_seconds = Histogram(
            "cappuccino_reconcile_seconds", "Length of a pass", ["kind"], buckets=_PASS_BUCKETS, registry=r
        )
        self._told_seconds = Histogram(
            "cappuccino_event_to_status_seconds",
            "From what made a pass due to the status written",
            ["kind"],
            buckets=_PASS_BUCKETS,
            registry=r,
        )
        self._calls = Counter("cappuccino_api_calls", "Requests to the API server", ["verb", "resource", "code"], registry=r)
        self._call_seconds = Histogram(
            "cappuccino_api_call_seconds", "Length of such a request", ["verb"], buckets=_CALL_BUCKETS, registry=r
        )

    def passed(self, kind: str, result: str, seconds: float) -> None:
        """A pass ended. `result`: ok, retry, conflict, stalled, error."""
        self._passes.labels(kind, result).inc()
        self._pass_seconds.labels(kind).observe(seconds)

    def told(self, kind: str, seconds: float) -> None:
        """A status was written, so long after its pass became due."""
        self._told_seconds.labels(kind).observe(seconds)

    def called(self, verb: str, resource: str, code: int | str, seconds: float) -> None:
        """The API server answered with an HTTP code, or did not for the reason that `code` is."""
        self._calls.labels(verb, resource, str(code)).inc()
        self._call_seconds.labels(verb).observe(seconds)

    def look_at(
        self,
        *,
        queue_depth: Callable[[], int],
        oldest_seconds: Callable[[], float],
        leading: Callable[[], bool],
        objects: Callable[[], Mapping[tuple[str, str], int]],
    ) -> None:
        """What to ask for at every scrape; `objects` counts them by kind and state."""

        def present() -> Iterable[GaugeMetricFamily]:
            yield GaugeMetricFamily("cappuccino_queue_depth", "Keys that are due and wait for a worker", queue_depth())
            yield GaugeMetricFamily(
                "cappuccino_queue_oldest_seconds", "How long the oldest of them has waited", oldest_seconds()
            )
            yield GaugeMetricFamily("cappuccino_leader", "1 while this replica holds the Lease", float(leading()))
            counted = GaugeMetricFamily("cappuccino_objects", "Objects, by state", labels=["kind", "state"])
            for (kind, state), count in sorted(objects().items()):
                counted.add_metric([kind, state], count)
            yield counted

        self.registry.register(_Asked(present))

    def render(self) -> bytes:
        """The text form that Prometheus scrapes."""
        return generate_latest(self.registry)


class _Asked(Collector):
    def __init__(self, ask: Callable[[], Iterable[GaugeMetricFamily]]) -> None:
        self._ask = ask

    def collect(self) -> Iterable[GaugeMetricFamily]:
        return self._ask()
