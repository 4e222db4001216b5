"""The real thing: `trade` processes with alpaca-py against a simulated exchange process, over PostgreSQL, in lockstep.

All scenes of one run are on the same bars and trade at the same exchange, an account each. What the model knows nothing of (the
order rate, the drawdown halt) is off.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psycopg

from cappuccino.adapters.postgres.embedded import EmbeddedServer
from cappuccino.adapters.postgres.engine import migrate
from cappuccino.core.clock import from_epoch, iso, to_epoch
from cappuccino.exchange.venue import Costs
from cappuccino.market.bars import Bars
from cappuccino.risk.barriers import Barriers
from tests.parity.compare import Track
from tests.parity.engines import traced
from tests.parity.scene import Scene
from tests.unit.trading.processes import Exchange, TraderRun

START_SECONDS = 300.0  # until every trader has joined
_COLUMNS = ("open", "high", "low", "close", "volume")


def traded(scenes: Sequence[Scene], folder: Path, *, tick_bps: float, limit_seconds: float) -> list[Track]:
    """
    Raises:
        RuntimeError: a trader did not come to the end of the tape, with the end of its log.
    """
    scene = scenes[0]
    folder.mkdir(parents=True, exist_ok=True)
    bars = scene.bars.rows(0, scene.last + 1)
    exchange = Exchange.start(
        _written(bars, folder / "bars.parquet"),
        history=0,
        arguments=(
            *("--start", iso(from_epoch(int(bars.ts[scene.first + 1]))), "--tick-bps", f"{tick_bps:g}"),
            *("--requests-per-minute", "0", *_terms(scene.bundle.costs)),
        ),
    )
    server = EmbeddedServer(folder / "postgres", settings={"fsync": "off"})
    try:
        migrate(server.start())
        runs = [
            TraderRun.of(
                each.bundle,
                exchange=exchange,
                database_url=server.url(),
                artifacts=folder / "artifacts",
                account=f"account-{n}",
                trader_uid=f"uid-{n}",
                spec={"capitalUsd": each.bundle.capital_usd, "risk": _risk(each.bundle.barriers)},
            )
            for n, each in enumerate(scenes)
        ]
        _finish(exchange, runs, folder, limit_seconds)
        return [_track(server.url(), run.account, each) for run, each in zip(runs, scenes, strict=True)]
    finally:
        exchange.process.kill()  # it has no journal to close
        exchange.process.wait()
        server.stop()


def _finish(exchange: Exchange, runs: Sequence[TraderRun], folder: Path, limit_seconds: float) -> None:
    processes = [run.start("--log-level", "WARNING", log=folder / f"{run.account}.log") for run in runs]
    try:
        deadline = time.monotonic() + START_SECONDS
        while len(exchange.state()["sessions"]) < len(runs):
            if time.monotonic() > deadline or any(process.poll() is not None for process in processes):
                raise RuntimeError(_last_words(runs, folder))
            time.sleep(0.05)
        exchange.go()
        deadline = time.monotonic() + limit_seconds
        if any(process.wait(max(1.0, deadline - time.monotonic())) for process in processes):
            raise RuntimeError(_last_words(runs, folder))
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def _last_words(runs: Sequence[TraderRun], folder: Path) -> str:
    return "\n".join(f"{run.account}: {(folder / f'{run.account}.log').read_text()[-2000:]}" for run in runs)


def _track(url: str, account: str, scene: Scene) -> Track:
    with psycopg.connect(url) as connection:
        equity: list[tuple[datetime, Decimal]] = connection.execute(
            "select bar_at, equity_usd from equity where account = %s order by bar_at", (account,)
        ).fetchall()
        decisions: list[tuple[datetime, Any]] = connection.execute(
            "select bar_at, trace from decision where account = %s order by bar_at", (account,)
        ).fetchall()
    step = scene.bars.timeframe.seconds
    at = np.array([to_epoch(bar_at) + step for bar_at, _ in equity], dtype=np.int64)
    kept = decisions[:-1]  # what is decided at the last close is traded on no bar
    if [to_epoch(bar_at) + step for bar_at, _ in kept] != at[:-1].tolist():
        raise RuntimeError(f"{scene.name}: {len(decisions)} decisions on {len(equity)} closes: bars were passed over")
    return Track(
        at=at,
        equity=np.array([float(value) for _, value in equity]),
        actions=np.stack([traced(trace["action"]) for _, trace in kept]),
    )


def _written(bars: Bars, path: Path) -> Path:
    """What the source had: missing bars are not in the file."""
    there = ~bars.missing
    frames = [
        pl.DataFrame(
            {"symbol": symbol, "ts": bars.ts[there[:, n]]} | {name: getattr(bars, name)[there[:, n], n] for name in _COLUMNS}
        )
        for n, symbol in enumerate(bars.symbols)
    ]
    pl.concat(frames).write_parquet(path)
    return path


def _terms(costs: Costs) -> tuple[str, ...]:
    """One fee and one slippage for all, as the model assumes."""
    by_symbol = [("--symbol-slippage-bps", f"{symbol}={bps:g}") for symbol, bps in costs.slippage_by_symbol_bps.items()]
    return ("--fee-bps", f"{costs.fee_bps:g}", "--slippage-bps", f"{costs.slippage_bps:g}", *itertools.chain(*by_symbol))


def _risk(barriers: Barriers) -> dict[str, float]:
    return {
        "maxDrawdown": 0,
        "maxOrdersPerHour": 0,
        "stop": barriers.stop or 0,
        "trail": barriers.trail or 0,
        "trailArmsAt": barriers.trail_arms_at,
        "takeProfit": barriers.take_profit or 0,
        "maxHoldBars": barriers.max_hold_bars or 0,
    }
