"""Where a Trader trades: the broker that it sends to and the feed that drives it, by its spec.

Invariants:
- With CAPPUCCINO_REHEARSAL no real venue is reached: the exchange plays it.
- A Trader that does not send has a broker that cannot (`trading/shadow`); a live one uses its share of the cash, and no more
  (`trading/allotment`).
- Only the cluster's own exchange is told the control token, and only what trades on Coinbase imports its SDK.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from cappuccino.adapters.alpaca.broker import AlpacaBroker
from cappuccino.adapters.alpaca.feeds import LockstepFeed, Streams, WallClockFeed, leave, open_account
from cappuccino.adapters.alpaca.inbox import Inbox
from cappuccino.adapters.alpaca.rest import Endpoints
from cappuccino.adapters.alpaca.streams import Streams as AlpacaStreams
from cappuccino.adapters.postgres.ledger import PostgresLedger
from cappuccino.api.trader import TraderSpec
from cappuccino.bundle import Bundle
from cappuccino.core.clock import SystemClock
from cappuccino.core.errors import InvalidInput
from cappuccino.core.money import ZERO, dec
from cappuccino.entrypoints.settings import EXCHANGE_TOKEN, EXCHANGE_URL, REHEARSAL, SECRETS, required
from cappuccino.entrypoints.shared import Shared
from cappuccino.entrypoints.traders import TradeSettings
from cappuccino.exchange.venue import Face
from cappuccino.trading.allotment import AllottedBroker
from cappuccino.trading.credentials import Credentials
from cappuccino.trading.ports import Broker
from cappuccino.trading.shadow import ShadowBroker

ALPACA_MIN_BUY_USD = Decimal(10)  # of a pair quoted in USD, as its refusals say: code 40310000


@dataclass(frozen=True, kw_only=True)
class Venue:
    """Where this trader is: the broker it sends to, the feed that drives it."""

    name: str
    broker: Broker
    feed: LockstepFeed | WallClockFeed
    url: str | None
    session: str  # its name in the exchange's lockstep

    def leave(self) -> None:
        """Hold up a simulated market no longer. Raises RetryLater."""
        if self.url is not None:
            leave(self.url, self.session, token=_token(self.url))


def venue_of(settings: TradeSettings, bundle: Bundle, ledger: PostgresLedger, shared: Shared) -> Venue:
    """Raises InvalidInput: the venue cannot be reached as the spec says. RetryLater: it is away."""
    spec, symbols, inbox = settings.spec, bundle.contract.symbols, Inbox()
    capital = dec(spec.capital_usd)
    face: Face = "coinbase" if spec.venue.kind == "coinbase" else "alpaca"
    url, session = None, settings.account
    if is_simulated(spec):
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
        broker, streams = _coinbase(spec, credentials, url, symbols=symbols, inbox=inbox)
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
        broker = AllottedBroker(
            broker,
            capital_usd=capital,
            reserve=ledger.reserve,
            units=ledger.units,
            fees_posted_later=fees_posted_later(spec) and not settings.flatten,  # what never began has nothing to wait for
        )
    return Venue(name=venue_name(spec), broker=broker, feed=feed, url=url, session=session)


def venue_name(spec: TraderSpec) -> str:
    kind = f"rehearsal/{spec.venue.kind}" if is_simulated(spec) and spec.venue.kind != "simulated" else spec.venue.kind
    if spec.mode == "live":
        return f"{kind}/{'dry-run' if spec.dry_run else 'live'}"
    return f"{kind}/shadow" if spec.mode == "shadow" else kind


def is_simulated(spec: TraderSpec) -> bool:
    return spec.venue.kind == "simulated" or REHEARSAL in os.environ


def _session_name(settings: TradeSettings) -> str:
    """In rehearsal one real account is one account of the exchange, whoever sends to it."""
    spec, secret = settings.spec, settings.spec.venue.account_secret_ref
    return secret.name if secret is not None and spec.sends and spec.venue.kind != "simulated" else settings.account


def fees_posted_later(spec: TraderSpec) -> bool:
    """Whether the venue takes the fees of what is sent at the end of the day, not with each fill."""
    return not is_simulated(spec) and spec.sends and spec.venue.kind == "alpaca"


def release(settings: TradeSettings) -> None:
    """Leave the lockstep on behalf of a trader that is gone. Raises InvalidInput, RetryLater."""
    if is_simulated(settings.spec):
        url = settings.spec.venue.url or required(EXCHANGE_URL)
        leave(url, _session_name(settings), token=_token(url))


def _alpaca(
    spec: TraderSpec, credentials: Credentials, url: str | None, *, symbols: Sequence[str], inbox: Inbox, shared: Shared
) -> tuple[Broker, Streams]:
    endpoints = Endpoints(paper=spec.mode != "live") if url is None else Endpoints.at(url)
    quotes = shared.quotes(credentials, endpoints, symbols)
    streams = AlpacaStreams(
        credentials, endpoints, symbols=symbols, inbox=inbox, orders=spec.sends, loop=shared.loop, quotes=quotes
    )
    broker = AlpacaBroker(
        credentials,
        endpoints,
        symbols=symbols,
        fees_with_fills=url is not None,
        connections=shared.connections,
        min_buy_usd=ALPACA_MIN_BUY_USD if url is None else ZERO,
    )
    return broker, streams


def _coinbase(
    spec: TraderSpec, credentials: Credentials, url: str | None, *, symbols: Sequence[str], inbox: Inbox
) -> tuple[Broker, Streams]:
    """Raises InvalidInput: the SDK, which is an extra, is not installed."""
    try:
        from cappuccino.entrypoints import coinbase
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "coinbase":
            raise
        raise InvalidInput(
            f"venue {spec.venue.kind} needs the extra cappuccino[coinbase], and {error.name} is not installed: use the trader's"
            " image, or install from the lock file (uv sync --extra coinbase)"
        ) from error
    return coinbase.reach(credentials, url, symbols=symbols, inbox=inbox, orders=spec.sends)


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
