"""`trade`: one Trader, one process, one account.

    python -m cappuccino.entrypoints.trade --account NAME --trader-uid UID --bundle DIGEST [--flatten | --release]

What it may do is the Trader's spec, as JSON in CAPPUCCINO_SPEC (a Trader manifest's `spec`). The rest of the
environment: CAPPUCCINO_DATABASE_URL, CAPPUCCINO_ARTIFACTS_URL, CAPPUCCINO_EXCHANGE_URL (venue.url replaces it),
CAPPUCCINO_EXCHANGE_TOKEN, and on Alpaca CAPPUCCINO_SECRETS, where the Secret of venue.accountSecretRef lies.

Ends with 0 when the simulated venue's tape ended with everything recorded (or, with --flatten, everything sold); 2 or 3
when a person must act; 70 when a rule of our own was broken, after halting the account; 75 when a restart is worth it;
143 on SIGTERM.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cappuccino.adapters.alpaca.broker import AlpacaBroker
from cappuccino.adapters.alpaca.feeds import LockstepFeed, WallClockFeed, leave, open_account
from cappuccino.adapters.alpaca.rest import Credentials, Endpoints
from cappuccino.adapters.alpaca.streams import Inbox, Streams
from cappuccino.adapters.artifacts import open_blobs
from cappuccino.adapters.postgres.engine import open_pool
from cappuccino.adapters.postgres.ledger import PostgresLedger
from cappuccino.api.meta import explain
from cappuccino.api.trader import RiskLimits, TraderSpec
from cappuccino.bundle import Bundle, fetch_local, strategy_of
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
from cappuccino.entrypoints.settings import EXCHANGE_TOKEN, EXCHANGE_URL, SECRETS, WorkerSettings, health_address, required
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.limits import Limits
from cappuccino.telemetry.logs import configure, get_logger
from cappuccino.telemetry.metrics import TraderMetrics
from cappuccino.telemetry.traces import exported
from cappuccino.trading.health import Health
from cappuccino.trading.lease import LeaseKeeper
from cappuccino.trading.ports import Broker, Stop
from cappuccino.trading.session import Session
from cappuccino.trading.shadow import ShadowBroker
from cappuccino.trading.situation import SessionConfig

LEASE_SECONDS = 15.0
POOL_SIZE = 2  # the session's connection and the lease's
_STALE_BARS = 2


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


def main(argv: Sequence[str]) -> int:
    """Exit code of the process; one line on stderr says why it is not 0."""
    options = _parser().parse_args(argv)
    if options.die_with_parent:
        os.environ[lifeline.VARIABLE] = "stdin"
        lifeline.watch()
    configure(level=options.log_level, account=options.account, trader_uid=options.trader_uid)
    try:
        with exported("trade"):
            return trade(_settings(options))
    except CappuccinoError as error:
        get_logger("trade").error("ended", error=str(error), kind=type(error).__name__, exit_code=error.exit_code)
        sys.stderr.write(f"{error}\n")
        return error.exit_code


def trade(settings: TradeSettings) -> int:
    """Trade until the tape or the process is told to end. Raises CappuccinoError with its exit code."""
    spec = settings.spec
    if spec.mode == "live":
        raise InvalidInput(
            f"trader {settings.trader_uid}: mode live needs a promotion, which this version cannot give: use paper or shadow"
        )
    if settings.release:
        if spec.venue.kind == "simulated":
            url = spec.venue.url or required(EXCHANGE_URL)
            leave(url, settings.account, token=_token(url))
        return 0
    bundle = fetch_local(open_blobs(settings.artifacts_url), settings.bundle_digest, settings.bundle_folder)
    metrics = TraderMetrics()
    bar_seconds = bundle.contract.timeframe.seconds
    simulated = spec.venue.kind == "simulated"
    health = Health(monotonic=time.monotonic, stale_seconds=None if simulated else float(_STALE_BARS * bar_seconds))
    with (
        HealthServer(settings.health_host, settings.health_port, health=health, metrics=metrics),
        open_pool(settings.database_url, "trader", min_size=POOL_SIZE, max_size=POOL_SIZE) as pool,
    ):
        ledger = PostgresLedger(
            pool,
            account=settings.account,
            venue=_venue_name(spec),
            trader_uid=settings.trader_uid,
            holder=settings.trader_uid,
            lease_seconds=settings.lease_seconds,
        )
        lease = LeaseKeeper(ledger, seconds=settings.lease_seconds, monotonic=time.monotonic)
        health.lease_alive, health.database_away = lambda: lease.alive, lambda: lease.database_away
        venue = _venue(settings, bundle, ledger)
        session = Session(
            SessionConfig(
                account=settings.account,
                trader_uid=settings.trader_uid,
                bundle_digest=settings.bundle_digest,
                sizing=bundle.sizing,
                limits=limits_of(spec.risk),
                on_halt=spec.on_halt,
                fees_posted_later=not simulated and spec.mode != "shadow",
            ),
            strategy=strategy_of(bundle),
            broker=venue.broker,
            ledger=ledger,
            feed=venue.feed,
            lease=lease,
            metrics=metrics,
            health=health,
            monotonic=time.monotonic,
        )
        return _run(settings, session, ledger, lease, venue)


def _run(settings: TradeSettings, session: Session, ledger: PostgresLedger, lease: LeaseKeeper, venue: Venue) -> int:
    terminated = threading.Event()

    def on_signal(number: int, _: Any) -> None:
        terminated.set()
        venue.feed.stop(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    release = True
    try:
        if settings.flatten:
            session.flatten()
            if venue.url is not None:
                leave(venue.url, settings.account, token=_token(venue.url))
            return 0
        stop: Stop = session.run()
        return 0 if stop.finished else PREEMPTED_EXIT_CODE
    except InvariantViolation as error:
        release = False
        try:
            ledger.halt(f"invariant violation: {error}")
        except RetryLater:
            get_logger("trade").error("halt_not_recorded", reason=str(error))
        _leave(settings, venue)
        raise
    except RetryLater:
        if terminated.is_set():
            return PREEMPTED_EXIT_CODE
        raise
    except (UserError, IntegrityError):
        _leave(settings, venue)
        raise
    finally:
        venue.feed.close()
        lease.close(release=release)


def _leave(settings: TradeSettings, venue: Venue) -> None:
    """A trader that waits for a person must not hold up a simulated market."""
    if venue.url is not None:
        try:
            leave(venue.url, settings.account, token=_token(venue.url))
        except RetryLater as error:
            get_logger("trade").warning("not_left", error=str(error))


def limits_of(risk: RiskLimits) -> Limits:
    """A manifest's limits; 0 switches a barrier off."""
    return Limits(
        max_weight=risk.max_weight,
        max_drawdown=risk.max_drawdown,
        max_orders_per_hour=risk.max_orders_per_hour,
        barriers=Barriers(
            stop=risk.stop or None,
            take_profit=risk.take_profit or None,
            trail=risk.trail or None,
            trail_arms_at=risk.trail_arms_at,
            max_hold_bars=risk.max_hold_bars or None,
        ),
    )


def _venue_name(spec: TraderSpec) -> str:
    return f"{spec.venue.kind}/shadow" if spec.mode == "shadow" else spec.venue.kind


def _venue(settings: TradeSettings, bundle: Bundle, ledger: PostgresLedger) -> Venue:
    spec, symbols, inbox = settings.spec, bundle.contract.symbols, Inbox()
    shadow = spec.mode == "shadow"
    capital = dec(spec.capital_usd)
    feed: LockstepFeed | WallClockFeed
    if spec.venue.kind == "simulated":
        own = spec.venue.url or required(EXCHANGE_URL)
        url: str | None = own
        token = _token(own)
        credentials = open_account(own, settings.account, capital_usd=f"{capital:f}", token=token)
        endpoints = Endpoints.at(own)
        streams = Streams(credentials, endpoints, symbols=symbols, inbox=inbox, orders=not shadow)
        feed = LockstepFeed(own, settings.account, token=token, inbox=inbox, streams=streams)
    elif spec.venue.kind == "alpaca":
        url = None
        credentials = _credentials(spec)
        endpoints = Endpoints()
        streams = Streams(credentials, endpoints, symbols=symbols, inbox=inbox, orders=not shadow)
        feed = WallClockFeed(bundle.contract.timeframe, clock=SystemClock(), inbox=inbox, streams=streams)
    else:
        raise InvalidInput(f"venue {spec.venue.kind} cannot be traded by this version: use simulated or alpaca")
    broker: Broker = AlpacaBroker(credentials, endpoints, symbols=symbols, fees_with_fills=spec.venue.kind == "simulated")
    if shadow:
        fills = ledger.load().fills
        broker = ShadowBroker(broker, symbols=symbols, capital_usd=capital, costs=bundle.costs, fills=fills)
    return Venue(name=_venue_name(spec), broker=broker, feed=feed, url=url)


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


def _settings(options: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> TradeSettings:
    worker = WorkerSettings.read(environment)
    host, port = health_address(environment)
    document = dict(worker.spec)
    document.setdefault("account", options.account)
    document.setdefault("bundleDigest", options.bundle)
    return TradeSettings(
        account=options.account,
        trader_uid=options.trader_uid,
        bundle_digest=options.bundle,
        spec=_spec(document),
        database_url=worker.database_url,
        artifacts_url=worker.artifacts_url,
        flatten=options.flatten,
        release=options.release,
        health_host=host if options.health_port is None else options.health_host,
        health_port=port if options.health_port is None else options.health_port,
        lease_seconds=options.lease_seconds,
    )


def _spec(document: Mapping[str, Any]) -> TraderSpec:
    try:
        return TraderSpec.model_validate(document)
    except ValidationError as error:
        raise InvalidInput(explain(error, TraderSpec, source="CAPPUCCINO_SPEC")) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cappuccino trade", description="Trade one bundle on one venue account.")
    add = parser.add_argument
    add("--account", required=True, help="venue account; one portfolio is one account")
    add("--trader-uid", required=True, help="who holds the account's lease")
    add("--bundle", required=True, help="digest of what is traded")
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
