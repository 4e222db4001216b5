"""Calls to an API server with plain documents, and what its answers mean for us.

    404        None from `get`, else NotFound           409        Conflict
    400, 422   InvalidInput with the server's message   401, 403   Unauthenticated, Forbidden: names the permission
    408, 429, 5xx, no answer in time, no connection     RetryLater, after Retry-After when it is told

Every request has a time limit. Writes are made as the field manager `cappuccino`. Documents lose metadata.managedFields.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import config as untyped_config
from kubernetes.aio.client import ApiClient, Configuration

from cappuccino.adapters.kubernetes.answers import error_of, retry_after, status_of
from cappuccino.api import GROUP, KINDS, VERSION
from cappuccino.controllers.decision import Document
from cappuccino.core.errors import InvalidInput, NotFound, RetryLater

config: Any = untyped_config
FIELD_MANAGER = "cappuccino"
PAGE = 500
_SECONDS = 30.0  # of one request
_WATCH_SECONDS = 240  # after which the server ends a watch, and it is opened again
_JSON = "application/json"
_APPLY, _MERGE, _OPERATIONS = "application/apply-patch+yaml", "application/merge-patch+json", "application/json-patch+json"

Propagation = Literal["Background", "Foreground"]
OnCall = Callable[[str, str, int | str, float], None]  # verb, resource, HTTP code or why there is none, seconds


@dataclass(frozen=True)
class ApiResource:
    """One kind as the API server serves it."""

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """`namespace` None: of all namespaces."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        within = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
        rest = "".join(f"/{quote(part, safe='')}" for part in (name, subresource) if part)
        return f"{root}{within}/{self.plural}{rest}"


OURS = {name: ApiResource(GROUP, VERSION, kind.info.plural, name) for name, kind in KINDS.items()}
JOB = ApiResource("batch", "v1", "jobs", "Job")
STATEFULSET = ApiResource("apps", "v1", "statefulsets", "StatefulSet")
POD = ApiResource("", "v1", "pods", "Pod")
EVENT = ApiResource("", "v1", "events", "Event")
LEASE = ApiResource("coordination.k8s.io", "v1", "leases", "Lease")
REVIEW = ApiResource("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview")


def _unobserved(verb: str, resource: str, code: int | str, seconds: float) -> None: ...


class Client:
    """A context: connected inside it. `on_call` is told of every request."""

    def __init__(self, configuration: Any, *, on_call: OnCall = _unobserved, seconds: float = _SECONDS) -> None:
        self.api: Any = ApiClient(configuration)
        self.api.user_agent = FIELD_MANAGER
        self._host = configuration.host
        self._on_call = on_call
        self._timeout = aiohttp.ClientTimeout(total=seconds)

    @classmethod
    async def connect(
        cls, *, kubeconfig: str | None = None, context: str | None = None, on_call: OnCall = _unobserved
    ) -> Client:
        """By the files of a pod's service account, unless a kubeconfig or a context is named or there are none.

        Raises:
            InvalidInput: there is neither, or it cannot be read.
        """
        configuration = Configuration()
        try:
            if kubeconfig is None and context is None:
                try:
                    config.load_incluster_config(client_configuration=configuration)
                except config.ConfigException:
                    await config.load_kube_config(client_configuration=configuration)
            else:
                await config.load_kube_config(config_file=kubeconfig, context=context, client_configuration=configuration)
        except (config.ConfigException, OSError, ValueError) as error:
            where = kubeconfig or "KUBECONFIG"
            raise InvalidInput(f"no cluster to talk to ({where}: {error}): name a kubeconfig or a context") from error
        return cls(configuration, on_call=on_call)

    @classmethod
    def bearing(cls, token: str, *, url: str, ca_file: str | None, seconds: float = _SECONDS) -> Client:
        """As whoever the token is of. `ca_file` None: the server's certificate is known to this machine."""
        given = {"BearerToken": f"Bearer {token}"}
        return cls(Configuration(host=url.rstrip("/"), ssl_ca_cert=ca_file, api_key=given), seconds=seconds)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self.api.close()

    # --- reading ------------------------------------------------------------------------------------

    async def get(self, resource: ApiResource, namespace: str, name: str) -> Document | None:
        try:
            return await self._call("get", resource, "GET", resource.path(namespace, name))
        except NotFound:
            return None

    async def pages(
        self, resource: ApiResource, *, namespace: str | None = None, labels: str = "", fields: str = ""
    ) -> AsyncIterator[tuple[str, list[Document]]]:
        """(resourceVersion of the whole list, one page of it). Raises Expired when it took so long that it must begin anew."""
        query = {"limit": PAGE, "labelSelector": labels, "fieldSelector": fields}
        token = ""
        while True:
            page = await self._call("list", resource, "GET", resource.path(namespace), {**query, "continue": token})
            for item in page["items"]:
                item["apiVersion"], item["kind"] = resource.api_version, resource.kind
            yield page["metadata"]["resourceVersion"], [_slim(item) for item in page["items"]]
            token = page["metadata"].get("continue", "")
            if not token:
                return

    async def all(
        self, resource: ApiResource, *, namespace: str | None = None, labels: str = "", fields: str = ""
    ) -> list[Document]:
        pages = self.pages(resource, namespace=namespace, labels=labels, fields=fields)
        return [item async for _, page in pages for item in page]

    async def watch(
        self, resource: ApiResource, *, namespace: str | None = None, labels: str = "", version: str
    ) -> AsyncIterator[tuple[str, Document]]:
        """(ADDED, MODIFIED, DELETED or BOOKMARK, object) from after `version`, until the server ends it.

        Raises:
            Expired: `version` is too old; list again.
        """
        query = {
            "watch": "1",
            "resourceVersion": version,
            "labelSelector": labels,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": _WATCH_SECONDS,
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_SECONDS, sock_read=_WATCH_SECONDS + _SECONDS)
        response = await self._send("watch", resource, "GET", resource.path(namespace), query, timeout=timeout)
        try:
            async for line in _lines(response.response.content):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise error_of(int(event["object"].get("code", 500)), event["object"], what=f"watch {resource}")
                yield event["type"], _slim(event["object"])
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RetryLater(f"watch {resource}: {_why(error)}") from error
        finally:
            response.response.close()

    async def user(self) -> str:
        """As whom the server knows who is asking."""
        review = {"apiVersion": REVIEW.api_version, "kind": REVIEW.kind, "metadata": {"namespace": None}}
        answer = await self.create(REVIEW, review)
        return str(answer["status"]["userInfo"]["username"])

    # --- writing ------------------------------------------------------------------------------------

    async def create(self, resource: ApiResource, document: Document) -> Document:
        metadata = document["metadata"]
        path, query = resource.path(metadata["namespace"]), {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        return await self._call("create", resource, "POST", path, query, document)

    async def apply(self, resource: ApiResource, document: Document) -> Document:
        """Server-side apply; whatever others own of what is given becomes ours."""
        metadata = document["metadata"]
        path = resource.path(metadata["namespace"], metadata["name"])
        query = {"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"}
        return await self._call("apply", resource, "PATCH", path, query, document, content=_APPLY)

    async def patch(self, resource: ApiResource, namespace: str, name: str, body: Document) -> Document:
        """JSON merge patch."""
        path, query = resource.path(namespace, name), {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        return await self._call("patch", resource, "PATCH", path, query, body, content=_MERGE)

    async def replace_status(self, resource: ApiResource, namespace: str, name: str, status: Document, *, uid: str) -> Document:
        """InvalidInput also when the object has another uid: a failed test of a JSON patch has no code of its own."""
        path, query = resource.path(namespace, name, "status"), {"fieldManager": FIELD_MANAGER}
        operations: list[Document] = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "add", "path": "/status", "value": status},
        ]
        return await self._call("patch", resource, "PATCH", path, query, operations, content=_OPERATIONS, subresource="status")

    async def delete(
        self,
        resource: ApiResource,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        propagation: Propagation = "Background",
        grace_seconds: int | None = None,
    ) -> Document:
        """The object as it is now, or a Status when it is gone already."""
        body: Document = {"propagationPolicy": propagation}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        return await self._call("delete", resource, "DELETE", resource.path(namespace, name), None, body)

    # --- one request --------------------------------------------------------------------------------

    async def _call(
        self,
        verb: str,
        resource: ApiResource,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Document | list[Document] | None = None,
        *,
        content: str = _JSON,
        subresource: str = "",
    ) -> Document:
        response = await self._send(verb, resource, method, path, query, body, content=content, subresource=subresource)
        answer: Document = json.loads(response.data)
        return _slim(answer)

    async def _send(
        self,
        verb: str,
        resource: ApiResource,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Document | list[Document] | None = None,
        *,
        content: str = _JSON,
        subresource: str = "",
        timeout: aiohttp.ClientTimeout | None = None,  # noqa: ASYNC109 - aiohttp's own, not a duration
    ) -> Any:
        """The response, read unless it is a watch's. Raises what its code means."""
        what, told = f"{verb} {path}", f"{resource.plural}/{subresource}" if subresource else resource.plural
        given = {name: value for name, value in (query or {}).items() if value}
        url = f"{self._host}{path}?{urlencode(given)}" if given else f"{self._host}{path}"
        headers = {"Content-Type": content, "Accept": _JSON, "User-Agent": FIELD_MANAGER}
        outcome: int | str = "cancelled"
        began = time.monotonic()
        try:
            await self.api.update_params_for_auth(headers, None, ["BearerToken"], path, method, body)
            response = await self.api.rest_client.request(
                method, url, headers=headers, body=body, _request_timeout=timeout or self._timeout
            )
            outcome = response.status
            if timeout is None or response.status >= 400:
                await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            outcome = "timeout" if isinstance(error, TimeoutError) else "unreachable"
            raise RetryLater(f"{what}: {_why(error)}") from error
        finally:
            self._on_call(verb, told, outcome, time.monotonic() - began)
        if response.status >= 400:
            raise error_of(response.status, status_of(response.data), what=what, after=retry_after(response.headers))
        return response


def selector(labels: Mapping[str, str] | None) -> str:
    return ",".join(f"{name}={value}" for name, value in (labels or {}).items())


def _slim(document: Document) -> Document:
    document.get("metadata", {}).pop("managedFields", None)
    return document


def _why(error: BaseException) -> str:
    return f"the API server does not answer ({type(error).__name__}{f': {error}' if str(error) else ''})"


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length: an object can be longer than the reader's limit."""
    rest = b""
    async for chunk in content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line:
                yield line
