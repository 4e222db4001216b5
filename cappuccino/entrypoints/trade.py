"""`trade`: a Trader on its account, or several, each on its own, in one process.

    python -m cappuccino.entrypoints.trade --account NAME --trader-uid UID --bundle DIGEST [--flatten | --release]
    python -m cappuccino.entrypoints.trade --portfolios FILE

What it may do is the Trader's spec, as JSON in CAPPUCCINO_SPEC (a Trader manifest's `spec`). The rest of the
environment: CAPPUCCINO_DATABASE_URL, CAPPUCCINO_ARTIFACTS_URL, CAPPUCCINO_EXCHANGE_URL (venue.url replaces it),
CAPPUCCINO_EXCHANGE_TOKEN, and on Alpaca CAPPUCCINO_SECRETS, where the Secret of venue.accountSecretRef lies. With
CAPPUCCINO_REHEARSAL, which no manifest can set, real venues are played by the exchange: the road to real money without money.

Mode live trades only what the record permits: at the start, and at every renewal of the lease (controllers/live.py).

Ends with 0 when the simulated venue's tape ended with everything recorded (or, with --flatten, everything sold); 2 or 3
when a person must act; 70 when a rule of our own was broken, after halting the account; 75 when a restart is worth it;
143 on SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cappuccino.adapters.alpaca.broker import AlpacaBroker
from cappuccino.adapters.alpaca.feeds import LockstepFeed, Streams, WallClockFeed, leave, open_account
from cappuccino.adapters.alpaca.inbox import Inbox
from cappuccino.adapters.alpaca.rest import Credentials, Endpoints
from cappuccino.adapters.alpaca.streams import Streams as AlpacaStreams
from cappuccino.adapters.postgres.ledger import PostgresLedger
from cappuccino.api.meta import explain
from cappuccino.api.trader import Mode, RiskLimits, TraderSpec
from cappuccino.bundle import Bundle
from cappuccino.controllers.live import terms
from cappuccino.core import lifeline
from cappuccino.core.clock import SystemClock
from cappuccino.core.errors import (
    PREEMPTED_EXIT_CODE,
    CappuccinoError,
    IntegrityError,
    InvalidInput,
    InvariantViolation,
    RetryLater,
    UserError,
)
from cappuccino.core.money import dec
from cappuccino.entrypoints.health_server import HealthServer
from cappuccino.entrypoints.portfolios import Portfolios
from cappuccino.entrypoints.settings import (
    EXCHANGE_TOKEN,
    EXCHANGE_URL,
    REHEARSAL,
    SECRETS,
    WorkerSettings,
    health_address,
    required,
)
from cappuccino.entrypoints.shared import Shared
from cappuccino.exchange.venue import Costs, Face
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.limits import LIVE_MAX_WEIGHT, Limits
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.interface import Strategy
from cappuccino.telemetry.logs import configure, get_logger
from cappuccino.telemetry.metrics import TraderMetrics
from cappuccino.telemetry.traces import exported
from cappuccino.trading.absent import Absent, contract_of
from cappuccino.trading.allotment import AllottedBroker
from cappuccino.trading.health import Health
from cappuccino.trading.lease import LeaseKeeper
from cappuccino.trading.ports import Broker, Ledger
from cappuccino.trading.session import Session
from cappuccino.trading.shadow import ShadowBroker
from cappuccino.trading.situation import SessionConfig

LEASE_SECONDS = 15.0
_STALE_BARS = 2
_LATCH_SECONDS = 1.0  # between two tries to halt an account


@dataclass(frozen=True, kw_only=True)
class TradeSettings:
    account: str
    trader_uid: str
    bundle_digest: str
    spec: TraderSpec
    database_url: str
    artifacts_url: str
    flatten: bool = False
    release: bool = False
    health_host: str = "127.0.0.1"
    health_port: int = 0
    lease_seconds: float = LEASE_SECONDS
    bundle_folder: Path = Path(tempfile.gettempdir()) / f"cappuccino-bundles-{os.getuid()}"


@dataclass(frozen=True, kw_only=True)
class Venue:
    """Where this trader is: the broker it sends to, the feed that drives it."""

    name: str
    broker: Broker
    feed: LockstepFeed | WallClockFeed
    url: str | None
    session: str  # its name in the exchange's lockstep


def main(argv: Sequence[str]) -> int:
    """Exit code of the process; one line on stderr says why it is not 0."""
    parser = _parser()
    options = parser.parse_args(argv)
    if (options.portfolios is None) != all((options.account, options.trader_uid, options.bundle)):
        parser.error("give --account, --trader-uid and --bundle, or --portfolios")
    if options.die_with_parent:
        os.environ[lifeline.VARIABLE] = "stdin"
        lifeline.watch()
    named = {"account": options.account, "trader_uid": options.trader_uid} if options.portfolios is None else {}
    configure(level=options.log_level, **named)
    try:
        with exported("trade"):
            if options.portfolios is not None:
                return trade_several(_several(options))
            return trade(_settings(options))
    except CappuccinoError as error:
        get_logger("trade").error("ended", error=str(error), kind=type(error).__name__, exit_code=error.exit_code)
        sys.stderr.write(f"{error}\n")
        return error.exit_code


def trade(settings: TradeSettings) -> int:
    """Trade until the tape or the process is told to end. Raises CappuccinoError with its exit code."""
    spec = settings.spec
    if settings.release:
        if _simulated(spec):
            url = spec.venue.url or required(EXCHANGE_URL)
            leave(url, _session_name(settings), token=_token(url))
        return 0
    with ExitStack() as stack:
        portfolio = Portfolio(settings, stack.enter_context(_shared(settings, portfolios=1)))
        _on_signals(portfolio.stop)
        stack.enter_context(HealthServer(settings.health_host, settings.health_port, {settings.account: portfolio}))
        return portfolio.run()


def trade_several(several: Sequence[TradeSettings]) -> int:
    """As `trade`, for all of them in this process: each account is traded by itself (portfolios.py)."""
    first = several[0]
    with ExitStack() as stack:
        shared = stack.enter_context(_shared(first, portfolios=len(several)))
        portfolios = {settings.account: Portfolio(settings, shared) for settings in several}
        together = Portfolios(list(portfolios.values()))
        _on_signals(together.stop)
        stack.enter_context(HealthServer(first.health_host, first.health_port, portfolios))
        return together.run()


def _shared(settings: TradeSettings, *, portfolios: int) -> AbstractContextManager[Shared]:
    return Shared.open(settings.database_url, settings.artifacts_url, settings.bundle_folder, portfolios=portfolios)


def _on_signals(stop: Callable[[str], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: stop(signal.Signals(received).name))


class Portfolio:
    """One account: what it trades, how it stands, until it ends or is told to. See `portfolios.Portfolio`."""

    def __init__(self, settings: TradeSettings, shared: Shared) -> None:
        self.account = settings.account
        self.max_restarts = settings.spec.max_restarts
        self.ended: str | None = None
        self.metrics = TraderMetrics()
        self.health = Health(monotonic=time.monotonic, stale_seconds=None)
        self._settings = settings
        self._shared = shared
        self._stopped = ""
        self._feed: LockstepFeed | WallClockFeed | None = None

    def stop(self, reason: str) -> None:
        self._stopped = reason
        if self._feed is not None:
            self._feed.stop(reason)

    def run(self) -> int:
        """Raises CappuccinoError with its exit code."""
        settings, shared, spec = self._settings, self._shared, self._settings.spec
        simulated = _simulated(spec)
        ledger = PostgresLedger(
            shared.pool,
            account=settings.account,
            venue=_venue_name(spec),
            trader_uid=settings.trader_uid,
            holder=settings.trader_uid,
            lease_seconds=settings.lease_seconds,
            terms=terms(spec) if spec.mode == "live" else None,
        )
        with shared.starting:
            _require_permit(settings, ledger)
            bundle, strategy = _decider(settings, ledger, shared)
            stale_seconds = float(_STALE_BARS * bundle.contract.timeframe.seconds)
            health = self.health = Health(monotonic=time.monotonic, stale_seconds=None if simulated else stale_seconds)
            lease = LeaseKeeper(ledger, seconds=settings.lease_seconds, monotonic=time.monotonic, rounds=shared.leases)
            health.lease_alive, health.database_away = lambda: lease.alive, lambda: lease.database_away
            venue = _venue(settings, bundle, ledger, shared)
        if isinstance(strategy, Absent):
            strategy.found = lambda: venue.feed.stop("the bundle can be read again")
        session = Session(
            SessionConfig(
                account=settings.account,
                trader_uid=settings.trader_uid,
                bundle_digest=settings.bundle_digest,
                sizing=bundle.sizing,
                limits=limits_of(spec.risk, spec.mode),
                on_halt=spec.on_halt,
                fees_posted_later=not simulated and spec.sends and spec.venue.kind == "alpaca",
                costs=None if isinstance(strategy, Absent) else bundle.costs,
            ),
            strategy=strategy,
            broker=venue.broker,
            ledger=ledger,
            feed=venue.feed,
            lease=lease,
            metrics=self.metrics,
            health=health,
            monotonic=time.monotonic,
            series=shared.series(venue.url or venue.name, bundle.contract),
        )
        self._feed = venue.feed
        if self._stopped:
            venue.feed.stop(self._stopped)
        try:
            return self._trade(session, ledger, lease, venue)
        finally:
            self._feed = None

    def _trade(self, session: Session, ledger: PostgresLedger, lease: LeaseKeeper, venue: Venue) -> int:
        release = True
        try:
            if self._settings.flatten:
                session.flatten()
                if venue.url is not None:
                    leave(venue.url, venue.session, token=_token(venue.url))
                return 0
            with self._shared.starting:
                session.start()
            stop = session.trade()
            return 0 if stop.finished else PREEMPTED_EXIT_CODE
        except InvariantViolation as error:
            release = False
            self._latch(ledger, f"invariant violation: {error}")
            _leave(venue)
            raise
        except RetryLater:
            if self._stopped:
                return PREEMPTED_EXIT_CODE
            raise
        except (UserError, IntegrityError):
            _leave(venue)
            raise
        finally:
            venue.feed.close()
            lease.close(release=release)

    def _latch(self, ledger: Ledger, reason: str) -> None:
        """Halt the account. While the database is away this process stays, so that no other one trades before it is halted."""
        while True:
            try:
                ledger.halt(reason)
                return
            except RetryLater as error:
                get_logger("trade").error("halt_not_recorded", reason=reason, error=str(error))
                if self._stopped:
                    return
                time.sleep(_LATCH_SECONDS)


def _decider(settings: TradeSettings, ledger: PostgresLedger, shared: Shared) -> tuple[Bundle, Strategy]:
    """What is traded, and what decides. A bundle that cannot be read leaves no position unguarded (`trading/absent`).

    Raises:
        CappuccinoError: it cannot be read, and the account has nothing open.
    """

    def read() -> tuple[Bundle, Strategy]:
        return shared.decider(settings.bundle_digest)

    try:
        return read()
    except (CappuccinoError, OSError, ImportError) as error:
        contract = contract_of(ledger.load())
        if contract is None:
            raise
        get_logger("trade").error("guarding_without_a_bundle", symbols=contract.symbols, error=str(error))
        stand_in = Bundle(
            kind="cash",
            contract=contract,
            sizing=Sizing(),
            barriers=Barriers(),
            costs=Costs(),
            capital_usd=settings.spec.capital_usd,
        )
        return stand_in, Absent(contract, look=read)


def _require_permit(settings: TradeSettings, ledger: PostgresLedger) -> None:
    """Raises InvalidInput: it is live, and nobody approved what it is. What was approved once may still sell what it holds."""
    if settings.spec.mode != "live":
        return
    permit = ledger.permit()
    if permit is None or (permit != "standing" and not settings.flatten):
        raise InvalidInput(
            f"trader {settings.trader_uid}: mode live on account {settings.account} has no standing approval for this spec:"
            " approve a candidate of a Deployment with a live section, which starts its Traders itself"
        )


def _simulated(spec: TraderSpec) -> bool:
    return spec.venue.kind == "simulated" or REHEARSAL in os.environ


def _session_name(settings: TradeSettings) -> str:
    """In rehearsal one real account is one account of the exchange, whoever sends to it."""
    spec, secret = settings.spec, settings.spec.venue.account_secret_ref
    return secret.name if secret is not None and spec.sends and spec.venue.kind != "simulated" else settings.account


def _leave(venue: Venue) -> None:
    """A trader that waits for a person must not hold up a simulated market."""
    if venue.url is not None:
        try:
            leave(venue.url, venue.session, token=_token(venue.url))
        except RetryLater as error:
            get_logger("trade").warning("not_left", error=str(error))


def limits_of(risk: RiskLimits, mode: Mode) -> Limits:
    """A manifest's limits; real money takes no more than LIVE_MAX_WEIGHT in one symbol, to which targets are scaled."""
    same = {each.name: getattr(risk, each.name) for each in fields(Limits) if each.name != "barriers"}
    if mode == "live":
        same["max_weight"] = min(risk.max_weight, LIVE_MAX_WEIGHT)
    return Limits(
        **same,
        barriers=Barriers(
            stop=risk.stop or None,
            take_profit=risk.take_profit or None,
            trail=risk.trail or None,
            trail_arms_at=risk.trail_arms_at,
            max_hold_bars=risk.max_hold_bars or None,
        ),
    )


def _venue_name(spec: TraderSpec) -> str:
    kind = f"rehearsal/{spec.venue.kind}" if _simulated(spec) and spec.venue.kind != "simulated" else spec.venue.kind
    if spec.mode == "live":
        return f"{kind}/{'dry-run' if spec.dry_run else 'live'}"
    return f"{kind}/shadow" if spec.mode == "shadow" else kind


def _venue(settings: TradeSettings, bundle: Bundle, ledger: PostgresLedger, shared: Shared) -> Venue:
    spec, symbols, inbox = settings.spec, bundle.contract.symbols, Inbox()
    capital = dec(spec.capital_usd)
    face: Face = "coinbase" if spec.venue.kind == "coinbase" else "alpaca"
    url, session = None, settings.account
    if _simulated(spec):
        url, session = spec.venue.url or required(EXCHANGE_URL), _session_name(settings)
        cash = capital if session == settings.account else dec(required(REHEARSAL))
        credentials = open_account(url, session, capital_usd=f"{cash:f}", token=_token(url), protocol=face)
    elif face == "coinbase" and spec.mode == "paper":
        raise InvalidInput(
            "Coinbase has no paper accounts, so that mode paper would spend real money: use shadow, or the simulated venue"
        )
    else:
        credentials = _credentials(spec)
    broker: Broker
    streams: Streams
    if face == "coinbase":
        from cappuccino.entrypoints import coinbase  # the SDK, for those who trade there

        broker, streams = coinbase.reach(credentials, url, symbols=symbols, inbox=inbox, orders=spec.sends)
    else:
        broker, streams = _alpaca(spec, credentials, url, symbols=symbols, inbox=inbox, shared=shared)
    feed: LockstepFeed | WallClockFeed
    if url is not None:
        feed = LockstepFeed(shared.line(url, _token(url)), session, inbox=inbox, streams=streams)
    else:
        feed = WallClockFeed(bundle.contract.timeframe, clock=SystemClock(), inbox=inbox, streams=streams)
    if not spec.sends:
        fills = ledger.load().fills
        broker = ShadowBroker(broker, symbols=symbols, capital_usd=capital, costs=bundle.costs, fills=fills)
    elif spec.mode == "live":
        broker = AllottedBroker(broker, capital_usd=capital, reserve=ledger.reserve)
    return Venue(name=_venue_name(spec), broker=broker, feed=feed, url=url, session=session)


def _alpaca(
    spec: TraderSpec, credentials: Credentials, url: str | None, *, symbols: Sequence[str], inbox: Inbox, shared: Shared
) -> tuple[Broker, Streams]:
    endpoints = Endpoints(paper=spec.mode != "live") if url is None else Endpoints.at(url)
    quotes = shared.quotes(credentials, endpoints, symbols)
    streams = AlpacaStreams(
        credentials, endpoints, symbols=symbols, inbox=inbox, orders=spec.sends, loop=shared.loop, quotes=quotes
    )
    broker = AlpacaBroker(
        credentials, endpoints, symbols=symbols, fees_with_fills=url is not None, connections=shared.connections
    )
    return broker, streams


def _credentials(spec: TraderSpec) -> Credentials:
    """The key and secret of `venue.accountSecretRef`: two files in a folder, as a cluster mounts a Secret.

    Raises:
        InvalidInput: no Secret is named, or it cannot be read; says which file is looked for.
    """
    if spec.venue.account_secret_ref is None:
        raise InvalidInput(f"venue {spec.venue.kind} needs a key even to look: name a Secret in venue.accountSecretRef")
    folder = Path(required(SECRETS)) / spec.venue.account_secret_ref.name
    try:
        key_id, secret_key = ((folder / name).read_text().strip() for name in ("key_id", "secret_key"))
    except OSError as error:
        raise InvalidInput(
            f"Secret {folder.name}: {error.filename} cannot be read ({error.strerror}): write it there"
        ) from error
    return Credentials(key_id=key_id, secret_key=secret_key)


def _token(url: str) -> str:
    """The control endpoints' secret, for the cluster's own exchange only: a manifest's venue.url is not trusted with it."""
    return os.environ.get(EXCHANGE_TOKEN, "") if url == os.environ.get(EXCHANGE_URL) else ""


def _several(options: argparse.Namespace) -> list[TradeSettings]:
    """The Traders of `--portfolios`: a JSON list of {"traderUid", "spec"}, where a spec has its account and its bundle.

    Raises:
        InvalidInput: it cannot be read, names an account twice, or has a live Trader, which has a process to itself.
    """
    if options.flatten or options.release:
        raise InvalidInput("--flatten and --release are for one account: name it, without --portfolios")
    try:
        entries = [(str(entry["traderUid"]), dict(entry["spec"])) for entry in json.loads(options.portfolios.read_bytes())]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{options.portfolios} is no list of Traders ({type(error).__name__}: {error}): write it") from error
    found = []
    for trader_uid, document in entries:
        spec = _spec(document, source=f"{options.portfolios}, {trader_uid}")
        if spec.mode == "live":
            raise InvalidInput(f"trader {trader_uid} is live: a live Trader has a process to itself, take it out")
        found.append(_settings_of(spec, trader_uid, options))
    twice = [account for account, times in Counter(each.account for each in found).items() if times > 1]
    if twice or not found:
        wrong = f"account {twice[0]} is there twice" if twice else "it names no Trader"
        raise InvalidInput(f"{options.portfolios}: {wrong}: correct it")
    return found


def _settings(options: argparse.Namespace) -> TradeSettings:
    document = dict(WorkerSettings.read().spec)
    document.setdefault("account", options.account)
    document.setdefault("bundleDigest", options.bundle)
    return replace(
        _settings_of(_spec(document), options.trader_uid, options),
        account=options.account,
        bundle_digest=options.bundle,
        flatten=options.flatten,
        release=options.release,
    )


def _settings_of(spec: TraderSpec, trader_uid: str, options: argparse.Namespace) -> TradeSettings:
    worker = WorkerSettings.read()
    host, port = health_address(os.environ)
    return TradeSettings(
        account=spec.account,
        trader_uid=trader_uid,
        bundle_digest=spec.bundle_digest,
        spec=spec,
        database_url=worker.database_url,
        artifacts_url=worker.artifacts_url,
        health_host=host if options.health_port is None else options.health_host,
        health_port=port if options.health_port is None else options.health_port,
        lease_seconds=options.lease_seconds,
    )


def _spec(document: Mapping[str, Any], *, source: str = "CAPPUCCINO_SPEC") -> TraderSpec:
    try:
        return TraderSpec.model_validate(document)
    except ValidationError as error:
        raise InvalidInput(explain(error, TraderSpec, source=source)) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cappuccino trade", description="Trade one bundle on one venue account.")
    add = parser.add_argument
    add("--account", help="venue account; one portfolio is one account")
    add("--trader-uid", help="who holds the account's lease")
    add("--bundle", help="digest of what is traded")
    add("--portfolios", type=Path, help="file with several Traders for this process, instead of the three above and their spec")
    add("--flatten", action="store_true", help="sell everything and end")
    add("--release", action="store_true", help="leave the venue's lockstep with the positions as they are, and end")
    add("--health-host", default="127.0.0.1")
    add(
        "--health-port",
        type=int,
        help="of /healthz and /metrics; 0: any free one (default: as CAPPUCCINO_HEALTH says)",
    )
    add("--lease-seconds", type=float, default=LEASE_SECONDS)
    add("--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    add("--die-with-parent", action="store_true", help="end when stdin, a pipe of the parent, closes (core/lifeline.py)")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
