"""Checks the audit chain: each row's hash covers the row and the hash before it, and sequence numbers have no holes.

The digest is computed here from the columns, not by the database's function, so that replacing that function hides nothing.
Rows cut off the end, or a chain that was written anew, cannot be seen from the chain alone: an anchor, the (seq, hash) that an
earlier check answered and that was kept elsewhere, shows that too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from psycopg import Connection

from cappuccino.controllers.rows import AuditRow
from cappuccino.core.errors import IntegrityError

_ROWS = """
    select seq, previous_hash, hash,
           jsonb_build_array(seq, actor, action, subject, body,
               to_char(recorded_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))::text
      from audit order by seq
"""
_BEGINNING = bytes(32)


def verify_audit(
    connection: Connection[Any],
    *,
    since: tuple[int, str] | None = None,
    told: Callable[[AuditRow], object] = lambda _: None,
) -> tuple[int, str]:
    """The newest row's (seq, hash in hex); (0, zeros) of an empty chain. `since`: what it answered before. `told` gets every
    row, as the bytes say that its hash covers.

    Raises:
        IntegrityError: names the first row that was changed, removed or put in between, or that is not what `since` says.
    """
    last_seq, last_hash = 0, _BEGINNING
    for seq, previous, stored, text in connection.execute(_ROWS):
        if seq != last_seq + 1:
            raise IntegrityError(f"audit: row {last_seq + 1} is missing: restore it from a backup and find who removed it")
        if bytes(previous) != last_hash or hashlib.sha256(last_hash + text.encode()).digest() != bytes(stored):
            raise IntegrityError(f"audit: row {seq} is not what was written: restore it from a backup and find who changed it")
        last_seq, last_hash = seq, bytes(stored)
        told(_row(*json.loads(text)))
        if since is not None and since[0] == seq and since[1] != last_hash.hex():
            raise IntegrityError(
                f"audit: row {seq} was {since[1][:12]}… and is {last_hash.hex()[:12]}…: the chain was written anew"
            )
    if since is not None and last_seq < since[0]:
        raise IntegrityError(f"audit: it ends at row {last_seq} and had {since[0]}: rows were cut off; restore a backup")
    return last_seq, last_hash.hex()


def _row(seq: int, actor: str, action: str, subject: str, body: dict[str, Any], recorded_at: str) -> AuditRow:
    at = datetime.fromisoformat(recorded_at)
    return AuditRow(seq=seq, actor=actor, action=action, subject=subject, body=body, recorded_at=at)
