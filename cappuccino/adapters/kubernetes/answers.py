"""What an API server's refusal means for us: one error of core/errors.py per kind of answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cappuccino.core.errors import CappuccinoError, Conflict, InvalidInput, NotFound, RetryLater

_BUSY_SECONDS = 1.0


class Expired(RetryLater):
    """The resourceVersion asked for is too old: list again."""


class Exists(Conflict):
    """An object of that name is there."""


class AnotherUid(Conflict):
    """The object of that name is not the one that was meant."""


class Unauthenticated(InvalidInput):
    """The server does not know who is asking."""


class Forbidden(InvalidInput):
    """Who is asking may not, by RBAC or by an admission policy."""


def status_of(body: bytes) -> Mapping[str, Any]:
    """The Status of a refusal; what stands between us and the server may answer with anything."""
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    return document if isinstance(document, dict) else {"message": body.decode(errors="replace").strip()[:500]}


def retry_after(headers: Mapping[str, str]) -> float | None:
    text = headers.get("Retry-After", "")
    return float(text) if text.isdigit() else None


def error_of(code: int, status: Mapping[str, Any], *, what: str, after: float | None = None) -> CappuccinoError:
    """`what` was asked; `after` is the Retry-After in seconds."""
    message, reason = str(status.get("message") or f"HTTP {code}"), status.get("reason")
    told = f"{message} ({what})"
    if code == 404:
        return NotFound(told)
    if code == 409:
        if reason == "AlreadyExists":
            return Exists(told)
        return AnotherUid(told) if "precondition" in message and "UID" in message else Conflict(told)
    if code == 422 and any(cause.get("field") == "metadata.uid" for cause in (status.get("details") or {}).get("causes", ())):
        return AnotherUid(told)
    if code == 410:
        return Expired(told, after_seconds=0.0)
    if code in (401, 403):
        remedy = ": grant it with a Role" if " cannot " in message or code == 401 else ""
        return (Unauthenticated if code == 401 else Forbidden)(f"{message}{remedy} ({what})")
    if code >= 500 and _is_a_bad_patch(message):
        return InvalidInput(told)
    if code in (408, 429) or code >= 500:
        return RetryLater(told, after_seconds=_BUSY_SECONDS if after is None else after)
    return InvalidInput(told)


def _is_a_bad_patch(message: str) -> bool:
    """Server-side apply answers 500 to a document that its schema refuses."""
    return "failed to create typed patch object" in message
