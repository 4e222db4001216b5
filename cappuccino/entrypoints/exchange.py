"""`cappuccino exchange`: serve the simulated exchange over a file of bars until the process is told to end.

Prints one JSON line when it is ready, with its port. It listens on the loopback address unless told otherwise; elsewhere the
control endpoints need the secret CAPPUCCINO_EXCHANGE_TOKEN. With a journal it goes on where it was, however it ended.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import ipaddress
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from cappuccino.adapters.sources.files import FileBars
from cappuccino.adapters.venue_server.app import DESK, build_app
from cappuccino.adapters.venue_server.journal import Journal
from cappuccino.api.dataset import DatasetSpec
from cappuccino.api.meta import explain
from cappuccino.core.clock import from_epoch, iso, parse_iso, to_epoch
from cappuccino.core.errors import CappuccinoError, Conflict, InvalidInput
from cappuccino.core.timeframe import Timeframe
from cappuccino.entrypoints.ingest import source_of
from cappuccino.entrypoints.settings import EXCHANGE_TOKEN as TOKEN
from cappuccino.entrypoints.settings import SPEC
from cappuccino.exchange.faults import Plan, gaps, read_plan
from cappuccino.exchange.simulator import SimulatedExchange
from cappuccino.exchange.tape import MICROSECONDS, Tape
from cappuccino.exchange.terms import Terms
from cappuccino.exchange.venue import ALPACA_FEE_TIERS, flat_fee
from cappuccino.market import quality
from cappuccino.market.bars import Bars


@dataclass(frozen=True, kw_only=True)
class ExchangeSettings:
    """start: epoch seconds at which the clock starts, None: the first bar; earlier bars are history.
    speed: bars per wall second at most; 0 without limit, in lockstep only. port 0: any free one.
    start_with: sessions with which the clock starts by itself, 0: by the control endpoint only.
    requests_per_minute: per account and market minute; 0 without limit. journal: None forgets at the end.
    """

    host: str = "127.0.0.1"
    port: int = 8700
    start: int | None = None
    speed: float = 0.0
    free: bool = False
    start_with: int = 0
    tick_bps: float = 100.0
    terms: Terms = field(default_factory=Terms)
    journal: Path | None = None
    requests_per_minute: int = 200
    faults: Plan = field(default_factory=Plan)
    refuse_duplicates: bool = False
    token: str = ""

    def __post_init__(self) -> None:
        if self.speed < 0 or (self.free and self.speed == 0):
            raise InvalidInput(
                f"exchange: speed {self.speed:g} is no pace for a clock: free running needs bars per second above 0"
            )
        if self.requests_per_minute < 0:
            raise InvalidInput(f"exchange: {self.requests_per_minute} requests per minute: use 0 for no limit, or more")
        if not self.token and not _loopback(self.host):
            raise InvalidInput(f"exchange: listening on {self.host} needs a secret: set {TOKEN}, or use --host 127.0.0.1")


def serve(settings: ExchangeSettings, load: Callable[[], Bars], *, announce: Callable[[dict[str, Any]], None]) -> None:
    """Serve until SIGTERM or SIGINT. `announce` is called once, with where the exchange listens and what it trades.

    Raises:
        Conflict: the port or the journal is in use, or the journal is of another tape.
        InvalidInput: the bars cannot be a tape. InvariantViolation and others: what the clock died of.
    """
    tape = Tape(_gapped(load(), settings.faults), start=settings.start, tick_bps=settings.tick_bps)
    asyncio.run(_serve(settings, SimulatedExchange(tape, settings.terms), announce))


def _gapped(bars: Bars, plan: Plan) -> Bars:
    """The bars with the plan's price gaps in them."""
    if not plan:
        return bars
    factor = gaps(plan, bars.ts, bars.symbols)
    return replace(bars, open=bars.open * factor, high=bars.high * factor, low=bars.low * factor, close=bars.close * factor)


async def _serve(settings: ExchangeSettings, exchange: SimulatedExchange, announce: Callable[[dict[str, Any]], None]) -> None:
    tape = exchange.tape
    journal = Journal(settings.journal, tape=tape.digest, terms=settings.terms.describe())
    app = build_app(
        exchange,
        journal,
        speed=settings.speed,
        free=settings.free,
        start_with=settings.start_with,
        requests_per_minute=settings.requests_per_minute,
        faults=settings.faults,
        refuse_duplicates=settings.refuse_duplicates,
        token=settings.token,
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    desk, stop = app[DESK], asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    try:
        await _listen(runner, settings)
        host, port = runner.addresses[0][:2]
        announce(
            {
                "ready": True,
                "url": f"http://{host}:{port}",
                "host": host,
                "port": port,
                "symbols": list(tape.symbols),
                "timeframe": str(tape.timeframe),
                "market_at": iso(from_epoch(exchange.tick.at_us / MICROSECONDS)),
                "tick": exchange.tick.number,
                "pid": os.getpid(),
            }
        )
        ends = [asyncio.create_task(event.wait()) for event in (stop, desk.broken)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
    finally:
        await runner.cleanup()
    if desk.error is not None:
        raise desk.error


async def _listen(runner: web.AppRunner, settings: ExchangeSettings) -> None:
    try:
        await web.TCPSite(runner, settings.host, settings.port).start()
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                f"exchange: port {where} is in use: stop what listens there, or choose another with --port"
            ) from error
        raise InvalidInput(f"exchange: cannot listen on {where} ({error.strerror}): correct --host or --port") from error


def bars_of(path: Path, symbols: Sequence[str]) -> Bars:
    """The file's bars, judged as a Dataset's would be; all its symbols when none are named.

    Raises:
        InvalidInput: unreadable, no timeframe to be seen, or a symbol that cannot be used.
    """
    source = FileBars(path)
    named, timeframe = list(symbols) or source.symbols(), source.timeframe()
    if timeframe is None:
        raise InvalidInput(f"{path}: no two bars are neighbours, so the timeframe is unknown: give an unbroken stretch of bars")
    end = max(last for _, last in source.available(named, timeframe).values())
    bars, report = quality.check(source.fetch(named, timeframe, 0, end), named, timeframe, end=end)
    if report.quarantined:
        symbol, reason = next(iter(report.quarantined.items()))
        raise InvalidInput(f"{path}: {symbol} cannot be traded, {reason}: correct the file or leave it out with --symbols")
    return bars


def market_of(text: str) -> Bars:
    """The bars of a market that is described as a Dataset's spec, as JSON: the same ones that such a Dataset has.

    Raises:
        InvalidInput: no such spec, or one without an end.
    """
    try:
        spec = DatasetSpec.model_validate_json(text or "{}", strict=True)
    except ValidationError as error:
        raise InvalidInput(explain(error, DatasetSpec, source=SPEC)) from error
    if spec.end is None:
        raise InvalidInput(f"{SPEC}: end: a market that is traded needs an end: add it")
    timeframe, symbols = Timeframe.parse(spec.timeframe), list(spec.symbols)
    start, end = (to_epoch(parse_iso(at)) for at in (spec.start, spec.end))
    bars, report = quality.check(
        source_of(spec.source, start=spec.start).fetch(symbols, timeframe, start, end), symbols, timeframe, end=end
    )
    if report.quarantined:
        symbol, reason = next(iter(report.quarantined.items()))
        raise InvalidInput(f"{SPEC}: {symbol} cannot be traded, {reason}: correct the source or leave it out")
    return bars


def main(argv: Sequence[str]) -> int:
    """The command line."""
    options = _parser().parse_args(argv)
    try:
        symbols = [symbol for symbol in options.symbols.split(",") if symbol]
        load = (lambda: market_of(os.environ.get(SPEC, ""))) if options.market else (lambda: bars_of(options.bars, symbols))
        serve(_settings(options), load, announce=_announce)
    except CappuccinoError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _announce(ready: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()


def _settings(options: argparse.Namespace) -> ExchangeSettings:
    if options.fee_bps is not None and options.fee_tier is not None:
        raise InvalidInput("exchange: --fee-bps and --fee-tier exclude each other: give one")
    terms = Terms(
        slippage_bps=options.slippage_bps,
        slippage_by_symbol_bps=dict(_pair(text) for text in options.symbol_slippage_bps),
        spread_bps=options.spread_bps,
        liquidity_share=options.liquidity_share,
        participation_cap=options.participation_cap,
    )
    if options.fee_bps is not None:
        terms = replace(terms, fee_tiers=flat_fee(options.fee_bps), coinbase_fee_tiers=flat_fee(options.fee_bps))
    elif options.fee_tier is not None:
        terms = replace(terms, fee_tiers=(replace(ALPACA_FEE_TIERS[options.fee_tier - 1], volume_from_usd=0),))
    return ExchangeSettings(
        host=options.host,
        port=options.port,
        start=None if options.start is None else to_epoch(parse_iso(options.start)),
        speed=options.speed,
        free=options.free,
        start_with=options.start_with,
        tick_bps=options.tick_bps,
        terms=terms,
        journal=options.journal,
        requests_per_minute=options.requests_per_minute,
        faults=_plan_of(options.faults),
        refuse_duplicates=options.refuse_duplicates,
        token=os.environ.get(TOKEN, ""),
    )


def _plan_of(path: Path | None) -> Plan:
    if path is None:
        return Plan()
    try:
        return read_plan(path.read_text())
    except OSError as error:
        raise InvalidInput(f"exchange: --faults {path} cannot be read ({error.strerror}): correct the path") from error


def _pair(text: str) -> tuple[str, Decimal]:
    symbol, _, bps = text.partition("=")
    return symbol, _decimal(bps)


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except ArithmeticError as error:
        raise InvalidInput(f"exchange: {text!r} is not a number") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cappuccino exchange",
        description="Serve the simulated exchange, which speaks Alpaca's and Coinbase's protocols, over a file of bars.",
        epilog="example: cappuccino exchange --bars bars.parquet --start 2024-07-01T00:00:00Z --journal exchange.journal",
    )
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--bars", type=Path, help="Parquet, CSV or Feather: symbol, ts, open, high, low, close, volume")
    source.add_argument("--market", action="store_true", help=f"the market that {SPEC} describes, as a Dataset's spec in JSON")
    add("--symbols", default="", help="with commas between; default: all of the file")
    add("--host", default="127.0.0.1", help=f"other than loopback needs {TOKEN}")
    add("--port", type=int, default=8700, help="0: any free one (default %(default)s)")
    add("--start", help="market time at which the clock starts, RFC 3339; earlier bars are history")
    add("--speed", type=float, default=0.0, help="bars per wall second at most; 0: no limit (lockstep only)")
    add("--start-with", type=int, default=0, help="sessions with which the clock starts by itself; 0: when it is told to")
    add("--free", action="store_true", help="run by the wall's time instead of waiting for the sessions")
    add("--tick-bps", type=float, default=100.0, help="largest step between two ticks of a bar (default %(default)s)")
    add("--fee-bps", type=_decimal, help="one fee for all; default: each face's tiers by 30-day volume")
    add("--fee-tier", type=int, choices=range(1, len(ALPACA_FEE_TIERS) + 1), help="pin one of Alpaca's tiers")
    add("--slippage-bps", type=_decimal, default=Decimal(5), help="of market orders, a side (default %(default)s)")
    add("--symbol-slippage-bps", action="append", default=[], metavar="SYMBOL=BPS", help="repeatable")
    add("--spread-bps", type=_decimal, default=Decimal(0), help="of the quotes; taken on top of slippage (default 0)")
    add("--liquidity-share", type=_decimal, default=Decimal("0.1"), help="of a tick's volume, for limit orders")
    add("--participation-cap", type=_decimal, help="of a tick's volume, for market orders; default: they fill whole")
    add("--requests-per-minute", type=int, default=200, help="per account, of market time; 0: no limit")
    add("--refuse-duplicates", action="store_true", help="Coinbase's face refuses a client order id that was used")
    add("--faults", type=Path, help="JSON file that says what goes wrong, by script or at random by seed; default: nothing")
    add("--journal", type=Path, help="file that keeps the book; default: forget at the end")
    return parser


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
