"""Requests to an API server by plain HTTP, with nothing of the product in between."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp

OURS = "/apis/cappuccino.dev/v1alpha1/namespaces/default"
PODS = "/api/v1/namespaces/default/pods"
_MERGE = "application/merge-patch+json"


class Api:
    """A context. A list and a watch are of one collection's path."""

    def __init__(self, url: str, *, token: str, ca: Path) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        self._ca = ca
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Api:
        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(self._ca)), limit=64)
        timeout = aiohttp.ClientTimeout(total=None, sock_read=300)
        self._session = aiohttp.ClientSession(connector=connector, headers=self._headers, timeout=timeout, read_bufsize=2**20)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(await self.text(path, **query))
        return document

    async def text(self, path: str, **query: str) -> str:
        async with self._session.get(self._url + path, params=query) as answer:
            text = await answer.text()
            assert answer.status == 200, f"GET {path}: {answer.status} {text[:300]}"
            return text

    async def create(self, path: str, document: dict[str, Any]) -> None:
        await self._write("POST", path, document, "application/json")

    async def patch(self, path: str, body: dict[str, Any]) -> bool:
        """Whether there was an object to patch."""
        return await self._write("PATCH", path, body, _MERGE)

    async def _write(self, method: str, path: str, body: dict[str, Any], content: str) -> bool:
        headers = {"Content-Type": content}
        async with self._session.request(method, self._url + path, data=json.dumps(body), headers=headers) as answer:
            text = await answer.text()
            if answer.status == 404 and method == "PATCH":
                return False
            assert answer.status < 300, f"{method} {path}: {answer.status} {text[:300]}"
            return True

    async def watch(self, path: str, **query: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """(ADDED, MODIFIED or DELETED, object): what there is, then what changes, for as long as it is asked for."""
        version = ""
        while True:
            if not version:
                found = await self.get(path, **query)
                version = found["metadata"]["resourceVersion"]
                for item in found["items"]:
                    yield "ADDED", item
            parameters = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "240", "allowWatchBookmarks": "true"}
            try:
                async with self._session.get(self._url + path, params=parameters | query) as answer:
                    async for line in answer.content:
                        event = json.loads(line)
                        version = event["object"]["metadata"].get("resourceVersion", "")
                        if event["type"] == "ERROR":
                            version = ""  # too far behind: list again
                            break
                        if event["type"] != "BOOKMARK":
                            yield event["type"], event["object"]
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(0.2)
