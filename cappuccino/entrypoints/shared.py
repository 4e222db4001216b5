"""What the portfolios of one process have one of: the database pools, the round of leases, each bundle with its strategy, the
features of each contract, and of each venue the connections, the market stream and the line to the lockstep.

Nothing here knows an account. What is an account's own (keys, order updates, lease, journal, book) stays with its portfolio.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

from cappuccino.adapters.alpaca.feeds import Lockstep
from cappuccino.adapters.alpaca.rest import POOL_SIZE, Connections, Endpoints
from cappuccino.adapters.alpaca.streams import QuoteStream, StreamLoop
from cappuccino.adapters.artifacts import open_blobs
from cappuccino.adapters.postgres.engine import open_pool
from cappuccino.adapters.postgres.ledger import Pool, PostgresLedger, renew_together
from cappuccino.bundle import Bundle, fetch_local, strategy_of
from cappuccino.core.blobs import Blobs
from cappuccino.strategies.interface import Contract, Strategy
from cappuccino.trading.credentials import Credentials
from cappuccino.trading.lease import Rounds
from cappuccino.trading.ports import LeaseState, Ledger
from cappuccino.trading.window import Series

_T = TypeVar("_T")

LARGEST_POOL = 24  # connections of a process to the database, and to a venue
PORTFOLIOS_PER_CONNECTION = 8
STARTING_AT_ONCE = 8


class Shared:
    """Thread-safe. `leases` None: the one portfolio renews its own."""

    def __init__(self, pool: Pool, blobs: Blobs, bundle_folder: Path, *, connections: int, leases: Rounds | None) -> None:
        self.pool = pool
        self.leases = leases
        self.starting = threading.BoundedSemaphore(STARTING_AT_ONCE)
        self.loop = StreamLoop()
        self.connections = Connections(size=connections)
        self._blobs = blobs
        self._bundle_folder = bundle_folder
        self._lock = threading.Lock()
        self._made: dict[Hashable, object] = {}
        self._series: list[tuple[str, Contract, Series]] = []

    @classmethod
    @contextmanager
    def open(cls, database_url: str, artifacts_url: str, bundle_folder: Path, *, portfolios: int) -> Iterator[Shared]:
        """Raises InvalidInput, RetryLater: see `open_pool`."""
        size = min(max(portfolios // PORTFOLIOS_PER_CONNECTION, 2), LARGEST_POOL)
        with ExitStack() as stack:
            pool = stack.enter_context(open_pool(database_url, "trader", min_size=min(size, 2), max_size=size))
            leases = None
            if portfolios > 1:  # leases do not queue behind journals
                own = stack.enter_context(open_pool(database_url, "trader", min_size=1, max_size=1))
                leases = Rounds(partial(_renew, own), monotonic=time.monotonic)
            connections = max(size, POOL_SIZE)
            yield cls(pool, open_blobs(artifacts_url), bundle_folder, connections=connections, leases=leases)

    def decider(self, digest: str) -> tuple[Bundle, Strategy]:
        """A bundle and its strategy. Raises CappuccinoError, OSError: it cannot be read."""

        def read() -> tuple[Bundle, Strategy]:
            bundle = fetch_local(self._blobs, digest, self._bundle_folder)
            return bundle, strategy_of(bundle)

        return self._once(("bundle", digest), read)

    def series(self, venue: str, contract: Contract) -> Series:
        with self._lock:
            for at, known, series in self._series:
                if (at, known) == (venue, contract):
                    return series
            self._series.append((venue, contract, Series(contract)))
            return self._series[-1][2]

    def line(self, url: str, token: str) -> Lockstep:
        return self._once(("line", url), lambda: Lockstep(url, token=token))

    def quotes(self, credentials: Credentials, endpoints: Endpoints, symbols: Sequence[str]) -> QuoteStream:
        """The market's stream, with the key of whoever came first."""
        key = ("quotes", endpoints, tuple(symbols))
        return self._once(key, lambda: QuoteStream(credentials, endpoints, symbols=symbols, loop=self.loop))

    def _once(self, key: Hashable, make: Callable[[], _T]) -> _T:
        with self._lock:
            if key not in self._made:
                self._made[key] = make()
            return cast("_T", self._made[key])


def _renew(pool: Pool, ledgers: Sequence[Ledger]) -> Sequence[LeaseState]:
    return renew_together(pool, cast("Sequence[PostgresLedger]", ledgers))
