"""The operator's process: kopf watches, and every event goes on as it is (cappuccino/entrypoints/operator.py).

    kopf run --standalone --namespace=NS operator/main.py

Nothing is decided here, and kopf writes nothing: it has no handler that needs a finalizer, an annotation, a stored state or an
Event. CAPPUCCINO_NAMESPACES names the same namespaces as the command line does; neither: all of them, with --all-namespaces.

kopf puts this folder on sys.path: no other module may be in it.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
from collections.abc import Iterator
from typing import Any

import kopf

from cappuccino.adapters.kubernetes.client import ApiResource
from cappuccino.adapters.kubernetes.index import OBJECTS, RUNS
from cappuccino.adapters.kubernetes.naming import SELECTOR
from cappuccino.core.errors import UserError
from cappuccino.entrypoints.operator import Operator, OperatorSettings
from cappuccino.telemetry.logs import configure


def waiting(record: logging.LogRecord) -> bool:
    """An API server that is away is no error of ours: a request that is tried again is a warning."""
    if "will retry" in str(record.msg):
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


configure(process="operator")
logging.getLogger("asyncio").propagate = True  # `kopf run` silences it
for name in ("watching", "fetching", "scanning"):
    logging.getLogger(f"kopf._cogs.clients.{name}").addFilter(waiting)

operator: Operator


class Patiently:
    """Seconds between the attempts of one request: without end, so that an API server that is away ends nothing."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((0.5, 1.0, 2.0), itertools.repeat(3.0))


class NothingStored(kopf.DiffBaseStorage, kopf.ProgressStorage):
    """Of no handler's progress, and of no object's former state."""

    def build(self, **_: Any) -> Any:
        return {}

    def clear(self, *, essence: Any) -> Any:
        return essence

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None: ...

    def purge(self, **_: Any) -> None: ...

    def touch(self, **_: Any) -> None: ...


@kopf.on.login()
def login(settings: kopf.OperatorSettings, **_: Any) -> kopf.ConnectionInfo | None:
    """As a pod by its service account, at the address that the kubelet tells: that needs no name service."""
    account = kopf.login_with_service_account(settings=settings)
    if account is None:
        return kopf.login_with_kubeconfig(settings=settings)
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    return dataclasses.replace(account, server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}")


@kopf.on.startup()
async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
    global operator
    nothing = NothingStored()
    settings.persistence.diffbase_storage = nothing
    settings.persistence.progress_storage = nothing
    settings.persistence.finalizer = "cappuccino.dev/never-set"  # it would remove its own default from our objects
    settings.posting.enabled = False
    settings.scanning.disabled = True  # kinds and namespaces are those of the start; listing them needs rights that we lack
    settings.networking.error_backoffs = Patiently()
    settings.networking.connect_timeout = 5.0
    settings.networking.request_timeout = 60.0
    settings.watching.chunk_size = 500
    settings.watching.connect_timeout = 5.0
    settings.watching.server_timeout = 300  # whole seconds
    settings.watching.client_timeout = 330.0  # of a server that has forgotten us
    settings.queueing.idle_timeout = 0.1  # a task per object that changed lives for so long
    settings.process.ultimate_exiting_timeout = 25.0
    for resource in RUNS:
        settings.watching.label_selectors[_selected(resource)] = SELECTOR
    try:
        operator = Operator(OperatorSettings.read())
        await operator.start()
    except UserError as error:
        raise kopf.PermanentError(str(error)) from error


@kopf.on.cleanup()
async def stop(**_: Any) -> None:
    await operator.stop()


async def note(event: kopf.RawEvent, **_: Any) -> None:
    operator.note(event["type"], event["object"])


def _selected(resource: ApiResource) -> tuple[str, str, str]:
    return resource.group, resource.version, resource.plural


for resource in (*OBJECTS, *RUNS):
    kopf.on.event(*_selected(resource))(note)
