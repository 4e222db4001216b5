"""From Coinbase's words to ours."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappuccino.adapters.coinbase import wire
from cappuccino.adapters.coinbase.rest import Endpoints
from cappuccino.core.clock import parse_iso
from cappuccino.core.errors import InvariantViolation
from cappuccino.trading.credentials import Credentials
from cappuccino.trading.orders import OrderState, state_of

D = Decimal
AT = parse_iso("2024-01-01T00:00:00Z")


def a_fill(**changes: Any) -> dict[str, Any]:
    fields = {
        "entry_id": "e",
        "trade_id": "t",
        "order_id": "o",
        "trade_time": "2024-01-01T00:00:00.123456789Z",
        "trade_type": "FILL",
        "price": "40000.01",
        "size": "0.5",
        "commission": "12.5",
        "product_id": "BTC-USD",
        "side": "BUY",
        "size_in_quote": False,
    }
    return {**fields, **changes}


@pytest.mark.parametrize(
    ("status", "filled", "state"),
    [
        ("PENDING", "0", OrderState.ACCEPTED),
        ("QUEUED", "0", OrderState.ACCEPTED),
        ("OPEN", "0", OrderState.ACCEPTED),
        ("OPEN", "0.1", OrderState.PARTIALLY_FILLED),
        ("EDIT_QUEUED", "0", OrderState.ACCEPTED),
        ("CANCEL_QUEUED", "0", OrderState.ACCEPTED),
        ("FILLED", "1", OrderState.FILLED),
        ("CANCELLED", "0.1", OrderState.CANCELED),
        ("EXPIRED", "0", OrderState.EXPIRED),
        ("FAILED", "0", OrderState.REJECTED),
        ("FAILED", "0.1", OrderState.CANCELED),
    ],
)
def test_every_order_status_has_a_state(status: str, filled: str, state: OrderState) -> None:
    assert state_of(wire.status_of(status, D(filled))) is state


def test_a_status_that_is_new_to_us_stops_trading() -> None:
    with pytest.raises(InvariantViolation, match="UNKNOWN_ORDER_STATUS"):
        wire.status_of("UNKNOWN_ORDER_STATUS", D(0))


@given(st.decimals("0.000000001", "5000", places=9), st.decimals("0.0001", "200000", places=4))
def test_a_size_in_quote_currency_becomes_the_units_that_were_traded(qty: Decimal, price: Decimal) -> None:
    raw = a_fill(size=f"{qty * price:f}", price=f"{price:f}", size_in_quote=True)
    assert wire.fill(raw, {"BTC/USD": D("0.000000001")}).execution.qty == qty


def test_a_fill_says_its_fee_and_in_what() -> None:
    fill = wire.fill(a_fill(), {})
    assert (fill.execution.qty, fill.execution.fee, fill.execution.fee_asset) == (D("0.5"), D("12.5"), "USD")
    assert fill.execution.at.microsecond == 123456
    assert fill.client_order_id is None


def test_balances_count_what_open_orders_hold_back_and_leave_out_what_is_empty() -> None:
    def wallet(currency: str, value: str, hold: str) -> dict[str, Any]:
        return {"currency": currency, "available_balance": {"value": value}, "hold": {"value": hold}}

    told = wire.balances(
        [wallet("USD", "10", "2.5"), wallet("BTC", "0", "0"), wallet("ETH", "1", "0"), wallet("ETH", "0", "1")]
    )
    assert told == {"USD": D("12.5"), "ETH": D(2)}


def test_an_update_is_cumulative_and_names_no_fill() -> None:
    raw = {
        "order_id": "v",
        "client_order_id": "c",
        "cumulative_quantity": "0.25",
        "status": "OPEN",
        "cancel_reason": "",
        "reject_reason": "",
    }
    told = wire.update(raw, AT)
    assert (told.client_order_id, told.report.state, told.report.filled_qty) == ("c", OrderState.PARTIALLY_FILLED, D("0.25"))
    assert told.fill is None


@pytest.mark.parametrize("closed", ["trading_disabled", "is_disabled", "cancel_only", "limit_only", "view_only"])
def test_a_product_that_takes_no_market_orders_is_not_tradable(closed: str) -> None:
    assert wire.tradable({"status": "online"})
    assert not wire.tradable({"status": "online", closed: True})


def test_where_a_simulated_exchange_is_and_what_is_not_shown() -> None:
    there = Endpoints.at("http://127.0.0.1:8700/")
    assert (there.host, there.plain, there.user_stream) == (
        "127.0.0.1:8700",
        True,
        "ws://127.0.0.1:8700/advanced-trade-ws-user",
    )
    assert not Endpoints().plain
    assert "hush" not in repr(Credentials(key_id="organizations/x", secret_key="hush"))
