"""Which Traders a process trades, from its arguments, its environment and a file.

One Trader is --account, --trader-uid and --bundle, with its spec in CAPPUCCINO_SPEC; several are the list of --portfolios,
in a file, or without one in CAPPUCCINO_PORTFOLIOS (controllers/pod.py). Each account is there once, and a live Trader has a
process to itself.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cappuccino.api.meta import explain
from cappuccino.api.trader import TraderSpec
from cappuccino.controllers import pod
from cappuccino.core.errors import InvalidInput
from cappuccino.entrypoints.settings import WorkerSettings, health_address

LEASE_SECONDS = 15.0


@dataclass(frozen=True, kw_only=True)
class TradeSettings:
    """One Trader of this process."""

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


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="cappuccino trade", description="Trade one bundle on one venue account.")
    add = made.add_argument
    add("--account", help="venue account; one portfolio is one account")
    add("--trader-uid", help="who holds the account's lease")
    add("--bundle", help="digest of what is traded")
    add(
        "--portfolios",
        nargs="?",
        const=pod.PORTFOLIOS,
        metavar="FILE",
        help=f"several Traders, instead of the three above and their spec (without FILE: as {pod.PORTFOLIOS} says)",
    )
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
    return made


def several_of(options: argparse.Namespace) -> list[TradeSettings]:
    """The Traders of `--portfolios`: a JSON list of {"traderUid", "spec"}, where a spec has its account and its bundle.

    Raises:
        InvalidInput: it cannot be read, names an account twice, or has a live Trader, which has a process to itself.
    """
    if options.flatten or options.release:
        raise InvalidInput("--flatten and --release are for one account: name it, without --portfolios")
    where = options.portfolios
    try:
        text = pod.unpacked(os.environ[where]) if where == pod.PORTFOLIOS else Path(where).read_bytes()
        entries = [(str(entry["traderUid"]), dict(entry["spec"])) for entry in json.loads(text)]
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{where} is no list of Traders ({type(error).__name__}: {error}): write it") from error
    found = []
    for trader_uid, document in entries:
        spec = _spec(document, source=f"{where}, {trader_uid}")
        if spec.mode == "live":
            raise InvalidInput(f"trader {trader_uid} is live: a live Trader has a process to itself, take it out")
        found.append(_read(spec, trader_uid, options))
    twice = [account for account, times in Counter(each.account for each in found).items() if times > 1]
    if twice or not found:
        wrong = f"account {twice[0]} is there twice" if twice else "it names no Trader"
        raise InvalidInput(f"{where}: {wrong}: correct it")
    return found


def settings_of(options: argparse.Namespace) -> TradeSettings:
    document = dict(WorkerSettings.read().spec)
    document.setdefault("account", options.account)
    document.setdefault("bundleDigest", options.bundle)
    return replace(
        _read(_spec(document), options.trader_uid, options),
        account=options.account,
        bundle_digest=options.bundle,
        flatten=options.flatten,
        release=options.release,
    )


def _read(spec: TraderSpec, trader_uid: str, options: argparse.Namespace) -> TradeSettings:
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
