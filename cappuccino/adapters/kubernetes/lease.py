"""One operator at a time: the client's leader election over a Lease, made to survive an API server that does not answer.

A holder that cannot renew gives up when it has tried for 6 s, and knows that 14 s after its last success at the latest: two
seconds of rest before, two requests of 2 s and another rest after it. The lease lasts 15 s, so it has stopped before another
can begin. The identity is the pod's name: a container that was restarted takes its own lease up again at once.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import aiohttp
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock as ClientsLock

from cappuccino.adapters.kubernetes.client import LEASE, Client
from cappuccino.core.errors import CappuccinoError, Conflict
from cappuccino.telemetry.logs import get_logger

LEASE_SECONDS, RENEW_SECONDS, RETRY_SECONDS, REQUEST_SECONDS = 15, 6, 2, 2
_AWAY = (aiohttp.ClientError, TimeoutError, OSError)
_log = get_logger(__name__)


class LeaseLock:
    """`acquire`, then `keep` until it ends, then `release`."""

    def __init__(self, client: Client, *, namespace: str, name: str, identity: str) -> None:
        self._client = client
        self._namespace, self._name, self._identity = namespace, name, identity
        self._election = LeaderElection(
            Config(
                _PatientLock(name, namespace, identity, client.api),
                lease_duration=LEASE_SECONDS,
                renew_deadline=RENEW_SECONDS,
                retry_period=RETRY_SECONDS,
                onstarted_leading=_nothing,
                onstopped_leading=_nothing,
            )
        )

    async def acquire(self) -> None:
        """Waits until it is held."""
        await self._election.acquire()
        _log.info("lease_held", name=self._name, identity=self._identity)

    async def keep(self) -> None:
        """Ends only by raising Conflict, before another can hold it."""
        await self._election.renew_loop()
        raise Conflict(f"lease {self._namespace}/{self._name} of {self._identity} could not be renewed: another may take it")

    async def release(self) -> None:
        """So that the next one need not wait for its end; what goes wrong is left to its end."""
        with suppress(CappuccinoError):
            found = await self._client.get(LEASE, self._namespace, self._name)
            if found is not None and found["spec"].get("holderIdentity") == self._identity:
                version = found["metadata"]["resourceVersion"]
                body = {"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": None}}
                await self._client.patch(LEASE, self._namespace, self._name, body)


class _PatientLock(ClientsLock):
    """The client's lock, for which no answer in time is as good as a refusal."""

    async def get(self, name: str, namespace: str) -> Any:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await super().get(name, namespace)
        except _AWAY as error:
            return False, ApiException(status=0, reason=f"{type(error).__name__} {error}")

    async def create(self, name: str, namespace: str, election_record: Any) -> bool:
        return await self._in_time(super().create(name, namespace, election_record))

    async def update(self, name: str, namespace: str, updated_record: Any) -> bool:
        return await self._in_time(super().update(name, namespace, updated_record))

    async def _in_time(self, request: Any) -> bool:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return bool(await request)
        except _AWAY as error:
            _log.warning("lease_not_renewed", name=self.name, reason=f"{type(error).__name__} {error}")
            return False


async def _nothing() -> None: ...
