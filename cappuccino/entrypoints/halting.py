"""Halt and resume over HTTP, with nobody's rights but the caller's: the dashboard's only requests that change something.

    GET   /api/v1/namespaces/{namespace}/traders                  its Traders, and what was asked of each
    POST  /api/v1/namespaces/{namespace}/traders/{name}/halt      {"reason": "..."}
    POST  /api/v1/namespaces/{namespace}/traders/{name}/resume    {"reason": "..."}

Each needs `Authorization: Bearer TOKEN`, which is handed on to the API server and to nobody else, and is kept and logged
nowhere: RBAC and the chart's admission policies judge, as they do for `kubectl cappuccino halt`, which sets the same
annotations (asking.py). Nothing else says who is asking, so another site's page can ask nothing through a browser.

202 asked for, 200 done within `?wait=SECONDS`; 400, 404, 409, 413, 415 the request is wrong; 401 no token, or one that the API
server refuses; 403 the person may not, in the API server's words; 501 no API server is configured; 503 it is away.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from cappuccino.adapters.kubernetes.answers import Forbidden, Unauthenticated
from cappuccino.adapters.kubernetes.client import Client
from cappuccino.adapters.kubernetes.index import ClusterIndex
from cappuccino.adapters.kubernetes.objects import KubernetesObjects
from cappuccino.api.meta import explain
from cappuccino.controllers.decision import Document, Key
from cappuccino.controllers.requests import HALT, RESUME, TEXT_MAX, Verb, key, read
from cappuccino.core.errors import Conflict, InvalidInput, NotFound, RetryLater, UserError
from cappuccino.entrypoints.asking import NotYet, ask_to_halt, ask_to_resume, halted, resumed
from cappuccino.entrypoints.cli.remote import Remote
from cappuccino.entrypoints.settings import API_SERVER, API_SERVER_CA
from cappuccino.telemetry.logs import get_logger

BODY_MAX = 16 * 1024  # bytes
WAIT_MAX = 30.0  # seconds
_SECONDS = 10.0  # of one request to the API server
_TOKEN = re.compile(r"Bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)
_NAME = "[a-z0-9][a-z0-9.-]*"  # as Kubernetes names objects; anything else is no route of ours
_TRADERS = f"/api/v1/namespaces/{{namespace:{_NAME}}}/traders"
_LOCAL = (
    "this dashboard has no API server and knows nobody: on the machine of the runner use `cappuccino halt NAME --reason ...`"
    f" and `cappuccino resume`; in a cluster set {API_SERVER}"
)
_STATUS = {Unauthenticated: 401, Forbidden: 403, NotFound: 404, Conflict: 409}

Handler = Callable[[web.Request], Awaitable[web.Response]]


class Wish(BaseModel):
    """The body of a POST."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    reason: str


@dataclass(frozen=True, kw_only=True)
class ApiServer:
    """Where requests go. `ca_file` None: this machine knows who signed its certificate."""

    url: str
    ca_file: str | None = None

    @classmethod
    def of(cls, url: str, ca_file: str) -> ApiServer | None:
        """None without a URL. Raises InvalidInput: not https, or there is no such file."""
        if not url:
            return None
        if not url.startswith("https://"):
            raise InvalidInput(f"{API_SERVER} is {url!r}: a token is sent there, so write https://host:port")
        if ca_file and not Path(ca_file).is_file():
            raise InvalidInput(f"{API_SERVER_CA} is {ca_file!r}, which is no file: name the API server's CA certificate")
        return cls(url=url, ca_file=ca_file or None)

    @asynccontextmanager
    async def seen_by(self, token: str, namespace: str) -> AsyncIterator[Remote]:
        """The cluster for one request, with the rights of whoever the token is of."""
        async with Client.bearing(token, url=self.url, ca_file=self.ca_file, seconds=_SECONDS) as client:
            objects = KubernetesObjects(client, ClusterIndex(client, namespaces=(namespace,)))
            yield Remote(namespace=namespace, objects=objects, record=None, client=client)


def add_routes(app: web.Application, server: ApiServer | None) -> None:
    async def traders(request: web.Request) -> web.Response:
        namespace = request.match_info["namespace"]
        async with _server(server).seen_by(_token(request), namespace) as cluster:
            found = await cluster.objects.list("Trader", namespace=namespace)
        return web.json_response({"items": [_view(document) for document in found]})

    async def halt(request: web.Request) -> web.Response:
        async with _asked(request, server, HALT) as wish:
            mark = await ask_to_halt(wish.cluster, wish.document, wish.reason, actor=wish.actor)
            return await wish.answer(lambda: halted(wish.cluster, wish.document, mark, wish.reason, seconds=wish.seconds))

    async def resume(request: web.Request) -> web.Response:
        async with _asked(request, server, RESUME) as wish:
            try:
                mark = await ask_to_resume(wish.cluster, wish.document, wish.reason, actor=wish.actor, seconds=wish.seconds)
            except NotYet as error:
                raise Conflict(f"it is being halted, and a resume lifts only a halt that its status tells: {error}") from error
            return await wish.answer(lambda: resumed(wish.cluster, wish.document, mark, seconds=wish.seconds))

    app.router.add_get(_TRADERS, _answering(traders))
    app.router.add_post(f"{_TRADERS}/{{name:{_NAME}}}/halt", _answering(halt))
    app.router.add_post(f"{_TRADERS}/{{name:{_NAME}}}/resume", _answering(resume))


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """One POST that was understood, of somebody whom the API server knows."""

    cluster: Remote
    document: Document
    verb: Verb
    reason: str
    actor: str
    seconds: float

    async def answer(self, done: Callable[[], Awaitable[Document]]) -> web.Response:
        """200 with the Trader when it is seen to be done in time, else 202 with what was asked."""
        metadata = self.document["metadata"]
        asked = {"asked": self.verb.name, "namespace": metadata["namespace"], "name": metadata["name"]}
        asked |= {"reason": self.reason, "by": self.actor}
        get_logger(__name__).info("asked", verb=self.verb.name, trader=metadata["name"], actor=self.actor)
        if not self.seconds:
            return web.json_response(asked, status=202)
        try:
            return web.json_response(asked | {"trader": _view(await done())})
        except RetryLater:
            return web.json_response(asked, status=202)


@asynccontextmanager
async def _asked(request: web.Request, server: ApiServer | None, verb: Verb) -> AsyncIterator[_Asked]:
    there, token = _server(server), _token(request)
    reason, seconds = await _reason(request), _wait(request)
    namespace, name = request.match_info["namespace"], request.match_info["name"]
    async with there.seen_by(token, namespace) as cluster:
        actor = await cluster.user()
        document = await cluster.objects.get(Key("Trader", namespace, name))
        if document is None:
            raise NotFound(
                f"trader/{name} is not in namespace {namespace}: GET /api/v1/namespaces/{namespace}/traders lists them"
            )
        yield _Asked(cluster=cluster, document=document, verb=verb, reason=reason, actor=actor, seconds=seconds)


def _server(server: ApiServer | None) -> ApiServer:
    if server is None:
        raise web.HTTPNotImplemented(text=_LOCAL)
    return server


def _token(request: web.Request) -> str:
    given = request.headers.getall("Authorization", [])
    found = _TOKEN.fullmatch(given[0]) if len(given) == 1 else None
    if found is None:
        raise Unauthenticated("no token: send the header Authorization: Bearer TOKEN, as `kubectl create token` makes one")
    return found[1]


async def _reason(request: web.Request) -> str:
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text=f"Content-Type is {request.content_type}: send application/json")
    try:
        reason = Wish.model_validate_json(await request.read(), strict=True).reason.strip()
    except ValidationError as error:
        raise InvalidInput(explain(error, Wish, source="body")) from error
    if not reason:
        raise InvalidInput('body: reason: is empty: write why, as {"reason": "spread looks wrong"}; the record shows it')
    if len(reason) > TEXT_MAX:
        raise InvalidInput(f"body: reason: has {len(reason)} characters: write at most {TEXT_MAX}")
    return reason


def _wait(request: web.Request) -> float:
    text = request.query.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= WAIT_MAX:
        raise InvalidInput(f"wait is {text!r}: write seconds from 0 to {WAIT_MAX:g}")
    return seconds


def _view(document: Document) -> dict[str, Any]:
    """A Trader as a page shows it. `halt` and `resume`: what was asked last, and whether the operator has acted on it."""
    metadata, spec, status = document["metadata"], document["spec"], document.get("status") or {}
    return {
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "account": spec["account"],
        "mode": spec["mode"],
        "on_halt": spec["onHalt"],
        "halted_reason": status.get("haltedReason"),
        **{verb.name: _request(metadata.get("annotations") or {}, verb) for verb in (HALT, RESUME)},
    }


def _request(annotations: dict[str, str], verb: Verb) -> dict[str, Any] | None:
    request = read(annotations, verb)
    if request is None:
        return None
    return {"reason": request.text, "by": request.actor, "at": annotations.get(key(verb.at)), "acted_on": not request.new}


def _answering(handler: Handler) -> Handler:
    """Every error as JSON, with the status that says whose it is."""

    async def answer(request: web.Request) -> web.Response:
        headers: dict[str, str] = {}
        try:
            return await handler(request)
        except web.HTTPException as error:
            status, said = error.status, error.text or error.reason
        except RetryLater as error:
            status, said, headers = 503, str(error), {"Retry-After": str(max(1, math.ceil(error.after_seconds)))}
            get_logger(__name__).warning("api_server_away", reason=said)
        except UserError as error:
            status, said = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 400), str(error)
            headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        return web.json_response({"error": said}, status=status, headers=headers)

    return answer
