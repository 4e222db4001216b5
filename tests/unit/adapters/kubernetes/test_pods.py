"""What is rendered of a workload: two golden documents as a whole, then what varies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from cappuccino.adapters.kubernetes.pods import document
from cappuccino.adapters.kubernetes.settings import PodSettings
from cappuccino.controllers import deployment as deployments
from cappuccino.controllers import pod
from cappuccino.controllers import trader as trading
from cappuccino.controllers.decision import Document, Key, PodNeeds, Workload
from cappuccino.core.errors import InvalidInput
from tests.unit.controllers import builders as build

from .builders import SETTINGS, owner, trader, trial

KEY = Key("Trader", "default", "t")

GOLDEN = Path(__file__).parents[3] / "golden" / "kubernetes"


def settings(**changes: object) -> PodSettings:
    return PodSettings.model_validate_json(json.dumps({**SETTINGS.to_json(), **changes}))


def container(rendered: Document) -> Document:
    found: Document = rendered["spec"]["template"]["spec"]["containers"][0]
    return found


def environment(rendered: Document) -> dict[str, object]:
    return {entry["name"]: entry.get("value") or entry["valueFrom"]["secretKeyRef"] for entry in container(rendered)["env"]}


def secrets(rendered: Document) -> list[str]:
    volumes = rendered["spec"]["template"]["spec"]["volumes"]
    return [
        source["secret"]["name"] for volume in volumes if "projected" in volume for source in volume["projected"]["sources"]
    ]


@pytest.mark.parametrize(
    ("name", "workload"),
    [("trial", trial()), ("trader", trader())],
)
def test_the_whole_document_is_as_reviewed(name: str, workload: Workload) -> None:
    path = GOLDEN / f"{name}.yaml"
    rendered = document(workload, SETTINGS, [owner(workload, **{"cappuccino.dev/study": "s", "team": "x"})])
    assert rendered == yaml.safe_load(path.read_text()), f"if it is meant, write it to {path}:\n{yaml.safe_dump(rendered)}"


def test_the_key_of_a_real_account_is_mounted_in_a_live_trader_alone() -> None:
    """No other mode can name such a Secret, no other program asks for one, and the operator does not put it there."""
    real = {"kind": "alpaca", "accountSecretRef": {"name": "desk-live"}}
    for dry_run in (True, False):
        of = build.trader(spec={"venue": real, "mode": "live", "dryRun": dry_run})
        for workload in (trading.workload(of, KEY), trading.farewell(of, KEY)):
            rendered = document(workload, SETTINGS)
            assert secrets(rendered) == ["desk-live"]
    for mode in ("shadow", "paper"):
        with pytest.raises(InvalidInput, match="are for mode live"):
            build.trader(spec={"venue": real, "mode": mode})
    paper = build.trader(spec={"venue": real | {"accountSecretRef": {"name": "paper"}}, "mode": "paper"})
    desk = build.deployment(
        traderTemplate={"venue": {"kind": "alpaca"}, "mode": "shadow"}, live={"venue": real, "capitalUsd": 1000}
    )
    seen = deployments.Observed(deployment=desk, key=KEY, traders=[paper])
    live = build.trader(name="live", spec={"venue": real, "mode": "live", "account": "live"})
    others = (trading.workload(paper, KEY), deployments.gates_workload(seen, desk), trial())
    assert [name for workload in others for name in secrets(document(workload, SETTINGS))] == ["paper"]
    shared = pod.workload("p", [live, paper], trace={})
    assert secrets(document(shared, SETTINGS)) == ["paper"]
    assert shared.keys == (Key("Trader", "default", paper.name),)
    assert live.uid not in pod.unpacked(shared.environment[pod.PORTFOLIOS]).decode()


def test_a_queue_is_labelled_and_waited_for_by_the_job_and_not_by_its_pods() -> None:
    rendered = document(trial(pod=PodNeeds(queue="gpu")), SETTINGS)
    assert rendered["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu"
    assert rendered["spec"]["suspend"] is True
    assert "kueue.x-k8s.io/queue-name" not in rendered["spec"]["template"]["metadata"]["labels"]
    assert "suspend" not in document(trial(), SETTINGS)["spec"]


def test_devices_by_claim_are_asked_for_by_the_pod_and_given_to_the_container() -> None:
    rendered = document(trial(pod=PodNeeds(claims=("mig",))), SETTINGS)
    assert rendered["spec"]["template"]["spec"]["resourceClaims"] == [{"name": "mig", "resourceClaimTemplateName": "mig"}]
    assert container(rendered)["resources"]["claims"] == [{"name": "mig"}]


def test_where_a_pod_may_run_joins_what_the_release_and_the_workload_say() -> None:
    needs = PodNeeds(node_selector={"gpu": "yes"}, tolerations=[{"key": "gpu", "operator": "Exists"}])
    spec = document(trial(pod=needs), SETTINGS)["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == {"kubernetes.io/arch": "amd64", "gpu": "yes"}
    assert [toleration["key"] for toleration in spec["tolerations"]] == ["node.kubernetes.io/unreachable", "gpu"]


@pytest.mark.parametrize(
    ("needs", "threads"),
    [
        (PodNeeds(limits={"cpu": "3500m"}), "4"),
        (PodNeeds(requests={"cpu": "2"}), "2"),
        (PodNeeds(requests={"cpu": "100m"}), "1"),
        (PodNeeds(requests={"cpu": "1.5"}), "2"),
        (PodNeeds(), "1"),
    ],
)
def test_numeric_libraries_use_the_processors_that_the_container_has(needs: PodNeeds, threads: str) -> None:
    assert environment(document(trial(pod=needs), SETTINGS))["OMP_NUM_THREADS"] == threads


@pytest.mark.parametrize(
    ("arguments", "image", "key"),
    [
        (("train",), "train", "trial"),
        (("validate", "gates"), "trader", "gate"),
        (("ingest",), "trader", "ingest"),
        (("trade", "--flatten"), "trader", "trader"),
    ],
)
def test_each_program_has_its_image_and_its_own_role_in_the_record(arguments: tuple[str, ...], image: str, key: str) -> None:
    rendered = document(trial(arguments=arguments), SETTINGS)
    assert container(rendered)["image"] == f"registry.example/{image}:1"
    assert environment(rendered)["CAPPUCCINO_DATABASE_URL"] == {"name": "database", "key": key}


def test_only_traders_know_the_exchange_and_only_running_ones_are_probed() -> None:
    trading, leaving = document(trader(), SETTINGS), document(replace(trader(), kind="finite"), SETTINGS)
    known = {"CAPPUCCINO_EXCHANGE_URL", "CAPPUCCINO_EXCHANGE_TOKEN"}
    assert known <= environment(trading).keys()
    assert known <= environment(leaving).keys()
    assert not known & environment(document(trial(), SETTINGS)).keys()
    assert container(trading)["readinessProbe"]["httpGet"]["path"] == "/healthz"
    assert container(trading)["livenessProbe"]["httpGet"]["path"] == "/metrics"
    assert "readinessProbe" not in container(leaving)
    assert "CAPPUCCINO_HEALTH" not in environment(leaving)


def test_an_account_secret_is_mounted_for_who_needs_it_and_nobody_else() -> None:
    rendered = document(trader(), SETTINGS)
    assert {"name": "accounts", "mountPath": "/secrets", "readOnly": True} in container(rendered)["volumeMounts"]
    assert environment(rendered)["CAPPUCCINO_SECRETS"] == "/secrets"
    assert secrets(rendered) == ["alpaca-one"]
    without = document(trader(pod=PodNeeds()), SETTINGS)
    assert secrets(without) == []
    assert "CAPPUCCINO_SECRETS" not in environment(without)


def test_a_secret_that_is_absent_holds_up_the_one_who_needs_it_and_not_its_pod() -> None:
    def optional(portfolios: int) -> list[bool]:
        needs = PodNeeds(secrets=("alpaca-one", "alpaca-two"), portfolios=portfolios)
        volumes = document(trader(pod=needs), SETTINGS)["spec"]["template"]["spec"]["volumes"]
        return [source["secret"].get("optional", False) for source in volumes[-1]["projected"]["sources"]]

    assert optional(1) == [False, False]
    assert optional(2) == [True, True]


def test_a_pod_of_several_portfolios_asks_for_more() -> None:
    def resources(portfolios: int) -> Document:
        found: Document = container(document(trader(pod=PodNeeds(portfolios=portfolios)), SETTINGS))["resources"]
        return found

    assert resources(1) == {"requests": {"cpu": "100m", "memory": "400Mi"}, "limits": {"memory": "1Gi"}}
    assert resources(500) == {"requests": {"cpu": "599m", "memory": "2895Mi"}, "limits": {"memory": "3519Mi"}}


def test_the_stateful_set_of_a_pod_is_called_as_no_trader_is() -> None:
    shared, own = (replace(trader(), name=Key(kind, "default", "desk").workload()) for kind in ("Pod", "Trader"))
    names = {document(workload, SETTINGS)["metadata"]["name"] for workload in (shared, own)}
    assert "desk" in names
    assert len(names) == 2
    assert document(shared, SETTINGS)["metadata"]["labels"]["cappuccino.dev/workload"] == "pod.desk"


def test_artifacts_in_a_bucket_come_with_their_keys_and_without_a_volume() -> None:
    rendered = document(trial(), settings(artifacts={"url": "s3://bucket/x", "secret": "aws"}))
    assert container(rendered)["envFrom"] == [{"secretRef": {"name": "aws"}}]
    assert "persistentVolumeClaim" not in str(rendered)
    assert environment(rendered)["CAPPUCCINO_ARTIFACTS_URL"] == "s3://bucket/x"


def test_a_trader_can_only_read_the_artifacts() -> None:
    def read_only(rendered: Document) -> bool:
        mount = next(mount for mount in container(rendered)["volumeMounts"] if mount["name"] == "artifacts")
        return bool(mount["readOnly"])

    assert read_only(document(trader(), SETTINGS))
    assert not read_only(document(trial(), SETTINGS))


def test_without_a_deadline_there_is_none() -> None:
    assert "activeDeadlineSeconds" not in document(trial(timeout_seconds=None), SETTINGS)["spec"]


def test_without_a_known_object_it_has_no_owner() -> None:
    assert "ownerReferences" not in document(trial(), SETTINGS)["metadata"]
