"""Asking an API server, and waiting for an answer, before there is a client library."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cappuccino.core.errors import RetryLater


@dataclass(frozen=True, kw_only=True)
class Api:
    url: str
    ca: Path
    token: str

    def get(self, path: str) -> Any:
        """One GET: parsed JSON, or text. Raises OSError when the server is away or refuses."""
        request = urllib.request.Request(f"{self.url}{path}", headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=5, context=ssl.create_default_context(cafile=self.ca)) as answer:
            body = answer.read().decode()
        return json.loads(body) if body.startswith("{") else body


def wait(what: str, ready: Callable[[], bool], *, seconds: float = 60, see: Path) -> None:
    """Wait until `ready`; a failure to connect means not yet. `see` is the file that tells why it did not come."""
    until = time.monotonic() + seconds
    reason = ""
    while time.monotonic() < until:
        try:
            if ready():
                return
        except OSError as error:
            reason = f" ({error})"
        time.sleep(0.05)
    raise RetryLater(f"{what} is not ready after {seconds:.0f} s{reason}: see {see}")
