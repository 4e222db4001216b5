"""`make faults`: 10,000 orders under random faults and kills, several seeds; the books must equal the venue's afterwards.

Prints the counts, writes build/faults/summary.json and keeps the folder of a seed that failed. What must hold is in audit.py.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from cappuccino.adapters.postgres.embedded import EmbeddedServer
from cappuccino.adapters.postgres.engine import migrate
from tests.bench import report
from tests.faults.audit import Findings, audit
from tests.faults.scene import VENUES, Scene, Sizes, VenueKind

ROOT = Path(__file__).parents[2]
RESULTS, DOCUMENT = ROOT / "build" / "faults", ROOT / "docs" / "reliability.md"
PROCESSES = (1, 4)  # accounts of each
ORDERS_PER_BAR = 13.0  # of one account of scene.py; measured
FEW = 5  # requests that came late: from so many on, some were sent again before


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    orders, seeds = (600, 2) if options.fast else (options.orders, options.seeds)
    venues = [VENUES[name] for name in options.venue or VENUES]
    bars = max(round(orders / (ORDERS_PER_BAR * sum(PROCESSES) * seeds * len(venues))), 8)
    sizes = Sizes(processes=PROCESSES, bars=bars, kills=max(bars // 4, 2), exchange_kills=max(bars // 9, 1))
    findings, totals, started = Findings(), Counter[str](), time.monotonic()
    RESULTS.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="cappuccino-faults-"))
    server = EmbeddedServer(root / "pg", settings={"fsync": "off"})
    migrate(server.start())
    try:
        for seed in range(options.first_seed, options.first_seed + seeds):
            for venue in venues:
                _play(venue, seed, sizes, root, server.url(), findings, totals)
    finally:
        server.stop()
    if findings.broken:
        print(f"kept: {root}", file=sys.stderr)
    else:
        shutil.rmtree(root, ignore_errors=True)
    if totals["fault request_late"] >= FEW and not totals["sent again and absorbed by the venue"]:
        findings.broken.append("requests came late, and the venue never saw an order twice: nothing was sent again")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds, cpu_seconds = time.monotonic() - started, used.ru_utime + used.ru_stime
    table = _table(findings, totals, seconds, cpu_seconds, venues=[venue.name for venue in venues], seeds=seeds)
    print(table)
    summary = {"counts": findings.counts, "processes_and_faults": totals, "broken": findings.broken, "seconds": round(seconds)}
    (RESULTS / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    if options.write and not findings.broken:
        report.write(DOCUMENT, "faults", f"```text\n{table}\n```")
    return 1 if findings.broken else 0


def _play(
    venue: VenueKind, seed: int, sizes: Sizes, root: Path, database_url: str, findings: Findings, totals: Counter[str]
) -> None:
    started, before, known = time.monotonic(), findings.counts["orders"], len(findings.broken)
    scene = Scene(venue, seed=seed, sizes=sizes, folder=root / f"{venue.name}-{seed}", database_url=database_url)
    try:
        scene.play()
        tally = scene.tally
        for account in scene.accounts if not tally.failures else ():
            audit(
                account,
                database_url=database_url,
                ledger=scene.exchange.ledger(account),
                incidents=tally.incidents,
                journal=scene.journal,
                interruptions=[each for each in tally.interruptions if account in each.accounts],
                findings=findings,
            )
        findings.broken += tally.failures
        totals.update(
            {
                "trader kills": tally.trader_kills,
                "trader starts": tally.trader_starts,
                "exchange kills": tally.exchange_kills,
                "sent again and absorbed by the venue": len(tally.absorbed),
                "faults": len(tally.incidents) + tally.price_gaps,
                "fault price_gap": tally.price_gaps,
            }
        )
        totals.update(f"fault {incident['kind']}" for incident in tally.incidents)
        new, seconds = findings.counts["orders"] - before, time.monotonic() - started
        print(f"{venue.name}, seed {seed}: {new} orders in {seconds:.0f} s", *findings.broken[known:], sep="\n  ", flush=True)
    finally:
        scene.close()


def _table(
    findings: Findings, totals: Counter[str], seconds: float, cpu_seconds: float, *, venues: list[str], seeds: int
) -> str:
    lines = [f"{', '.join(venues)}: {seeds} seeds in {seconds:.0f} s ({cpu_seconds:.0f} s of CPU)", ""]
    lines += [f"{count:8d}  {name}" for name, count in sorted(findings.counts.items())]
    lines += ["", *(f"{count:8d}  {name}" for name, count in sorted(totals.items()))]
    verdict = "Books equal, ids acted on once, every intent has an outcome, every difference is explained."
    return "\n".join([*lines, "", *(findings.broken or [verdict])])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--fast", action="store_true", help="600 orders, two seeds: only that it runs")
    parser.add_argument("--orders", type=int, default=10_000, help="in total, about")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="the counts into docs/reliability.md, when nothing is wrong")
    parser.add_argument("--venue", action="append", choices=tuple(VENUES), help="default: all")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
