"""What the chart renders and refuses. What it renders is put to a real API server, in a namespace for restricted pods only."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from cappuccino.adapters.kubernetes.settings import PodSettings
from cappuccino.adapters.postgres.logins import ROLES_WITH_LOGIN
from cappuccino.api.dataset import DatasetSpec
from cappuccino.entrypoints.database import read_logins
from cappuccino.entrypoints.operator import OperatorSettings
from cappuccino.telemetry.metrics import TraderMetrics
from cappuccino.telemetry.operations import OperatorMetrics

from .conftest import ControlPlane, Kubectl, administrator
from .helm import CHART, ROOT, TRY, VALUES_FILES, Helm, of_kind, one, pod_templates

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
OURS = "database.embedded.enabled=true"
FOREIGN = ("ServiceMonitor", "PodMonitor", "PrometheusRule")  # kinds of the Prometheus operator


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(home=tmp_path_factory.mktemp("helm"))


def identify(path: Path) -> str:
    return path.stem if path.parent.name == "ci" else path.parent.name


each_values_file = pytest.mark.parametrize("values", VALUES_FILES, ids=identify)


@each_values_file
def test_the_chart_is_clean_under_lint(values: Path, helm: Helm) -> None:
    helm.ok("lint", CHART, "--strict", "--kube-version=1.34.0", "-f", values)


# --- what is refused ------------------------------------------------------------------------------------

REFUSED = [
    ("database.embeded.enabled=true", r"embeded"),
    ("operator.replicas=3", r"operator.replicas.*2"),
    ("operator.replicas=0", r"operator.replicas.*1"),
    ("images.pullPolicy=Sometimes", r"images.pullPolicy.*'Always'"),
    ("artifacts.url=gs://bucket", r"artifacts.url.*gs://bucket"),
    ("artifacts.claim.accessMode=ReadWriteSometimes", r"artifacts.claim.accessMode"),
    ("artifacts.claim.size=large", r"artifacts.claim.size.*large"),
    ("exchange.start=tomorrow", r"exchange.start"),
    ("exchange.speed=-1", r"exchange.speed.*0"),
    ("exchange.market.source.file.path=bars.csv", r"exchange.market"),
    ("exchange.market.timeframe=2h", r"exchange.market"),
    ("watch.namespaces={Team_A}", r"watch.namespaces.*Team_A"),
    ("workload.environment.NOT-ONE=x", r"NOT-ONE"),
    ("workload.programs.dance.requests.cpu=1", r"dance"),
    ("access.halters[0].kind=Robot", r"access.halters.*kind"),
    ("networkPolicy.apiServerPorts={0}", r"networkPolicy.apiServerPorts"),
    ("monitoring.interval=often", r"monitoring.interval.*often"),
    ("test.timeoutSeconds=5", r"test.timeoutSeconds.*60"),
    (
        "artifacts.claim.accessMode=ReadWriteOnce",
        r"accessMode ReadWriteOnce cannot be used: .*: use ReadWriteMany, or a bucket",
    ),
    ("database.existingSecret=record", r"database.existingSecret and database.embedded.enabled exclude each other"),
    ("database.embedded.enabled=false", r"no database: name a Secret of URLs in database.existingSecret, or try it with"),
    (
        "artifacts.url=s3://bucket,artifacts.existingClaim=shared",
        r"artifacts.url s3://bucket and artifacts.existingClaim shared",
    ),
    ("watch.allNamespaces=true,watch.namespaces={team-a}", r"watch.allNamespaces and watch.namespaces exclude each other"),
    ("watch.namespaces={team-a}", r"a claim belongs to namespace default and others are watched too: use artifacts.url"),
    ("exchange.enabled=true,exchange.bars.file=bars.csv", r"exchange.bars.file bars.csv is in no claim: name it"),
    ("exchange.enabled=true,test.symbol=DOGE/USD", r"test.symbol DOGE/USD is not in exchange.market.symbols: add it"),
]


@pytest.mark.parametrize(("given", "says"), REFUSED, ids=[given for given, _ in REFUSED])
def test_a_wrong_value_is_refused_with_its_place(given: str, says: str, helm: Helm) -> None:
    helm.template("--set", OURS)  # would be accepted without it
    assert re.search(says, helm.refusal("--set", OURS, "--set", given).replace("\n", " "))


def test_a_claim_of_the_wrong_mode_is_refused_where_it_can_be_seen(api_server: ControlPlane, kubectl: Kubectl) -> None:
    helm = Helm.of(api_server, kubectl.namespace)
    for name, mode in (("shared", "ReadWriteMany"), ("lonely", "ReadWriteOnce")):
        claim = {"accessModes": [mode], "resources": {"requests": {"storage": "1Gi"}}}
        document = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": claim}
        kubectl.ok("create", "-f", "-", stdin=json.dumps(document))
    command = ("install", "cap", CHART, "--dry-run=server", f"--set={OURS},crds.enabled=false")
    helm.ok(*command, "--set=artifacts.existingClaim=shared")
    refused = helm(*command, "--set=artifacts.existingClaim=lonely")
    assert "artifacts.existingClaim lonely is ReadWriteOnce: trainers and traders on several nodes" in refused.stderr


# --- values -----------------------------------------------------------------------------------------


def test_every_value_of_the_schema_is_in_values_yaml_and_the_other_way_round() -> None:
    def resolved(schema: dict[str, Any]) -> dict[str, Any]:
        return SCHEMA["definitions"][schema["$ref"].rsplit("/", 1)[-1]] if "$ref" in schema else schema

    def same(schema: dict[str, Any], values: dict[str, Any], path: str) -> None:
        assert schema["additionalProperties"] is False, path
        assert set(schema["properties"]) - {"global"} == set(values), path
        for name, value in values.items():
            inner = resolved(schema["properties"][name])
            if isinstance(value, dict) and "properties" in inner and value.keys() - {"requests", "limits"}:
                same(inner, value, f"{path}.{name}")

    same(SCHEMA, VALUES, "values")


def test_the_default_market_is_one_that_the_exchange_reads() -> None:
    market = DatasetSpec.model_validate_json(json.dumps(VALUES["exchange"]["market"]), strict=True)
    assert market.end is not None
    assert market.start < VALUES["exchange"]["start"] < market.end
    assert VALUES["test"]["symbol"] in market.symbols


def test_the_default_exchange_goes_on_where_the_quickstart_ends() -> None:
    dataset = yaml.safe_load((ROOT / "examples/quickstart/dataset.yaml").read_text())["spec"]
    market = VALUES["exchange"]["market"]
    for field in ("timeframe", "start", "source"):
        assert market[field] == dataset[field]
    assert set(dataset["symbols"]) < set(market["symbols"])
    assert VALUES["test"]["symbol"] not in dataset["symbols"]
    assert dataset["end"] == VALUES["exchange"]["start"]


# --- what the server says ------------------------------------------------------------------------------


@pytest.fixture
def restricted(kubectl: Kubectl) -> Kubectl:
    """The test's namespace, with its account of pods, which the controllers make in a while."""
    labels = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn")]
    kubectl.ok("label", "namespace", kubectl.namespace, *labels)
    kubectl("create", "serviceaccount", "default")
    return kubectl


@each_values_file
def test_a_server_accepts_every_document_without_a_warning(values: Path, helm: Helm, restricted: Kubectl) -> None:
    documents = Helm(home=helm.home, namespace=restricted.namespace).template("-f", values)
    parts: dict[str, list[dict[str, Any]]] = {}
    for document in documents:
        if document["kind"] not in (*FOREIGN, "Pod"):  # pods: the next test
            parts.setdefault(document["metadata"].get("namespace", restricted.namespace), []).append(document)
    for namespace, part in parts.items():
        restricted("create", "namespace", namespace)
        command = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-")
        done = replace(restricted, namespace=namespace)(*command, stdin=yaml.safe_dump_all(part))
        assert (done.returncode, done.stderr) == (0, "")


@each_values_file
def test_every_pod_is_admitted_where_only_restricted_pods_are(values: Path, helm: Helm, restricted: Kubectl) -> None:
    """Of a Deployment or a Job the server only warns; so each pod is put to it by itself."""
    documents = Helm(home=helm.home, namespace=restricted.namespace).template("-f", values)
    accounts = {document["metadata"]["name"] for document in of_kind(documents, "ServiceAccount")}
    for account in accounts:
        restricted("create", "serviceaccount", account)
    pods = dict(pod_templates(documents))
    assert len(pods) >= 2
    for name, template in pods.items():
        metadata = {"name": "one", "labels": template["metadata"].get("labels", {})}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        done = restricted("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(pod))
        assert done.returncode == 0, f"{name}: {done.stderr}"
        for container in template["spec"]["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"], name
            assert container["resources"]["requests"], name


def test_the_server_would_refuse_a_pod_with_less(restricted: Kubectl, helm: Helm) -> None:
    """So that the test above can fail."""
    template = dict(pod_templates(helm.template("-f", TRY)))["Deployment/cappuccino-dashboard"]
    del template["spec"]["containers"][0]["securityContext"]["capabilities"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": template["spec"]}
    done = restricted("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
    assert "unrestricted capabilities" in done.stderr


# --- what must be so in any rendering --------------------------------------------------------------------


@each_values_file
def test_no_role_has_a_wildcard_or_sees_secrets(values: Path, helm: Helm) -> None:
    roles = of_kind(helm.template("-f", values), "Role", "ClusterRole")
    assert roles
    for role in roles:
        for rule in role["rules"]:
            assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]], role["metadata"]["name"]
            assert "secrets" not in rule["resources"], role["metadata"]["name"]


def test_rights_are_those_of_namespaces_unless_all_are_watched(helm: Helm) -> None:
    for values in VALUES_FILES:
        documents = helm.template("-f", values)
        everywhere = values.stem == "cluster-values"
        assert bool(of_kind(documents, "ClusterRole", "ClusterRoleBinding")) is everywhere, values
    documents = helm.template("-f", CHART / "ci/namespaces-values.yaml", "--namespace=home")
    bindings = [d for d in of_kind(documents, "RoleBinding") if d["metadata"]["name"] == "cappuccino-operator"]
    assert sorted(binding["metadata"]["namespace"] for binding in bindings) == ["team-a", "team-b"]
    assert {subject["namespace"] for binding in bindings for subject in binding["subjects"]} == {"home"}


def test_the_crds_can_be_left_out_and_stay_when_they_are_in(helm: Helm) -> None:
    crds = of_kind(helm.template("-f", TRY), "CustomResourceDefinition")
    assert len(crds) == 5
    assert {crd["metadata"]["annotations"]["helm.sh/resource-policy"] for crd in crds} == {"keep"}
    assert of_kind(helm.template("-f", TRY, "--set=crds.enabled=false"), "CustomResourceDefinition") == []


def test_workers_of_every_watched_namespace_have_what_their_pods_name(helm: Helm) -> None:
    documents = helm.template("-f", CHART / "ci/namespaces-values.yaml", "--namespace=home")
    settings = yaml.safe_load(one(documents, "ConfigMap", "cappuccino-operator")["data"]["pods.yaml"])
    secrets = {(d["metadata"]["namespace"], d["metadata"]["name"]): d for d in of_kind(documents, "Secret")}
    accounts = {(d["metadata"]["namespace"], d["metadata"]["name"]) for d in of_kind(documents, "ServiceAccount")}
    for namespace in ("team-a", "team-b"):
        urls = secrets[namespace, settings["database"]["secret"]]["stringData"]
        assert set(urls) == set(settings["database"]["keys"].values()) == {"trial", "gate", "trader", "ingest"}
        assert "@cappuccino-database.home.svc:5432/" in urls["trial"]
        assert secrets[namespace, settings["exchange"]["secret"]]["data"]["token"]
        assert (namespace, settings["serviceAccountName"]) in accounts
    assert ("team-a", "cappuccino-database-admin") not in secrets
    assert settings["exchange"]["url"] == "http://cappuccino-exchange.home.svc:8700"


def test_every_pod_of_the_chart_is_under_a_network_policy(helm: Helm) -> None:
    """Rendered only: whether it is enforced is up to the cluster. The migration comes before the policies."""
    documents = helm.template("-f", TRY)
    policies = [document["spec"]["podSelector"] for document in of_kind(documents, "NetworkPolicy")]

    def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
        expressions = selector.get("matchExpressions", [])
        return selector.get("matchLabels", {}).items() <= labels.items() and all(
            labels.get(each["key"]) in each["values"] for each in expressions
        )

    for name, template in pod_templates(documents):
        labels = template["metadata"]["labels"]
        governed = any(selects(selector, labels) for selector in policies)
        assert governed is (labels["app.kubernetes.io/component"] != "migrate"), name
    worker = {"app.kubernetes.io/managed-by": "cappuccino", "app.kubernetes.io/component": "trade"}
    assert sum(selects(selector, worker) for selector in policies) == 2


@each_values_file
def test_the_operator_is_told_the_same_namespaces_in_both_ways(values: Path, helm: Helm, tmp_path: Path) -> None:
    documents = helm.template("-f", values)
    (tmp_path / "pods.yaml").write_text(one(documents, "ConfigMap", "cappuccino-operator")["data"]["pods.yaml"])
    (container,) = one(documents, "Deployment", "cappuccino-operator")["spec"]["template"]["spec"]["containers"]
    environment = {each["name"]: each.get("value", "from the cluster") for each in container["env"]}
    settings = OperatorSettings.read(environment | {"CAPPUCCINO_PODS": str(tmp_path / "pods.yaml")})
    flags = [f"--namespace={namespace}" for namespace in settings.namespaces] or ["--all-namespaces"]
    assert container["args"] == [*flags, "/opt/cappuccino/operator/main.py"]
    assert {"POD_NAME", "POD_NAMESPACE", "CAPPUCCINO_DATABASE_URL", "CAPPUCCINO_ARTIFACTS_URL"} <= set(environment)
    (port,) = container["ports"]
    assert settings.health_port == port["containerPort"]


def test_alerts_ask_for_metrics_that_exist(helm: Helm) -> None:
    operator = OperatorMetrics()
    operator.look_at(
        queue_depth=lambda: 0, oldest_seconds=lambda: 0.0, leading=lambda: True, objects=lambda: {("Study", "Ready"): 1}
    )
    known = exposed(operator.registry) | exposed(TraderMetrics().registry)
    (rules,) = of_kind(helm.template("-f", CHART / "ci/production-values.yaml"), "PrometheusRule")
    alerts = {rule["alert"]: rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"]}
    asked = {name for expression in alerts.values() for name in re.findall(r"cappuccino_\w+", expression)}
    assert len(alerts) == 9
    assert "cappuccino_trader_excess_low_bps" in alerts["CappuccinoTraderDrift"]
    assert alerts["CappuccinoTraderDrift"].endswith("> 5")
    assert asked
    assert asked <= known


def exposed(registry: CollectorRegistry) -> set[str]:
    return {sample.name for metric in registry.collect() for sample in metric.samples}


def test_names_of_two_releases_do_not_meet(helm: Helm) -> None:
    first = Helm(home=helm.home, namespace="one").template("-f", CHART / "ci/cluster-values.yaml", "--set=policy.enabled=true")
    second = Helm(home=helm.home, namespace="two").template("-f", CHART / "ci/cluster-values.yaml", "--set=policy.enabled=true")
    assert {key(document) for document in first} & {key(document) for document in second} == set()
    beside = Helm(home=helm.home, namespace="one").template("-f", CHART / "ci/cluster-values.yaml", release="other")
    assert {key(document) for document in first} & {key(document) for document in beside} == set()


def key(document: dict[str, Any]) -> tuple[str, str, str]:
    return document["kind"], document["metadata"].get("namespace", ""), document["metadata"]["name"]


def test_the_notes_name_the_next_commands(api_server: ControlPlane, kubectl: Kubectl) -> None:
    helm = Helm.of(api_server, kubectl.namespace)
    notes = helm.ok("install", "cap", CHART, "--dry-run=server", "-f", TRY, "--set=crds.enabled=false").partition("NOTES:")[2]
    commands = [line.strip() for line in notes.splitlines() if line.startswith("  ")]
    assert [command.split()[0] for command in commands] == ["kubectl", "helm", "kubectl", "kubectl"]
    assert f"kubectl -n {kubectl.namespace} rollout status deployment/cap-cappuccino-operator" in commands
    assert administrator(api_server)("get", "crd", "traders.cappuccino.dev").returncode == 0


@each_values_file
def test_the_operator_can_read_its_settings_of_pods(values: Path, helm: Helm, tmp_path: Path) -> None:
    documents = helm.template("-f", values, '--set-json=workload.programs.train={"limits":{"nvidia.com/gpu":1}}')
    (tmp_path / "pods.yaml").write_text(one(documents, "ConfigMap", "cappuccino-operator")["data"]["pods.yaml"])
    settings = PodSettings.read(tmp_path / "pods.yaml")
    assert settings.resources("train").limits == {"nvidia.com/gpu": "1"}
    assert settings.resources("trade").requests == VALUES["workload"]["programs"]["trade"]["requests"]
    assert settings.service_account_name == "cappuccino-workload"
    if values.stem == "production-values":
        assert settings.images.train == "registry.example.com/trading/cappuccino/train:1.2.3"
        assert (settings.artifacts.url, settings.artifacts.claim) == ("s3://trading/artifacts", "")
        assert settings.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector.telemetry:4318"


def test_the_migration_can_read_the_logins_that_the_chart_makes(helm: Helm, tmp_path: Path) -> None:
    documents = helm.template("-f", TRY)
    urls = one(documents, "Secret", "cappuccino-database-admin")["stringData"]
    (job,) = [job for job in of_kind(documents, "Job") if "-migrate" in job["metadata"]["name"]]
    mounts = {volume["name"]: volume for volume in job["spec"]["template"]["spec"]["volumes"]}
    for item in mounts["logins"]["secret"]["items"]:
        (tmp_path / item["path"]).write_text(urls[item["key"]])
    logins = read_logins(tmp_path)
    assert set(logins) == set(ROLES_WITH_LOGIN)
    assert len(set(logins.values())) == len(logins)
    assert urls["migrator"] == f"postgresql://postgres:{urls['password']}@cappuccino-database.default.svc:5432/cappuccino"


def test_the_dashboard_reaches_the_api_server_with_callers_tokens_and_has_none_of_its_own(helm: Helm) -> None:
    for url in ("https://kubernetes.default.svc", ""):
        documents = helm.template("-f", TRY, "--set=networkPolicy.enabled=true", f"--set=dashboard.apiServer={url}")
        spec = one(documents, "Deployment", "cappuccino-dashboard")["spec"]["template"]["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert "serviceAccountName" not in spec
        environment = {each["name"]: each.get("value") for each in spec["containers"][0]["env"]}
        volumes = {each["name"]: each for each in spec["volumes"]}
        policy = one(documents, "NetworkPolicy", "cappuccino-dashboard")["spec"]["egress"]
        ports = {port["port"] for rule in policy for port in rule["ports"]}
        assert not [each for each in volumes.values() if "projected" in each or "secret" in each]
        assert environment.get("CAPPUCCINO_API_SERVER", "") == url
        assert ("api-server" in volumes, 6443 in ports) == (bool(url), bool(url))
    assert "/dashboard/apiServer" in helm.refusal("-f", TRY, "--set=dashboard.apiServer=http://kubernetes.default.svc")
