"""What a failed request to a venue proves: the outcome policy.

400, 401, 403, 404, 422 and 429 with a body that can be read are definite: the venue did not take the request. A timeout, a
disconnect, a 5xx or a body that is not JSON proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from cappuccino.core.errors import InvalidInput, RetryLater

DEFINITE = frozenset({400, 401, 403, 404, 422, 429})


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a request failed. `definite`: the venue did not take it."""

    definite: bool
    status: int | None
    code: str
    message: str


def read_error(failure: Failure, what: str) -> Exception:
    """The error to raise for a read that failed."""
    if failure.definite and failure.status in (401, 403):
        return InvalidInput(
            f"{what}: the venue refuses the key ({failure.code}: {failure.message}): correct the account's secret"
        )
    if failure.definite and failure.status != 429:
        return InvalidInput(f"{what}: the venue refuses the request ({failure.code}: {failure.message})")
    return RetryLater(f"{what}: the venue is away ({failure.code}: {failure.message})")


def one_line(text: str) -> str:
    return " ".join(text.split())[:200]
