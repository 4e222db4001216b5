"""Argo CD's view of the five kinds: its scripts run in Lua 5.1, on what the controllers themselves write as status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator
from lupa.lua51 import LuaRuntime

from cappuccino.api import GROUP, KINDS
from cappuccino.api.crd import schema_of
from cappuccino.api.meta import Resource
from cappuccino.api.structural import at
from cappuccino.controllers import dataset, deployment, study, trader, trial
from cappuccino.controllers.decision import Decision, Key
from tests.unit.controllers import builders as build
from tests.unit.controllers.builders import BUNDLE, NOW, STUDY_KEY

FOLDER = Path(__file__).parents[3] / "deploy" / "argocd"
SCRIPTS: dict[str, str] = yaml.safe_load((FOLDER / "health.yaml").read_text())["data"]
KEY_PREFIX = f"resource.customizations.health.{GROUP}_"
NEWER = "the operator has not acted on this generation yet"

Document = dict[str, Any]


def lua() -> LuaRuntime:
    """What Argo CD gives to a script of its ConfigMap: base and table, no other library, no methods of text."""
    runtime = LuaRuntime(register_eval=False, register_builtins=False)
    runtime.execute(
        """
        debug.getmetatable("").__index = nil
        for name in pairs(_G) do
          if ({string = 1, math = 1, io = 1, os = 1, debug = 1, coroutine = 1, python = 1})[name] then _G[name] = nil end
        end
        """
    )
    return runtime


def health(document: Document) -> tuple[str, str]:
    runtime = lua()
    runtime.globals().obj = runtime.table_from(document, recursive=True)
    verdict = runtime.execute(SCRIPTS[KEY_PREFIX + document["kind"]])
    assert set(verdict) == {"status", "message"}
    return verdict["status"], verdict["message"]


def written(resource: Resource, decision: Decision) -> Document:
    """`resource` with the status that its controller decided on, read back through the model."""
    assert decision.status is not None
    return type(resource).parse(resource.to_json() | {"status": decision.status}).to_json()


# --- states, each from the controller that makes it ---------------------------------------------------------------


def dataset_state(**given: Any) -> Document:
    of = given.pop("of", build.dataset())
    key = Key("Dataset", "default", "market")
    return written(of, dataset.decide(dataset.Observed(dataset=of, key=key, **given), now=NOW))


REFRESHED = {"observedGeneration": 1, "refreshedAt": "2025-12-01T00:00:00Z"}


def refresh(state: str, **given: Any) -> Document:
    return {"refresh": build.running("default.dataset.market.refresh", state=state, **given)}


def study_state(of: Any = None, **given: Any) -> Document:
    of = of or build.study()
    observed = study.Observed(study=of, key=STUDY_KEY, **({"pinned": build.pinned()} | given))
    return written(of, study.decide(observed, now=NOW))


def trial_state(**given: Any) -> Document:
    of, key = build.trial(), Key("Trial", "default", "search-00000")
    values: dict[str, Any] = {"row": build.row(), "study": build.study().spec} | given
    return written(of, trial.decide(trial.Observed(trial=of, key=key, **values), now=NOW))


def deployment_state(**given: Any) -> Document:
    of, key = build.deployment(top=1), Key("Deployment", "default", "desk")
    complete = {"conditions": [{"type": "Complete", "status": "True", "reason": "BudgetSpent"}]}
    done = build.row(0, state="Complete", objective=1.0, bundle_digest=BUNDLE, result=build.result())
    values: dict[str, Any] = {"study": build.study(status=complete), "trials": [done]} | given
    return written(of, deployment.decide(deployment.Observed(deployment=of, key=key, **values), now=NOW))


def judged(*passed_later: str) -> Document:
    """Evidence of one candidate that passed, and later the gates named."""
    detail = {"verdict": "Passed", "role": "candidate", "rank": 0, "number": 0, "kind": "trend"}
    later = [build.evidence(BUNDLE, gate, detail=build.BAR) for gate in passed_later]
    return {"evidence": [build.evidence(BUNDLE, "verdict", detail=detail), *later]}


def trader_state(**given: Any) -> Document:
    of, key = build.trader(), Key("Trader", "default", "desk-00001")
    values: dict[str, Any] = {"account": build.account(), "workload": build.running(key.workload())} | given
    return written(of, trader.decide(trader.Observed(trader=of, key=key, **values), now=NOW))


def trading(state: str = "Running", **given: Any) -> Document:
    return {"workload": build.running("default.trader.desk-00001", state=state, **given)}


OPEN_ENDED = build.dataset(spec={"end": None}, status=REFRESHED)
FAILED_STUDY = {"conditions": [{"type": "Failed", "status": "True", "reason": "NoResult", "message": "no trial completed"}]}

STATES = {
    "a Dataset in its first refresh": (dataset_state(), "Progressing", "first refresh"),
    "a Dataset whose refresh is tried again": (
        dataset_state(**refresh("Failed", exit_code=75, finished_at=NOW, message="the feed is away")),
        "Progressing",
        "the feed is away",
    ),
    "a Dataset with its snapshot": (
        dataset_state(snapshot=build.snapshot(), **refresh("Succeeded")),
        "Healthy",
        "a fresh, complete snapshot exists",
    ),
    "a Dataset that is refreshed again": (dataset_state(of=OPEN_ENDED, snapshot=build.snapshot()), "Healthy", "snapshot"),
    "a Dataset that was refused": (
        dataset_state(**refresh("Failed", exit_code=2, message="X/USD is not in the file")),
        "Degraded",
        "X/USD is not in the file",
    ),
    "a Study without its Dataset": (study_state(pinned=None), "Progressing", "Dataset market does not exist"),
    "a Study that searches": (study_state(trials=[build.row(0, state="Running")]), "Healthy", "0 complete"),
    "a Study that never ends": (study_state(build.study(budget={"trials": 1_000_000})), "Healthy", "of 1000000"),
    "a Study that goes on after a failed Trial": (
        study_state(trials=[build.row(0, state="Failed", reason="no trades")]),
        "Healthy",
        "1 failed",
    ),
    "a Study that is suspended": (study_state(build.study(suspend=True)), "Suspended", "no new trial starts"),
    "a Study without parallelism": (study_state(build.study(parallelism=0)), "Suspended", "no new trial starts"),
    "a Study with its budget spent": (
        study_state(trials=[build.row(n, state="Complete", objective=1.0) for n in range(4)]),
        "Healthy",
        "4 complete",
    ),
    "a Study in which nothing completed": (
        study_state(trials=[build.row(n, state="Failed", reason="no trades") for n in range(4)]),
        "Degraded",
        "no trades",
    ),
    "a Study with too many failures": (
        study_state(
            build.study(budget={"trials": 4, "maxFailedTrials": 0}), trials=[build.row(0, state="Failed", reason="nan")]
        ),
        "Degraded",
        "more than budget.maxFailedTrials 0",
    ),
    "a Trial that trains": (
        trial_state(row=build.row(state="Running"), workload=build.running("default.trial.search-00000")),
        "Progressing",
        "Training",
    ),
    "a Trial that succeeded": (trial_state(row=build.row(state="Complete", objective=1.0)), "Healthy", "Succeeded"),
    "a Trial that was pruned": (
        trial_state(row=build.row(state="Pruned", reason="below the median")),
        "Healthy",
        "below the median",
    ),
    "a Trial that failed": (
        trial_state(row=build.row(state="Failed", reason="no closed trade")),
        "Degraded",
        "no closed trade",
    ),
    "a Trial that no Study made": (trial_state(row=None), "Degraded", "only a Study makes Trials"),
    "a Deployment without its Study": (deployment_state(study=None), "Progressing", "Study search does not exist"),
    "a Deployment whose Study searches": (deployment_state(study=build.study()), "Healthy", "Study search is not complete yet"),
    "a Deployment whose Study failed": (
        deployment_state(study=build.study(status=FAILED_STUDY)),
        "Degraded",
        "no trial completed",
    ),
    "a Deployment at its gates": (deployment_state(), "Progressing", "go through the gates"),
    "a Deployment that is judged": (deployment_state(**judged()), "Healthy", "1 passed every gate"),
    "a Deployment that waits for an approval": (
        deployment_state(**judged("soak", "grade")),
        "Healthy",
        "may be promoted by a person",
    ),
    "a Deployment whose gates refused to run": (
        deployment_state(gates=build.running("default.deployment.desk.gates", state="Failed", exit_code=2, message="no bars")),
        "Degraded",
        "no bars",
    ),
    "a Trader that starts": (trader_state(workload=None), "Progressing", "being started"),
    "a Trader that reconciles": (trader_state(account=build.account(held=False)), "Progressing", "reconciles its account"),
    "a Trader that backs off": (trader_state(**trading("Pending", failures=2, message="boom")), "Progressing", "boom"),
    "a Trader that trades": (trader_state(), "Healthy", "it may trade"),
    "a Trader at the end of the tape": (trader_state(**trading("Succeeded", exit_code=0)), "Healthy", "tape ended"),
    "a Trader that is halted": (
        trader_state(account=build.account(halted_reason="spread looks wrong")),
        "Suspended",
        "spread looks wrong",
    ),
    "a Trader in a crash loop": (
        trader_state(**trading("Pending", failures=11, message="boom")),
        "Degraded",
        "failed 11 times",
    ),
    "a Trader whose key is refused, also when halted": (
        trader_state(
            **trading("Failed", exit_code=2, message="the venue refuses the key"), account=build.account(halted_reason="x")
        ),
        "Degraded",
        "the venue refuses the key",
    ),
}


@pytest.mark.parametrize(("document", "status", "says"), STATES.values(), ids=STATES)
def test_health(document: Document, status: str, says: str) -> None:
    verdict, message = health(document)
    assert verdict == status
    assert says in message


@pytest.mark.parametrize("document", [document for document, *_ in STATES.values()], ids=STATES)
def test_a_newer_generation_is_progressing_whatever_the_status_says(document: Document) -> None:
    metadata = document["metadata"] | {"generation": document["metadata"]["generation"] + 1}
    assert health(document | {"metadata": metadata}) == ("Progressing", NEWER)


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_that_nobody_has_looked_at_is_progressing(kind: str) -> None:
    assert health({"kind": kind, "metadata": {"name": "x", "generation": 1}, "spec": {}}) == ("Progressing", NEWER)


def test_every_kind_has_its_script_and_nothing_else_is_patched() -> None:
    assert set(SCRIPTS) == {KEY_PREFIX + kind for kind in KINDS}


def test_the_states_cover_every_kind_and_every_verdict() -> None:
    assert {document["kind"] for document, *_ in STATES.values()} == set(KINDS)
    assert {status for _, status, _ in STATES.values()} == {"Healthy", "Progressing", "Suspended", "Degraded"}


def test_the_sandbox_of_the_test_is_as_narrow_as_argo_cds() -> None:
    runtime = lua()
    names = set(runtime.globals())
    assert {"ipairs", "table", "tostring"} <= names
    assert not names & {"string", "math", "io", "os"}
    assert runtime.execute('return pcall(function() return ("a"):upper() end)')[0] is False


# --- the Applications ---------------------------------------------------------------------------------------------

OPERATOR, DESK = yaml.safe_load_all((FOLDER / "applications.yaml").read_text())


@pytest.mark.parametrize("application", [OPERATOR, DESK], ids=["operator", "desk"])
def test_an_application_is_applied_and_compared_by_the_server(application: Document) -> None:
    assert (application["apiVersion"], application["kind"]) == ("argoproj.io/v1alpha1", "Application")
    assert application["metadata"]["annotations"]["argocd.argoproj.io/compare-options"] == "ServerSideDiff=true"
    options = application["spec"]["syncPolicy"]["syncOptions"]
    assert {"ServerSideApply=true", "RespectIgnoreDifferences=true"} <= set(options)
    assert not any(option.startswith(("Replace", "Force")) for option in options)  # they would take our annotations away


def test_the_operator_comes_from_the_chart_with_values_that_it_has() -> None:
    source = OPERATOR["spec"]["source"]
    chart = FOLDER.parents[1] / source["path"]
    assert source["targetRevision"] == f"v{yaml.safe_load((chart / 'Chart.yaml').read_text())['version']}"
    schema = yaml.safe_load((chart / "values.schema.json").read_text())
    values = yaml.safe_load((chart / "values.yaml").read_text())
    given = source["helm"]["valuesObject"]
    merged = {key: value | given.get(key, {}) if isinstance(value, dict) else value for key, value in values.items()}
    assert set(given) <= set(values)
    assert [error.message for error in Draft7Validator(schema).iter_errors(merged)] == []


def test_what_the_desk_ignores_may_change_while_a_search_runs() -> None:
    assert DESK["spec"]["syncPolicy"]["automated"]["prune"] is False
    for ignored in DESK["spec"]["ignoreDifferences"]:
        kind = KINDS[ignored["kind"]]
        assert ignored["group"] == GROUP
        for pointer in ignored["jsonPointers"]:
            path = pointer.strip("/").split("/")
            assert at(schema_of(kind), path) is not None
            assert path[1] not in (*kind.info.immutable, *kind.info.pinned)
