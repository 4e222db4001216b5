"""Identity: digests, deterministic names, seeds and order ids.

A trial is (study uid, number), nothing less. An order id is a function of the decision that caused
it, so that any process that retries the decision arrives at the same id.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

NAME_MAX = 40  # of what a person names, so that the names of its children fit
CHILD_NAME_MAX = 63


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces; NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_hex(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


def digest_of(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`, hex."""
    return sha256_hex(canonical_json(value))


def trial_name(study: str, number: int) -> str:
    return f"{study}-{number:05d}"


def seed_of(*parts: str | int) -> int:
    """A 63-bit seed that depends on every part."""
    return int.from_bytes(hashlib.sha256("\x1f".join(str(p) for p in parts).encode()).digest()[:8], "big") >> 1


TRACEPARENT = "TRACEPARENT"  # the variable by which a process learns of the trace that it belongs to


def traceparent(study_uid: str) -> str:
    """W3C trace context of everything that follows from one Study: any process that knows the Study arrives at the same trace.

    Source: W3C Trace Context, version 00; always sampled.
    """
    digest = hashlib.sha256(study_uid.encode()).hexdigest()
    return f"00-{digest[:32]}-{digest[32:48]}-01"


def client_order_id(*, account: str, decision: str, symbol: str, leg: str, attempt: int = 0) -> str:
    """Deterministic id of one order: at most 48 characters, as Alpaca and Coinbase allow.

    `decision` is the bar's open time for rebalancing orders and the position's id for exits.
    """
    body = "\x1f".join((account, decision, symbol, leg, str(attempt)))
    return f"cap-{hashlib.sha256(body.encode()).hexdigest()[:40]}"
