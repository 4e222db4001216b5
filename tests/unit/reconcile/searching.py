"""One Study in a cluster in memory, with real controllers: objects, workloads and record are dictionaries and lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cappuccino.adapters.optuna import OptunaSampler
from cappuccino.api.meta import API_VERSION
from cappuccino.controllers.decision import Document, Event, Key, Summary, Workload, WorkloadStatus
from cappuccino.controllers.rows import StudyRow
from cappuccino.core.clock import FixedClock
from cappuccino.reconcile.loop import Loop
from cappuccino.reconcile.observers import Search, controllers
from cappuccino.reconcile.ports import Ports
from cappuccino.reconcile.wake import key_of, summary_of
from cappuccino.search.pruner import NoPruner
from cappuccino.search.trials import NewTrial, TrialRow

from .builders import NOW

STUDY = Key("Study", "default", "s")


class Cluster:
    """Objects, workloads, record and events; `writes` are those that would go to an API server."""

    def __init__(self, **given: Any) -> None:
        spec = {
            "datasetRef": {"name": "d"},
            "strategy": {"kind": "trend"},
            "searchSpace": {"enter": {"type": "float", "low": 0.0, "high": 1.0}},
            "finishedTrialsKept": 1,
            **given,
        }
        study: Document = {"apiVersion": API_VERSION, "kind": "Study", "metadata": {"name": "s"}, "spec": spec}
        self.pinned = StudyRow(uid="uid-s", name="s", spec=spec, snapshot="a" * 64, gate_starts_at=NOW)
        self.documents = {STUDY: _stored(study)}
        self.runs: dict[str, WorkloadStatus] = {}
        self.rows: list[TrialRow] = []
        self.writes: Counter[str] = Counter()

    # objects
    async def get(self, key: Key) -> Document | None:
        return self.documents.get(key)

    async def index(self, kind: str, **_: Any) -> list[Summary]:
        return [summary_of(document) for key, document in self.documents.items() if key.kind == kind]

    async def create(self, document: Document) -> Document:
        self.writes[f"create {document['kind']}"] += 1
        return self.documents.setdefault(key_of(document), _stored(document))

    async def delete(self, key: Key, *, uid: str | None = None) -> None:
        self.writes[f"delete {key.kind}"] += 1
        self.documents.pop(key)

    async def patch_status(self, key: Key, status: Document, *, uid: str) -> None:
        self.writes[f"status {key.kind}"] += 1
        self.documents[key] = {**self.documents[key], "status": status}

    async def emit(self, key: Key, uid: str, event: Event, *, at: Any) -> None:
        self.writes[f"event {key.kind}"] += 1

    # workloads
    async def start(self, workload: Workload) -> None:
        self.writes["create Job"] += 1
        self.runs[workload.name] = WorkloadStatus(name=workload.name, state="Pending", keys=workload.keys)

    async def observe(self, name: str) -> WorkloadStatus | None:
        return self.runs.get(name)

    async def stop(self, name: str, **_: Any) -> None:
        self.writes["delete Job"] += 1
        del self.runs[name]

    # record
    async def study(self, uid: str) -> StudyRow:
        return self.pinned

    async def history(self, study_uid: str) -> Sequence[TrialRow]:
        return tuple(self.rows)

    async def trial(self, study_uid: str, number: int) -> TrialRow | None:
        return self.rows[number]

    async def insert_trials(self, *, study_uid: str, trials: Sequence[NewTrial], at: Any) -> None:
        for new in trials:
            drawn = {"parameters": new.parameters, "distributions": new.distributions, "seed": new.seed}
            self.rows.append(
                TrialRow(study_uid=study_uid, number=new.number, phase="", state="Waiting", created_at=at, **drawn)
            )

    async def set_trial_state(self, *, number: int, to_state: Any, at: Any, **given: Any) -> bool:
        moved = {name: given[name] for name in ("reason", "objective", "bundle_digest")}
        when = {"started_at" if to_state == "Running" else "finished_at": at}
        self.rows[number] = replace(self.rows[number], state=to_state, **moved, **when)
        return True

    def ports(self) -> Ports:
        this: Any = self
        return Ports(objects=this, workloads=this, record=this, events=this)


def _stored(document: Document) -> Document:
    name = document["metadata"]["name"]
    metadata = {**document["metadata"], "namespace": "default", "uid": f"uid-{name}", "generation": 1}
    return {**document, "metadata": metadata}


async def settle(loop: Loop, cluster: Cluster) -> None:
    """A pass of every object after every single change, until none changes anything any more."""
    while True:
        before = (dict(cluster.writes), list(cluster.rows))
        for key in list(cluster.documents):
            await loop.reconcile(key)
        if before == (dict(cluster.writes), cluster.rows):
            return


def loop_of(cluster: Cluster) -> Loop:
    search = Search(sampler=lambda spec: OptunaSampler(type="random"), pruner=lambda spec: NoPruner())
    return Loop(cluster.ports(), controllers(cluster.ports(), search), clock=FixedClock(NOW))
