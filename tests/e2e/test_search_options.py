"""The examples of a search's options on one local cluster: each Study runs to its end and says what the option is about."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest

from cappuccino.api.manifests import load
from cappuccino.controllers.decision import Document
from cappuccino.entrypoints.runner import RunnerSettings, started
from cappuccino.reconcile.ports import Record

from .chain import ROOT

pytestmark = pytest.mark.slow

EXAMPLES = ("asha", "objectives", "constraints", "stop-early", "warm-start")
MANIFESTS = ("rules/dataset.yaml", "rules/study.yaml", *(f"{name}/study.yaml" for name in EXAMPLES))


def smaller(spec: dict[str, Any]) -> None:
    """Rules instead of training, and one trial at a time of each Study: what a pruner sees does not depend on who is first."""
    if spec["strategy"]["kind"] == "ppo":
        rules = next(document["spec"] for document, _ in load(ROOT / "examples" / "rules" / "study.yaml"))
        spec |= {field: rules[field] for field in ("strategy", "searchSpace", "features")}
    spec["parallelism"] = 1
    early = spec["budget"].get("stopEarly")
    if early:
        early["trialsWithoutImprovement"] = 1
    else:
        spec["budget"]["trials"] = 6


def ended(document: Document | None) -> bool:
    conditions = (document or {}).get("status", {}).get("conditions", ())
    return any(each["type"] in ("Complete", "Failed", "Stalled") and each["status"] == "True" for each in conditions)


async def searched(folder: Path) -> tuple[dict[str, Document], dict[str, list[Any]]]:
    """Every Study at its end, and its rows."""
    stop = asyncio.Event()
    async with started(RunnerSettings(state=folder)) as services:
        ports = services.cluster.ports
        running = asyncio.create_task(services.cluster.run(stop))
        try:
            for path in MANIFESTS:
                for document, _ in load(ROOT / "examples" / path):
                    if document["kind"] == "Study":
                        smaller(document["spec"])
                    await ports.objects.apply(document)
            studies: dict[str, Document] = {}
            while not (len(studies) == 1 + len(EXAMPLES) and all(map(ended, studies.values()))):
                assert not running.done(), running.result()
                await asyncio.sleep(0.5)
                studies = {each["metadata"]["name"]: each for each in await ports.objects.list("Study")}
            return studies, {name: await trials(ports.record, each) for name, each in studies.items()}
        finally:
            stop.set()
            await running


async def trials(record: Record, study: Document) -> list[Any]:
    return list(await record.history(study["metadata"]["uid"]))


@pytest.mark.timeout(600)
async def test_the_examples_of_a_searchs_options_run_to_their_ends(tmp_path: Path) -> None:
    studies, rows = await searched(tmp_path)
    reasons = {
        name: next(c["reason"] for c in study["status"]["conditions"] if c["type"] == "Complete")
        for name, study in studies.items()
    }
    assert reasons == dict.fromkeys(("rules", "asha", "objectives", "constraints", "warm-start"), "BudgetSpent") | {
        "stop-early": "StoppedEarly"
    }
    pruned = [row for row in rows["asha"] if row.state == "Pruned"]
    assert pruned
    assert all("go on" in row.reason for row in pruned)

    front = studies["objectives"]["status"]["front"]
    assert front[0]["number"] == studies["objectives"]["status"]["best"]["number"]
    assert all(a["maxDrawdown"] > b["maxDrawdown"] or a["turnover"] > b["turnover"] for a, b in itertools.pairwise(front))

    infeasible = {row.number for row in rows["constraints"] if row.reason.startswith("never chosen")}
    assert infeasible
    assert studies["constraints"]["status"]["best"]["number"] not in infeasible

    assert len(rows["stop-early"]) < 40

    assert studies["warm-start"]["status"]["warmStartUid"] == studies["rules"]["metadata"]["uid"]
    ranked = sorted((row for row in rows["rules"] if row.objective is not None), key=lambda row: -row.objective)
    assert [row.parameters for row in rows["warm-start"][:3]] == [row.parameters for row in ranked[:3]]
    assert [row.objective for row in rows["warm-start"][:3]] == [row.objective for row in ranked[:3]]
