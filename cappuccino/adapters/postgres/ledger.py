"""The Ledger port on PostgreSQL: one account's journal, under the trader's role.

Every method is one transaction. The database keeps the rules: an intent without the current, unexpired token is refused
(CP001 -> Fenced), and one that is not protective is refused while the account is halted (CP002 -> Halted). An account is of
one venue (CP007 -> InvalidInput). Rows are only ever added, except the trader's state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import Connection, Cursor
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from cappuccino.adapters.postgres.engine import away_is_retry, patient
from cappuccino.core.errors import InvalidInput, InvariantViolation
from cappuccino.trading.book import Fill
from cappuccino.trading.orders import Execution, Intent, Order, OrderState
from cappuccino.trading.ports import DecisionRow, EquityRow, Fenced, Halted, Json, LeaseState, OrderEvent, Recovery

_LOAD_SECONDS = 60.0  # of a journal of any length: nothing is guarded before it is read
_WAIT_SECONDS = 2.0  # for a connection: a trader that holds positions cannot wait longer

Pool = ConnectionPool[Connection[tuple[Any, ...]]]

_INTENT = """
    insert into intent (client_order_id, account, token, trader_uid, decision, symbol, side, type, time_in_force,
                        qty, notional, limit_price, quote_price, reason, created_at)
    values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
    on conflict (client_order_id) do nothing
"""
_EVENT = """
    insert into order_event (client_order_id, state, reason, venue_order_id, filled_qty, event_at)
    values (%s, %s, %s, %s, %s, %s)
"""
_FILL = """
    insert into fill (execution_id, account, client_order_id, symbol, side, qty, price, fee, fee_asset, filled_at)
    values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
    on conflict (account, execution_id) do nothing
"""
_STATE = """
    insert into trader_state (account, state) values (%s, %s)
    on conflict (account) do update set state = excluded.state, recorded_at = now()
"""
_DECISION = """
    insert into decision (account, bar_at, trader_uid, bundle_digest, intents, refusals, memory, trace, data_age_seconds)
    values (%s, %s, %s, %s, %s, %s, %s, %s, %s)
    on conflict (account, bar_at) do nothing
"""
_EQUITY = """
    insert into equity (account, bar_at, equity_usd, cash_usd, positions) values (%s, %s, %s, %s, %s)
    on conflict (account, bar_at) do nothing
"""
_COMMITTED = """
    select e.equity_usd = %(equity)s and e.cash_usd = %(cash)s and e.positions = %(positions)s
       and (%(intents)s::jsonb is null or d.intents = %(intents)s and d.refusals = %(refusals)s and d.memory = %(memory)s)
      from equity e left join decision d using (account, bar_at) where e.account = %(account)s and e.bar_at = %(bar_at)s
"""
_ORDERS = """
    select i.*, e.state, e.reason as state_reason, e.venue_order_id, coalesce(e.filled_qty, 0) as reported_qty
      from intent i
      left join lateral (
        select distinct on (o.client_order_id) o.state, o.reason,
               max(o.venue_order_id) over () as venue_order_id, max(o.filled_qty) over () as filled_qty
          from order_event o where o.client_order_id = i.client_order_id
         order by o.client_order_id, o.id desc) e on true
     where i.account = %s order by i.recorded_at, i.client_order_id
"""
_RENEW_ALL = """
    select coalesce(renewed.held, false), renewed.halted_reason
      from unnest(%s::text[], %s::text[], %s::bigint[], %s::double precision[])
           with ordinality as asked (name, holder, token, seconds, n)
      left join lateral account_renew(asked.name, asked.holder, asked.token, asked.seconds) as renewed on true
     order by asked.n
"""


class PostgresLedger:
    """`lease_seconds` is what every renewal asks for. With `terms`, a live Trader's, the account is halted whenever the record
    has no standing permit for them. Thread-safe."""

    def __init__(
        self,
        pool: Pool,
        *,
        account: str,
        venue: str,
        trader_uid: str,
        holder: str,
        lease_seconds: float,
        terms: str | None = None,
    ) -> None:
        self._pool = pool
        self._account = account
        self._venue = venue
        self._trader_uid = trader_uid
        self._holder = holder
        self._lease_seconds = lease_seconds
        self._terms = terms
        self._token = 0

    # --- lease --------------------------------------------------------------------------------------

    def acquire(self) -> LeaseState:
        with self._connection() as connection:
            row = connection.execute(
                "select token, halted_reason from account_acquire(%s, %s, %s, %s)",
                [self._account, self._venue, self._holder, self._lease_seconds],
            ).fetchone()
            if row is None:
                return LeaseState(held=False, token=0, halted_reason=None)
            self._token, halted = row
            if self._terms is not None:
                told = connection.execute(
                    "select account_terms(%s, %s, %s, %s)", [self._account, self._holder, self._token, self._terms]
                ).fetchone()
                halted = told[0] if told else halted
        return LeaseState(held=True, token=self._token, halted_reason=halted)

    def renew(self) -> LeaseState:
        with self._connection() as connection:
            row = connection.execute(
                "select held, halted_reason from account_renew(%s, %s, %s, %s)",
                [self._account, self._holder, self._token, self._lease_seconds],
            ).fetchone()
        held = row is not None and bool(row[0])
        return LeaseState(held=held, token=self._token if held else 0, halted_reason=row[1] if row else None)

    def permit(self) -> str | None:
        """What the record says of these terms: standing, ended (it may sell what it holds), or nothing."""
        with self._connection() as connection:
            row = connection.execute("select live_permit(%s, %s)", [self._account, self._terms]).fetchone()
        return row[0] if row else None

    def release(self) -> None:
        with self._connection() as connection:
            connection.execute("select account_release(%s, %s, %s)", [self._account, self._holder, self._token])

    def ended(self, reason: str) -> None:
        """It is not traded any more by a process that goes on; empty: its tape ended. Acquiring it takes that back."""
        with self._connection() as connection:
            connection.execute("select account_ended(%s, %s, %s, %s)", [self._account, self._venue, self._holder, reason])

    def halt(self, reason: str) -> None:
        with self._connection() as connection:
            connection.execute("select account_halt(%s, %s, %s)", [self._account, reason, f"trader/{self._trader_uid}"])

    def baseline(self, equity_usd: Decimal) -> Decimal:
        with self._connection() as connection:
            row = connection.execute(
                "select account_baseline(%s, %s, %s, %s)", [self._account, self._holder, self._token, equity_usd]
            ).fetchone()
        if row is None or row[0] is None:
            raise Fenced(f"account {self._account}: the lease was lost before the baseline was set")
        return Decimal(row[0])

    def reserve(self, usd: Decimal) -> Decimal:
        """What of the venue account's cash is not this trader's; `usd` becomes it when there is none."""
        with self._connection() as connection:
            row = connection.execute(
                "select account_reserve(%s, %s, %s, %s)", [self._account, self._holder, self._token, usd]
            ).fetchone()
        if row is None or row[0] is None:
            raise Fenced(f"account {self._account}: the lease was lost before the reserve was set")
        return Decimal(row[0])

    def units(self, held: Mapping[str, Decimal] | None) -> Mapping[str, Decimal] | None:
        """What the venue account held before this trader, by symbol; `held` becomes it when nothing is kept, None only asks."""
        asked = None if held is None else Jsonb({symbol: f"{qty:f}" for symbol, qty in held.items()})
        with self._connection() as connection:
            row = connection.execute(
                "select account_units(%s, %s, %s, %s)", [self._account, self._holder, self._token, asked]
            ).fetchone()
        kept = row[0] if row else None
        if kept is None and held is not None:
            raise Fenced(f"account {self._account}: the lease was lost before the units of others were kept")
        return None if kept is None else {symbol: Decimal(qty) for symbol, qty in kept.items()}

    # --- reading ------------------------------------------------------------------------------------

    def load(self) -> Recovery:
        with self._transaction() as connection, patient(connection, seconds=_LOAD_SECONDS):
            cursor = connection.cursor(row_factory=dict_row)
            account = [self._account]
            state = cursor.execute("select state from trader_state where account = %s", account).fetchone()
            decision = cursor.execute(
                "select * from decision where account = %s order by bar_at desc limit 1", account
            ).fetchone()
            orders = cursor.execute(_ORDERS, account).fetchall()
            fills = cursor.execute(
                "select * from fill where account = %s order by filled_at, side desc, recorded_at, execution_id", account
            ).fetchall()  # at one instant sales come first, as they were sent
        executions: dict[str, dict[str, Execution]] = {}
        for row in fills:
            executions.setdefault(row["client_order_id"], {})[row["execution_id"]] = Execution(
                execution_id=row["execution_id"],
                qty=row["qty"],
                price=row["price"],
                at=row["filled_at"],
                fee=row["fee"],
                fee_asset=row["fee_asset"],
            )
        return Recovery(
            state=state["state"] if state else None,
            decision=_decision(decision) if decision else None,
            orders=[_order(row, executions.get(row["client_order_id"], {})) for row in orders],
            fills=[_fill(row) for row in fills],
        )

    # --- writing ------------------------------------------------------------------------------------

    def journal(self, intents: Sequence[Intent], *, state: Json | None) -> None:
        rows = [
            (
                *(i.client_order_id, i.account, self._token, i.trader_uid, i.decision, i.symbol, i.side, i.type),
                *(i.time_in_force, i.qty, i.notional, i.limit_price, i.quote_price, i.reason, i.created_at),
            )
            for i in intents
        ]
        with self._transaction() as connection, connection.cursor() as cursor:
            cursor.executemany(_INTENT, rows)
            if state is not None:
                cursor.execute(_STATE, [self._account, Jsonb(state)])

    def record(self, *, events: Sequence[OrderEvent], fills: Sequence[Fill], state: Json | None = None) -> None:
        with self._transaction() as connection, connection.cursor() as cursor:
            if events:
                cursor.executemany(
                    _EVENT,
                    [(e.client_order_id, str(e.state), e.reason, e.venue_order_id, e.filled_qty, e.at) for e in events],
                )
            if fills:
                cursor.executemany(
                    _FILL,
                    [
                        (
                            *(f.execution_id, self._account, f.client_order_id, f.symbol, f.side, f.qty, f.price),
                            *(f.fee, f.fee_asset, f.filled_at),
                        )
                        for f in fills
                    ],
                )
            if state is not None:
                cursor.execute(_STATE, [self._account, Jsonb(state)])

    def commit(self, *, decision: DecisionRow | None, equity: EquityRow, state: Json) -> None:
        """Once per bar: repeated, because the answer was lost, it changes nothing. A bar that is there with other content is
        somebody's later decision about the same bar: Fenced, and the trader starts again from the journal."""
        with self._transaction() as connection, connection.cursor() as cursor:
            if decision is not None:
                cursor.execute(
                    _DECISION,
                    [
                        *(self._account, decision.bar_at, self._trader_uid, decision.bundle_digest),
                        *(Jsonb(list(decision.intents)), Jsonb(list(decision.refusals)), Jsonb(decision.memory)),
                        *(Jsonb(decision.trace), decision.data_age_seconds),
                    ],
                )
            cursor.execute(_EQUITY, [self._account, equity.bar_at, equity.equity_usd, equity.cash_usd, Jsonb(equity.positions)])
            if cursor.rowcount == 0:
                self._require_same(cursor, decision, equity)
            cursor.execute(_STATE, [self._account, Jsonb(state)])

    def _require_same(self, cursor: Cursor[Any], decision: DecisionRow | None, equity: EquityRow) -> None:
        given = {
            "account": self._account,
            "bar_at": equity.bar_at,
            "equity": equity.equity_usd,
            "cash": equity.cash_usd,
            "positions": Jsonb(equity.positions),
            "intents": None if decision is None else Jsonb(list(decision.intents)),
            "refusals": None if decision is None else Jsonb(list(decision.refusals)),
            "memory": None if decision is None else Jsonb(decision.memory),
        }
        row = cursor.execute(_COMMITTED, given).fetchone()
        if row is None or not row[0]:
            raise Fenced(f"account {self._account}: bar {equity.bar_at} was committed with another decision")

    def save(self, state: Json) -> None:
        """Without waiting for the disk: what this writes is a peak, which the next write repeats."""
        with self._transaction() as connection:
            connection.execute("set local synchronous_commit = off")
            connection.execute(_STATE, [self._account, Jsonb(state)])

    @contextmanager
    def _transaction(self) -> Iterator[Connection[tuple[Any, ...]]]:
        with self._connection() as connection, connection.transaction():
            yield connection

    @contextmanager
    def _connection(self) -> Iterator[Connection[tuple[Any, ...]]]:
        """In autocommit: one statement is one transaction."""
        try:
            with away_is_retry(), self._pool.connection(timeout=_WAIT_SECONDS) as connection:
                yield connection
        except psycopg.Error as error:
            message = (error.diag.message_primary or str(error)).strip()
            if error.sqlstate == "CP001":
                raise Fenced(message) from error
            if error.sqlstate == "CP002":
                raise Halted(message) from error
            if error.sqlstate == "CP007":
                raise InvalidInput(message) from error
            raise InvariantViolation(f"account {self._account}: the journal refuses a row: {message}") from error


def renew_together(pool: Pool, ledgers: Sequence[PostgresLedger]) -> list[LeaseState]:
    """One renewal for each ledger, all in one statement, which is one transaction. Raises RetryLater."""
    by_name = sorted(ledgers, key=lambda ledger: ledger._account)  # one order of locks, whoever else renews them
    columns = zip(*((ledger._account, ledger._holder, ledger._token, ledger._lease_seconds) for ledger in by_name), strict=True)
    with away_is_retry(), pool.connection(timeout=_WAIT_SECONDS) as connection:
        rows = connection.execute(_RENEW_ALL, list(map(list, columns))).fetchall()
    told = dict(zip(by_name, rows, strict=True))
    return [
        LeaseState(held=held, token=ledger._token if held else 0, halted_reason=reason)
        for ledger, (held, reason) in ((ledger, told[ledger]) for ledger in ledgers)
    ]


def _decision(row: Mapping[str, Any]) -> DecisionRow:
    names = ("bar_at", "bundle_digest", "intents", "refusals", "memory", "trace", "data_age_seconds")
    return DecisionRow(**{name: row[name] for name in names})


def _order(row: Mapping[str, Any], executions: Mapping[str, Execution]) -> Order:
    names = (
        *("client_order_id", "account", "trader_uid", "decision", "symbol", "side", "reason", "created_at"),
        *("qty", "notional", "type", "time_in_force", "limit_price", "quote_price"),
    )
    filled = sum((e.qty for e in executions.values()), Decimal(0))
    return Order(
        intent=Intent(**{name: row[name] for name in names}),
        state=OrderState(row["state"] or OrderState.INITIALIZED),
        reason=row["state_reason"] or "",
        venue_order_id=row["venue_order_id"],
        reported_qty=max(row["reported_qty"], filled),
        executions=executions,
    )


def _fill(row: Mapping[str, Any]) -> Fill:
    names = ("execution_id", "client_order_id", "symbol", "side", "qty", "price", "fee", "fee_asset", "filled_at")
    return Fill(**{name: row[name] for name in names})
