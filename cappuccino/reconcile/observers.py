"""From the ports to what a controller decides on: one observer per kind, reading only.

The Study's observer also asks the sampler for the trials that its controller wants: proposals are facts to `decide`,
which stays pure, and only the INSERT makes them exist. The Trial's asks the pruner in the same way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from cappuccino.api import Dataset, Deployment, Study, StudySpec, Trader, Trial
from cappuccino.api.meta import Resource
from cappuccino.api.search import Pruner as PrunerSpec
from cappuccino.controllers import dataset, deployment, study, trader, trial, warmstart
from cappuccino.controllers.decision import Decision
from cappuccino.controllers.pod import Sharing, workload_name
from cappuccino.controllers.rows import StudyRow
from cappuccino.core.identifiers import seed_of
from cappuccino.reconcile.pods import Pods
from cappuccino.reconcile.ports import Document, Key, Objects, Ports, Summary, WorkloadStatus
from cappuccino.search.packing import pack_of
from cappuccino.search.pruner import Pruner
from cappuccino.search.sampler import Sampler
from cappuccino.search.space import Dimension, parse_space, to_wire
from cappuccino.search.trials import NewTrial, TrialRow

_PINNED_KEPT = 1000
STUDY_LABEL, DEPLOYMENT_LABEL = "cappuccino.dev/study", "cappuccino.dev/deployment"

_R = TypeVar("_R", bound=Resource)


@dataclass(frozen=True, kw_only=True)
class Search:
    """The library behind the search: made from a Study's spec."""

    sampler: Callable[[StudySpec], Sampler]
    pruner: Callable[[PrunerSpec], Pruner]


@dataclass(frozen=True, kw_only=True)
class DatasetController:
    ports: Ports

    async def observe(self, key: Key, document: Document | None) -> dataset.Observed:
        found = _parsed(Dataset, document)
        return dataset.Observed(
            dataset=found,
            key=key,
            snapshot=await self.ports.record.current_snapshot(found.uid) if found else None,
            refresh=await self.ports.workloads.observe(dataset.workload_name(key)),
        )

    def decide(self, observed: dataset.Observed, *, now: datetime, market_now: datetime | None = None) -> Decision:
        return dataset.decide(observed, now=now, market_now=market_now)


@dataclass(frozen=True, kw_only=True)
class StudyController:
    ports: Ports
    search: Search

    async def observe(self, key: Key, document: Document | None) -> study.Observed:
        record, objects = self.ports.record, self.ports.objects
        found = _parsed(Study, document)
        if found is None:
            return study.Observed(study=None, key=key)
        pinned = await record.study(found.uid)
        if pinned is None:
            reference = Key("Dataset", key.namespace, found.spec.dataset_ref.name)
            source = _parsed(Dataset, await objects.get(reference))
            snapshot = await record.current_snapshot(source.uid) if source else None
            earlier = await self._source(found, key)
            return study.Observed(study=found, key=key, dataset=source, snapshot=snapshot, source=earlier)
        rows = await record.history(found.uid)
        made = await objects.index("Trial", namespace=key.namespace, labels={STUDY_LABEL: found.name})
        return study.Observed(
            study=found,
            key=key,
            pinned=pinned,
            trials=rows,
            objects=tuple(_trial_object(summary) for summary in made if summary.refers["studyUid"] == found.uid),
            proposals=await self._proposals(found, pinned, rows),
        )

    def decide(self, observed: study.Observed, *, now: datetime, market_now: datetime | None = None) -> Decision:
        return study.decide(observed, now=now, market_now=market_now)

    async def _source(self, found: Study, key: Key) -> warmstart.Source:
        """What `found` is to start from, before it is pinned."""
        if found.spec.warm_start is None:
            return warmstart.Source()
        name = found.spec.warm_start.study_ref.name
        earlier = _parsed(Study, await self.ports.objects.get(Key("Study", key.namespace, name)))
        if earlier is None:
            return warmstart.Source()
        pinned = await self.ports.record.study(earlier.uid)
        return warmstart.Source(study=earlier, pinned=pinned, trials=await self.ports.record.history(earlier.uid))

    async def _proposals(self, found: Study, pinned: StudyRow, rows: Sequence[TrialRow]) -> tuple[NewTrial, ...]:
        asked = study.wanted(found, rows)
        if asked is None:
            return ()
        space = parse_space({name: parameter.to_json() for name, parameter in asked.space.items()})
        distributions = to_wire(space)
        sampler = self.search.sampler(found.spec)
        first, lessons = await self._taken_over(pinned, space)
        history, proposals = [*lessons, *rows], []
        for number in asked.numbers:
            seed = seed_of(found.spec.sampler.seed, number)  # not of the uid: the same manifest repeats itself
            if number < len(first):
                values = first[number]
            else:
                values = await asyncio.to_thread(sampler.sample, history, space, seed)
            new = NewTrial(
                number=number,
                phase=asked.phase,
                parameters={**asked.frozen, **values},
                distributions=distributions,
                seed=seed,
            )
            proposals.append(new)
            history.append(_as_row(found.uid, new))
        return tuple(proposals)

    async def _taken_over(
        self, pinned: StudyRow, space: Mapping[str, Dimension]
    ) -> tuple[Sequence[dict[str, str]], Sequence[TrialRow]]:
        """What the pinned source gives: the parameters to try first, and the rows to learn from."""
        if not pinned.spec.get("warmStart"):
            return (), ()
        spec = StudySpec.model_validate(pinned.spec)
        warm = spec.warm_start
        assert warm is not None  # asked above
        trials = await self.ports.record.history(str(warm.study_uid))
        return warmstart.repeated(warm, trials, spec.goal, space), warmstart.lessons(warm, trials, space)


@dataclass(frozen=True, kw_only=True)
class TrialController:
    ports: Ports
    search: Search
    pinned: dict[str, StudySpec] = field(default_factory=dict)  # by uid of the Study: what is pinned never changes

    async def observe(self, key: Key, document: Document | None) -> trial.Observed:
        found = _parsed(Trial, document)
        if found is None or found.metadata.deletion_timestamp:
            run = await self.ports.workloads.observe(key.workload())
            return trial.Observed(
                trial=None, key=key, workload=run, needed=await _serves_others(self.ports.objects, run, besides=key)
            )
        spec = await self._pinned(found.spec.study_uid)
        pack = await self._pack(spec, found) if spec else ()
        served = trial.Observed(trial=found, key=key, pack=pack).keys
        run = await self.ports.workloads.observe(served[0].workload())
        row = await self.ports.record.trial(found.spec.study_uid, found.spec.number)
        complete = run is not None or not pack or await self._all_there(found, key, pack)
        prune = await self._prune(spec, row) if spec and row else ""
        return trial.Observed(
            trial=found, key=key, row=row, study=spec, workload=run, prune=prune, pack=pack, complete=complete
        )

    def decide(self, observed: trial.Observed, *, now: datetime, market_now: datetime | None = None) -> Decision:
        return trial.decide(observed, now=now, market_now=market_now)

    async def _pinned(self, study_uid: str) -> StudySpec | None:
        if study_uid not in self.pinned:
            row = await self.ports.record.study(study_uid)
            if row is None:
                return None
            if len(self.pinned) >= _PINNED_KEPT:
                self.pinned.clear()
            self.pinned[study_uid] = StudySpec.model_validate(row.spec)
        return self.pinned[study_uid]

    async def _pack(self, spec: StudySpec, found: Trial) -> tuple[TrialRow, ...]:
        if spec.template.pack == 1:
            return ()
        rows = await self.ports.record.history(found.spec.study_uid)
        return pack_of(rows, found.spec.number, pack=spec.template.pack) if found.spec.number < len(rows) else ()

    async def _all_there(self, found: Trial, key: Key, pack: Sequence[TrialRow]) -> bool:
        labels = {STUDY_LABEL: found.spec.study_name}
        objects = await self.ports.objects.index("Trial", namespace=key.namespace, labels=labels)
        there = {_trial_object(each).number for each in objects if each.refers["studyUid"] == found.spec.study_uid}
        return all(row.finished or row.number in there for row in pack)

    async def _prune(self, spec: StudySpec, row: TrialRow) -> str:
        if row.finished or row.result is not None:
            return ""
        pruner = self.search.pruner(spec.pruner)
        step = pruner.step(row.reports)
        if step is None:
            return ""
        peers = await self.ports.record.peers(row.study_uid, row.number, step, pruner.peers)
        return pruner.verdict(step, row.reports[step], peers)


@dataclass(frozen=True, kw_only=True)
class DeploymentController:
    ports: Ports

    async def observe(self, key: Key, document: Document | None) -> deployment.Observed:
        objects, record, workloads = self.ports.objects, self.ports.record, self.ports.workloads
        found = _parsed(Deployment, document)
        gates = await workloads.observe(deployment.gates_name(key))
        grading = await workloads.observe(deployment.grade_name(key))
        if found is None:
            return deployment.Observed(deployment=None, key=key, gates=gates, grading=grading)
        source = None
        if found.spec.study_ref:
            source = _parsed(Study, await objects.get(Key("Study", key.namespace, found.spec.study_ref.name)))
        documents = await objects.list("Trader", namespace=key.namespace, labels={DEPLOYMENT_LABEL: found.name})
        traders = [Trader.parse(document) for document in documents if found.uid in _owners(document)]
        promotions = await record.promotions(found.uid)
        last = next((row.account for row in reversed(promotions) if row.account), None)
        account = await record.account(last) if last else None
        return deployment.Observed(
            deployment=found,
            key=key,
            study=source,
            trials=await record.history(source.uid) if source else (),
            evidence=await record.evidence(deployment_uid=found.uid),
            promotions=promotions,
            halted=account.halted_reason if account else None,
            traders=traders,
            activity=await record.activity([trader.spec.account for trader in traders]),
            gates=gates,
            grading=grading,
        )

    def decide(self, observed: deployment.Observed, *, now: datetime, market_now: datetime | None = None) -> Decision:
        return deployment.decide(observed, now=now, market_now=market_now)


@dataclass(frozen=True, kw_only=True)
class TraderController:
    ports: Ports
    pods: Pods

    async def observe(self, key: Key, document: Document | None) -> trader.Observed:
        objects, record, workloads = self.ports.objects, self.ports.record, self.ports.workloads
        found = _parsed(Trader, document)
        if found is None:
            served = await workloads.serving(key)
            orphans = [run for run in served if not await _serves_others(objects, run, besides=key)]
            return trader.Observed(trader=None, key=key, orphans=orphans)
        account, pod = found.spec.account, found.spec.pod
        return trader.Observed(
            trader=found,
            key=key,
            account=await record.account(account),
            activity=(await record.activity([account])).get(account),
            workload=await workloads.observe(workload_name(key.namespace, pod) if pod else key.workload()),
            farewell=await workloads.observe(trader.farewell_name(key)),
            sharing=await self.pods.sharing(key, pod) if pod else Sharing(),
            orphaned=found.spec.mode == "live" and not await self._deployed(found, key),
        )

    def decide(self, observed: trader.Observed, *, now: datetime, market_now: datetime | None = None) -> Decision:
        return trader.decide(observed, now=now, market_now=market_now)

    async def _deployed(self, found: Trader, key: Key) -> bool:
        """Whether the Deployment that owns it is there."""
        for owner in found.metadata.owner_references:
            document = await self.ports.objects.get(Key("Deployment", key.namespace, owner.name))
            if document is not None and document["metadata"]["uid"] == owner.uid:
                return True
        return False


def controllers(ports: Ports, search: Search) -> dict[str, Any]:
    """One controller per kind, by the kind's name."""
    return {
        "Dataset": DatasetController(ports=ports),
        "Study": StudyController(ports=ports, search=search),
        "Trial": TrialController(ports=ports, search=search),
        "Deployment": DeploymentController(ports=ports),
        "Trader": TraderController(ports=ports, pods=Pods(ports.objects)),
    }


def _parsed(kind: type[_R], document: Document | None) -> _R | None:
    return None if document is None else kind.parse(document, source=f"stored {kind.__name__}")


async def _serves_others(objects: Objects, run: WorkloadStatus | None, *, besides: Key) -> bool:
    """Whether an object is there, and not being deleted, that the workload serves besides this one."""
    for key in run.keys if run else ():
        document = None if key == besides else await objects.get(key)
        if document and "deletionTimestamp" not in document["metadata"]:
            return True
    return False


def _owners(document: Document) -> set[str]:
    """Their uids. A label anybody may write; an owner is what the chart's policies leave to the operator."""
    return {owner["uid"] for owner in document["metadata"].get("ownerReferences") or ()}


def _trial_object(summary: Summary) -> study.TrialObject:
    return study.TrialObject(number=int(summary.refers["number"]), uid=summary.uid, deleting=summary.deleting)


def _as_row(study_uid: str, new: NewTrial) -> TrialRow:
    """A proposal as history for the next one, so that proposals of one pass differ."""
    return TrialRow(
        study_uid=study_uid,
        number=new.number,
        phase=new.phase,
        parameters=new.parameters,
        distributions=new.distributions,
        seed=new.seed,
        state="Running",
    )
