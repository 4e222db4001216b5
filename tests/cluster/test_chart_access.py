"""Who may do what under the chart: every right is proved by a request of that person, every limit by a refusal with its remedy.

hal halts, ann approves, ed edits, vera views, pat has the bare verb `patch` and none of ours. The operator has its own account.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cappuccino.adapters.kubernetes.client import Client
from cappuccino.adapters.kubernetes.events import KubernetesEvents
from cappuccino.adapters.kubernetes.index import ClusterIndex
from cappuccino.adapters.kubernetes.lease import LeaseLock
from cappuccino.adapters.kubernetes.objects import KubernetesObjects
from cappuccino.adapters.kubernetes.settings import PodSettings
from cappuccino.adapters.kubernetes.workloads import KubernetesWorkloads
from cappuccino.controllers.decision import Event, Key, Workload
from cappuccino.controllers.requests import APPROVE, HALT, RESUME, key
from cappuccino.core.clock import SystemClock
from tests.unit.controllers import builders as build

from .access import AT, LIVE, ROAD, Release, annotated, asked, user_of
from .conftest import ControlPlane, Kubectl

# --- rights ---------------------------------------------------------------------------------------------

OURS = tuple(f"{plural}.cappuccino.dev" for plural in ("datasets", "studies", "trials", "deployments", "traders"))
DATASETS, STUDIES, TRIALS, DEPLOYMENTS, TRADERS = OURS
MAY = [
    ("operator", "get list watch patch", OURS),
    ("operator", "create delete", (TRIALS, TRADERS)),
    ("operator", "patch", tuple(f"{kind}:status" for kind in OURS)),
    ("operator", "update", (f"{STUDIES}:finalizers", f"{DEPLOYMENTS}:finalizers")),
    ("operator", "get list watch create patch delete", ("jobs.batch", "statefulsets.apps")),
    ("operator", "get list watch delete", ("pods",)),
    ("operator", "get list create patch", ("events",)),
    ("operator", "create", ("leases.coordination.k8s.io",)),
    ("operator", "get update patch", ("leases.coordination.k8s.io/cappuccino-operator",)),
    ("uninstall", "list", (TRADERS,)),
    ("test", "get list", OURS),
    ("test", "create delete", (DATASETS, STUDIES, DEPLOYMENTS)),
    ("test", "patch halt", (TRADERS,)),
    ("vera", "get list watch", OURS),
    ("ed", "get create update patch delete", (DATASETS, STUDIES, DEPLOYMENTS, TRADERS)),
    ("ed", "get update patch", (f"{STUDIES}:scale",)),
    ("hal", "get patch halt resume", (TRADERS,)),
    ("ann", "get patch approve", (DEPLOYMENTS,)),
    ("ann", "approve", (TRADERS,)),
]
MAY_NOT = [
    ("operator", "get list watch create", ("secrets", "configmaps", "nodes", "namespaces", "persistentvolumeclaims")),
    ("operator", "create delete", (DATASETS, STUDIES, DEPLOYMENTS)),
    ("operator", "create update patch", ("pods", "roles.rbac.authorization.k8s.io", "deployments.apps", "pods:exec")),
    ("operator", "get update", ("leases.coordination.k8s.io/somebody-else",)),
    ("operator", "update halt resume approve deletecollection", OURS),
    ("workload", "get list watch create patch delete", (*OURS, "pods", "secrets", "jobs.batch")),
    ("uninstall", "get create delete patch", (TRADERS, "secrets")),
    ("test", "update resume approve delete", (TRADERS,)),
    ("test", "get", ("secrets", "pods")),
    ("vera", "create update patch delete halt resume approve", OURS),
    ("ed", "halt resume approve", (DEPLOYMENTS, TRADERS)),
    ("ed", "create delete patch", (TRIALS, "jobs.batch", "secrets", f"{TRADERS}:status")),
    ("hal", "update create delete approve", (TRADERS,)),
    ("hal", "patch approve halt resume", (DEPLOYMENTS, DATASETS, f"{TRADERS}:status")),
    ("ann", "update create delete halt resume", (DEPLOYMENTS,)),
    ("ann", "patch", (TRADERS, f"{DEPLOYMENTS}:status")),
]


@pytest.mark.parametrize(("who", "verbs", "resources"), MAY, ids=[f"{who}-{verbs}" for who, verbs, _ in MAY])
def test_a_role_has_the_rights_it_needs(who: str, verbs: str, resources: tuple[str, ...], release: Release) -> None:
    answers = release.allowed(user_of(release, who), verbs, resources)
    assert [each for each, allowed in answers.items() if not allowed] == []


@pytest.mark.parametrize(("who", "verbs", "resources"), MAY_NOT, ids=[f"{who}-{verbs}" for who, verbs, _ in MAY_NOT])
def test_a_role_has_no_right_that_it_does_not_need(who: str, verbs: str, resources: tuple[str, ...], release: Release) -> None:
    answers = release.allowed(user_of(release, who), verbs, resources)
    assert [each for each, allowed in answers.items() if allowed] == []


def test_rights_end_at_the_namespace(release: Release) -> None:
    for who, verbs, resources in (("operator", "list", OURS), ("ed", "create get", OURS), ("hal", "patch halt", (TRADERS,))):
        answers = release.allowed(user_of(release, who), verbs, resources, namespace="kube-public")
        assert not any(answers.values()), who


# --- what the policies let through -----------------------------------------------------------------------

SPEC = {"spec": {"maxRestarts": 3}}
SEND = {"spec": {"live": {"dryRun": False}}}
TAKES = "dryRun false sends real orders and needs the verb approve on deployments.cappuccino.dev"
BY_HAND = "a Trader of mode live needs the verb approve on traders.cappuccino.dev"
SIGNED_HALT = asked(halt="spread", halted_by="hal", halted_at=AT)
ACCEPTED = [
    ("hal", "trader/calm", asked(halt="spread")),
    ("hal", "trader/calm", SIGNED_HALT),
    ("hal", "trader/calm", asked(resume="checked", resumed_by="hal", resumed_at=AT)),
    ("hal", "trader/resumed", asked(halt="again", resume=None, resumed_by=None, resumed_at=None)),
    ("ed", "trader/calm", SPEC),
    ("ed", "trader/calm", asked(halt="spread", halted_by="ed")),
    ("ed", "trader/resumed", asked(resume=None, resumed_by=None, resumed_at=None)),
    ("ed", "trader/resumed", SPEC),
    ("operator", "trader/resumed", asked(halt_acted="new", resume_acted=None)),
    ("operator", "trader/calm", {"metadata": {"finalizers": ["cappuccino.dev/flatten"], "labels": {"desk": None}}}),
    (
        "ann",
        "deployments.cappuccino.dev/fresh",
        asked(approve="t-0", approved_by="ann", approve_reason="graded A", approved_generation="1"),
    ),
    ("ann", "deployments.cappuccino.dev/approved", asked(approve=None, approved_by=None, approve_reason=None)),
    ("ed", "deployments.cappuccino.dev/fresh", {"spec": {"top": 7}}),
    ("ed", "deployments.cappuccino.dev/approved", {"spec": {"top": 7}}),
    ("ed", "deployments.cappuccino.dev/approved", asked(approve=None, approved_by=None, approve_reason=None)),
    ("operator", "deployments.cappuccino.dev/approved", asked(approve_acted="new")),
    ("ann", "deployments.cappuccino.dev/rehearsed", SEND),  # this field of the spec, and no other
    ("ann", "deployments.cappuccino.dev/sending", {"spec": {"live": {"dryRun": True}}}),
    ("ed", "deployments.cappuccino.dev/sending", {"spec": {"live": {"dryRun": True}}}),
    ("ed", "deployments.cappuccino.dev/sending", {"spec": {"top": 7}}),
    ("ed", "deployments.cappuccino.dev/rehearsed", {"spec": {"live": {"capitalUsd": 5000}}}),  # which revokes what was approved
    ("hal", "trader/real", asked(halt="spread", halted_by="hal")),
    ("operator", "trader/real", {"spec": {"dryRun": False}}),
]
ONLY_THESE = "lacks the verb update on {}.cappuccino.dev and may change only the annotations"
REFUSED = [
    ("hal", "trader/calm", SPEC, ONLY_THESE.format("traders")),
    ("hal", "trader/calm", {**SPEC, **SIGNED_HALT}, ONLY_THESE.format("traders")),
    ("hal", "trader/calm", {"metadata": {"labels": {"desk": "two"}}}, ONLY_THESE.format("traders")),
    ("hal", "trader/calm", {"metadata": {"finalizers": ["hal/mine"]}}, ONLY_THESE.format("traders")),
    ("hal", "trader/calm", {"metadata": {"annotations": {"desk/note": "x"}}}, ONLY_THESE.format("traders")),
    ("hal", "trader/calm", {"metadata": {"annotations": {"desk/note": None}}}, ONLY_THESE.format("traders")),
    ("hal", "trader/calm", asked(halt="spread", halted_by="ed"), "halted-by is 'ed' and you are 'hal': write your own name"),
    ("hal", "trader/calm", asked(resume="checked"), "resumed-by is '' and you are 'hal': write your own name"),
    ("hal", "trader/calm", asked(resume="checked", resumed_by="ed"), "resumed-by is 'ed' and you are 'hal'"),
    ("hal", "trader/calm", asked(resume=" ", resumed_by="hal"), "resume is empty: write the reason"),
    ("hal", "trader/resumed", asked(resume_acted=None), "annotations that end in -acted are the operator's"),
    ("hal", "trader/calm", asked(halt_acted="mark"), "annotations that end in -acted are the operator's"),
    ("ed", "trader/calm", asked(resume="x", resumed_by="ed"), "resume needs the verb resume on traders.cappuccino.dev: ask"),
    ("ed", "trader/resumed", asked(resumed_at="2026-02-02T00:00:00Z"), "resume needs the verb resume"),
    ("ed", "trader/resumed", asked(resume_acted=None), "annotations that end in -acted are the operator's"),
    ("ed", "trader/calm", asked(halt="spread", halted_by="hal"), "halted-by is 'hal' and you are 'ed'"),
    (
        "pat",
        "trader/calm",
        asked(halt="spread"),
        "halt needs the verb halt on traders.cappuccino.dev: ask for the role cap-cappuccino-",
    ),
    ("pat", "trader/resumed", asked(resume=None, resumed_by=None), "resume needs the verb resume"),
    ("pat", "trader/calm", SPEC, ONLY_THESE.format("traders")),
    ("vera", "trader/calm", asked(halt="spread"), 'User "vera" cannot patch resource "traders"'),
    ("ann", "trader/calm", asked(halt="spread"), 'User "ann" cannot patch resource "traders"'),
    ("operator", "trader/calm", asked(resume="x", resumed_by="hal"), "resume needs the verb resume"),
    ("ann", "deployments.cappuccino.dev/fresh", {"spec": {"top": 7}}, ONLY_THESE.format("deployments")),
    (
        "ann",
        "deployments.cappuccino.dev/fresh",
        asked(approve="t", approved_by="ed", approve_reason="x"),
        "approved-by is 'ed' and you",
    ),
    ("ann", "deployments.cappuccino.dev/fresh", asked(approve="t", approve_reason="x"), "approved-by is '' and you are 'ann'"),
    (
        "ann",
        "deployments.cappuccino.dev/fresh",
        asked(approve="t", approved_by="ann"),
        "approve-reason is empty: write the reason",
    ),
    (
        "ann",
        "deployments.cappuccino.dev/approved",
        asked(approve_acted=None),
        "annotations that end in -acted are the operator's",
    ),
    ("ann", "deployments.cappuccino.dev/approved", asked(approved_by=None), "approved-by is '' and you are 'ann'"),
    (
        "ed",
        "deployments.cappuccino.dev/fresh",
        asked(approve="t", approved_by="ed", approve_reason="x"),
        "approve needs the verb approve",
    ),
    (
        "ed",
        "deployments.cappuccino.dev/approved",
        asked(approve_reason="better"),
        "approve needs the verb approve on deployments.",
    ),
    ("pat", "deployments.cappuccino.dev/approved", asked(approve=None), "approve needs the verb approve"),
    ("hal", "deployments.cappuccino.dev/fresh", asked(approve="t"), 'User "hal" cannot patch resource "deployments"'),
    ("operator", "deployments.cappuccino.dev/fresh", asked(approve="t", approved_by="ann"), "approve needs the verb approve"),
    ("ed", "deployments.cappuccino.dev/rehearsed", SEND, TAKES),
    ("ed", "deployments.cappuccino.dev/fresh", {"spec": ROAD | {"live": ROAD["live"] | {"dryRun": False}}}, TAKES),
    ("pat", "deployments.cappuccino.dev/rehearsed", SEND, ONLY_THESE.format("deployments")),
    ("ann", "deployments.cappuccino.dev/rehearsed", {"spec": {"live": {"capitalUsd": 1e6}}}, ONLY_THESE.format("deployments")),
    ("ann", "deployments.cappuccino.dev/rehearsed", {"spec": {**SEND["spec"], "top": 7}}, ONLY_THESE.format("deployments")),
    ("ann", "deployments.cappuccino.dev/rehearsed", {"spec": {"live": None}}, ONLY_THESE.format("deployments")),
    ("ed", "trader/real", {"spec": {"dryRun": False}}, BY_HAND),
    ("ed", "trader/real", {"spec": {"capitalUsd": 1e6}}, BY_HAND),
    ("ed", "trader/calm", {"spec": LIVE}, "venue is immutable: make another Trader under a new name"),
]


def named(case: tuple[Any, ...]) -> str:
    who, what, change = case[:3]
    metadata = change.get("metadata", {})
    parts = [*metadata.get("annotations", {}), *(name for name in metadata if name != "annotations"), *change.get("spec", {})]
    return f"{who}-{what.partition('/')[2]}-{'+'.join(part.removeprefix('cappuccino.dev/') for part in parts)}"


@pytest.mark.parametrize(("who", "what", "change"), ACCEPTED, ids=map(named, ACCEPTED))
def test_a_change_within_ones_rights_is_accepted(who: str, what: str, change: dict[str, Any], release: Release) -> None:
    done = release.patched(user_of(release, who), what, change)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("who", "what", "change", "says"), REFUSED, ids=map(named, REFUSED))
def test_a_change_beyond_them_is_refused_with_the_remedy(
    who: str, what: str, change: dict[str, Any], says: str, release: Release
) -> None:
    done = release.patched(user_of(release, who), what, change)
    assert done.returncode != 0, done.stdout
    assert says in done.stderr


def test_one_is_not_born_approved_resumed_or_acted_upon(release: Release) -> None:
    for given, says in (
        ({key("approve"): "t", key("approved-by"): "ed", key("approve-reason"): "x"}, "approve needs the verb approve"),
        ({key("approve-acted"): "mark"}, "annotations that end in -acted are the operator's"),
    ):
        done = release.created("ed", annotated(build.deployment(), "born", given))
        assert says in done.stderr, done.stdout
    resumed = annotated(build.trader(), "born", {key("resume"): "x", key("resumed-by"): "ed"})
    assert "resume needs the verb resume" in release.created("ed", resumed).stderr
    assert release.created("ed", annotated(build.deployment(), "born", {})).returncode == 0
    assert release.created("ed", annotated(build.trader(), "born", {key("halt"): "not yet"})).returncode == 0
    assert release.created(release.operator, annotated(build.trader(), "born", {})).returncode == 0


def test_nobody_but_the_operator_and_approvers_makes_what_trades_real_money(release: Release) -> None:
    born = annotated(build.trader(spec=LIVE), "born", {})
    assert BY_HAND in release.created("ed", born).stderr
    assert release.created(release.operator, born).returncode == 0
    sending = annotated(build.deployment(**ROAD | {"live": ROAD["live"] | {"dryRun": False}}), "born", {})
    assert TAKES in release.created("ed", sending).stderr
    assert release.created("ed", annotated(build.deployment(**ROAD), "born", {})).returncode == 0


def test_the_status_is_the_operators_and_no_way_around(release: Release) -> None:
    status = {"status": {"equityUsd": 5}, **asked(resume="x", resumed_by="hal")}
    command = ("patch", "trader", "calm", "--subresource=status", "--type=merge", "-o", "json", "-p", json.dumps(status))
    written = json.loads(release.kubectl.ok(*command))
    assert written["status"]["equityUsd"] == 5
    assert key("resume") not in written["metadata"]["annotations"]  # what is not status is not taken from here
    assert "cannot" in release.kubectl(*command, "--as=ed").stderr


def test_a_policy_ends_at_the_release(release: Release, kubectl: Kubectl) -> None:
    """In a namespace that it does not watch the same request is nobody's concern."""
    kubectl.ok("create", "-f", "-", stdin=json.dumps(annotated(build.trader(), "calm", {})))
    done = kubectl("patch", "trader", "calm", "--type=merge", "--dry-run=server", "-p", json.dumps(asked(resume="x")))
    assert done.returncode == 0, done.stderr
    here = release.kubectl("patch", "trader", "calm", "--type=merge", "--dry-run=server", "-p", json.dumps(asked(resume="x")))
    assert "resumed-by is '' and you are 'admin'" in here.stderr


async def test_the_operators_account_suffices_for_all_that_its_adapters_do(
    release: Release, api_server: ControlPlane, tmp_path: Path
) -> None:
    namespace = release.kubectl.namespace
    config = yaml.safe_load(api_server.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": release.kubectl.ok("create", "token", "cap-cappuccino-operator").strip()}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    (tmp_path / "pods.yaml").write_text(
        release.kubectl.ok("get", "cm", "cap-cappuccino-operator", "-o", r"jsonpath={.data.pods\.yaml}")
    )
    async with await Client.connect(kubeconfig=str(tmp_path / "kubeconfig")) as client:
        index = ClusterIndex(client, namespaces=(namespace,))
        await index.fill()
        objects = KubernetesObjects(client, index)
        trader = Key("Trader", namespace, "made")
        made = await objects.create(document_of(build.trader(), trader))
        uid = made["metadata"]["uid"]
        await objects.apply(document_of(build.trader(), trader) | {"spec": made["spec"] | {"maxRestarts": 3}})
        await objects.patch_status(trader, {"equityUsd": 1}, uid=uid)
        await objects.patch_metadata(
            trader, uid=uid, finalizers=["cappuccino.dev/flatten"], annotations={key("halt-acted"): "x"}
        )
        await objects.patch_metadata(trader, uid=uid, finalizers=[])
        workloads = KubernetesWorkloads(client, index, PodSettings.read(tmp_path / "pods.yaml"), clock=SystemClock())
        for kind in ("finite", "continuous"):
            workload = Workload(name=trader.workload(kind), kind=kind, arguments=("trade",), keys=(trader,))  # type: ignore[arg-type]
            await workloads.start(workload)
            assert await workloads.observe(workload.name) is not None
            await workloads.stop(workload.name)
        events, event = KubernetesEvents(client), Event(reason="Trading", message="it may trade")
        for _ in range(2):
            await events.emit(trader, uid, event, at=build.NOW)
        lease = LeaseLock(client, namespace=namespace, name="cappuccino-operator", identity="one")
        await lease.acquire()
        await lease.release()
        await objects.delete(trader)
        assert await objects.get(trader) is None


def document_of(resource: Any, where: Key) -> dict[str, Any]:
    document: dict[str, Any] = resource.to_json()
    return document | {"metadata": {"name": where.name, "namespace": where.namespace}}


def test_the_policies_know_all_the_annotations_of_requests(release: Release) -> None:
    for verb, who, what in (
        (HALT, "hal", "trader/calm"),
        (RESUME, "hal", "trader/calm"),
        (APPROVE, "ann", "deployments.cappuccino.dev/fresh"),
    ):
        annotations = dict.fromkeys(verb.keys, "some text") | {key(verb.by): who}
        annotations |= {key(verb.generation): "1"} if verb.generation else {}
        done = release.patched(who, what, {"metadata": {"annotations": annotations}})
        assert done.returncode == 0, done.stderr
