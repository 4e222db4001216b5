"""A release's life on a real API server: installed, upgraded, refused to go while Traders exist, gone, installed again.

No kubelet runs the hooks' Jobs here: the tests say how they ended. What the guard itself decides is asked of its program.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.cluster.control_plane import ControlPlane
from tests.unit.controllers import builders as build

from .conftest import Kubectl, administrator
from .helm import CHART, TRY, Helm

TRADERS = "traders.cappuccino.dev"


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[ControlPlane]:
    """A server that knows nothing of us, and has no controllers that would meddle with Jobs or claims."""
    with ControlPlane(tmp_path) as plane:
        yield plane


@pytest.fixture
def helm(bare: ControlPlane) -> Helm:
    return Helm.of(bare, "default")


@pytest.fixture
def kubectl(bare: ControlPlane) -> Kubectl:
    return administrator(bare)


@pytest.fixture
def release(helm: Helm) -> str:
    helm.ok("install", "cap", CHART, "-f", TRY)
    return "cap"


@contextmanager
def hook(kubectl: Kubectl, name: str, outcome: str) -> Iterator[None]:
    """The Job `name`, when it comes, ends as `outcome` says: Complete or Failed."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    before = {"Complete": "SuccessCriteriaMet", "Failed": "FailureTarget"}[outcome]
    conditions = [{"type": kind, "status": "True", "reason": "Test", "lastTransitionTime": now} for kind in (before, outcome)]
    status: dict[str, Any] = {"startTime": now, "conditions": conditions, "succeeded" if outcome == "Complete" else "failed": 1}
    status |= {"completionTime": now} if outcome == "Complete" else {}
    ended = threading.Event()

    def end() -> None:
        while not ended.is_set():
            patch = json.dumps({"status": status})
            if kubectl("patch", "job", name, "--subresource=status", "--type=merge", "-p", patch).returncode == 0:
                return
            time.sleep(0.1)

    thread = threading.Thread(target=end)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def uninstalled(helm: Helm, kubectl: Kubectl, guard: str) -> subprocess.CompletedProcess[str]:
    with hook(kubectl, "cap-cappuccino-uninstall", guard):
        return helm("uninstall", "cap", "--timeout=20s")


def secret(kubectl: Kubectl, name: str) -> dict[str, str]:
    data = json.loads(kubectl.ok("get", "secret", name, "-o", "json"))["data"]
    return {field: base64.b64decode(value).decode() for field, value in data.items()}


def names(kubectl: Kubectl, kinds: str) -> set[str]:
    return set(kubectl.ok("get", kinds, "-o", "name").split())


def serving(kubectl: Kubectl, replicas: int) -> None:
    status = json.dumps({"status": {"replicas": 1, "readyReplicas": replicas}})
    kubectl.ok("patch", "statefulset", "cap-cappuccino-database", "--subresource=status", "--type=merge", "-p", status)


def make_trader(kubectl: Kubectl) -> None:
    kubectl.ok("wait", "--for=condition=Established", f"crd/{TRADERS}", "--timeout=30s")
    document = build.trader().to_json() | {"metadata": {"name": "one"}}
    kubectl.ok("create", "-f", "-", stdin=json.dumps(document))


# --- installing and upgrading ------------------------------------------------------------------------


def test_an_upgrade_keeps_every_password_and_the_token(release: str, helm: Helm, kubectl: Kubectl) -> None:
    known = ("cap-cappuccino-database-admin", "cap-cappuccino-database", "cap-cappuccino-exchange")
    before = {name: secret(kubectl, name) for name in known}
    admin, workers = (before[name] for name in known[:2])
    assert len({url.split("@")[0] for url in admin.values()}) == 8  # seven roles and the superuser's bare password
    assert {role: admin[role] for role in workers} == workers
    helm.ok("upgrade", release, CHART, "-f", TRY, "--set=operator.replicas=2")
    assert {name: secret(kubectl, name) for name in known} == before


def test_the_embedded_database_is_migrated_beside_it_at_first_and_before_the_rest_later(
    release: str, helm: Helm, kubectl: Kubectl
) -> None:
    """`helm install --wait` waits for the operator, which waits for the migration: that must not wait for `helm install`."""
    (first,) = names(kubectl, "jobs")
    assert first.startswith("job.batch/cap-cappuccino-migrate-")

    def rendered() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Jobs of the release, and hooks, of an upgrade."""
        text = helm.ok("upgrade", release, CHART, "-f", TRY, "--dry-run=server", "--output=json")
        body = json.loads(text)
        jobs = [document for document in yaml.safe_load_all(body["manifest"]) if document and document["kind"] == "Job"]
        hooks = [yaml.safe_load(each["manifest"]) for each in body["hooks"] if "pre-upgrade" in each["events"]]
        return jobs, hooks

    jobs, hooks = rendered()
    assert ([job["metadata"]["name"] for job in jobs], hooks) == ([first.partition("/")[2]], [])
    serving(kubectl, 1)
    jobs, hooks = rendered()
    assert (jobs, [job["metadata"]["name"] for job in hooks]) == ([], ["cap-cappuccino-migrate"])
    with hook(kubectl, "cap-cappuccino-migrate", "Complete"):
        helm.ok("upgrade", release, CHART, "-f", TRY)
    assert names(kubectl, "jobs") == set()


def test_an_upgrade_stops_at_a_migration_that_fails(release: str, helm: Helm, kubectl: Kubectl) -> None:
    serving(kubectl, 1)
    with hook(kubectl, "cap-cappuccino-migrate", "Failed"):
        done = helm("upgrade", release, CHART, "-f", TRY, "--set=operator.replicas=2", "--timeout=20s")
    assert done.returncode != 0
    assert "pre-upgrade hooks failed" in done.stderr
    assert kubectl.ok("get", "deployment.apps", "cap-cappuccino-operator", "-o", "jsonpath={.spec.replicas}") == "1"


def test_a_database_of_ones_own_is_migrated_before_anything_else(helm: Helm, kubectl: Kubectl) -> None:
    own = ("--set=database.existingSecret=record,crds.enabled=false", "--timeout=20s")
    with hook(kubectl, "own-cappuccino-migrate", "Failed"):
        assert helm("install", "own", CHART, *own).returncode != 0
    assert names(kubectl, "deployments.apps") == set()
    helm.ok("uninstall", "own", "--no-hooks")
    with hook(kubectl, "own-cappuccino-migrate", "Complete"):
        helm.ok("install", "own", CHART, *own)
    assert names(kubectl, "deployments.apps") == {"deployment.apps/own-cappuccino-operator"}


def test_another_release_beside_it_needs_no_crds_and_takes_nothing(release: str, helm: Helm, kubectl: Kubectl) -> None:
    kubectl("create", "namespace", "elsewhere")
    other = Helm(home=helm.home, kubeconfig=helm.kubeconfig, namespace="elsewhere")
    taken = other("install", "cap", CHART, "-f", TRY)
    assert "datasets.cappuccino.dev" in taken.stderr  # the CRDs are the first one's
    other.ok("install", "cap", CHART, "-f", TRY, "--set=crds.enabled=false")
    policies = names(kubectl, "validatingadmissionpolicies")
    assert len(policies) == 4
    other.ok("uninstall", "cap", "--no-hooks")
    assert len(names(kubectl, "validatingadmissionpolicies")) == 2


# --- uninstalling -----------------------------------------------------------------------------------------


def test_a_refused_uninstallation_changes_nothing_and_can_be_taken_back(release: str, helm: Helm, kubectl: Kubectl) -> None:
    make_trader(kubectl)
    kinds = "deployments.apps,statefulsets,secrets,pvc,roles,validatingadmissionpolicies,crd"
    before = names(kubectl, kinds)
    done = uninstalled(helm, kubectl, "Failed")
    assert done.returncode != 0
    assert names(kubectl, kinds) == before
    revision = json.loads(helm.ok("history", release, "--output=json"))[-1]["revision"]
    helm.ok("rollback", release, str(revision))
    assert json.loads(helm.ok("status", release, "--output=json"))["info"]["status"] == "deployed"
    helm.ok("upgrade", release, CHART, "-f", TRY)


def test_crds_objects_and_record_outlive_the_release_and_the_next_one_finds_them(
    release: str, helm: Helm, kubectl: Kubectl
) -> None:
    make_trader(kubectl)
    urls = secret(kubectl, "cap-cappuccino-database-admin")
    done = uninstalled(helm, kubectl, "Complete")
    assert done.returncode == 0, done.stderr
    assert names(kubectl, TRADERS) == {f"trader.{TRADERS.partition('.')[2]}/one"}
    assert len(names(kubectl, "crd")) == 5
    assert names(kubectl, "secrets,pvc") == {
        "secret/cap-cappuccino-database-admin",
        *(f"persistentvolumeclaim/cap-cappuccino-{part}" for part in ("artifacts", "database", "exchange")),
    }
    assert names(kubectl, "deployments.apps,statefulsets,services") == {"service/kubernetes"}
    helm.ok("install", release, CHART, "-f", TRY)
    assert secret(kubectl, "cap-cappuccino-database-admin") == urls


def test_the_guard_names_the_traders_and_what_to_do(release: str, kubectl: Kubectl, bare: ControlPlane) -> None:
    config = yaml.safe_load(bare.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": kubectl.ok("create", "token", "cap-cappuccino-uninstall").strip()}
    own = bare.kubeconfig.with_name("guard")
    own.write_text(yaml.safe_dump(config))
    assert guarded(own, "default") == (0, "")
    make_trader(kubectl)
    code, said = guarded(own, "default")
    assert code == 1
    assert said.startswith("refused: 1 Traders exist, and nothing would mind their accounts: default/one\n")
    assert "kubectl delete mdep,mtd --all --namespace default\n" in said
    code, said = guarded(own, "kube-system")  # which is not for it to see
    assert code == 1
    assert said.startswith("refused: it is not known whether Traders exist: ")


def test_the_guard_holds_nothing_where_there_is_no_such_kind(bare: ControlPlane, kubectl: Kubectl) -> None:
    assert names(kubectl, "crd") == set()
    assert guarded(bare.kubeconfig) == (0, "")


def guarded(kubeconfig: Path, *namespaces: str) -> tuple[int, str]:
    """Exit code and words of the hook's program."""
    command = [sys.executable, "-m", "cappuccino.entrypoints.uninstall", *namespaces]
    done = subprocess.run(
        command, env={**os.environ, "KUBECONFIG": str(kubeconfig)}, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stderr
