"""Small markets and the exchange over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from cappuccino.core.timeframe import Timeframe
from cappuccino.exchange.commands import Advance, OpenAccount, Submit
from cappuccino.exchange.orders import OrderRequest
from cappuccino.exchange.simulator import Outcome, SimulatedExchange
from cappuccino.exchange.tape import Tape
from cappuccino.exchange.terms import Terms
from cappuccino.exchange.venue import AssetRules, Face, flat_fee
from cappuccino.market.bars import Bars

HOUR = Timeframe(3600)
T0 = 1_704_067_200  # 2024-01-01T00:00:00Z

Candle = tuple[float, float, float, float] | None  # open, high, low, close; None: missing


def bars(
    candles: Mapping[str, Sequence[Candle]], *, volume: float = 1000.0, timeframe: Timeframe = HOUR, start: int = T0
) -> Bars:
    """A panel of these candles; a missing one repeats the last close, as the market package does."""
    symbols, rows = tuple(candles), len(next(iter(candles.values())))
    panel = {name: np.zeros((rows, len(symbols))) for name in ("open", "high", "low", "close", "volume")}
    missing = np.zeros((rows, len(symbols)), dtype=bool)
    for column, symbol in enumerate(symbols):
        last = next(candle for candle in candles[symbol] if candle is not None)[0]
        for row, candle in enumerate(candles[symbol]):
            missing[row, column] = candle is None
            values = candle or (last, last, last, last)
            for name, value in zip(("open", "high", "low", "close"), values, strict=True):
                panel[name][row, column] = value
            panel["volume"][row, column] = 0.0 if candle is None else volume
            last = values[3]
    ts = start + np.arange(rows, dtype=np.int64) * timeframe.seconds
    return Bars(symbols=symbols, timeframe=timeframe, ts=ts, missing=missing, **panel)


def flat(price: float = 100.0, count: int = 3) -> list[Candle]:
    return [(price, price, price, price)] * count


def terms(**changes: Any) -> Terms:
    """25 bps flat, 10 bps slippage unless told otherwise."""
    flat = flat_fee(Decimal(25))
    return Terms(**{"fee_tiers": flat, "coinbase_fee_tiers": flat, "slippage_bps": Decimal(10), **changes})


def rules(symbol: str = "BTC/USD") -> AssetRules:
    return AssetRules(
        symbol=symbol,
        min_order_size=Decimal("0.01"),
        min_trade_increment=Decimal("0.000000001"),
        price_increment=Decimal("0.0001"),
    )


def exchange(
    candles: Mapping[str, Sequence[Candle]] | None = None,
    *,
    charges: Terms | None = None,
    volume: float = 1000.0,
    tick_bps: float = 10_000.0,
    accounts: Sequence[str] = ("a",),
    capital: str = "10000",
    timeframe: Timeframe = HOUR,
    coinbase: Sequence[str] = (),
) -> SimulatedExchange:
    """BTC/USD at 100 for three bars unless told otherwise; every tick is a point of the candle. `coinbase`: which of the
    accounts are of that face."""
    panel = bars(candles or {"BTC/USD": flat()}, volume=volume, timeframe=timeframe)
    made = SimulatedExchange(
        Tape(panel, tick_bps=tick_bps), charges or terms(), {symbol: rules(symbol) for symbol in panel.symbols}
    )
    for name in accounts:
        face: Face = "coinbase" if name in coinbase else "alpaca"
        made.apply(OpenAccount(name=name, capital_usd=Decimal(capital), key_id=f"key-{name}", secret_key="secret", face=face))
    return made


def order(**fields: Any) -> OrderRequest:
    """A market buy of one BTC unless told otherwise; numbers as text."""
    values: dict[str, Any] = {"symbol": "BTC/USD", "side": "buy", **fields}
    if "qty" not in values and "notional" not in values:
        values["qty"] = "1"
    for name in ("qty", "notional", "limit_price", "stop_price"):
        if name in values:
            values[name] = Decimal(values[name])
    if "limit_price" in values and "type" not in values:
        values["type"] = "limit"
    return OrderRequest(**values)


def submit(venue: SimulatedExchange, account: str = "a", **fields: Any) -> Outcome:
    return venue.apply(Submit(account=account, request=order(**fields)))


def advance(venue: SimulatedExchange, ticks: int = 1) -> Outcome:
    """The outcome of the last tick."""
    outcome = Outcome()
    for _ in range(ticks):
        outcome = venue.apply(Advance())
    return outcome
