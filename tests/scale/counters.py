"""Figures in Prometheus' text form: the operator's own, and the API server's, which counts whoever writes."""

from __future__ import annotations

import re
from collections.abc import Mapping

_LINE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_WRITES = ("create", "apply", "patch", "delete")
OURS = ("datasets", "studies", "trials", "deployments", "traders")


def value(text: str, name: str) -> float:
    """The sum over all labels; 0 when there is none."""
    return sum(amount for _, amount in series(text, name))


def series(text: str, name: str) -> list[tuple[Mapping[str, str], float]]:
    found = (_LINE.match(line) for line in text.splitlines() if line.startswith(name))
    return [(dict(_LABEL.findall(m[2] or "")), float(m[3])) for m in found if m is not None and m[1] == name]


def own_calls(text: str) -> dict[str, int]:
    """Requests of the operator, by verb and resource, as it counts them; its Lease and its watches are not about objects."""
    calls: dict[str, int] = {}
    for labels, amount in series(text, "cappuccino_api_calls_total"):
        if labels["resource"] != "leases" and labels["verb"] != "watch":
            name = f"{labels['verb']} {labels['resource']}"
            calls[name] = calls.get(name, 0) + int(amount)
    return calls


def writes(calls: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in calls.items() if name.split()[0] in _WRITES}


def server_writes(text: str) -> dict[str, int]:
    """Writes that the API server has seen of our kinds and of Jobs as wholes. Nobody but the operator makes these, except that
    this program creates what a person would, and the garbage collector ends Jobs."""
    counted: dict[str, int] = {}
    for labels, amount in series(text, "apiserver_request_total"):
        resource, verb = labels["resource"], labels["verb"]
        whole_job = resource == "jobs" and not labels["subresource"] and verb in ("POST", "DELETE")
        if (resource in OURS or whole_job) and verb in ("POST", "PUT", "PATCH", "APPLY", "DELETE"):
            name = f"{verb} {resource}{'/' + labels['subresource'] if labels['subresource'] else ''}"
            counted[name] = counted.get(name, 0) + int(amount)
    return counted


def since(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    return {name: count - before.get(name, 0) for name, count in sorted(after.items()) if count != before.get(name, 0)}
