"""`make latency`: from a closed bar to the order at the venue, memory, catching up, and how fast a halt stops everything.

    python -m tests.speed [SECTION...] [--portfolios 1,50,100,500] [--fast]

On the loopback address: `trade` as it runs in production, with alpaca-py over HTTP, against the simulated exchange in lockstep;
all portfolios trade on the same bars, so all of them send at once. Prints the table, writes build/speed/summary.json, and
fails when a target is missed. --fast shows that it runs: 3 and 20 portfolios, few bars, no target counts. --write: the table
into docs/reliability.md.

Latency is from the moment at which the venue's clock passed the close to the acceptance of a portfolio's first order on that
bar, features, decision, risk, the commit of the decision and the journal of the order between them.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.bench import report as documents
from tests.scale.report import Report
from tests.speed import measures

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "reliability.md"
SECTIONS = {"latency": measures.latency, "catch-up": measures.catch_up, "halt": measures.halt}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.speed", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; default: all")
    parser.add_argument("--portfolios", default="1,50,100,500", help="in one process each, with commas between; 1 comes first")
    parser.add_argument("--traders", type=int, default=100, help="that a halt stops")
    parser.add_argument("--bars", type=int, default=100)
    parser.add_argument("--fast", action="store_true", help="only that it runs")
    parser.add_argument("--write", action="store_true", help="the table into docs/reliability.md")
    options = parser.parse_args()
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"no section {', '.join(unknown)}: choose of {', '.join(SECTIONS)}")
    sizes = [1, 3] if options.fast else [int(text) for text in options.portfolios.split(",")]
    bars, traders = (8, 20) if options.fast else (options.bars, options.traders)
    report = Report()
    folder = Path(tempfile.mkdtemp(prefix="cappuccino-speed-"))
    try:
        for name in options.sections or SECTIONS:
            SECTIONS[name](folder, report, measures.Sizes(portfolios=sizes, bars=bars, traders=traders))
    finally:
        report.write(ROOT / "build" / "speed" / "summary.json")
        shutil.rmtree(folder, ignore_errors=True)
    print(report.table())
    if options.write:
        documents.write(DOCUMENT, "speed", f"```text{report.table()}\n```")
    if report.missed:
        print(f"missed: {'; '.join(report.missed)}", file=sys.stderr)
    return 1 if report.missed and not options.fast else 0


if __name__ == "__main__":
    sys.exit(main())
