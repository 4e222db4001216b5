"""From `helm install` to a promoted candidate, with three kills on the way, and an upgrade while the traders trade."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cappuccino.api.manifests import load

from .scene import ROOT, Scene, eventually

pytestmark = pytest.mark.timeout(1500)
QUICKSTART = ROOT / "examples" / "quickstart"
TRADERS = 4


def documents() -> list[dict[str, Any]]:
    """The quickstart as it is; each trial may use half a processor."""
    found = [document for document, _ in load(QUICKSTART)]
    for document in found:
        if document["kind"] == "Study":
            document["spec"]["template"]["pod"] = {"requests": {"cpu": "200m", "memory": "400Mi"}}
        if document["kind"] == "Deployment":
            document["spec"]["gates"]["soak"] = {"marketDays": 7, "closedTrades": 5}
    return found


def test_the_parts_of_the_release_are_up(scene: Scene) -> None:
    for name in ("operator", "dashboard"):
        scene.kubectl("wait", "deployment", "--selector", f"app.kubernetes.io/component={name}", "--for=condition=Available")
    for pod in scene.list("pods", "app.kubernetes.io/name=cappuccino"):
        for container in pod["spec"]["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, pod["metadata"]["name"]
    assert "deployment.apps" in scene.kubectl("get", "deployments", "-o", "name")
    assert scene.kubectl("get", "deployments.cappuccino.dev", "-o", "name") == ""


def test_a_study_searches_in_pods_though_its_trainer_and_its_operator_are_killed(scene: Scene) -> None:
    scene.apply(*documents())
    scene.kubectl("wait", "dataset/quickstart", "--for=condition=Ready", "--timeout=180s")
    scene.kubectl("wait", "study/quickstart", "--for=condition=Ready", "--timeout=120s")
    scene.kill("entrypoints.worker", "train")
    scene.kill("kopf", "main.py")
    scene.kubectl("wait", "study/quickstart", "--for=condition=Complete", "--timeout=600s")
    scene.assert_trials_whole("quickstart")
    trials = scene.list("trials", "cappuccino.dev/study=quickstart")
    assert len(trials) == 4
    scene.kubectl("wait", "trials", "--all", "--for=condition=Complete", "--timeout=60s")
    assert max(trial["status"].get("attempts") or 0 for trial in trials) >= 2


def test_candidates_go_through_the_gates_and_trade_on_paper(scene: Scene) -> None:
    scene.kubectl("wait", "deployments.cappuccino.dev/quickstart", "--for=condition=Ready", "--timeout=300s")
    eventually("the traders", lambda: len(scene.list("traders")) == TRADERS)
    scene.kubectl("wait", "traders", "--all", "--for=condition=Ready", "--timeout=180s")
    status = scene.get("deployments.cappuccino.dev", "quickstart")["status"]
    assert len(status["candidates"]) == 2
    for candidate in status["candidates"]:
        assert {gate["gate"] for gate in candidate["gates"]} >= {"integrity", "backtest", "window", "overfitting_dsr"}
    tree = scene.cli("status", "quickstart").stdout
    assert "quickstart-00" in tree


def test_a_trader_killed_while_it_trades_goes_on_with_its_books_whole(scene: Scene) -> None:
    names = [trader["metadata"]["name"] for trader in scene.list("traders")]
    eventually("fills", lambda: all(trader["status"].get("fills", 0) > 0 for trader in candidates(scene)))
    scene.kill("entrypoints.worker", "trade")
    eventually("a restart", lambda: sum(t["status"].get("restarts") or 0 for t in scene.list("traders")) >= 1)
    scene.kubectl("wait", "traders", "--all", "--for=condition=Ready", "--timeout=180s")
    for name in names:
        scene.assert_books_agree(name)


def candidates(scene: Scene) -> list[dict[str, Any]]:
    return [trader for trader in scene.list("traders") if trader["spec"]["role"] != "baseline"]


def test_a_promotion_is_refused_too_early_and_done_when_everything_was_cleared(scene: Scene) -> None:
    trader = candidates(scene)[0]["metadata"]["name"]
    scene.cli("promote", "mdep/quickstart", f"{trader.rsplit('-', 1)[0]}-cash", "--reason", "it never loses", check=False)
    refused = eventually(
        "a refusal",
        lambda: (c := scene.condition("deployments.cappuccino.dev", "quickstart", "Promoted")).get("reason") == "Refused" and c,
    )
    assert refused["status"] == "False"
    promotable = eventually("a promotable candidate", lambda: promotables(scene), within=600, every=2)
    scene.cli("promote", "mdep/quickstart", promotable[0], "--reason", "cleared every gate, soak and grade")
    scene.kubectl("wait", "deployments.cappuccino.dev/quickstart", "--for=condition=Promoted", "--timeout=60s")
    assert scene.get("deployments.cappuccino.dev", "quickstart")["status"]["promoted"]
    ((who, why),) = scene.rows("select actor, reason from promotion")
    assert who
    assert why == "cleared every gate, soak and grade"


def promotables(scene: Scene) -> list[str]:
    status = scene.get("deployments.cappuccino.dev", "quickstart")["status"]
    return [candidate["trader"] for candidate in status["candidates"] if candidate["verdict"] == "Promotable"]


def test_a_halt_holds_over_a_restart_and_only_a_reason_lifts_it(scene: Scene) -> None:
    name = candidates(scene)[0]["metadata"]["name"]
    scene.cli("halt", name, "--reason", "spread looks wrong")
    scene.kubectl("wait", f"trader/{name}", "--for=condition=Halted", "--timeout=60s")
    scene.kubectl("delete", "pod", f"{name}-0")
    eventually(
        "its pod again",
        lambda: scene.kubectl("get", "pod", f"{name}-0", "-o", "jsonpath={.status.phase}", check=False) == "Running",
    )
    account = scene.get("trader", name)["spec"]["account"]
    entries = "select count(*) from intent where account = %s and side = 'buy'"
    before, began = scene.rows(entries, account), scene.exchange("state")["bar"]
    eventually("a market day", lambda: scene.exchange("state")["bar"] > began + 24)
    assert scene.is_true("trader", name, "Halted")
    assert scene.rows(entries, account) == before
    assert scene.cli("resume", name, check=False).returncode != 0
    scene.cli("resume", name, "--reason", "it was our clock")
    eventually("it trades again", lambda: scene.is_true("trader", name, "Ready"))


def test_the_chart_is_upgraded_while_they_trade(scene: Scene) -> None:
    before = {trader["metadata"]["name"]: trader["metadata"]["uid"] for trader in scene.list("traders")}
    scene.install("--set", "operator.environment.E2E_GENERATION=two")
    scene.kubectl("wait", "traders", "--all", "--for=condition=Ready", "--timeout=180s")
    assert {trader["metadata"]["name"]: trader["metadata"]["uid"] for trader in scene.list("traders")} == before
    for name in before:
        assert scene.assert_books_agree(name) >= 0


def test_every_kind_can_be_waited_for(scene: Scene) -> None:
    for what, condition in (
        ("dataset/quickstart", "Ready"),
        ("study/quickstart", "Complete"),
        ("trials", "Complete"),
        ("deployments.cappuccino.dev/quickstart", "Ready"),
        ("traders", "Ready"),
    ):
        everything = () if "/" in what else ("--all",)
        scene.kubectl("wait", what, *everything, f"--for=condition={condition}", "--timeout=60s")


def test_metrics_and_dashboard_answer(scene: Scene) -> None:
    import requests

    with scene.forwarded(f"{scene.release}-dashboard", 80) as port:
        url = f"http://127.0.0.1:{port}/api/v1"
        studies = requests.get(f"{url}/studies", timeout=10).json()
        asker = {"Authorization": f"Bearer {scene.kubectl('create', 'token', f'{scene.release}-operator').strip()}"}
        traders = requests.get(f"{url}/namespaces/{scene.namespace}/traders", headers=asker, timeout=20).json()
    assert "quickstart" in json.dumps(studies)
    assert {each["name"] for each in traders["items"]} == {each["metadata"]["name"] for each in scene.list("traders")}
