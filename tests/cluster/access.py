"""The chart in a namespace of its own, and the people of its roles.

hal halts, ann approves, ed edits, vera views, pat has the bare verb `patch` and none of ours. The operator has its own account.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from subprocess import CompletedProcess
from typing import TYPE_CHECKING, Any

import yaml

from cappuccino.controllers.requests import key
from tests.unit.controllers import builders as build

from .helm import CHART, TRY, Helm

if TYPE_CHECKING:
    from hack.cluster.control_plane import ControlPlane

    from .conftest import Kubectl

SERVICE = "system:serviceaccount:{}:cap-cappuccino-{}"
PEOPLE = {"viewers": "vera", "editors": "ed", "halters": "hal", "approvers": "ann"}
AT = "2026-01-01T00:00:00Z"
Annotations = dict[str, str | None]
REAL: dict[str, Any] = {"kind": "alpaca", "accountSecretRef": {"name": "desk-live"}}
LIVE: dict[str, Any] = {"venue": REAL, "mode": "live"}
ROAD: dict[str, Any] = {
    "traderTemplate": {"venue": {"kind": "alpaca"}, "mode": "shadow"},
    "live": {"venue": REAL, "capitalUsd": 1000},
}


@dataclass(frozen=True, kw_only=True)
class Release:
    """The chart in a namespace, where everybody asks as themselves and changes nothing for good."""

    kubectl: Kubectl

    @property
    def operator(self) -> str:
        return f"system:serviceaccount:{self.kubectl.namespace}:cap-cappuccino-operator"

    def allowed(self, user: str, verbs: str, resources: tuple[str, ...], namespace: str = "") -> dict[str, bool]:
        """By verb and resource, which is written plural.group:subresource/name. The server is asked for all of them at once."""
        asked = [f"{verb} {resource}" for verb in verbs.split() for resource in resources]
        reviews = [review(user, each, namespace or self.kubectl.namespace) for each in asked]
        form = r"jsonpath={.status.allowed}{'\n'}"
        answers = self.kubectl.ok("create", "-f", "-", "-o", form, stdin=yaml.safe_dump_all(reviews)).split()
        return {each: answer == "true" for each, answer in zip(asked, answers, strict=True)}

    def patched(self, user: str, what: str, change: dict[str, Any]) -> CompletedProcess[str]:
        body = json.dumps(change)
        return self.kubectl("patch", *what.split("/"), "--type=merge", "--dry-run=server", f"--as={user}", "-p", body)

    def created(self, user: str, document: dict[str, Any]) -> CompletedProcess[str]:
        return self.kubectl("create", "--dry-run=server", f"--as={user}", "-f", "-", stdin=json.dumps(document))


def review(user: str, asked: str, namespace: str) -> dict[str, Any]:
    verb, resource = asked.split()
    resource, _, name = resource.partition("/")
    resource, _, subresource = resource.partition(":")
    plural, _, group = resource.partition(".")
    attributes = {
        "verb": verb,
        "resource": plural,
        "group": group,
        "subresource": subresource,
        "name": name,
        "namespace": namespace,
    }
    spec = {"user": user, "resourceAttributes": attributes}
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}


def annotated(resource: Any, name: str, annotations: Annotations) -> dict[str, Any]:
    document: dict[str, Any] = resource.to_json()
    return document | {"metadata": {"name": name, "annotations": annotations, "labels": {"desk": "one"}}}


def asked(**annotations: str | None) -> dict[str, Any]:
    """A merge patch of our annotations: halted_by is cappuccino.dev/halted-by; None removes one."""
    return {"metadata": {"annotations": {key(name.replace("_", "-")): value for name, value in annotations.items()}}}


def user_of(release: Release, who: str) -> str:
    accounts = ("operator", "workload", "uninstall", "test")
    return SERVICE.format(release.kubectl.namespace, who) if who in accounts else who


@contextmanager
def installed(api_server: ControlPlane, admin: Kubectl) -> Iterator[Release]:
    namespace = f"access-{uuid.uuid4().hex[:8]}"
    admin.ok("create", "namespace", namespace)
    kubectl = replace(admin, namespace=namespace)
    calm = {"desk/note": "calm"}
    marks = {key("resume-acted"): "mark", key("halt-acted"): "mark"}
    resumed = {key("resume"): "checked", key("resumed-by"): "hal", key("resumed-at"): AT, **marks}
    approved = {key("approve"): "t-0", key("approved-by"): "ann", key("approve-reason"): "good", key("approve-acted"): "mark"}
    for document in (
        annotated(build.trader(), "calm", calm),
        annotated(build.trader(), "resumed", calm | resumed),
        annotated(build.deployment(), "fresh", calm),
        annotated(build.deployment(), "approved", calm | approved),
        annotated(build.deployment(**ROAD), "rehearsed", calm),
        annotated(build.deployment(**ROAD | {"live": ROAD["live"] | {"dryRun": False}}), "sending", calm),
        annotated(build.trader(spec=LIVE), "real", calm),
    ):
        kubectl.ok("create", "-f", "-", stdin=json.dumps(document))
    people = [f"--set-json=access.{role}=" + json.dumps([{"kind": "User", "name": user}]) for role, user in PEOPLE.items()]
    helm = Helm.of(api_server, namespace)
    helm.ok("install", "cap", CHART, "-f", TRY, "--set=crds.enabled=false,database.embedded.persistence.enabled=false", *people)
    kubectl.ok("create", "role", "pat", "--verb=get,patch", "--resource=traders.cappuccino.dev,deployments.cappuccino.dev")
    kubectl.ok("create", "rolebinding", "pat", "--role=pat", "--user=pat")
    release = Release(kubectl=kubectl)
    deadline = time.monotonic() + 30
    while release.patched("pat", "trader/calm", asked(halt="x")).returncode == 0:
        assert time.monotonic() < deadline, "the policies do not work"
        time.sleep(0.1)
    yield release
    kubectl.ok(
        "delete", "validatingadmissionpolicies,validatingadmissionpolicybindings", "-l", "app.kubernetes.io/instance=cap"
    )
