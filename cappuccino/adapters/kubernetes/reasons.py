"""Why a workload waits when neither it nor its pod says so: a quota, a policy, a volume that cannot be mounted. Events tell."""

from __future__ import annotations

from datetime import datetime, timedelta

from cappuccino.adapters.kubernetes.client import EVENT, Client
from cappuccino.adapters.kubernetes.runs import Run
from cappuccino.adapters.kubernetes.status import WAITS_FOR_POD, waiting
from cappuccino.core.clock import Clock

_PATIENCE = timedelta(seconds=5)  # after which a pod should be there and its container created
_KEPT = timedelta(seconds=15)


class Reasons:
    def __init__(self, client: Client, *, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._known: dict[str, tuple[datetime, str]] = {}  # by uid: when it was asked, and the answer

    async def why(self, run: Run, message: str) -> str:
        """`message`, or the newest warning about the pod, about the workload while it has none."""
        pod = run.pods[-1] if run.pods and run.pods[-1].alive else None
        subject = run.view if pod is None else pod
        now = self._clock.now()
        over = bool(run.pods) and run.pods[-1].phase == "Succeeded"  # and its Job is about to say so
        explained = over or run.view.suspended or waiting(pod) or message not in ("", WAITS_FOR_POD)
        if explained or now - subject.created_at < _PATIENCE:
            return message
        asked, told = self._known.get(subject.uid, (None, ""))
        if asked is None or now - asked >= _KEPT:
            told = await self._warning(subject.namespace, subject.uid)
            self._known = {uid: known for uid, known in self._known.items() if now - known[0] < _KEPT}
            self._known[subject.uid] = (now, told)
        return told or message

    async def _warning(self, namespace: str, uid: str) -> str:
        fields = f"involvedObject.uid={uid},type=Warning"
        events = await self._client.all(EVENT, namespace=namespace, fields=fields)
        newest = max(events, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "", default=None)
        return f"{newest['reason']}: {' '.join(newest['message'].split())}" if newest else ""
