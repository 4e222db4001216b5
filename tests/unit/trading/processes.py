"""What tests of the trader need around it: a market, an exchange process, a bundle, a trader process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import requests

from cappuccino.adapters.artifacts import open_blobs
from cappuccino.bundle import Bundle, save
from cappuccino.core.timeframe import Timeframe
from cappuccino.exchange.venue import Costs
from cappuccino.market.features import spec_of
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing
from cappuccino.strategies.interface import Contract

SYMBOLS = ("AAA/USD", "BBB/USD", "CCC/USD")
START = 1_704_067_200  # 2024-01-01T00:00:00Z
HOUR = 3600
FEATURE = spec_of("return", {"bars": 6})


def write_bars(
    path: Path,
    *,
    bars: int,
    seed: int = 1,
    sd: float = 0.008,
    symbols: tuple[str, ...] = SYMBOLS,
    ratio: float = 10.0,
    seconds: int = HOUR,
) -> Path:
    """A random walk of candles of `seconds` for each symbol, which begins `ratio` times above the one before."""
    rng = np.random.default_rng(seed)
    frames = []
    for n, symbol in enumerate(symbols):
        close = 100.0 * ratio**n * np.exp(np.cumsum(rng.normal(0.0, sd, bars)))
        opened = np.concatenate([[close[0]], close[:-1] * np.exp(rng.normal(0.0, sd / 10, bars - 1))])
        high = np.maximum(opened, close) * np.exp(np.abs(rng.normal(0.0, sd / 2, bars)))
        low = np.minimum(opened, close) * np.exp(-np.abs(rng.normal(0.0, sd / 2, bars)))
        frames.append(
            pl.DataFrame(
                {
                    "symbol": [symbol] * bars,
                    "ts": [START + seconds * t for t in range(bars)],
                    "open": np.round(opened, 4),
                    "high": np.round(high, 4) + 0.0001,
                    "low": np.round(low, 4) - 0.0001,
                    "close": np.round(close, 4),
                    "volume": np.full(bars, 1000.0),
                }
            ).with_columns(pl.from_epoch("ts", time_unit="s").dt.replace_time_zone("UTC"))
        )
    pl.concat(frames).write_parquet(path)
    return path


def bundle(
    *,
    kind: str = "trend",
    barriers: Barriers | None = None,
    warmup_bars: int = 30,
    symbols: tuple[str, ...] = SYMBOLS,
    seconds: int = HOUR,
    **parameters: str,
) -> Bundle:
    """By default a rule that trades often: it fades the last six bars."""
    rule = {"feature": "return", "feature_bars": "6", "direction": "-1", "enter": "0.004", "exit": "-0.004", **parameters}
    return Bundle(
        kind=kind,  # type: ignore[arg-type]
        contract=Contract(
            symbols=symbols, timeframe=Timeframe(seconds), features=(FEATURE,), lookback=1, warmup_bars=warmup_bars
        ),
        sizing=Sizing(),
        barriers=barriers or Barriers(),
        costs=Costs(),
        capital_usd=10_000.0,
        parameters=rule if kind == "trend" else {},
    )


@dataclass(kw_only=True)
class Exchange:
    """A simulated exchange in a process of its own."""

    process: subprocess.Popen[str]
    url: str

    @classmethod
    def start(cls, bars: Path, *, history: int, journal: Path | None = None, arguments: tuple[str, ...] = ()) -> Exchange:
        command = [sys.executable, "-m", "cappuccino.entrypoints.exchange", "--bars", str(bars), "--port", "0"]
        at = np.datetime64(START + HOUR * history, "s")
        command += ["--start", f"{at}Z", *arguments]
        command += ["--journal", str(journal)] if journal else []
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the exchange did not start"
        return cls(process=process, url=json.loads(line)["url"])

    def go(self) -> None:
        requests.post(f"{self.url}/control/v1/start", timeout=10).raise_for_status()

    def state(self) -> dict[str, Any]:
        return dict(requests.get(f"{self.url}/control/v1/state", timeout=10).json())

    def ledger(self, account: str) -> dict[str, Any]:
        return dict(requests.get(f"{self.url}/control/v1/accounts/{account}/ledger", timeout=10).json())

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@dataclass(kw_only=True)
class TraderRun:
    """How to start one trader, again and again."""

    exchange_url: str
    database_url: str
    artifacts: Path
    digest: str
    account: str = "acc"
    trader_uid: str = "uid-1"
    spec: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, bundle: Bundle, *, exchange: Exchange, database_url: str, artifacts: Path, **kwargs: Any) -> TraderRun:
        digest = save(open_blobs(artifacts.as_uri()), bundle)
        return cls(exchange_url=exchange.url, database_url=database_url, artifacts=artifacts, digest=digest, **kwargs)

    def start(self, *arguments: str, failpoint: str = "", log: Path | None = None) -> subprocess.Popen[str]:
        spec = {"venue": {"kind": "simulated"}, "mode": "paper", "capitalUsd": 10000, **self.spec}
        environment = {
            **os.environ,
            "CAPPUCCINO_DATABASE_URL": self.database_url,
            "CAPPUCCINO_ARTIFACTS_URL": self.artifacts.as_uri(),
            "CAPPUCCINO_EXCHANGE_URL": self.exchange_url,
            "CAPPUCCINO_SPEC": json.dumps(spec),
            "CAPPUCCINO_FAILPOINT": failpoint,
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "cappuccino.entrypoints.trade"]
        command += ["--account", self.account, "--trader-uid", self.trader_uid]
        return subprocess.Popen(
            [*command, "--bundle", self.digest, *arguments],
            env=environment,
            stderr=None if log is None else log.open("a"),
            text=True,
        )
