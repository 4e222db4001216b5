"""One operator at a time, by a Lease: whoever finds it free, or not renewed for as long as it lasts, takes it.

A holder that could not renew for `GIVE_UP_SECONDS` no longer holds it, be the API server silent, gone or unwilling. The lease
lasts longer than that, so it stops before another begins. Clocks are not compared: a candidate measures by its own for how long
the Lease has not changed. The identity is the pod's name: a container that was restarted takes its own lease up again at once.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

from cappuccino.adapters.kubernetes.client import LEASE, Client
from cappuccino.controllers.decision import Document
from cappuccino.core.errors import CappuccinoError, Conflict, NotFound, RetryLater
from cappuccino.telemetry.logs import get_logger

LEASE_SECONDS = 15
GIVE_UP_SECONDS = 10.0
RETRY_SECONDS = 2.0
_log = get_logger(__name__)


class LeaseLock:
    """`acquire`, then `keep` until it ends, then `release`."""

    def __init__(self, client: Client, *, namespace: str, name: str, identity: str) -> None:
        self._client = client
        self._namespace, self._name, self._identity = namespace, name, identity
        self._renewed = 0.0  # monotonic, as all times here; when the last successful renewal was asked for
        self._holder = ""  # as it was last read
        self._seen: tuple[Any, ...] = ()  # the Lease in other hands, and since when it has been as it is
        self._seen_at = 0.0

    async def acquire(self) -> None:
        """Waits until it is held."""
        while True:
            if await self._attempt():
                break
            await asyncio.sleep(RETRY_SECONDS)
        _log.info("lease_held", name=self._name, identity=self._identity)

    async def keep(self) -> None:
        """Ends only by raising, and before another can begin.

        Raises:
            Conflict: another has it.
            RetryLater: it could not be renewed; `acquire` again.
        """
        where = f"lease {self._namespace}/{self._name}"
        try:
            while True:
                async with asyncio.timeout(max(0.0, self._renewed + GIVE_UP_SECONDS - time.monotonic())):
                    await asyncio.sleep(RETRY_SECONDS)
                    if not await self._attempt() and self._holder != self._identity:
                        raise Conflict(f"{where} is {self._holder}'s now, not {self._identity}'s")
        except TimeoutError as error:
            raise RetryLater(f"{where} could not be renewed for {GIVE_UP_SECONDS:g} s", after_seconds=0.0) from error

    async def release(self) -> None:
        """So that the next one need not wait; what goes wrong is left to the lease's end."""
        try:
            found = await self._client.get(LEASE, self._namespace, self._name)
            if found is not None and found["spec"].get("holderIdentity") == self._identity:
                await self._write(found, {"holderIdentity": None})
        except CappuccinoError as error:
            _log.info("lease_not_released", name=self._name, reason=str(error))

    async def _attempt(self) -> bool:
        """Whether it is held now."""
        asked = time.monotonic()
        try:
            found = await self._client.get(LEASE, self._namespace, self._name)
            if found is None:
                await self._client.create(LEASE, self._document())
            elif self._is_anothers(found["spec"]):
                self._holder = found["spec"]["holderIdentity"]
                return False
            else:
                await self._write(found, self._terms(found["spec"]))
        except (Conflict, NotFound):
            return False  # another was faster
        except CappuccinoError as error:
            _log.warning("lease_not_reached", name=self._name, reason=str(error))
            return False
        self._renewed, self._holder = asked, self._identity
        return True

    def _is_anothers(self, spec: Document) -> bool:
        holder = spec.get("holderIdentity")
        if not holder or holder == self._identity:
            return False
        now, seen = time.monotonic(), (holder, spec.get("renewTime"))
        if seen != self._seen:
            self._seen, self._seen_at = seen, now
        return now - self._seen_at < float(spec.get("leaseDurationSeconds", LEASE_SECONDS))

    def _terms(self, before: Document) -> Document:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        terms = {"holderIdentity": self._identity, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now}
        if before.get("holderIdentity") == self._identity:
            return terms
        return {**terms, "acquireTime": now, "leaseTransitions": before.get("leaseTransitions", 0) + 1}

    def _document(self) -> Document:
        metadata = {"name": self._name, "namespace": self._namespace}
        return {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": self._terms({})}

    async def _write(self, found: Document, spec: Document) -> None:
        version = found["metadata"]["resourceVersion"]
        body = {"metadata": {"resourceVersion": version}, "spec": spec}
        await self._client.patch(LEASE, self._namespace, self._name, body)
