"""What every `Record` adapter does, each method under the role that may call it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import psycopg
import pytest

from cappuccino.adapters.optuna import OptunaSampler
from cappuccino.adapters.postgres.engine import Role, open_async_pool, open_pool
from cappuccino.adapters.postgres.events import PostgresEvents
from cappuccino.adapters.postgres.history import Histories
from cappuccino.adapters.postgres.lock import RunnerLock
from cappuccino.adapters.postgres.record import PostgresRecord
from cappuccino.adapters.postgres.trials import TrialWriter
from cappuccino.controllers.decision import Event, Key
from cappuccino.controllers.rows import Evidence, Gap, Promotion
from cappuccino.core.errors import Conflict, InvalidInput, NotFound
from cappuccino.reconcile.ports import Record
from cappuccino.search.space import parse_space
from cappuccino.search.trials import NewTrial, TrialResult, TrialRow, TrialState

AT = datetime(2024, 3, 1, tzinfo=UTC)
ADAPTERS = ["postgres"]
As = Callable[[Role], Awaitable[Record]]


@pytest.fixture(params=ADAPTERS)
async def record_as(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[As]:
    """The record, seen by a process of the given role."""
    pools: dict[str, Any] = {}

    async def open_as(role: Role) -> Record:
        if role not in pools:
            pools[role] = await open_async_pool(database_url, role)
        return PostgresRecord(pools[role], poll_seconds=5)

    yield open_as
    for pool in pools.values():
        await pool.close()


@pytest.fixture
async def record(record_as: As) -> Record:
    return await record_as("operator")


async def snapshot(
    record_as: As, digest: str = "d1", *, dataset_uid: str = "ds", manifest: dict[str, Any] | None = None
) -> None:
    await (await record_as("ingest")).register_snapshot(
        dataset_uid=dataset_uid, digest=digest, manifest=manifest or {"bars": 1}
    )


async def pinned(record_as: As, uid: str = "s") -> Record:
    await snapshot(record_as)
    record = await record_as("operator")
    await record.pin_study(uid=uid, name="study", spec={"lookback": 1}, snapshot="d1", gate_starts_at=AT)
    return record


def new(number: int, **changes: Any) -> NewTrial:
    base: dict[str, Any] = {
        "parameters": {"a": "1"},
        "distributions": {"a": {"type": "int", "low": 0, "high": 9}},
        "seed": 2**62,
    }
    return NewTrial(number=number, **{**base, **changes})


def verdict(**changes: Any) -> Evidence:
    base: dict[str, Any] = {
        "bundle_digest": "b", "gate": "window", "gate_version": 1, "scope": "d1", "deployment_uid": "dep", "outcome": "Fail",
        "message": "too small", "measured": 0.1, "threshold": 0.2, "minimum_detectable": 5.7, "detail": {"p": [0.5, None]},
    }  # fmt: skip
    return Evidence(**{**base, **changes})


# --- market -----------------------------------------------------------------------------------------


async def test_the_snapshot_registered_last_is_the_current_one_even_when_it_was_current_before(record_as: As) -> None:
    record = await record_as("operator")
    assert await record.current_snapshot("ds") is None
    for digest in ("d1", "d1", "d2", "d1"):
        await snapshot(record_as, digest)
    current = await record.current_snapshot("ds")
    assert current is not None
    assert (current.digest, current.dataset_uid, current.manifest) == ("d1", "ds", {"bars": 1})


async def test_two_datasets_may_have_the_same_snapshot(record_as: As) -> None:
    await snapshot(record_as, "d1", dataset_uid="one")
    await snapshot(record_as, "d1", dataset_uid="two")
    record = await record_as("operator")
    found = [await record.current_snapshot(uid) for uid in ("one", "two")]
    assert [row.digest for row in found if row] == ["d1", "d1"]
    assert await record.snapshot("d1") is not None
    assert await record.snapshot("never") is None


async def test_a_gap_is_remembered_with_its_newest_state(record_as: As) -> None:
    ingest = await record_as("ingest")
    gap = Gap(symbol="BTC/USD", start_at=AT, end_at=AT + timedelta(hours=2), state="open")
    await ingest.record_gaps(dataset_uid="ds", gaps=[gap])
    healed = Gap(symbol="BTC/USD", start_at=AT, end_at=AT + timedelta(hours=2), state="healed")
    await ingest.record_gaps(dataset_uid="ds", gaps=[healed, healed])
    assert await ingest.gaps("ds") == [healed]
    assert await ingest.gaps("other") == []


# --- search -----------------------------------------------------------------------------------------


async def test_the_first_pin_of_a_study_wins_and_is_told_to_all(record_as: As) -> None:
    record = await pinned(record_as)
    await snapshot(record_as, "d2")
    again = await record.pin_study(uid="s", name="x", spec={"lookback": 9}, snapshot="d2", gate_starts_at=AT + timedelta(1))
    assert (again.name, again.spec, again.snapshot, again.gate_starts_at) == ("study", {"lookback": 1}, "d1", AT)
    assert await record.study("s") == again
    assert await record.study("never") is None


async def test_a_study_cannot_be_pinned_to_a_snapshot_that_nobody_registered(record: Record) -> None:
    with pytest.raises(InvalidInput, match="snapshot d9 is not registered"):
        await record.pin_study(uid="s", name="x", spec={}, snapshot="d9", gate_starts_at=AT)


async def test_of_two_inserts_of_a_number_the_first_stands(record_as: As) -> None:
    record = await pinned(record_as)
    await asyncio.gather(
        *(record.insert_trials(study_uid="s", trials=[new(n) for n in range(3)], at=AT) for _ in range(4)),
    )
    await record.insert_trials(study_uid="s", trials=[new(2, parameters={"a": "7"}), new(3, phase="two")], at=AT)
    rows = await record.trials("s")
    assert [(row.number, row.parameters, row.state, row.phase) for row in rows] == [
        (0, {"a": "1"}, "Waiting", ""),
        (1, {"a": "1"}, "Waiting", ""),
        (2, {"a": "1"}, "Waiting", ""),
        (3, {"a": "1"}, "Waiting", "two"),
    ]
    assert (rows[0].seed, rows[0].created_at, rows[0].finished) == (2**62, AT, False)
    assert await record.trials("other") == []


async def test_a_trial_moves_only_from_the_states_that_were_named(record_as: As) -> None:
    record = await pinned(record_as)
    await record.insert_trials(study_uid="s", trials=[new(0)], at=AT)
    move = {"study_uid": "s", "number": 0}
    assert not await record.set_trial_state(**move, from_states=["Running"], to_state="Complete", at=AT)
    assert await record.set_trial_state(**move, from_states=["Waiting"], to_state="Running", at=AT)
    later = AT + timedelta(minutes=5)
    assert await record.set_trial_state(**move, from_states=["Running"], to_state="Running", at=later)
    assert await record.set_trial_state(
        **move,
        from_states=["Waiting", "Running"],
        to_state="Complete",
        at=later,
        reason="fine",
        objective=1.5,
        bundle_digest="b",
    )
    assert not await record.set_trial_state(**move, from_states=["Running"], to_state="Failed", at=later)
    (row,) = await record.trials("s")
    assert (row.state, row.reason, row.objective, row.bundle_digest) == ("Complete", "fine", 1.5, "b")
    assert (row.started_at, row.finished_at, row.finished) == (AT, later, True)


async def test_what_a_trainer_writes_is_read_with_its_trial(record_as: As, database_url: str) -> None:
    record = await pinned(record_as)
    await record.insert_trials(study_uid="s", trials=[new(0), new(1)], at=AT)
    with open_pool(database_url, "trial") as pool:
        trainer = TrialWriter(pool)
        assert trainer.study("s").snapshot == "d1"
        assert trainer.snapshot("d1").manifest == {"bars": 1}
        for step, value in ((10, 0.5), (2, 0.25), (2, 99.0)):
            trainer.report("s", 0, step=step, value=value)
        result = TrialResult(succeeded=True, reason="", objective=1.5, bundle_digest="b", record={"folds": [1.0, None]})
        assert trainer.finish("s", 0, result) == result
        other = TrialResult(succeeded=False, reason="again")
        assert trainer.finish("s", 0, other) == result
    first, second = await record.trials("s")
    assert (dict(first.reports), first.result) == ({2: 0.25, 10: 0.5}, result)
    assert list(first.reports) == [2, 10]
    assert (second.reports, second.result) == ({}, None)
    assert await record.trial("s", 0) == replace(first, result=replace(result, record={}))
    assert await record.trial("s", 1) == second
    assert await record.trial("s", 2) is None


async def test_peers_are_the_reports_of_that_step_by_others_in_the_states_that_were_asked_for(
    record_as: As, database_url: str
) -> None:
    record = await pinned(record_as)
    await record.insert_trials(study_uid="s", trials=[new(n) for n in range(5)], at=AT)
    with open_pool(database_url, "trial") as pool:
        for number in range(5):
            for step in range(2):
                TrialWriter(pool).report("s", number, step=step, value=number + step / 10)
    for number, state in enumerate(("Complete", "Pruned", "Failed", "Running")):
        await record.set_trial_state(study_uid="s", number=number, from_states=["Waiting"], to_state=state, at=AT)
    finished: tuple[TrialState, ...] = ("Complete", "Pruned")
    assert sorted(await record.peers("s", 4, 1, finished)) == [0.1, 1.1]
    assert await record.peers("s", 0, 0, finished) == [1.0]
    assert await record.peers("s", 0, 2, finished) == []
    assert sorted(await record.peers("s", 0, 0, ("Running", *finished))) == [1.0, 3.0]


# --- the history of a search ------------------------------------------------------------------------


async def move(record: Record, number: int, state: TrialState, **changes: Any) -> None:
    moved = await record.set_trial_state(
        study_uid="s", number=number, from_states=["Waiting", "Running"], to_state=state, at=AT, **changes
    )
    assert moved


def slim(rows: Sequence[TrialRow]) -> list[TrialRow]:
    return [replace(row, reports={}, result=None) for row in rows]


async def test_the_history_is_the_trials_without_reports_and_results(record_as: As, database_url: str) -> None:
    record = await pinned(record_as)
    await record.insert_trials(study_uid="s", trials=[new(0, phase="one"), new(1, parameters={"a": "2"})], at=AT)
    with open_pool(database_url, "trial") as pool:
        TrialWriter(pool).report("s", 0, step=0, value=0.5)
        measured = {"folds": [1.0] * 1000, "metrics": {"max_drawdown": 0.1, "turnover": 9.5}}
        TrialWriter(pool).finish("s", 0, TrialResult(succeeded=True, reason="", objective=1.0, record=measured))
        TrialWriter(pool).finish("s", 1, TrialResult(succeeded=True, reason="", objective=1.0, record=measured))
    told = await record.trial("s", 0)
    assert told is not None
    assert told.result is not None
    assert (told.result.record, told.metrics) == ({"metrics": measured["metrics"]}, {})  # before the controller has moved it
    await move(record, 0, "Complete", objective=1.0, bundle_digest="b")
    assert [row.metrics for row in await record.history("s")] == [measured["metrics"], {}]
    assert list(await record.history("s")) == slim(await record.trials("s"))
    assert list(await record.history("never")) == []


async def test_a_history_that_was_read_often_is_the_one_that_a_new_process_reads(record_as: As, database_url: str) -> None:
    """Two writers that take turns, as two operators around a change of the leader; each reads at any time."""
    one, random = await pinned(record_as), Random(3)
    pool = await open_async_pool(database_url, "operator")
    two, unfinished = PostgresRecord(pool), set[int]()
    try:
        for turn in range(60):
            writer, numbers = random.choice((one, two)), (2 * turn, 2 * turn + 1)
            await writer.insert_trials(study_uid="s", trials=[new(number) for number in numbers], at=AT)
            unfinished |= set(numbers)
            for other in random.sample(sorted(unfinished), k=min(2, len(unfinished))):
                state: TrialState = random.choice(("Running", "Running", "Complete", "Pruned", "Failed"))
                await move(writer, other, state, objective=float(turn) if state == "Complete" else None)
                unfinished -= {other} if state != "Running" else set()
            if random.random() < 0.5:
                await asyncio.gather(*(random.choice((one, two)).history("s") for _ in range(3)))
        fresh = list(await PostgresRecord(pool).history("s"))
        assert fresh == slim(await one.trials("s"))
        assert {row.state for row in fresh} == {"Waiting", "Running", "Complete", "Pruned", "Failed"}
        assert list(await one.history("s")) == fresh
        assert list(await two.history("s")) == fresh
        sampler, space = OptunaSampler(), parse_space(new(0).distributions)
        assert sampler.sample(await one.history("s"), space, 5) == sampler.sample(fresh, space, 5)
    finally:
        await pool.close()


async def test_a_history_costs_what_has_changed(record_as: As) -> None:
    record = await pinned(record_as)
    await record.insert_trials(study_uid="s", trials=[new(n) for n in range(50)], at=AT)
    for number in range(48):
        await move(record, number, "Complete", objective=1.0)
    before = await record.history("s")
    await move(record, 48, "Running")
    await record.insert_trials(study_uid="s", trials=[new(50)], at=AT)
    after = await record.history("s")
    assert [row.number for row in after if row not in before] == [48, 50]
    assert all(mine is theirs for mine, theirs in zip(before[:48], after[:48], strict=True))
    assert len({id(row.distributions) for row in after}) == 1


async def test_the_history_that_was_asked_for_the_longest_time_ago_is_dropped(record_as: As, database_url: str) -> None:
    record = await pinned(record_as)
    for uid in ("t", "u"):
        await record.pin_study(uid=uid, name=uid, spec={}, snapshot="d1", gate_starts_at=AT)
    for uid in ("s", "t", "u"):
        await record.insert_trials(study_uid=uid, trials=[new(n) for n in range(4)], at=AT)
    async with await open_async_pool(database_url, "operator") as pool:
        histories = Histories(pool, rows_kept=9)
        read = {uid: await histories.read(uid) for uid in ("s", "t")}
        assert (await histories.read("s"))[0] is read["s"][0]
        await histories.read("u")
        assert (await histories.read("s"))[0] is read["s"][0]
        again = await histories.read("t")
        assert again == read["t"]
        assert again[0] is not read["t"][0]


async def test_a_trainer_is_refused_numbers_that_are_none_and_trials_that_are_not_there(
    record_as: As, database_url: str
) -> None:
    record = await pinned(record_as)
    await record.insert_trials(study_uid="s", trials=[new(0)], at=AT)
    with open_pool(database_url, "trial") as pool:
        trainer = TrialWriter(pool)
        with pytest.raises(InvalidInput, match="not finite"):
            trainer.report("s", 0, step=0, value=float("nan"))
        with pytest.raises(InvalidInput, match="not finite"):
            trainer.finish("s", 0, TrialResult(succeeded=True, reason="", objective=float("inf")))
        with pytest.raises(InvalidInput, match="cannot be stored"):
            trainer.finish("s", 0, TrialResult(succeeded=True, reason="", record={"x": float("nan")}))
        for missing in (lambda: trainer.trial("s", 9), lambda: trainer.study("x"), lambda: trainer.snapshot("x")):
            with pytest.raises(NotFound, match="not in the record"):
                missing()


# --- gates ------------------------------------------------------------------------------------------


async def test_the_first_verdict_stands_and_other_gates_scopes_and_deployments_are_apart(record_as: As) -> None:
    gate = await record_as("gate")
    await gate.insert_evidence(evidence=verdict())
    await gate.insert_evidence(evidence=verdict(outcome="Pass"))
    for changes in ({"gate": "backtest"}, {"scope": "d2"}, {"deployment_uid": "dep2"}, {"gate_version": 2}):
        await gate.insert_evidence(evidence=verdict(**changes, outcome="Pass"))
    record = await record_as("operator")
    rows = await record.evidence(deployment_uid="dep")
    assert [row.outcome for row in rows] == ["Fail", "Pass", "Pass", "Pass"]
    assert rows[0] == verdict(recorded_at=rows[0].recorded_at)
    assert len(await record.evidence(bundle_digest="b")) == 5
    assert await record.evidence(deployment_uid="dep", bundle_digest="x") == []


async def test_a_window_remembers_which_deployments_looked_at_overlapping_bars(record_as: As) -> None:
    gate = await record_as("gate")

    async def look(deployment: str, bundle: str, start: int, end: int, symbol: str = "BTC/USD") -> int:
        def at(day: int) -> datetime:
            return datetime(2024, 1, day, tzinfo=UTC)

        return await gate.open_window(
            deployment_uid=deployment, bundle_digest=bundle, symbols=[symbol], start_at=at(start), end_at=at(end)
        )

    assert await look("one", "b1", 1, 20) == 1
    assert await look("one", "b2", 1, 20) == 1  # opened together
    assert await look("one", "b1", 1, 20) == 1  # looking again is no new look
    assert await look("two", "b1", 1, 20) == 2  # the same bundle under another Deployment is one
    assert await look("three", "b3", 2, 21) == 3  # a window that moved by a day is the same bars but one
    assert await look("four", "b4", 21, 28) == 1
    assert await look("five", "b5", 1, 20, symbol="ETH/USD") == 1


def promotion(action: Any, subject: str = "x", **given: Any) -> Promotion:
    values: dict[str, Any] = {"deployment_uid": "dep", "bundle_digest": "b", "actor": "me", "reason": "why"} | given
    return Promotion(subject=subject, action=action, **values)


def start(step: int, *, account: str = "acc", terms: str = "t") -> Promotion:
    return promotion("started", account=account, terms=terms, step=step)


async def test_a_promotion_is_recorded_once_per_change_with_its_audit_row(record: Record) -> None:
    for action in ("requested", "requested", "approved", "approved", "revoked", "approved"):
        await record.record_promotion(promotion=promotion(action), about="deployment/default/desk")
    await record.record_promotion(promotion=promotion("requested", "y"), about="deployment/default/desk")
    found = [(row.subject, row.action) for row in await record.promotions("dep")]
    assert found == [("x", "requested"), ("x", "approved"), ("x", "revoked"), ("x", "approved"), ("y", "requested")]
    audited = await record.audit()
    assert [row.action for row in audited] == [f"promotion {action}" for _, action in found]
    assert {row.subject for row in audited} == {"deployment/default/desk"}
    assert audited[0].body == {"bundle": "b", "promotion": "x", "reason": "why"}


async def test_a_promotion_that_cannot_be_audited_is_not_recorded(record: Record, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute("alter table audit rename to audit_away")
        try:
            with pytest.raises(psycopg.Error):
                await record.record_promotion(promotion=promotion("approved"), about="d")
        finally:
            admin.execute("alter table audit_away rename to audit")
    assert await record.promotions("dep") == []


async def test_nothing_starts_without_a_standing_approval(record: Record) -> None:
    for before in ((), ("refused",), ("approved", "revoked"), ("approved", "demoted")):
        for action in before:
            await record.record_promotion(promotion=promotion(action), about="d")
        with pytest.raises(Conflict, match="no standing approval"):
            await record.record_promotion(promotion=start(1), about="d")
    assert "started" not in [row.action for row in await record.promotions("dep")]


async def test_a_step_begins_with_an_account_that_nobody_has_touched(record: Record, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as trader:
        trader.execute("select account_acquire('acc', 'alpaca', 'somebody', 1)")
    await record.record_promotion(promotion=promotion("approved"), about="d")
    with pytest.raises(Conflict, match="account acc exists already"):
        await record.record_promotion(promotion=start(1), about="d")


async def test_a_permit_stands_for_what_was_started_last_and_ends_with_its_approval(record: Record, database_url: str) -> None:
    def permit(account: str, terms: str = "t") -> Any:
        with psycopg.connect(database_url, autocommit=True) as trader:
            trader.execute("set role cappuccino_trader")
            return trader.execute("select live_permit(%s, %s)", [account, terms]).fetchone()[0]  # type: ignore[index]

    assert permit("acc") is None
    await record.record_promotion(promotion=promotion("approved"), about="d")
    assert permit("acc") is None
    await record.record_promotion(promotion=start(0), about="d")
    assert [permit("acc"), permit("acc", "other"), permit("else")] == ["standing", "ended", None]
    await record.record_promotion(promotion=promotion("refused", "y"), about="d")
    await record.record_promotion(promotion=promotion("revoked", "z", deployment_uid="other"), about="d")
    assert permit("acc") == "standing"
    await record.record_promotion(promotion=start(1, account="acc-1"), about="d")
    assert [permit("acc"), permit("acc-1")] == ["ended", "standing"]
    (row,) = [row for row in await record.promotions("dep") if row.step == 1]
    assert (row.account, row.terms) == ("acc-1", "t")
    await record.record_promotion(promotion=promotion("demoted"), about="d")
    assert [permit("acc"), permit("acc-1")] == ["ended", "ended"]
    await record.record_promotion(promotion=promotion("approved"), about="d")
    assert permit("acc-1") == "ended"  # approved anew is started anew


# --- trading ----------------------------------------------------------------------------------------


def trade(url: str) -> None:
    """One account that traded for two bars, written as a trader does."""
    with psycopg.connect(url, autocommit=True) as trader:
        trader.execute("set role cappuccino_trader")
        trader.execute("select * from account_acquire('a', 'simulated', 'h', 60)")
        trader.execute(
            "insert into intent (client_order_id, account, token, trader_uid, decision, symbol, side, type, time_in_force, qty,"
            " reason, created_at) values ('o', 'a', 1, 't', 'd', 'X/USD', 'buy', 'market', 'gtc', 1, 'target', %s)",
            [AT],
        )
        for state in ("Submitted", "Filled"):
            trader.execute(
                "insert into order_event (client_order_id, state, reason, event_at) values ('o', %s, '', %s)", [state, AT]
            )
        trader.execute(
            "insert into fill (execution_id, account, client_order_id, symbol, side, qty, price, fee, fee_asset, filled_at)"
            " values ('e', 'a', 'o', 'X/USD', 'buy', 1, 2.5, 0.01, 'X', %s)",
            [AT],
        )
        for hour, equity in ((1, "100"), (2, "90.5")):
            trader.execute(
                "insert into equity (account, bar_at, equity_usd, cash_usd, positions) values ('a', %s, %s, 1, '{\"X\": 1}')",
                [AT + timedelta(hours=hour), equity],
            )


async def test_an_accounts_record_holds_what_it_did(record: Record, database_url: str) -> None:
    trade(database_url)
    account = await record.record_of_account("a")
    assert [(p.equity_usd, p.positions) for p in account.equity] == [(Decimal(100), {"X": 1}), (Decimal("90.5"), {"X": 1})]
    assert [(i["client_order_id"], i["state"]) for i in account.intents] == [("o", "Filled")]
    assert [(f["price"], f["fee"]) for f in account.fills] == [(Decimal("2.5"), Decimal("0.01"))]
    assert account.decisions == ()
    activity = await record.activity(["a", "idle"])
    assert (activity["a"].orders, activity["a"].fills, activity["a"].equity_usd, activity["a"].peak_equity_usd) == (
        1, 1, Decimal("90.5"), Decimal(100),
    )  # fmt: skip
    assert activity["a"].last_bar_at == AT + timedelta(hours=2)
    assert (activity["idle"].orders, activity["idle"].equity_usd) == (0, None)


async def test_an_account_is_halted_and_resumed_with_reasons_that_are_audited(record: Record, database_url: str) -> None:
    trade(database_url)
    assert [(a.name, a.held, a.token, a.halted_reason) for a in await record.accounts()] == [("a", True, 1, None)]
    await record.halt(name="a", reason="by hand", actor="me")
    await record.halt(name="a", reason="again", actor="me")
    halted = await record.account("a")
    assert halted is not None
    assert halted.halted_reason == "by hand"
    with pytest.raises(InvalidInput, match="a reason is needed"):
        await record.resume(name="a", reason="", actor="me")
    await record.resume(name="a", reason="checked", actor="you")
    assert [(row.actor, row.action, row.subject) for row in await record.audit()] == [
        ("me", "halt", "account/a"),
        ("you", "resume", "account/a"),
    ]
    assert await record.account("never") is None
    for call in (record.halt, record.resume):
        with pytest.raises(NotFound, match="account 'never' does not exist"):
            await call(name="never", reason="x", actor="me")


async def test_the_audit_gives_its_newest_rows_oldest_first(record: Record) -> None:
    for n in range(5):
        await record.record_promotion(promotion=promotion("refused", reason=str(n)), about="d")
    assert [(row.seq, row.body["reason"]) for row in await record.audit(limit=2)] == [(4, "3"), (5, "4")]


# --- wake-ups ---------------------------------------------------------------------------------------


async def test_new_rows_wake_whoever_watches(record_as: As, database_url: str) -> None:
    record = await pinned(record_as)
    await record.insert_trials(study_uid="s", trials=[new(0)], at=AT)
    gate = await record_as("gate")
    wanted = {("trial_report", "s/0"), ("trial_result", "s/0"), ("evidence", "dep/b"), ("account", "a")}
    async with asyncio.timeout(10), aclosing(record.watch()) as watch:  # type: ignore[type-var]
        told = asyncio.ensure_future(anext(watch))
        number = 1
        while not told.done():  # a row of its own shows that the watch is open
            await record.insert_trials(study_uid="s", trials=[new(number)], at=AT)
            number += 1
            await asyncio.wait({told}, timeout=0.05)
        with open_pool(database_url, "trial") as pool:
            TrialWriter(pool).report("s", 0, step=0, value=1.0)
            TrialWriter(pool).finish("s", 0, TrialResult(succeeded=True, reason=""))
        await gate.insert_evidence(evidence=verdict())
        trade(database_url)
        async for note in watch:
            wanted.discard(note)
            if not wanted:
                return


async def test_what_a_trader_writes_all_day_wakes_nobody(record_as: As, database_url: str) -> None:
    """Of a thousand traders each renews its lease every second and writes on every bar: a status can wait for its turn."""
    trade(database_url)
    with psycopg.connect(database_url, autocommit=True) as trader:
        trader.execute("set role cappuccino_trader")
        token = trader.execute("select token from account where name = 'a'").fetchone()
        assert token is not None
        with psycopg.connect(database_url, autocommit=True) as listener:
            listener.execute("listen cappuccino")
            for _ in range(3):
                renewed = trader.execute("select held from account_renew('a', 'h', %s, 10)", token).fetchone()
                assert renewed == (True,)
            trader.execute("insert into equity select 'a', now() + make_interval(days => 1), 1, 1, '{}'")
            trader.execute("insert into trader_state values ('a', '{}') on conflict (account) do update set state = '{}'")
            assert list(listener.notifies(timeout=0.3)) == []
            trader.execute("select account_acquire('a', 'simulated', 'h', 10)")  # a new process is news
            assert [note.payload for note in listener.notifies(timeout=5, stop_after=1)] == ['["account", "a"]']


async def test_a_repeated_event_counts_up(database_url: str) -> None:
    pool = await open_async_pool(database_url, "operator")
    events, key = PostgresEvents(pool), Key("Study", "default", "s")
    for minute in range(3):
        await events.emit(key, "u", Event(reason="Best", message="0.5"), at=AT + timedelta(minutes=minute))
    await events.emit(key, "u", Event(reason="Best", message="0.6"), at=AT)
    found = [(row["message"], row["count"], row["first_at"], row["last_at"]) for row in await events.of(key)]
    assert found == [("0.6", 1, AT, AT), ("0.5", 3, AT, AT + timedelta(minutes=2))]
    await pool.close()


async def test_connections_that_the_server_has_ended_are_replaced_unnoticed(record: Record, database_url: str) -> None:
    await asyncio.gather(*(record.studies() for _ in range(4)))
    others = "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    with psycopg.connect(database_url, autocommit=True) as admin:
        assert admin.execute(f"select pg_terminate_backend(pid) {others}").rowcount >= 1
        while admin.execute(f"select 1 {others}").fetchone():
            await asyncio.sleep(0.01)
        assert await asyncio.gather(*(record.studies() for _ in range(4))) == [[]] * 4


async def test_a_second_runner_is_refused_until_the_first_is_gone(database_url: str) -> None:
    first, second = RunnerLock(database_url), RunnerLock(database_url, patience_seconds=0.1)
    await first.acquire()
    with pytest.raises(Conflict, match="another runner"):
        await second.acquire()
    await first.release()
    await second.acquire()
    await second.release()
