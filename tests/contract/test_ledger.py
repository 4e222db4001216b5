"""The Ledger port on a real PostgreSQL, under the trader's role."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from cappuccino.adapters.postgres.engine import open_pool
from cappuccino.adapters.postgres.ledger import Pool, PostgresLedger
from cappuccino.core.errors import InvariantViolation, RetryLater
from cappuccino.trading.book import Fill
from cappuccino.trading.orders import Intent, OrderState
from cappuccino.trading.ports import DecisionRow, EquityRow, Fenced, Halted, OrderEvent

D = Decimal
AT = datetime(2024, 1, 1, 1, tzinfo=UTC)


@pytest.fixture
def pool(database_url: str) -> Iterator[Pool]:
    with open_pool(database_url, "trader") as opened:
        yield opened


def a_ledger(pool: Pool, *, holder: str = "h1", lease_seconds: float = 30.0, account: str = "acc") -> PostgresLedger:
    return PostgresLedger(
        pool, account=account, venue="simulated", trader_uid="uid", holder=holder, lease_seconds=lease_seconds
    )


NOTHING_STANDS = "no approval stands for what this live trader is"


def test_a_live_trader_is_halted_whenever_no_permit_stands_for_its_terms(pool: Pool, database_url: str) -> None:
    append = "select promotion_append('dep', 's', 'b', %s, 'ada', 'why', %s, %s, %s, 'deployment/x/y')"

    def live(account: str) -> PostgresLedger:
        return PostgresLedger(
            pool, account=account, venue="alpaca/live", trader_uid="uid", holder="h1", lease_seconds=30.0, terms="t"
        )

    ledger, by_hand = live("acc"), live("by-hand")
    with psycopg.connect(database_url, autocommit=True) as admin:
        assert (by_hand.permit(), by_hand.acquire().halted_reason) == (None, NOTHING_STANDS)
        admin.execute(append, ["approved", None, None, None])
        assert by_hand.renew().halted_reason == NOTHING_STANDS
        admin.execute(append, ["started", "acc", "t", 1])
        assert (ledger.permit(), ledger.acquire().halted_reason, ledger.renew().halted_reason) == ("standing", None, None)
        assert by_hand.renew().halted_reason == NOTHING_STANDS
        assert [ledger.reserve(D(5)), ledger.reserve(D(7))] == [5, 5]
        assert ledger.units(None) is None
        tiny = {"BTC/USD": D("0.000000009")}
        assert [ledger.units(tiny), ledger.units({}), ledger.units(None)] == [tiny] * 3
        admin.execute(append, ["demoted", None, None, None])
        assert (ledger.permit(), ledger.renew().halted_reason) == ("ended", NOTHING_STANDS)
        with pytest.raises(Halted, match="no approval stands"):  # whatever the trader believes
            ledger.journal([an_intent()], state=None)
        ledger.journal([an_intent("cap-2", side="sell", reason="stop_loss", qty=D(1), notional=None)], state=None)
        halted = admin.execute("select halted_reason from account where name = 'acc'").fetchone()
        assert halted == (None,)  # lifted by nobody but an approval


def an_intent(name: str = "cap-1", **fields: Any) -> Intent:
    given = {"symbol": "AAA/USD", "side": "buy", "reason": "target", "notional": D("123.456789012"), **fields}
    return Intent(
        client_order_id=name, account="acc", trader_uid="uid", decision="2024-01-01T00:00:00Z", created_at=AT, **given
    )


def an_event(state: OrderState, name: str = "cap-1", *, filled: str = "0", venue: str | None = "v1") -> OrderEvent:
    return OrderEvent(client_order_id=name, state=state, reason="because", venue_order_id=venue, filled_qty=D(filled), at=AT)


def a_fill(number: int = 1, name: str = "cap-1") -> Fill:
    return Fill(
        execution_id=f"e{number}",
        client_order_id=name,
        symbol="AAA/USD",
        side="buy",
        qty=D("1.000000001"),
        price=D("42.1234"),
        fee=D("0.002500001"),
        fee_asset="AAA",
        filled_at=AT + timedelta(microseconds=number),
    )


def a_bar(hour: int = 0, *, number: int = 1) -> dict[str, Any]:
    at = AT.replace(hour=hour)
    row = DecisionRow(
        bar_at=at,
        bundle_digest="d",
        intents=[{"symbol": "AAA/USD", "weight": 0.3}],
        refusals=[{"rule": "halted"}],
        memory={"number": number},
        trace={"why": [1.5, None]},
        data_age_seconds=0.25,
    )
    return {
        "decision": row,
        "equity": EquityRow(bar_at=at, equity_usd=D("10000.5"), cash_usd=D("1"), positions={}),
        "state": {"bar": hour},
    }


def test_what_was_journalled_is_what_is_loaded(pool: Pool) -> None:
    ledger = a_ledger(pool)
    assert ledger.acquire().held
    ledger.commit(**a_bar())
    ledger.journal([an_intent(), an_intent("cap-2", side="sell", notional=None, qty=D("0.000000001"))], state={"step": "sells"})
    ledger.record(
        events=[an_event(OrderState.ACCEPTED), an_event(OrderState.FILLED, filled="2.000000002", venue=None)],
        fills=[a_fill(2), a_fill(1)],
        state={"step": "done"},
    )
    loaded = ledger.load()
    assert loaded.state == {"step": "done"}
    assert loaded.decision == a_bar()["decision"]
    assert list(loaded.fills) == [a_fill(1), a_fill(2)]
    first, second = sorted(loaded.orders, key=lambda o: o.id)
    assert first.intent == an_intent()
    assert (first.state, first.venue_order_id, first.reported_qty) == (OrderState.FILLED, "v1", D("2.000000002"))
    assert set(first.executions) == {"e1", "e2"}
    assert first.settled
    assert second.state is OrderState.INITIALIZED
    assert second.intent.qty == D("0.000000001")


def test_a_fresh_account_has_nothing(pool: Pool) -> None:
    ledger = a_ledger(pool)
    ledger.acquire()
    loaded = ledger.load()
    assert (loaded.state, loaded.decision, list(loaded.orders), list(loaded.fills)) == (None, None, [], [])


def test_accounts_do_not_see_each_other(pool: Pool) -> None:
    ledger, other = a_ledger(pool), a_ledger(pool, account="other")
    ledger.acquire()
    other.acquire()
    ledger.journal([an_intent()], state={"a": 1})
    assert other.load().orders == []
    assert other.load().state is None


def test_writing_the_same_again_changes_nothing(pool: Pool) -> None:
    ledger = a_ledger(pool)
    ledger.acquire()
    for _ in range(2):
        ledger.journal([an_intent()], state=None)
        ledger.record(events=[], fills=[a_fill()])
    assert len(ledger.load().fills) == len(ledger.load().orders) == 1


def test_a_bar_is_committed_whole_or_not_at_all(pool: Pool) -> None:
    ledger = a_ledger(pool)
    ledger.acquire()
    ledger.commit(**a_bar(0))
    ledger.commit(**a_bar(0))  # the answer was lost, the same is written again
    for other in (a_bar(0, number=9), {**a_bar(0), "equity": replace(a_bar(0)["equity"], cash_usd=D(2))}):
        with pytest.raises(Fenced, match="another decision"):
            ledger.commit(**{**other, "state": {"bar": 99}})
    loaded = ledger.load()
    assert loaded.state == {"bar": 0}
    assert loaded.decision is not None
    assert loaded.decision.memory == {"number": 1}
    ledger.commit(**{**a_bar(1), "decision": None})
    assert ledger.load().state == {"bar": 1}


def test_an_old_token_journals_nothing(pool: Pool) -> None:
    first, second = a_ledger(pool, lease_seconds=0.0), a_ledger(pool, holder="h2")
    assert first.acquire().held
    assert second.acquire().held  # the first lease has run out
    with pytest.raises(Fenced, match="token"):
        first.journal([an_intent()], state={"mine": True})
    assert not first.renew().held
    assert second.load().orders == []
    assert second.load().state is None


def test_that_a_portfolio_ended_is_said_by_its_holder_until_the_account_is_taken_again(pool: Pool, database_url: str) -> None:
    def ended() -> Any:
        with psycopg.connect(database_url) as admin:
            return admin.execute("select token, ended from account").fetchall()

    first, second = a_ledger(pool, holder="h1"), a_ledger(pool, holder="h2")
    first.ended("no such bundle")  # refused before it could take its account
    assert ended() == [(0, "no such bundle")]
    assert first.acquire().held
    assert ended() == [(1, None)]
    second.ended("not mine to say")
    assert ended() == [(1, None)]
    first.release()
    first.ended("")
    assert ended() == [(1, "")]
    assert second.acquire().held
    assert ended() == [(2, None)]


def test_a_living_lease_is_not_taken_by_another_and_is_by_the_same_holder(pool: Pool) -> None:
    first, second, again = a_ledger(pool), a_ledger(pool, holder="h2"), a_ledger(pool)
    token = first.acquire().token
    assert not second.acquire().held
    assert again.acquire().token == token + 1
    assert not first.renew().held
    again.release()
    assert second.acquire().held


def test_a_halt_is_learned_on_renewal_and_lets_only_protective_orders_through(pool: Pool) -> None:
    ledger = a_ledger(pool)
    ledger.acquire()
    ledger.halt("drawdown")
    ledger.halt("later")
    assert ledger.renew().halted_reason == "drawdown"
    with pytest.raises(Halted, match="drawdown"):
        ledger.journal([an_intent()], state=None)
    exits = [an_intent(f"cap-{r}", side="sell", notional=None, qty=D(1), reason=r) for r in ("stop_loss", "flatten")]
    ledger.journal(exits, state=None)
    assert len(ledger.load().orders) == 2
    with pytest.raises(Halted):  # one that is not protective takes the others with it
        ledger.journal([an_intent("cap-x", reason="take_profit"), an_intent("cap-y")], state={"no": 1})
    assert len(ledger.load().orders) == 2


def test_the_baseline_is_the_first_one(pool: Pool) -> None:
    ledger = a_ledger(pool)
    ledger.acquire()
    assert ledger.baseline(D("10000")) == D("10000")
    assert ledger.baseline(D("5")) == D("10000")


def test_the_state_alone_can_be_saved(pool: Pool) -> None:
    ledger = a_ledger(pool)
    ledger.acquire()
    ledger.save({"peak": 1.5})
    assert ledger.load().state == {"peak": 1.5}


def test_a_size_that_is_neither_or_both_is_refused(pool: Pool) -> None:
    ledger = a_ledger(pool)
    ledger.acquire()
    with pytest.raises(InvariantViolation, match="intent_size"):
        ledger.journal([replace(an_intent(), qty=D(1))], state=None)


def test_a_connection_that_is_cut_is_retry_later_and_then_it_works_again(database_url: str) -> None:
    with open_pool(database_url, "trader", min_size=1, max_size=1) as pool:
        ledger = a_ledger(pool)
        ledger.acquire()

        def cut_in_the_middle() -> None:
            with ledger._transaction() as connection:
                with psycopg.connect(database_url, autocommit=True) as admin:
                    admin.execute("select pg_terminate_backend(%s)", [connection.info.backend_pid])
                connection.execute("select 1")

        with pytest.raises(RetryLater, match="database"):
            cut_in_the_middle()
        assert ledger.renew().held
