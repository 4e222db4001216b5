"""The record as the database keeps it: what migrating makes, who may write what, fences, halts and the audit chain."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg import Connection
from sqlalchemy import create_engine

from cappuccino.adapters.postgres.audit import verify_audit
from cappuccino.adapters.postgres.embedded import EmbeddedServer
from cappuccino.adapters.postgres.engine import ROLES, migrate, open_pool
from cappuccino.adapters.postgres.schema import metadata
from cappuccino.core.errors import IntegrityError, InvalidInput, RetryLater

PREPARE = """
insert into snapshot (digest, dataset_uid, manifest) values ('d', 'ds', '{}');
insert into study (uid, name, spec, snapshot, gate_starts_at) values ('s', 's', '{}', 'd', now());
insert into trial (study_uid, number, parameters, distributions, seed, state, created_at)
  values ('s', 0, '{}', '{}', 1, 'Waiting', now());
insert into trial_report (study_uid, number, step, value) values ('s', 0, 0, 1);
insert into account (name, venue, holder, token, expires_at) values ('a', 'sim', 'h', 1, now() + interval '1 hour');
insert into intent (client_order_id, account, token, trader_uid, decision, symbol, side, type, time_in_force, qty, reason,
  created_at) values ('o', 'a', 1, 't', 'd', 'X/USD', 'buy', 'market', 'gtc', 1, 'target', now());
insert into evidence (bundle_digest, gate, gate_version, scope, deployment_uid, outcome, message, detail)
  values ('b', 'g', 1, 's', 'd', 'Pass', '', '{}');
"""

INSERT_INTENT = (
    "insert into intent (client_order_id, account, token, trader_uid, decision, symbol, side, type, time_in_force, qty, reason,"
    " created_at) values (%(id)s, 'a', %(token)s, 't', 'd', 'X/USD', %(side)s, 'market', 'gtc', 1, %(reason)s, now())"
)

# statement -> the roles that may run it
STATEMENTS: dict[str, set[str]] = {
    "insert into object values ('Study', 'n', 'x', 'u', 1, 1, '{}', '{}', null)": {"operator"},
    "insert into workload (name, spec, state) values ('w', '{}', 'Pending')": {"operator"},
    "insert into snapshot (digest, dataset_uid, manifest) values ('e', 'ds', '{}')": {"ingest"},
    "insert into dataset_snapshot (dataset_uid, digest) values ('ds', 'd')": {"ingest"},
    "insert into gap (dataset_uid, symbol, start_at, end_at, state) values ('ds', 'X', now(), now(), 'open')": {"ingest"},
    "update gap set state = 'healed'": {"ingest"},
    "insert into study (uid, name, spec, snapshot, gate_starts_at) values ('r', 'r', '{}', 'd', now())": {"operator"},
    "update trial set state = 'Running'": {"operator"},
    "update trial set parameters = '{}'": set(),
    "insert into trial_report (study_uid, number, step, value) values ('s', 0, 1, 1)": {"trial"},
    "insert into trial_result (study_uid, number, succeeded, reason, record) values ('s', 0, true, '', '{}')": {"trial"},
    "update trial_report set value = 2": set(),
    "delete from trial_report": set(),
    "insert into window_opening (deployment_uid, bundle_digest, symbols, start_at, end_at)"
    " values ('d', 'b', '{}', now(), now())": {"gate"},
    "insert into evidence (bundle_digest, gate, gate_version, scope, deployment_uid, outcome, message, detail)"
    " values ('b2', 'g', 1, 's', 'd', 'Pass', '', '{}')": {"gate"},
    "update evidence set outcome = 'Pass'": set(),
    "delete from evidence": set(),
    "insert into promotion (deployment_uid, subject, bundle_digest, action, actor, reason)"
    " values ('d', 's', 'b', 'approved', 'me', '')": set(),
    "select promotion_append('d', 's', 'b', 'approved', 'me', 'why', null, null, null, 'deployment/x/y')": {"operator"},
    "select live_permit('a', 't')": {"trader", "operator"},
    "select account_reserve('a', 'h', 1, 5)": {"trader"},
    "select account_units('a', 'h', 1, '{}')": {"trader"},
    "select account_terms('a', 'h', 1, 't')": {"trader"},
    "select account_ended('a', 'sim', 'h', 'why')": {"trader"},
    "update promotion set action = 'approved'": set(),
    "delete from promotion": set(),
    "truncate promotion": set(),
    INSERT_INTENT % {"id": "'p'", "token": 1, "side": "'buy'", "reason": "'target'"}: {"trader"},
    "update intent set qty = 2": set(),
    "delete from intent": set(),
    "insert into order_event (client_order_id, state, reason, event_at) values ('o', 'New', '', now())": {"trader"},
    "insert into fill (execution_id, account, client_order_id, symbol, side, qty, price, fee, fee_asset, filled_at)"
    " values ('e', 'a', 'o', 'X/USD', 'buy', 1, 1, 0, 'X', now())": {"trader"},
    "insert into equity (account, bar_at, equity_usd, cash_usd, positions) values ('a', now(), 1, 1, '{}')": {"trader"},
    "insert into trader_state (account, state) values ('a', '{}')": {"trader"},
    "update trader_state set state = '{}'": {"trader"},
    "update account set token = 9": set(),
    "update account set halted_reason = null": set(),
    "delete from account": set(),
    "select * from account_acquire('a2', 'sim', 'h', 5)": {"trader"},
    "select * from account_renew('a', 'h', 1, 5)": {"trader"},
    "select account_halt('a', 'why', 'me')": {"trader", "operator"},
    "select account_resume('a', 'why', 'me')": {"operator"},
    "select audit_append('me', 'did', 'it', '{}')": set(),
    "insert into audit values (1, 'me', 'did', 'it', '{}', now(), '', '')": set(),
    "update audit set actor = 'nobody'": set(),
    "delete from audit": set(),
    "truncate audit": set(),
    "alter table audit disable trigger all": set(),
    "select * from equity": {"operator", "dashboard", "trader", "gate"},
    "select * from trial_result": {"operator", "dashboard", "trial", "gate"},
    "select * from object": {"operator", "dashboard"},
    "create table mine (x int)": {"migrator"},
}


@pytest.fixture
def admin(database_url: str) -> Iterator[Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def test_migrating_makes_exactly_the_tables_of_the_schema(server: EmbeddedServer) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(server.url()))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": False})
        differences = compare_metadata(context, metadata)
    engine.dispose()
    assert differences == []


def test_migrating_again_and_several_at_once_changes_nothing(server: EmbeddedServer, admin: Connection[Any]) -> None:
    admin.execute("create database empty")
    errors: list[BaseException] = []

    def run() -> None:
        try:
            migrate(server.url("empty"))
        except BaseException as error:  # noqa: BLE001 - a thread's failure is the test's
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    migrate(server.url("empty"))
    with psycopg.connect(server.url("empty")) as connection:
        assert connection.execute("select version_num from alembic_version").fetchall() == [("0004",)]
    admin.execute("drop database empty")
    assert errors == []


@pytest.mark.parametrize("role", [role for role in ROLES if role != "migrator"])
def test_a_role_may_run_its_statements_and_no_others(admin: Connection[Any], role: str) -> None:
    admin.execute(PREPARE)
    wrong = []
    for statement, allowed in STATEMENTS.items():
        try:
            with admin.transaction(force_rollback=True):
                admin.execute(f"set local role cappuccino_{role}")
                admin.execute(statement)
            may = True
        except psycopg.errors.InsufficientPrivilege:
            may = False
        if may != (role in allowed):
            wrong.append((statement, may))
    assert wrong == []


def test_no_process_role_owns_a_table_or_may_log_in(admin: Connection[Any]) -> None:
    owners = admin.execute("select distinct tableowner from pg_tables where schemaname = 'public'").fetchall()
    logins = admin.execute("select rolname from pg_roles where rolname like 'cappuccino%' and rolcanlogin").fetchall()
    assert (owners, logins) == ([("cappuccino_migrator",)], [])


# --- accounts ---------------------------------------------------------------------------------------


def acquire(connection: Connection[Any], holder: str, *, seconds: float = 60, name: str = "a") -> list[tuple[Any, ...]]:
    return connection.execute("select * from account_acquire(%s, 'simulated', %s, %s)", [name, holder, seconds]).fetchall()


def intend(connection: Connection[Any], token: int, *, reason: str = "target", order: str = "o1", side: str = "buy") -> None:
    connection.execute(INSERT_INTENT, {"id": order, "token": token, "side": side, "reason": reason})


def test_an_account_has_one_holder_until_its_lease_ends(admin: Connection[Any]) -> None:
    assert acquire(admin, "one") == [(1, None)]
    assert acquire(admin, "two") == []
    assert acquire(admin, "one") == [(2, None)]
    admin.execute("update account set expires_at = now() - interval '1 second'")
    assert acquire(admin, "two") == [(3, None)]


def test_an_account_is_of_one_venue_for_good(admin: Connection[Any]) -> None:
    acquire(admin, "one")
    with pytest.raises(psycopg.Error, match="is of venue simulated, not of alpaca") as caught:
        admin.execute("select * from account_acquire('a', 'alpaca', 'one', 60)")
    assert caught.value.sqlstate == "CP007"


def test_what_a_live_trader_is_can_be_said_once(admin: Connection[Any]) -> None:
    acquire(admin, "one")
    for terms in ("first", "second", None):
        admin.execute("select account_terms('a', 'one', 1, %s)", [terms])
    assert admin.execute("select terms from account").fetchall() == [("first",)]


def test_a_trader_halts_under_no_name_but_its_own(admin: Connection[Any]) -> None:
    acquire(admin, "one")
    with admin.transaction():
        admin.execute("set local role cappuccino_trader")
        admin.execute("select account_halt('a', 'drawdown', 'alice@example.com')")
    assert admin.execute("select actor from audit").fetchall() == [("trader/one",)]


def test_renewing_keeps_the_lease_only_with_the_current_token_and_tells_of_a_halt(admin: Connection[Any]) -> None:
    acquire(admin, "one")
    admin.execute("select account_halt('a', 'drawdown', 'me')")
    renew = "select * from account_renew('a', %s, %s, 5)"
    assert admin.execute(renew, ["one", 1]).fetchall() == [(True, "drawdown")]
    assert admin.execute(renew, ["one", 7]).fetchall() == [(False, "drawdown")]
    assert admin.execute(renew, ["two", 1]).fetchall() == [(False, "drawdown")]


def test_an_intent_needs_the_current_token(admin: Connection[Any]) -> None:
    acquire(admin, "one")
    acquire(admin, "one")
    intend(admin, 2)
    for token in (1, 3):
        with pytest.raises(psycopg.Error) as caught:
            intend(admin, token, order=f"o-{token}")
        assert caught.value.sqlstate == "CP001"


def test_an_intent_needs_a_lease_that_has_not_ended(admin: Connection[Any]) -> None:
    acquire(admin, "one")
    admin.execute("update account set expires_at = now() - interval '1 millisecond'")
    with pytest.raises(psycopg.Error) as caught:
        intend(admin, 1)
    assert caught.value.sqlstate == "CP001"


def test_a_halted_account_takes_protective_intents_only_until_it_is_resumed(admin: Connection[Any]) -> None:
    acquire(admin, "one")
    admin.execute("select account_halt('a', 'by hand', 'me')")
    with pytest.raises(psycopg.Error) as caught:
        intend(admin, 1)
    assert caught.value.sqlstate == "CP002"
    for reason in ("stop_loss", "trailing_stop", "take_profit", "time_limit", "flatten"):
        intend(admin, 1, reason=reason, order=reason, side="sell")
        with pytest.raises(psycopg.Error) as caught:
            intend(admin, 1, reason=reason, order=f"buy-{reason}")
        assert caught.value.sqlstate == "CP002"
    admin.execute("select account_resume('a', 'looked at it', 'me')")
    intend(admin, 1)


def test_once_a_halt_has_returned_no_entry_that_was_under_way_commits(admin: Connection[Any], database_url: str) -> None:
    acquire(admin, "one")
    with psycopg.connect(database_url) as trader, psycopg.connect(database_url, autocommit=True) as operator:
        intend(trader, 1)  # judged, not committed
        operator.execute("set lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            operator.execute("select account_halt('a', 'now', 'me')")
        trader.commit()
        operator.execute("select account_halt('a', 'now', 'me')")


def test_an_entry_that_arrives_while_a_halt_is_under_way_waits_for_it_and_is_refused(
    admin: Connection[Any], database_url: str
) -> None:
    acquire(admin, "one")
    caught: list[str | None] = []

    def enter() -> None:
        with psycopg.connect(database_url, autocommit=True) as trader:
            try:
                intend(trader, 1)
            except psycopg.Error as error:
                caught.append(error.sqlstate)

    thread = threading.Thread(target=enter)
    with psycopg.connect(database_url) as operator:
        operator.execute("select account_halt('a', 'now', 'me')")
        thread.start()
        waiting = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        while thread.is_alive() and admin.execute(waiting).fetchone() is None:
            thread.join(0.01)
        operator.commit()
    thread.join()
    assert caught == ["CP002"]


def test_the_first_halt_stands_and_a_resume_needs_a_reason(admin: Connection[Any]) -> None:
    acquire(admin, "one")
    admin.execute("select account_halt('a', 'first', 'me')")
    admin.execute("select account_halt('a', 'second', 'me')")
    assert admin.execute("select halted_reason from account").fetchall() == [("first",)]
    with pytest.raises(psycopg.Error) as caught:
        admin.execute("select account_resume('a', ' ', 'me')")
    assert caught.value.sqlstate == "CP004"
    admin.execute("select account_resume('a', 'checked', 'me')")
    actions = admin.execute("select action, body ->> 'reason' from audit order by seq").fetchall()
    assert actions == [("halt", "first"), ("resume", "checked")]


def test_the_first_baseline_stands(admin: Connection[Any]) -> None:
    acquire(admin, "one")
    baseline = "select account_baseline('a', %s, 1, %s)"
    assert admin.execute(baseline, ["two", 5]).fetchone() == (None,)
    assert admin.execute(baseline, ["one", 10]).fetchone() == (10,)
    assert admin.execute(baseline, ["one", 20]).fetchone() == (10,)


# --- audit ------------------------------------------------------------------------------------------


def append(connection: Connection[Any], subject: str) -> None:
    connection.execute("select audit_append('me', 'did', %s, %s)", [subject, json.dumps({"b": 1.50, "ä": [None, "x"]})])


def test_the_audit_chain_verifies_and_is_linear_under_concurrent_writers(admin: Connection[Any], database_url: str) -> None:
    def write(worker: int) -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            for number in range(10):
                append(connection, f"{worker}-{number}")

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verify_audit(admin)[0] == 40


@pytest.mark.parametrize(
    "tamper",
    [
        "update audit set actor = 'someone' where seq = 2",
        """update audit set body = '{"b": 1.51}' where seq = 2""",
        "update audit set recorded_at = recorded_at + interval '1 microsecond' where seq = 2",
        "delete from audit where seq = 2",
        "update audit set hash = previous_hash where seq = 2",
        "delete from audit where seq = 1",
        "update audit set seq = seq + 1 where seq = 3",
    ],
)
def test_tampering_with_the_audit_is_found(admin: Connection[Any], tamper: str) -> None:
    for subject in ("x", "y", "z"):
        append(admin, subject)
    verify_audit(admin)
    admin.execute(tamper)
    with pytest.raises(IntegrityError, match="audit: row"):
        verify_audit(admin)


def test_an_anchor_shows_what_was_cut_off_or_written_anew(admin: Connection[Any]) -> None:
    for subject in ("x", "y", "z"):
        append(admin, subject)
    anchor = verify_audit(admin)
    append(admin, "more")
    assert verify_audit(admin, since=anchor)[0] == 4
    admin.execute("delete from audit where seq > 2")
    assert verify_audit(admin)[0] == 2  # the chain alone does not see it
    with pytest.raises(IntegrityError, match="ends at row 2 and had 3"):
        verify_audit(admin, since=anchor)
    append(admin, "another")
    with pytest.raises(IntegrityError, match=r"row 3 was .* written anew"):
        verify_audit(admin, since=anchor)


# --- connections and the private server -------------------------------------------------------------


def test_a_pool_takes_its_role(database_url: str) -> None:
    with open_pool(database_url, "trial") as pool, pool.connection() as connection:
        assert connection.execute("select current_user").fetchone() == ("cappuccino_trial",)


@pytest.mark.parametrize("url", ["nonsense", "mysql://x", "postgresql://host:port/x"])
def test_a_wrong_url_is_the_persons_to_correct(url: str) -> None:
    with pytest.raises(InvalidInput, match="database URL is wrong"):
        open_pool(url, "trial")


def test_an_absent_database_is_the_persons_to_correct(server: EmbeddedServer) -> None:
    with pytest.raises(InvalidInput, match="does not exist"):
        open_pool(server.url("absent"), "trial")


def test_a_server_that_is_away_is_tried_again_later() -> None:
    with pytest.raises(RetryLater):
        open_pool("postgresql://postgres@127.0.0.1:1/x", "trial")


def test_a_server_is_shared_and_ends_with_its_last_user(tmp_path: Any) -> None:
    one, two = EmbeddedServer(tmp_path / "pg"), EmbeddedServer(tmp_path / "pg")
    url = one.start()
    assert two.start() == url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table kept (x int)")
    one.stop()
    with psycopg.connect(url) as connection:
        connection.execute("select * from kept")
    two.stop()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    with EmbeddedServer(tmp_path / "pg") as again, psycopg.connect(again.url()) as connection:
        assert connection.execute("select count(*) from kept").fetchone() == (0,)


def test_a_server_ends_when_its_runner_is_killed_and_starts_again_by_the_same_call(tmp_path: Any) -> None:
    script = (
        "import sys, time; from pathlib import Path; from cappuccino.adapters.postgres.embedded import EmbeddedServer\n"
        "server = EmbeddedServer(Path(sys.argv[1])); print(server.start(), flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "pg")], stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        url = runner.stdout.readline().strip()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("create table kept (x int)")
            runner.kill()
            runner.wait()
            with pytest.raises(psycopg.OperationalError):  # ends at the latest when the server does
                connection.execute("select pg_sleep(60)")
    with EmbeddedServer(tmp_path / "pg") as again, psycopg.connect(again.url()) as connection:
        assert connection.execute("select count(*) from kept").fetchone() == (0,)


@pytest.mark.slow
def test_a_server_starts_again_at_once_at_whatever_point_of_its_end_it_is(tmp_path: Any) -> None:
    script = (
        "import sys, time; from pathlib import Path; from cappuccino.adapters.postgres.embedded import EmbeddedServer\n"
        "server = EmbeddedServer(Path(sys.argv[1])); print(server.start(), flush=True); time.sleep(600)"
    )
    for pause in (0.0, 0.001, 0.01, 0.02, 0.04, 0.08, 0.12):
        with subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "pg")], stdout=subprocess.PIPE) as runner:
            assert runner.stdout is not None
            runner.stdout.readline()
            runner.kill()
        threading.Event().wait(pause)
        with EmbeddedServer(tmp_path / "pg", start_seconds=30) as again, psycopg.connect(again.url()) as connection:
            assert connection.execute("select 1").fetchone() == (1,)


def test_a_killed_server_comes_back(tmp_path: Any) -> None:
    with EmbeddedServer(tmp_path / "pg") as server:
        pid = int((tmp_path / "pg/data/postmaster.pid").read_text().split()[0])
        subprocess.run(["kill", "-9", str(pid)], check=True)
        pool = open_pool_when_back(server.url())
        pool.close()


def open_pool_when_back(url: str) -> Any:
    for _ in range(100):
        try:
            migrate(url)
            return open_pool(url, "operator")
        except RetryLater:
            threading.Event().wait(0.1)
    raise AssertionError("the server did not come back")


def test_a_server_on_a_port_asks_for_its_password_and_refuses_a_port_in_use(tmp_path: Any) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InvalidInput, match=f"port {port} is in use"):
            EmbeddedServer(tmp_path / "pg", port=port).start()
    with EmbeddedServer(tmp_path / "pg", port=port) as server:
        assert psycopg.connect(server.url()).execute("select 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(f"postgresql://postgres:wrong@127.0.0.1:{port}/cappuccino")


def test_data_of_another_major_version_is_refused(tmp_path: Any) -> None:
    (tmp_path / "pg/data").mkdir(parents=True)
    (tmp_path / "pg/data/PG_VERSION").write_text("9\n")
    with pytest.raises(InvalidInput, match="made by PostgreSQL 9"):
        EmbeddedServer(tmp_path / "pg").start()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot be written"):
        EmbeddedServer(tmp_path / "file/pg").start()
