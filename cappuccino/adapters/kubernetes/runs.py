"""The workloads in memory: what is known of each Job or StatefulSet, of its pods, and of its pods that are gone.

A watch tells the keys that a workload serves when a view of it or of one of its pods changes (views.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cappuccino.adapters.kubernetes.catalogue import Ended
from cappuccino.adapters.kubernetes.views import PodView, WorkloadView, is_ours, pod_view, workload_view
from cappuccino.adapters.kubernetes.wakeups import Wakeups
from cappuccino.controllers.decision import Document, Key


@dataclass(frozen=True, kw_only=True)
class Run:
    """A workload and its own pods, oldest first. `departed` are those that went and are not in its history yet."""

    view: WorkloadView
    pods: tuple[PodView, ...] = ()
    departed: tuple[PodView, ...] = ()


class Runs:
    def __init__(self) -> None:
        self._views: dict[str, WorkloadView] = {}  # by the workload's name, as all below
        self._pods: dict[str, dict[str, PodView]] = {}
        self._departed: dict[str, list[PodView]] = {}
        self._ended = Ended()
        self.wakeups = Wakeups(lambda: (key for view in self._views.values() for key in view.keys))

    def get(self, workload: str) -> Run | None:
        view = self._views.get(workload)
        if view is None:
            return None
        own = tuple(pod for pod in self.pods(workload) if pod.owner_uid == view.uid)
        return Run(view=view, pods=own, departed=tuple(self._departed.get(workload, ())))

    def all(self) -> list[Run]:
        return [run for name in sorted(self._views) if (run := self.get(name)) is not None]

    def serving(self, key: Key) -> list[Run]:
        names = [name for name, view in self._views.items() if key in view.keys]
        return [run for name in sorted(names) if (run := self.get(name)) is not None]

    def pods(self, workload: str) -> list[PodView]:
        """All of that name, also those whose owner is gone."""
        return sorted(self._pods.get(workload, {}).values(), key=lambda pod: (pod.created_at, pod.name))

    def note(self, document: Document, *, deleted: bool) -> None:
        if document["kind"] == "Pod":
            pod = pod_view(document)
            if pod.workload:
                self._note_pod(pod, deleted=deleted)
        elif is_ours(document):
            view = workload_view(document)
            if deleted:
                self.end(view.workload, view.uid)
            else:
                self._note_workload(view)

    def end(self, workload: str, uid: str) -> None:
        self._ended.add(uid)
        view = self._views.get(workload)
        if view is not None and view.uid == uid:
            del self._views[workload]
            self._departed.pop(workload, None)
            self.wakeups.tell(view.keys)

    def settled(self, document: Document, pods: Sequence[str]) -> None:
        view = workload_view(document)
        self._departed[view.workload] = [pod for pod in self._departed.get(view.workload, ()) if pod.uid not in pods]
        self._note_workload(view)

    def keep_only(self, kind: str, namespace: str | None, uids: set[str], *, version: int) -> None:
        """As Catalogue.keep_only."""
        if kind == "Pod":
            for pod in [pod for pods in self._pods.values() for pod in pods.values()]:
                if namespace in (None, pod.namespace) and pod.version <= version and pod.uid not in uids:
                    self._note_pod(pod, deleted=True)
            return
        sought = "finite" if kind == "Job" else "continuous"
        for view in list(self._views.values()):
            if view.kind == sought and namespace in (None, view.namespace) and view.version <= version and view.uid not in uids:
                self.end(view.workload, view.uid)

    def _note_workload(self, view: WorkloadView) -> None:
        before = self._views.get(view.workload)
        if view.uid in self._ended or (before is not None and view.version <= before.version):
            return
        self._views[view.workload] = view
        if before is not None and before.uid != view.uid:
            self._departed.pop(view.workload, None)
        if before != view:
            self.wakeups.tell(view.keys)

    def _note_pod(self, pod: PodView, *, deleted: bool) -> None:
        known = self._pods.setdefault(pod.workload, {})
        before = known.get(pod.uid)
        if deleted:
            self._ended.add(pod.uid)
            if before is not None:
                self._depart(pod)
                del known[pod.uid]
        elif pod.uid in self._ended or (before is not None and pod.version <= before.version):
            return
        else:
            known[pod.uid] = pod
        if not known:
            del self._pods[pod.workload]
        view = self._views.get(pod.workload)
        if view is not None and (deleted or before != pod):
            self.wakeups.tell(view.keys)

    def _depart(self, pod: PodView) -> None:
        view = self._views.get(pod.workload)
        if view is not None and view.uid == pod.owner_uid and not (view.deleting or view.over):
            self._departed.setdefault(pod.workload, []).append(pod)
