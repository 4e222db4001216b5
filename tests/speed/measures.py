"""The measurements. Each stages a market of its own."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cappuccino.adapters.postgres.engine import open_async_pool
from cappuccino.adapters.postgres.record import PostgresRecord
from tests.scale.report import Report, percentile
from tests.speed.stage import Stage, Stamps, memory_mb, stage, until

ONE_SECONDS, MANY_SECONDS, HALT_SECONDS = 0.050, 1.0, 2.0
FIRST_MB, FURTHER_MB = 250.0, 5.0
MINUTE = 60
AWAY_BARS = 60  # an hour of minutes
WARM_BARS = 3  # of a process, that do not count
ENOUGH, FEWEST_BARS = 5000, 10  # first orders that make a percentile, and bars that they are at least of


@dataclass(frozen=True, kw_only=True)
class Sizes:
    portfolios: Sequence[int]
    bars: int
    traders: int


def latency(folder: Path, report: Report, sizes: Sizes) -> None:
    first_mb = 0.0
    for count in sizes.portfolios:
        bars = min(sizes.bars, WARM_BARS + max(FEWEST_BARS, ENOUGH // count))
        with stage(folder / f"latency-{count}", bars=bars) as stood:
            asked = time.monotonic()
            process = stood.start([f"p{n:03d}" for n in range(count)])
            stood.joined(count)
            started = time.monotonic() - asked
            stood.go()
            until(lambda: stood.closed_bars() > WARM_BARS, [process], pause=0.01)
            since, used = time.monotonic(), stood.cpu_seconds()
            until(lambda last=bars - 1: stood.closed_bars() >= last, [process], pause=0.01)
            cpu = {name: seconds - used[name] for name, seconds in stood.cpu_seconds().items()}
            memory = memory_mb(process)
            stamps = Stamps.read(stood.stamps)
        _latency_of(report, count, first_orders(stamps))
        report.add(f"{count} portfolios: from the start of the process until all trade", f"{started:.1f} s")
        seen = sum(at > since for at in stamps.bars.values())
        _cpu_of(report, count, cpu, bars=seen, orders=sum(at > since for at, _, _ in stamps.orders))
        if count == 1:
            first_mb = memory
            report.add("memory of the first portfolio", f"{memory:.0f} MB", wanted=f"< {FIRST_MB:g} MB", met=memory < FIRST_MB)
        elif first_mb:
            each = (memory - first_mb) / (count - 1)
            met = each < FURTHER_MB
            report.add(f"memory of each further one, of {count}", f"{each:.2f} MB", wanted=f"< {FURTHER_MB:g} MB", met=met)


def first_orders(stamps: Stamps) -> list[float]:
    """Seconds from each bar to the first order on it, of each portfolio that sent one."""
    bars = sorted(stamps.bars.items())[WARM_BARS:]
    ends = [at for _, at in bars[1:]] + [float("inf")]
    found: dict[tuple[int, str], float] = {}
    for at, account, _ in stamps.orders:
        for (number, closed), end in zip(bars, ends, strict=True):
            if closed <= at < end:
                found.setdefault((number, account), at - closed)
    return list(found.values())


def _latency_of(report: Report, count: int, seconds: Sequence[float]) -> None:
    wanted = ONE_SECONDS if count == 1 else MANY_SECONDS
    p50, p99 = percentile(seconds, 50), percentile(seconds, 99)
    report.figures[f"latency of {count}"] = {"p50": p50, "p99": p99, "n": len(seconds)}
    measured = f"p50 {1e3 * p50:.0f} ms, p99 {1e3 * p99:.0f} ms (n = {len(seconds)})"
    report.add(
        f"{count} portfolios: bar closed → order accepted", measured, wanted=f"p99 < {1e3 * wanted:g} ms", met=p99 < wanted
    )


def _cpu_of(report: Report, count: int, seconds: dict[str, float], *, bars: int, orders: int) -> None:
    """What two cores have to share: where the sum of them is short of the cores, the traders' is what bounds one process."""
    each = {name: 1e3 * used / count / bars for name, used in seconds.items()}
    report.figures[f"CPU of {count}"] = {**each, "orders": orders / count / bars}
    told = ", ".join(f"{name} {ms:.1f} ms" for name, ms in each.items())
    report.add(f"{count} portfolios: CPU of one on a bar with {orders / count / bars:.1f} orders", told)


def catch_up(folder: Path, report: Report, sizes: Sizes) -> None:
    """Killed for an hour of a market of minutes that does not wait, and started again."""
    pace = 20.0
    with stage(folder / "catch-up", bars=4000, seconds=MINUTE, arguments=["--free", "--speed", f"{pace:g}"]) as stood:
        process = stood.start(["away"])
        stood.joined(1)
        stood.go()
        newest = "select coalesce(extract(epoch from max(bar_at)), 0)::bigint from decision"
        until(lambda: stood.rows(newest) != [(0,)], [process])
        process.kill()
        process.wait()
        stood.traders.clear()
        killed_at = stood.state()["bar"]
        until(lambda: stood.state()["bar"] >= killed_at + AWAY_BARS)
        missed, decided = stood.state()["bar"] - killed_at, stood.rows(newest)
        asked = time.monotonic()
        process = stood.start(["away"], name="again")
        until(lambda: stood.rows(newest) != decided, [process], pause=0.01)
        took = time.monotonic() - asked
        held = f"{took:.1f} s, with the start of the process; {missed} bars missed"
        report.add("killed for an hour of minutes: first decision after the start", held)


def halt(folder: Path, report: Report, sizes: Sizes) -> None:
    """By the account rows, as `cappuccino halt --all` writes them, and by SIGTERM, while all of them trade on every bar."""
    count = sizes.traders
    for name in ("account rows", "SIGTERM"):
        with stage(folder / f"halt-{name.split()[0]}", bars=5000) as stood:
            process = stood.start([f"p{n:03d}" for n in range(count)])
            stood.joined(count)
            stood.go()
            until(lambda: stood.state()["bar"] >= WARM_BARS and len(Stamps.read(stood.stamps).orders) > count, [process])
            asked = time.monotonic()
            if name == "SIGTERM":
                process.send_signal(signal.SIGTERM)
                process.wait(120)
            else:
                asyncio.run(_halt_all(stood))
                time.sleep(3 * HALT_SECONDS)  # in which an order would show
                process.kill()
            entries = {row[0] for row in stood.rows("select client_order_id from intent where reason = 'target'")}
            before = [at for at, _, order in Stamps.read(stood.stamps).orders if order in entries and at <= asked]
            after = [at - asked for at, _, order in Stamps.read(stood.stamps).orders if order in entries and at > asked]
        last = max(after, default=0.0)
        told = f"{last:.2f} s after it was asked ({len(before)} orders before, {len(after)} after)"
        met = last < HALT_SECONDS and bool(before)
        report.add(f"{count} traders halted by {name}: last new order", told, wanted=f"< {HALT_SECONDS:g} s", met=met)


async def _halt_all(stood: Stage) -> None:
    async with await open_async_pool(stood.server.url(), "operator") as pool:
        record = PostgresRecord(pool)
        for account in await record.accounts():
            await record.halt(name=account.name, reason="measured", actor="tests.speed")
