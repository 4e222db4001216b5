"""`make bench`: how fast this project trains on this machine, beside its peers and what the machine allows.

Runs the sections that are named, or all but search and real; prints each one's tables and writes
build/bench/bench-SECTION.json. With --write the tables also go into docs/benchmarks.md. A missed target is told and is no
failure: the figures are what they are.

    python -m tests.bench learning --set learning.hidden=[128] learning.rounds=1
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tests.bench import report
from tests.bench.peers import ROOT, Peers
from tests.bench.section import Machine, Section
from tests.bench.sections import environment, learning, memory, packing, real, score, search, study

SECTIONS: Mapping[str, Section] = {
    "environment": environment.SECTION,
    "learning": learning.SECTION,
    "score": score.SECTION,
    "study": study.SECTION,
    "packing": packing.SECTION,
    "search": search.SECTION,
    "memory": memory.SECTION,
    "real": real.SECTION,
}
USUAL = [name for name in SECTIONS if name not in ("search", "real")]  # which take minutes by themselves
RESULTS, DOCUMENT = ROOT / "build" / "bench", ROOT / "docs" / "benchmarks.md"


def main() -> int:
    options = _options()
    RESULTS.mkdir(parents=True, exist_ok=True)
    facts, began = machine_facts(options.device, options.threads), time.monotonic()
    print(machine_text(facts))
    missed = []
    with Peers() as peers:
        machine = Machine(device=options.device, threads=options.threads, peers=peers)
        for name in options.sections or USUAL:
            section, since = SECTIONS[name], time.monotonic()
            sizes = section.sizes(machine, fast=options.fast) | options.set.get(name, {})
            figures = section.measure(machine, **sizes)
            seconds, summary = time.monotonic() - since, section.summary(figures)
            command = _command(name, options)
            document = {
                "section": name,
                "command": command,
                "machine": facts,
                "sizes": sizes,
                "seconds": seconds,
                "targets": [vars(target) | {"verdict": target.verdict.strip("*")} for target in summary.targets],
                "figures": figures,
            }
            (RESULTS / f"bench-{name}.json").write_text(json.dumps(document, indent=2) + "\n")
            text = summary.markdown()
            print(f"\n## {section.title} ({seconds:.0f} s)\n\n{text}", flush=True)
            missed += [target for target in summary.targets if not target.met]
            if options.write:
                report.write(DOCUMENT, name, f"{text}\n\n{machine_text(facts)} `{command}`, {seconds:.0f} s.")
    print(f"\n{time.monotonic() - began:.0f} s in all.")
    for target in missed:
        print(f"{target.verdict.strip('*')}: {', '.join(target.row()[:3])}", file=sys.stderr)
    return 0


def _command(section: str, options: argparse.Namespace) -> str:
    """What repeats it."""
    fast = ["--fast"] if options.fast else []
    sizes = [f"{section}.{name}={json.dumps(value)}" for name, value in options.set.get(section, {}).items()]
    return " ".join(
        ["python -m tests.bench", section, *fast, f"--device {options.device}", f"--threads {options.threads}"]
        + (["--set", *map(shlex.quote, sizes)] if sizes else [])
    )


def machine_facts(device: str, threads: int) -> dict[str, Any]:
    """Of the machine and of its load before anything is measured."""
    cpuinfo, memory = Path("/proc/cpuinfo"), Path("/proc/meminfo")
    model = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    total = re.search(r"MemTotal:\s*(\d+) kB", memory.read_text()) if memory.exists() else None
    return {
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(int(total[1]) / 1e6, 1) if total else None,
        "device": device if device == "cpu" else torch.cuda.get_device_name(device),
        "threads": threads,
        "load_before": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "at": time.strftime("%Y-%m-%d %H:%MZ", time.gmtime()),
    }


def machine_text(facts: Mapping[str, Any]) -> str:
    gpu = "" if facts["device"] == "cpu" else f", {facts['device']}"
    return (
        f"{facts['cpu']}, {facts['cores']} cores{gpu}, {facts['threads']} threads, load {facts['load_before']:g} before it, "
        f"torch {facts['torch']}, {facts['at']}."
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)} (all but search and real)")
    parser.add_argument("--fast", action="store_true", help="three minutes in all: shows that it runs, figures are rough")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {DOCUMENT.relative_to(ROOT)}")
    parser.add_argument("--device", default="cpu", help="as torch names it (cpu); peers stay on the CPU")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of torch, ours and the peers' (all cores)")
    parser.add_argument("--set", nargs="+", default=[], metavar="SECTION.NAME=JSON", help="other sizes")
    options = parser.parse_args()
    for name in options.sections:
        if name not in SECTIONS:
            parser.error(f"no section {name}: use {', '.join(SECTIONS)}")
    options.set = _sizes(parser, options.set)
    return options


def _sizes(parser: argparse.ArgumentParser, assignments: Sequence[str]) -> dict[str, dict[str, Any]]:
    sizes: dict[str, dict[str, Any]] = {}
    for text in assignments:
        section, _, assignment = text.partition(".")
        name, _, value = assignment.partition("=")
        if section not in SECTIONS or name not in SECTIONS[section].full:
            known = ", ".join(f"{section}.{name}" for section in SECTIONS for name in SECTIONS[section].full)
            parser.error(f"no size {section}.{name}: use {known}")
        sizes.setdefault(section, {})[name] = json.loads(value)
    return sizes


if __name__ == "__main__":
    sys.exit(main())
