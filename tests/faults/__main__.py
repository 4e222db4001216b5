"""`make faults`: 10,000 orders under random faults and kills, several seeds; the books must equal the venue's afterwards.

Prints the counts, writes build/faults/summary.json and keeps the folder of a seed that failed. What must hold is in audit.py.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import requests

from cappuccino.adapters.postgres.embedded import EmbeddedServer
from cappuccino.adapters.postgres.engine import migrate
from tests.faults.audit import Findings, audit
from tests.faults.scene import VENUES, Scene, Sizes, VenueKind

RESULTS = Path(__file__).parents[2] / "build" / "faults"
ORDERS_PER_BAR = 13.0  # of one trader of scene.py; measured


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    orders, seeds = (600, 2) if options.fast else (options.orders, options.seeds)
    venues = [VENUES[name] for name in options.venue or VENUES]
    bars = max(round(orders / (ORDERS_PER_BAR * options.traders * seeds * len(venues))), 10)
    sizes = Sizes(traders=options.traders, bars=bars, kills=max(bars // 12, 2), exchange_kills=max(bars // 30, 1))
    findings, totals, started = Findings(), Counter[str](), time.monotonic()
    RESULTS.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="cappuccino-faults-"))
    server = EmbeddedServer(root / "pg", settings={"fsync": "off"})
    migrate(server.start())
    try:
        for venue in venues:
            for seed in range(options.first_seed, options.first_seed + seeds):
                _play(venue, seed, sizes, root, server.url(), findings, totals)
    finally:
        server.stop()
        if findings.broken:
            print(f"kept: {root}", file=sys.stderr)
        else:
            shutil.rmtree(root, ignore_errors=True)
    seconds = time.monotonic() - started
    print(_table(findings, totals, seconds, venues=[venue.name for venue in venues], seeds=seeds))
    summary = {"counts": findings.counts, "processes_and_faults": totals, "broken": findings.broken, "seconds": round(seconds)}
    (RESULTS / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return 1 if findings.broken else 0


def _play(
    venue: VenueKind, seed: int, sizes: Sizes, root: Path, database_url: str, findings: Findings, totals: Counter[str]
) -> None:
    scene = Scene(venue, seed=seed, sizes=sizes, folder=root / f"{venue.name}-{seed}", database_url=database_url)
    try:
        scene.play()
        told = requests.get(f"{scene.exchange.url}/control/v1/faults", timeout=30).json()
        tally = scene.tally
        restarts = tally.trader_restarts + tally.exchange_kills
        for account in scene.accounts:
            audit(
                account,
                database_url=database_url,
                ledger=scene.exchange.ledger(account),
                incidents=told["incidents"],
                journal=scene.journal,
                restarts=restarts,
                findings=findings,
            )
        findings.broken += tally.failures
        totals.update(
            {"trader kills": tally.trader_kills, "trader starts": tally.trader_restarts + len(scene.accounts)},
            **{"exchange kills": tally.exchange_kills, "faults": len(told["incidents"])},
        )
        totals.update(f"fault {incident['kind']}" for incident in told["incidents"])
        print(
            f"{venue.name}, seed {seed}: {findings.counts['orders']} orders so far, {len(findings.broken)} findings", flush=True
        )
    finally:
        scene.close()


def _table(findings: Findings, totals: Counter[str], seconds: float, *, venues: list[str], seeds: int) -> str:
    lines = [f"{', '.join(venues)}: {seeds} seeds in {seconds:.0f} s", ""]
    lines += [f"{count:8d}  {name}" for name, count in sorted(findings.counts.items())]
    lines += ["", *(f"{count:8d}  {name}" for name, count in sorted(totals.items()))]
    verdict = "Books equal, ids acted on once, every intent has an outcome, every difference is explained."
    return "\n".join([*lines, "", *(findings.broken or [verdict])])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--fast", action="store_true", help="600 orders, two seeds: only that it runs")
    parser.add_argument("--orders", type=int, default=10_000, help="in total, about")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--traders", type=int, default=3, help="accounts of one exchange")
    parser.add_argument("--venue", action="append", choices=tuple(VENUES), help="default: all")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
