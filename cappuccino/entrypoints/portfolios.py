"""Several portfolios in one process: a thread for each, and nothing that happens to one ends another.

away (RetryLater) ──▶ started again after the pause that the error names
crashed (any other exception) ──▶ started again after a pause that doubles, until it crashed more often in a row than it may
a person must act, stored bytes are wrong, we are wrong ──▶ ended, as a process of its own would; the others go on, and the
                                                            record says that and why it did, so that its Trader shows it
told to stop ──▶ all of them end

A portfolio starts when one of the few places for starting is free: each asks the venue and the database for all that it
has ever done. A crash in native code ends them all, and so does memory that runs out: that is the price of sharing.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

from structlog.contextvars import bind_contextvars

from cappuccino.core.errors import PREEMPTED_EXIT_CODE, CappuccinoError, RetryLater
from cappuccino.telemetry.logs import get_logger

LONGEST_PAUSE_SECONDS = 60.0
_GRAVEST_FIRST = (70, 3, 2, 1, PREEMPTED_EXIT_CODE)

log = get_logger(__name__)


class Portfolio(Protocol):
    """`run` may be called again after it raised, but not after `end`."""

    account: str
    max_restarts: int

    def run(self) -> int: ...

    def end(self, reason: str) -> None:
        """Record that it is not run any more, and why; empty: its tape ended."""
        ...

    def stop(self, reason: str) -> None:
        """Make `run` return soon. From any thread, at any time."""
        ...


class Portfolios:
    def __init__(self, portfolios: Sequence[Portfolio]) -> None:
        self._portfolios = portfolios
        self._stopping = threading.Event()
        self._codes: dict[str, int] = {}

    def run(self) -> int:
        """Until all have ended; the gravest of their exit codes."""
        threads = [threading.Thread(target=self._keep, args=(each,), name=each.account) for each in self._portfolios]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(1.0)  # in between, signals are handled
        codes = set(self._codes.values())
        return next((code for code in _GRAVEST_FIRST if code in codes), 0)

    def stop(self, reason: str) -> None:
        self._stopping.set()
        for portfolio in self._portfolios:
            portfolio.stop(reason)

    def _keep(self, portfolio: Portfolio) -> None:
        bind_contextvars(account=portfolio.account)
        crashes, code = 0, PREEMPTED_EXIT_CODE
        while not self._stopping.is_set():
            try:
                code = portfolio.run()
                if code == 0:
                    portfolio.end("")
                break
            except RetryLater as error:
                log.warning("portfolio_away", error=str(error))
                self._stopping.wait(error.after_seconds)
            except CappuccinoError as error:
                log.error("portfolio_ended", error=str(error), exit_code=error.exit_code)
                code = error.exit_code
                portfolio.end(str(error))
                break
            except Exception as error:
                crashes += 1
                log.exception("portfolio_crashed", crashes=crashes)
                if crashes > portfolio.max_restarts:
                    code = 1
                    portfolio.end(f"crashed {crashes} times: {error}")
                    break
                self._stopping.wait(min(2.0 ** (crashes - 1), LONGEST_PAUSE_SECONDS))
        self._codes[portfolio.account] = code
