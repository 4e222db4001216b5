"""Alpaca's crypto data REST under /v1beta3/crypto/us: bars, quotes, trades, latest values and snapshots.

Keys are not needed; wrong ones are refused. Quotes and trades are the tape's ticks since the exchange opened: a tick is one
quote and one trade per symbol that is not halted. Pages hold at most 10,000 rows, ordered by symbol, then time.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np
from aiohttp import web

from cappuccino.adapters.venue_server import wire
from cappuccino.adapters.venue_server.candles import bar_rows, timeframe_seconds
from cappuccino.adapters.venue_server.keys import Keys
from cappuccino.adapters.venue_server.trading_rest import Handler, parse_time
from cappuccino.exchange.orders import Refused
from cappuccino.exchange.simulator import SimulatedExchange
from cappuccino.exchange.tape import MICROSECONDS, Tick

PREFIX = "/v1beta3/crypto/us"
PAGE, DEFAULT_PAGE = 10_000, 1000
DAY = 86_400
Row = dict[str, Any]
Series = Callable[[str, int, int, int], list[tuple[int, Row]]]  # symbol, from, to, rows at most -> (position, row)


class DataRest:
    def __init__(self, exchange: SimulatedExchange, keys: Keys) -> None:
        self._exchange = exchange
        self._keys = keys

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(f"{PREFIX}/{path}", self._guard(handler))
            for path, handler in (
                ("bars", self._bars),
                ("quotes", self._quotes),
                ("trades", self._trades),
                ("latest/bars", self._latest_bars),
                ("latest/quotes", self._latest_quotes),
                ("latest/trades", self._latest_trades),
                ("latest/orderbooks", self._latest_orderbooks),
                ("snapshots", self._snapshots),
            )
        ]

    def _guard(self, handler: Callable[[web.Request], Awaitable[web.Response]]) -> Handler:
        async def guarded(request: web.Request) -> web.Response:
            if self._keys.offered(request) and self._keys.of(request) is None:
                return wire.error(401, 40110000, "request is not authorized")
            try:
                return await handler(request)
            except Refused as refused:
                return wire.error(400, 40010000, str(refused))

        return guarded

    # --- history ---------------------------------------------------------------------------------

    async def _bars(self, request: web.Request) -> web.Response:
        seconds = timeframe_seconds(self._exchange, request.query.get("timeframe", ""))
        newest_first = request.query.get("sort") == "desc"

        def series(symbol: str, start: int, end: int, limit: int) -> list[tuple[int, Row]]:
            rows = bar_rows(
                self._exchange,
                symbol,
                seconds=seconds,
                start=-(-start // MICROSECONDS),
                end=end // MICROSECONDS,
                limit=limit,
                newest_first=newest_first,
            )
            return [(parse_time(row["t"], "t"), row) for row in rows]

        return self._page(request, "bars", series, newest_first)

    async def _quotes(self, request: web.Request) -> web.Response:
        return self._ticks(request, "quotes", self._quote)

    async def _trades(self, request: web.Request) -> web.Response:
        return self._ticks(request, "trades", self._trade)

    def _ticks(self, request: web.Request, name: str, row: Callable[[Tick, int], Row]) -> web.Response:
        newest_first, tape = request.query.get("sort") == "desc", self._exchange.tape

        def series(symbol: str, start: int, end: int, limit: int) -> list[tuple[int, Row]]:
            column = tape.symbols.index(symbol)
            span = tape.timeframe.seconds * MICROSECONDS
            opened = int(tape.bars.ts[0]) * MICROSECONDS
            first, last = (min(max((at - opened) // span, 0), len(tape.bars.ts) - 1) for at in (start, end))
            numbers = range(tape.first_tick(first), min(tape.first_tick(last + 1), self._exchange.tick.number) + 1)
            found: list[tuple[int, Row]] = []
            for number in reversed(numbers) if newest_first else numbers:
                tick = tape.tick(number)
                if start <= tick.at_us <= end and not tick.halted[column]:
                    found.append((tick.at_us, row(tick, column)))
                    if len(found) == limit:
                        break
            return found

        return self._page(request, name, series, newest_first)

    def _page(self, request: web.Request, name: str, series: Series, newest_first: bool) -> web.Response:
        """One page; its token names the symbol and the instant at which the next one goes on."""
        query, now = request.query, self._exchange.tick.at_us
        limit = self._limit(query.get("limit"))
        start = parse_time(query["start"], "start") if query.get("start") else now - now % (DAY * MICROSECONDS)
        end = min(parse_time(query["end"], "end"), now) if query.get("end") else now
        symbols, resumed = sorted(self._symbols(request)), _read_token(query.get("page_token"))
        page: dict[str, list[Row]] = {}
        for symbol in symbols:
            if resumed is not None and symbol < resumed[0]:
                continue
            low, high = start, end
            if resumed is not None and symbol == resumed[0]:
                low, high = (low, min(high, resumed[1])) if newest_first else (max(low, resumed[1]), high)
            found = series(symbol, low, high, limit + 1)
            if len(found) > limit:
                if found[:limit]:
                    page[symbol] = [row for _, row in found[:limit]]
                return wire.answer({name: page, "next_page_token": _token(symbol, found[limit][0])})
            if found:
                page[symbol] = [row for _, row in found]
                limit -= len(found)
        return wire.answer({name: page, "next_page_token": None})

    @staticmethod
    def _limit(raw: str | None) -> int:
        if not raw:
            return DEFAULT_PAGE
        if not raw.isdigit() or not 1 <= int(raw) <= PAGE:
            raise Refused("invalid", f"limit {raw!r} is outside 1 to {PAGE}")
        return int(raw)

    def _symbols(self, request: web.Request) -> list[str]:
        names = [name for name in request.query.get("symbols", "").split(",") if name]
        unknown = [name for name in names if name not in self._exchange.rules]
        if not names or unknown:
            raise Refused("invalid", f"invalid symbol: {', '.join(unknown)}" if unknown else "symbols is required")
        return names

    # --- latest ----------------------------------------------------------------------------------

    def _quote(self, tick: Tick, column: int) -> Row:
        half, price, volume = float(self._exchange.terms.spread_bps) / 2e4, tick.prices[column], tick.volume[column]
        at = wire.when(tick.at_us)
        return {"t": at, "bp": price * (1 - half), "bs": volume, "ap": price * (1 + half), "as": volume}

    def _trade(self, tick: Tick, column: int) -> Row:
        return {"t": wire.when(tick.at_us), "p": tick.prices[column], "s": tick.volume[column], "i": tick.number, "tks": "B"}

    def _live_tick(self, symbol: str) -> tuple[Tick, int] | None:
        """The last tick on which the symbol was not halted, and its column; None before its first bar."""
        tape, tick = self._exchange.tape, self._exchange.quoted(symbol)
        column = tape.symbols.index(symbol)
        if not tick.halted[column]:
            return tick, column
        traded = np.flatnonzero(~tape.halted[: tick.bar, column])
        if len(traded) == 0:
            return None
        last = int(traded[-1])
        if last >= tape.first:
            return tape.tick(tape.first_tick(last + 1) - 1), column
        return replace(tick, at_us=(int(tape.bars.ts[last]) + tape.timeframe.seconds) * MICROSECONDS), column

    async def _latest_quotes(self, request: web.Request) -> web.Response:
        found = {symbol: self._live_tick(symbol) for symbol in self._symbols(request)}
        return wire.answer({"quotes": {symbol: self._quote(*live) for symbol, live in found.items() if live}})

    async def _latest_trades(self, request: web.Request) -> web.Response:
        found = {symbol: self._live_tick(symbol) for symbol in self._symbols(request)}
        return wire.answer({"trades": {symbol: self._trade(*live) for symbol, live in found.items() if live}})

    async def _latest_orderbooks(self, request: web.Request) -> web.Response:
        books = {}
        for symbol in self._symbols(request):
            live = self._live_tick(symbol)
            if live:
                quote = self._quote(*live)
                bids, asks = [{"p": quote["bp"], "s": quote["bs"]}], [{"p": quote["ap"], "s": quote["as"]}]
                books[symbol] = {"t": quote["t"], "b": bids, "a": asks}
        return wire.answer({"orderbooks": books})

    def _last_bars(self, symbol: str, seconds: int, count: int, *, unfinished: bool = False) -> list[Row]:
        now = self._exchange.tick.at_us // MICROSECONDS
        first = int(self._exchange.tape.bars.ts[0])
        start = first if seconds == self._exchange.tape.timeframe.seconds else now - now % seconds - count * seconds
        return bar_rows(
            self._exchange, symbol, seconds=seconds, start=start, end=now, limit=count, newest_first=True, unfinished=unfinished
        )

    async def _latest_bars(self, request: web.Request) -> web.Response:
        own = self._exchange.tape.timeframe.seconds
        found = {symbol: self._last_bars(symbol, own, 1) for symbol in self._symbols(request)}
        return wire.answer({"bars": {symbol: rows[0] for symbol, rows in found.items() if rows}})

    async def _snapshots(self, request: web.Request) -> web.Response:
        """`minuteBar` is the tape's latest bar: it has no shorter ones."""
        own, snapshots = self._exchange.tape.timeframe.seconds, {}
        for symbol in self._symbols(request):
            live = self._live_tick(symbol)
            last, days = self._last_bars(symbol, own, 1), self._last_bars(symbol, DAY, 2, unfinished=True)
            if live:
                snapshots[symbol] = {
                    "latestTrade": self._trade(*live),
                    "latestQuote": self._quote(*live),
                    "minuteBar": last[0] if last else None,
                    "dailyBar": days[0] if days else None,
                    "prevDailyBar": days[1] if len(days) > 1 else None,
                }
        return wire.answer({"snapshots": snapshots})


def _token(symbol: str, at_us: int) -> str:
    return base64.urlsafe_b64encode(f"{symbol}|{at_us}".encode()).decode()


def _read_token(token: str | None) -> tuple[str, int] | None:
    if not token:
        return None
    try:
        symbol, _, at_us = base64.urlsafe_b64decode(token).decode().partition("|")
        return symbol, int(at_us)
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        raise Refused("invalid", f"page_token {token!r} is invalid") from error
