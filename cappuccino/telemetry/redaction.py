"""Secrets never leave the process, neither in a log line nor in a span.

A value whose key speaks of a secret is replaced whatever it is; and so is the password of a URL in any text.
"""

from __future__ import annotations

import re
from typing import Any

_SECRET_KEY = re.compile(r"secret|password|token_value|api_key|authorization|credential", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(\w+://[^:/@\s]*):([^@\s]+)@")
REDACTED = "[redacted]"


def redacted(key: str, value: Any) -> Any:
    """What may be told of `value` under `key`."""
    if _SECRET_KEY.search(key):
        return REDACTED
    return redacted_text(value) if isinstance(value, str) else value


def redacted_text(text: str) -> str:
    return _URL_PASSWORD.sub(rf"\1:{REDACTED}@", text)
