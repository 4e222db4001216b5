"""The error tree, sorted by what the loop that meets an error must do.

CappuccinoError
├── RetryLater          nothing is wrong with the request: wait and try again
├── UserError           a person must change something; the message names value and remedy
│   ├── InvalidInput        a manifest, a file or an option is wrong
│   ├── NotFound            the thing named does not exist
│   └── Conflict            it exists already, or changed under us
├── IntegrityError      stored bytes are not what their digest or schema says
└── InvariantViolation  we are wrong: stop trading, keep the evidence

A message is one line: what, where, the value, the remedy.
"""

from __future__ import annotations

FINAL_EXIT_CODES = (2, 3, 70)  # a person must act; stored bytes are wrong; we were wrong: never tried again by itself
AWAY_EXIT_CODE = 75  # a dependency is away
PREEMPTED_EXIT_CODE = 143  # told to end by SIGTERM


class CappuccinoError(Exception):
    """Base of everything this package raises on purpose."""

    exit_code = 1


class RetryLater(CappuccinoError):
    """A dependency is away or busy. `after_seconds` is a hint for the queue."""

    exit_code = 75

    def __init__(self, message: str, *, after_seconds: float = 5.0) -> None:
        super().__init__(message)
        self.after_seconds = after_seconds


class UserError(CappuccinoError):
    """A person must change something."""

    exit_code = 2


class InvalidInput(UserError):
    """A manifest, a file or an option is wrong."""


class NotFound(UserError):
    """The thing named does not exist."""


class Conflict(UserError):
    """It exists already, or it changed since it was read."""


class IntegrityError(CappuccinoError):
    """Stored bytes do not match their digest or their schema."""

    exit_code = 3


class InvariantViolation(CappuccinoError):
    """A rule of our own was broken: never continue past it."""

    exit_code = 70
