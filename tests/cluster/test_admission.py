"""What the API server itself refuses and accepts, without a webhook: the same as the model, with a message that helps."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cappuccino.api import API_VERSION, GROUP, KINDS, VERSION
from cappuccino.controllers.decision import Document
from tests.unit.controllers import builders as build

from .access import LIVE, Release, annotated, asked, user_of
from .conftest import ROOT, ControlPlane, Kubectl, administrator

EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))
INVALID = sorted((ROOT / "tests" / "contract" / "invalid").glob("*.yaml"))
SUBJECTS = (build.dataset(), build.study(), build.trial(), build.deployment(), build.trader())


def bare(resource: Any) -> Document:
    """As a person writes it: without what the server fills in."""
    document: Document = resource.to_json()
    return document | {"metadata": {"name": resource.name}}


def header(text: str, key: str) -> str:
    found = re.search(rf"^# {key}: (.+)$", text, re.M)
    assert found, f"no line '# {key}: ...'"
    return found[1]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_example_is_accepted(path: Path, api_server: ControlPlane) -> None:
    administrator(api_server).ok("create", "--dry-run=server", "--validate=strict", "-f", path)


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_an_invalid_manifest_is_refused_with_field_and_value(path: Path, api_server: ControlPlane) -> None:
    """A schema says the type in place of a value of the wrong type, and of what is absent only that it is required."""
    text = path.read_text()
    refusal = administrator(api_server)("create", "--dry-run=server", "--validate=strict", "-f", path)
    assert refusal.returncode == 1
    assert header(text, "server says") in refusal.stderr
    if header(text, "seen by") == "cel":  # ours to word: the value that the model names, and the remedy after a colon
        assert header(text, "says") in refusal.stderr
    elif header(text, "field") not in ("kind", "apiVersion"):  # kubectl finds no such kind before it looks at fields
        assert header(text, "field") in header(text, "server says")


def patch(kubectl: Kubectl, resource: Any, change: Document, *, status: bool = False) -> Any:
    what = f"{type(resource).info.plural}.{GROUP}"
    where = ["--subresource=status"] if status else []
    return kubectl("patch", what, resource.name, "--type=merge", "-p", json.dumps(change), *where)


def refused(kubectl: Kubectl, resource: Any, spec: Document) -> str:
    done = patch(kubectl, resource, {"spec": spec})
    assert done.returncode == 1, done.stdout
    return str(done.stderr)


def allowed(kubectl: Kubectl, resource: Any, change: Document, *, status: bool = False) -> None:
    done = patch(kubectl, resource, change, status=status)
    assert done.returncode == 0, done.stderr


def create(kubectl: Kubectl, *resources: Any) -> None:
    kubectl.ok(
        "create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": [bare(r) for r in resources]})
    )


def test_no_field_of_a_trial_changes(kubectl: Kubectl) -> None:
    trial = build.trial()
    create(kubectl, trial)
    for spec in ({"number": 7}, {"parameters": {"enter": "0.02"}}, {"snapshot": "c" * 64}, {"phase": "market"}):
        assert "the spec of a Trial is immutable: make another Trial under a new name" in refused(kubectl, trial, spec)


def test_what_a_trader_is_stays_and_its_mode_may_change(kubectl: Kubectl) -> None:
    trader = build.trader(spec={"mode": "shadow"})
    create(kubectl, trader)
    allowed(kubectl, trader, {"spec": {"mode": "paper"}})
    said = refused(kubectl, trader, {"account": "another"})
    assert "account is immutable (from desk-00001 to another): make another Trader under a new name" in said
    assert "bundleDigest is immutable (from bbbb" in refused(kubectl, trader, {"bundleDigest": "0" * 64})
    assert "venue is immutable: make another Trader" in refused(kubectl, trader, {"venue": {"url": "http://mine:8080"}})


def test_a_study_is_free_until_its_snapshot_is_pinned_and_then_only_what_may_change_does(kubectl: Kubectl) -> None:
    study = build.study()
    create(kubectl, study)
    allowed(kubectl, study, {"spec": {"lookback": 2}})
    allowed(kubectl, study, {"status": {"snapshot": build.SNAPSHOT}}, status=True)
    for field, value in (
        ("lookback", 3),
        ("timeframe", "4h"),  # absent before: adding counts as a change
        ("datasetRef", {"name": "another"}),
        ("validation", {"folds": 3}),
        ("strategy", {"parameters": {"exit": "0.1"}}),
        ("searchSpace", {"enter": {"low": 0.002}}),
        ("template", {"capitalUsd": 5000}),
    ):
        said = refused(kubectl, study, {field: value})
        assert f"spec.{field} is immutable once the search has begun: make another Study under a new name" in said
    allowed(kubectl, study, {"spec": {"parallelism": 8, "suspend": True, "finishedTrialsKept": 3}})


def test_a_budget_may_grow_and_not_shrink(kubectl: Kubectl) -> None:
    study = build.study(budget={"trials": 10})
    create(kubectl, study)
    allowed(kubectl, study, {"spec": {"budget": {"trials": 12}}})
    said = refused(kubectl, study, {"budget": {"trials": 11}})
    assert "budget.trials may grow, not shrink (from 12 to 11)" in said


def test_a_rule_between_fields_holds_for_updates_too(kubectl: Kubectl) -> None:
    trader = build.trader()
    create(kubectl, trader)
    assert "mode live needs a real venue: use paper on the simulated one" in refused(kubectl, trader, {"mode": "live"})


def test_a_misspelt_field_is_refused_in_an_apply_as_well(kubectl: Kubectl) -> None:
    manifest = bare(build.study())
    manifest["spec"]["budget"]["trails"] = 5
    done = kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(manifest))
    assert done.returncode == 1
    assert ".spec.budget.trails: field not declared in schema" in done.stderr


def test_applying_the_same_again_changes_nothing_although_the_server_fills_in_defaults(kubectl: Kubectl) -> None:
    manifest = yaml.safe_dump(bare(build.study()))
    for _ in range(2):
        kubectl.ok("apply", "--server-side", "-f", "-", stdin=manifest)
    stored = json.loads(kubectl.ok("get", "study", "search", "-o", "json"))
    assert stored["metadata"]["generation"] == 1
    assert stored["spec"]["finishedTrialsKept"] == build.study().spec.finished_trials_kept


def test_the_server_fills_in_the_defaults_of_the_model(kubectl: Kubectl) -> None:
    create(kubectl, *SUBJECTS)
    for resource in SUBJECTS:
        stored = json.loads(kubectl.ok("get", f"{type(resource).info.plural}.{GROUP}", resource.name, "-o", "json"))
        assert stored["spec"] == json.loads(json.dumps(resource.to_json()["spec"]))


def test_deployments_are_those_of_apps_unless_ours_are_asked_for(kubectl: Kubectl) -> None:
    create(kubectl, build.deployment())
    kubectl.ok("create", "deployment", "web", "--image=example.org/web:1")
    for word in ("deployments", "deployment", "deploy", "Deployment", "deployments.apps"):
        assert kubectl.ok("get", word, "-o", "name") == "deployment.apps/web\n"
    for word in ("deployments.cappuccino.dev", f"deployments.{VERSION}.{GROUP}", "mdep"):
        assert kubectl.ok("get", word, "-o", "name") == "deployment.cappuccino.dev/desk\n"
    assert "cappuccino.dev" not in kubectl.ok("explain", "deployment")
    kubectl.ok("delete", "deployment", "web", "--wait=false")
    assert kubectl.ok("get", "mdep", "-o", "name") == "deployment.cappuccino.dev/desk\n"


def test_the_category_lists_all_kinds_and_short_names_each(kubectl: Kubectl) -> None:
    create(kubectl, *SUBJECTS)
    everything = kubectl.ok("get", "cappuccino", "-o", "name").split()
    assert sorted(everything) == sorted(f"{type(r).__name__.lower()}.{GROUP}/{r.name}" for r in SUBJECTS)
    for resource in SUBJECTS:
        (short,) = type(resource).info.short_names
        assert resource.name in kubectl.ok("get", short)


def test_a_table_has_the_columns_of_the_kind(kubectl: Kubectl) -> None:
    create(kubectl, build.study())
    conditions = [{"type": "Ready", "status": "True", "reason": "Searching", "message": ""}]
    allowed(
        kubectl, build.study(), {"status": {"conditions": conditions, "best": {"number": 3, "objective": 1.25}}}, status=True
    )
    heads, values = (line.split() for line in kubectl.ok("get", "studies").splitlines())
    assert heads == ["NAME", *(name.upper() for name, _, _ in KINDS["Study"].info.columns)]
    assert values[:4] == ["search", "trend", "True", "Searching"]
    assert "1.25" in values


def test_a_study_is_scaled_and_waited_for_as_any_other(kubectl: Kubectl) -> None:
    create(kubectl, build.study())
    kubectl.ok("scale", "study/search", "--replicas=5")
    assert kubectl.ok("get", "study", "search", "-o", "jsonpath={.spec.parallelism}") == "5"
    for generation, timeout in ((1, 1), (2, 10)):  # what was said of an older generation is not waited for
        ready = {"type": "Ready", "status": "True", "reason": "Searching", "observedGeneration": generation}
        allowed(kubectl, build.study(), {"status": {"conditions": [ready], "observedGeneration": generation}}, status=True)
        waited = kubectl("wait", "--for=condition=Ready", "study/search", f"--timeout={timeout}s")
        assert (waited.returncode == 0) is (generation == 2)


def test_a_status_is_written_only_through_its_subresource(kubectl: Kubectl) -> None:
    create(kubectl, build.study())
    allowed(kubectl, build.study(), {"status": {"snapshot": build.SNAPSHOT}})
    assert kubectl.ok("get", "study", "search", "-o", "jsonpath={.status}") == ""


# --- policies of the chart: what the operator made stays as it made it ---------------------------------------------

SPEC = {"spec": {"maxRestarts": 3}}
KEPT = "a Trader of a Deployment, or of mode live, keeps spec, owners and labels of cappuccino.dev: change the Deployment"
SELLS = "finalizer cappuccino.dev/flatten of a live Trader is the operator's"
SHADOW: Document = {"spec": {"mode": "shadow", "venue": {"accountSecretRef": None}}}
OWNERS = "ownerReferences to a Deployment are the operator's: make a Trader without"
OWNER = {"apiVersion": API_VERSION, "kind": "Deployment", "name": "desk", "uid": "uid-desk", "controller": True}
OWNED: Document = {"ownerReferences": [OWNER], "labels": {"cappuccino.dev/deployment": "desk", "desk": "one"}}
APPROVAL = {"approve": "t-0", "approved_by": "ann", "approve_reason": "good"}
COLLECTOR = "system:serviceaccount:kube-system:generic-garbage-collector"
DESK = "deployments.cappuccino.dev/desk"


@pytest.fixture(scope="module")
def desk(release: Release) -> Release:
    """A Deployment with an approval, its Trader on paper and its live one; a live Trader whose Deployment is gone."""
    flattens, revokes = {"finalizers": ["cappuccino.dev/flatten"]}, {"finalizers": ["cappuccino.dev/revoke"]}
    for document, more in (
        (annotated(build.deployment(), "desk", {}), revokes),
        (annotated(build.trader(), "paper", {}), OWNED | flattens),
        (annotated(build.trader(spec=LIVE), "live", {}), OWNED | flattens),
        (annotated(build.trader(spec=LIVE), "orphan", {}), flattens),
        (annotated(build.trader(), "free", {}), flattens),
    ):
        document["metadata"] |= more
        release.kubectl.ok("create", "-f", "-", stdin=json.dumps(document))
    return release


def metadata(**given: Any) -> Document:
    return {"metadata": given}


OBEYED = [
    ("ed", "trader/free", SPEC),
    ("ed", "trader/free", metadata(finalizers=None)),
    ("ed", "trader/paper", metadata(labels={"desk": "two"})),
    ("ed", "trader/paper", metadata(finalizers=None)),
    ("hal", "trader/live", asked(halt="spread", halted_by="hal")),
    ("ed", DESK, {"spec": {"top": 7}}),
    ("ann", DESK, asked(**APPROVAL, approved_generation="1")),
    *(
        ("operator", f"trader/{name}", {**SPEC, **metadata(finalizers=None, ownerReferences=None)})
        for name in ("paper", "live")
    ),
    ("operator", DESK, metadata(finalizers=None)),
    ("admin", "trader/live", metadata(finalizers=None)),
    (COLLECTOR, "trader/live", metadata(ownerReferences=None)),
]
DENIED = [
    ("ed", "trader/paper", SPEC, KEPT),
    ("ed", "trader/paper", {"spec": {"mode": "shadow"}}, KEPT),
    ("ed", "trader/paper", metadata(labels={"cappuccino.dev/deployment": None}), KEPT),
    ("ed", "trader/live", metadata(labels={"cappuccino.dev/deployment": "other"}), KEPT),
    ("ed", "trader/live", SHADOW, "venue is immutable"),
    ("ed", "trader/orphan", metadata(labels={"cappuccino.dev/deployment": "other"}), KEPT),
    ("ed", "trader/orphan", SHADOW, "venue is immutable"),
    ("ed", "trader/paper", metadata(ownerReferences=None), OWNERS),
    ("ed", "trader/free", metadata(ownerReferences=[OWNER]), OWNERS),
    ("ed", "trader/live", metadata(finalizers=None), SELLS),
    ("ed", "trader/orphan", metadata(finalizers=None), SELLS),
    ("ed", DESK, metadata(finalizers=None), "finalizer cappuccino.dev/revoke is the operator's"),
    ("ann", DESK, asked(**APPROVAL), "approved-generation is '' and the Deployment has generation 1: write that of what"),
    ("ann", DESK, asked(**APPROVAL, approved_generation="2"), "approved-generation is '2' and the Deployment has generation 1"),
]


def case(given: tuple[Any, ...]) -> str:
    who, what, change = given[:3]
    return (
        f"{who.rpartition(':')[2]}-{what.rpartition('/')[2]}-{'+'.join([*change.get('metadata', {}), *change.get('spec', {})])}"
    )


@pytest.mark.parametrize(("who", "what", "change"), OBEYED, ids=map(case, OBEYED))
def test_the_policies_let_through_what_is_ones_own(who: str, what: str, change: Document, desk: Release) -> None:
    done = desk.patched(user_of(desk, who), what, change) if who != "admin" else patched_by_admin(desk, what, change)
    assert done.returncode == 0, done.stderr


def patched_by_admin(desk: Release, what: str, change: Document) -> Any:
    return desk.kubectl("patch", *what.split("/"), "--type=merge", "--dry-run=server", "-p", json.dumps(change))


@pytest.mark.parametrize(("who", "what", "change", "says"), DENIED, ids=map(case, DENIED))
def test_the_policies_keep_what_the_operator_made(who: str, what: str, change: Document, says: str, desk: Release) -> None:
    done = desk.patched(user_of(desk, who), what, change)
    assert done.returncode != 0, done.stdout
    assert says in done.stderr


def test_nobody_makes_a_trader_of_a_deployment_by_hand(desk: Release) -> None:
    born = annotated(build.trader(), "born", {})
    born["metadata"] |= OWNED
    assert OWNERS in desk.created("ed", born).stderr
    assert desk.created(desk.operator, born).returncode == 0


def test_an_approval_is_of_the_spec_it_comes_with(desk: Release) -> None:
    """A change of the spec in the same request is another generation."""
    change = {**asked(**APPROVAL, approved_generation="1"), "spec": {"top": 7}}
    assert (
        "approved-generation is '1' and the Deployment has generation 2"
        in patched_by_admin(
            desk, DESK, asked(**APPROVAL | {"approved_by": "admin"}, approved_generation="1") | {"spec": {"top": 7}}
        ).stderr
    )
    assert desk.patched("ann", DESK, change).returncode != 0


# --- kubectl explain ----------------------------------------------------------------------------------------------


def undescribed(schema: Document, at: str) -> list[str]:
    """Paths of the fields below `schema` whose description is absent, or does not stand by itself."""
    found = []
    for name, field in schema.get("properties", {}).items():
        path = f"{at}.{name}"
        if not re.fullmatch(r"(?!Of )\S.*\.", field.get("description", "")):
            found.append(path)
        for inner in (field, field.get("items"), field.get("additionalProperties")):
            found += undescribed(inner, path) if isinstance(inner, dict) else []
    return found


def test_every_field_that_kubectl_explains_has_a_sentence(kubectl: Kubectl) -> None:
    served = json.loads(kubectl.ok("get", "--raw", f"/openapi/v3/apis/{API_VERSION}"))
    reversed_group = ".".join(reversed(GROUP.split(".")))
    for kind, model in KINDS.items():
        schema = served["components"]["schemas"][f"{reversed_group}.{VERSION}.{kind}"]
        ours = {name: schema["properties"][name] for name in ("spec", "status")}  # the rest is Kubernetes' own
        assert undescribed({"properties": ours}, kind) == []
        assert schema["description"] == model.info.description


def test_a_field_without_a_sentence_is_found() -> None:
    inner = {
        "type": "object",
        "properties": {"a": {"description": "One."}, "b": {"description": "two"}, "c": {}, "d": {"description": "Of it."}},
    }
    schema = {"properties": {"list": {"description": "List.", "items": inner}, "map": {"additionalProperties": inner}}}
    assert undescribed(schema, "X") == [
        *("X.list.b", "X.list.c", "X.list.d"),
        *("X.map", "X.map.b", "X.map.c", "X.map.d"),
    ]


def test_explain_reads_well(kubectl: Kubectl) -> None:
    text = kubectl.ok("explain", "study.spec.validation", f"--api-version={API_VERSION}")
    validation = KINDS["Study"].model_fields["spec"].annotation.model_fields["validation"]  # type: ignore[union-attr]
    assert validation.description in " ".join(text.split())
    for name, field in validation.annotation.model_fields.items():
        assert re.search(rf"^  {field.alias or name}\s+<(integer|number)>$", text, re.M)
        assert field.description in " ".join(text.split())


def test_explain_finds_our_deployment_by_its_group(kubectl: Kubectl) -> None:
    text = kubectl.ok("explain", "deployments.cappuccino.dev")
    assert KINDS["Deployment"].info.description in " ".join(text.split())
