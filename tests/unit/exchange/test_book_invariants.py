"""Whatever is asked of it, the book adds up: the exchange is the referee."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from cappuccino.core.money import ZERO
from cappuccino.exchange.commands import (
    Advance,
    Cancel,
    Command,
    Edit,
    Join,
    Leave,
    OpenAccount,
    Start,
    Submit,
    decode,
    encode,
)
from cappuccino.exchange.orders import OrderRequest, Refused
from cappuccino.exchange.simulator import SimulatedExchange

from .builders import Candle, exchange, terms

CANDLES: dict[str, list[Candle]] = {
    "BTC/USD": [(100, 112, 93, 108), (107, 109, 80, 85), None, (90, 140, 88, 131), (131, 131, 99, 100)] * 3,
    "ETH/USD": [(10, 11, 9.5, 10.2), None, (9, 12, 8, 11.7), (12, 12.5, 11, 11), (11, 14, 10, 13)] * 3,
}


def _decimals(low: str, high: str, places: int) -> st.SearchStrategy[Decimal]:
    return st.decimals(low, high, places=places, allow_nan=False)


@st.composite
def requests(draw: Any) -> OrderRequest:
    kind = draw(st.sampled_from(["market", "market", "limit", "stop_limit"]))
    notional = kind == "market" and draw(st.booleans())
    return OrderRequest(
        symbol=draw(st.sampled_from(list(CANDLES))),
        side=draw(st.sampled_from(["buy", "sell"])),
        type=kind,
        time_in_force=draw(st.sampled_from(["gtc", "ioc"])),
        qty=None if notional else draw(_decimals("0.01", "90", 9)),
        notional=draw(_decimals("1", "6000", 2)) if notional else None,
        limit_price=None if kind == "market" else draw(_decimals("8", "140", 2)),
        stop_price=draw(_decimals("8", "140", 2)) if kind == "stop_limit" else None,
    )


steps = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.sampled_from(["a", "b"]), requests()),
        st.tuples(st.just("cancel"), st.sampled_from(["a", "b"]), st.integers(0, 20)),
        st.tuples(
            st.just("edit"),
            st.sampled_from(["a", "b"]),
            st.tuples(st.integers(0, 20), _decimals("0.01", "90", 9), _decimals("8", "140", 2)),
        ),
        st.tuples(st.just("tick"), st.just(""), st.integers(1, 6)),
    ),
    max_size=40,
)


def play(venue: SimulatedExchange, script: list[Any]) -> list[Command]:
    """Apply what is not refused; the commands that were applied."""
    applied: list[Command] = []
    edited: set[str] = set()
    for action, account, detail in script:
        commands: list[Command]
        if action == "tick":
            commands = [Advance()] * detail
        elif action == "submit":
            commands = [Submit(account=account, request=detail)]
        elif action == "edit":
            which, qty, price = detail
            commands = [
                Edit(account=account, order_id=key, qty=qty, limit_price=price)
                for key in list(venue.account(account).orders)[which : which + 1]
            ]
        else:
            commands = [
                Cancel(account=account, order_id=key) for key in list(venue.account(account).orders)[detail : detail + 1]
            ]
        for command in commands:
            try:
                venue.apply(command)
            except Refused:
                continue
            applied.append(command)
            if isinstance(command, Edit):
                edited.add(command.order_id)
            check(venue, edited)
    return applied


def check(venue: SimulatedExchange, edited: set[str]) -> None:
    for account in venue.accounts.values():
        cash, units, fees = account.capital, dict.fromkeys(CANDLES, ZERO), ZERO
        for fill in account.fills:
            buys = fill.side == "buy"
            assert fill.fee_in_units == (buys and account.face == "alpaca")
            in_units, in_cash = (fill.fee, ZERO) if fill.fee_in_units else (ZERO, fill.fee)
            cash += (-fill.value if buys else fill.value) - in_cash
            units[fill.symbol] += (fill.qty if buys else -fill.qty) - in_units
            fees += in_units * fill.price + in_cash
            assert fill.qty % Decimal("1e-9") == fill.fee % Decimal("1e-9") == fill.price % Decimal("0.0001") == 0
        assert account.cash == cash
        assert account.fees_usd == fees
        assert {symbol: held.qty for symbol, held in account.positions.items()} == {s: q for s, q in units.items() if q}
        waiting = [order for order in account.orders.values() if order.is_open]
        assert [order.id for order in waiting] == list(account.open_ids)
        assert 0 <= account.reserved_cash == sum(order.reserved for order in waiting if order.request.side == "buy")
        assert account.reserved_cash <= account.cash
        for symbol, held in account.positions.items():
            sales = [order for order in waiting if order.request.symbol == symbol and order.request.side == "sell"]
            assert 0 <= held.reserved == sum(order.reserved for order in sales) <= held.qty
        for order in account.orders.values():
            fills = [fill for fill in account.fills if fill.order_id == order.id]
            assert order.filled_qty == sum(fill.qty for fill in fills)
            assert order.is_open or order.reserved == 0
            assert order.id in edited or all(_within_limit(order.request, fill.price) for fill in fills)
            if order.request.notional is not None:
                assert order.traded_value <= order.request.notional
            else:
                assert order.filled_qty <= (order.request.qty or ZERO)


def _within_limit(request: OrderRequest, price: Decimal) -> bool:
    if request.limit_price is None:
        return True
    return price <= request.limit_price if request.side == "buy" else price >= request.limit_price


def market(cap: Decimal | None) -> SimulatedExchange:
    charges = terms(liquidity_share=Decimal("0.3"), participation_cap=cap)
    return exchange(CANDLES, charges=charges, volume=60.0, tick_bps=500, accounts=("a", "b"), coinbase=("b",))


SOLD_BY_VALUE = [
    ("submit", "b", OrderRequest(symbol="BTC/USD", side="buy", qty=Decimal("0.01001001"))),
    ("submit", "b", OrderRequest(symbol="BTC/USD", side="sell", notional=Decimal("1.00"))),
]


@example(SOLD_BY_VALUE, None)
@settings(max_examples=120, deadline=None)
@given(steps, st.sampled_from([None, Decimal("0.5")]))
def test_cash_units_reservations_and_fees_add_up_after_every_command(script: list[Any], cap: Decimal | None) -> None:
    play(market(cap), script)


@settings(max_examples=40, deadline=None)
@given(steps)
def test_the_same_commands_read_back_from_the_journal_give_the_same_book(script: list[Any]) -> None:
    first, second = market(None), market(None)
    for command in play(first, script):
        second.apply(decode(encode(command)))
    assert first.tick == second.tick
    for name in ("a", "b"):
        assert first.account(name) == second.account(name)


def test_every_command_survives_its_journal_line() -> None:
    request = OrderRequest(symbol="BTC/USD", side="buy", qty=Decimal("0.000000001"), client_order_id="x")
    for command in (
        OpenAccount(name="a", capital_usd=Decimal("0.10"), key_id="k", secret_key="s"),
        Submit(account="a", request=request),
        Cancel(account="a", order_id="o"),
        Edit(account="a", order_id="o", qty=Decimal("0.1"), limit_price=Decimal("9.5")),
        OpenAccount(name="b", capital_usd=Decimal(1), key_id="k", secret_key="s", face="coinbase"),
        Advance(),
        Start(),
        Join(account="a"),
        Leave(account="a"),
    ):
        assert decode(encode(command)) == command
