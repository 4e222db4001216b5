"""Peak memory of PPO, and what doubling assets, features, environments or lookback adds to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench.peers import ROOT, interpreter
from tests.bench.report import Summary
from tests.bench.section import MARKET, Figures, Machine, Section

PROGRAMS = {"ours": "cappuccino_ppo", "stable-baselines3": "stable_baselines3_ppo"}


def measure(
    machine: Machine,
    *,
    grown: list[str],
    hidden: int,
    num_steps: int,
    num_envs: int,
    peer_steps: int,
    peer_envs: int,
    minibatch: int,
) -> Figures:
    """With each of `grown` doubled; more environments are more steps in a rollout. Once each: load does not change it."""
    measured: dict[str, dict[str, Figures]] = {}
    for name, program in PROGRAMS.items():
        python = Path(sys.executable) if name == "ours" else interpreter()
        for what in grown:
            tables = MARKET | ({what: 2 * MARKET[what]} if what in MARKET else {})
            times = 2 if what == "environments" else 1
            arguments: Figures = {"hidden": hidden, "minibatch": minibatch, "threads": machine.threads}
            if name == "ours":
                arguments |= {"num_steps": num_steps, "batch": times * num_envs * num_steps, "device": machine.device}
            else:
                arguments |= {"num_envs": times * peer_envs, "batch": times * peer_envs * peer_steps}
            measured.setdefault(what, {})[name] = _measured(python, program=program, tables=tables, arguments=arguments)
    return {
        "market": MARKET,
        "hidden": hidden,
        "minibatch": minibatch,
        "envs": {"ours": num_envs, "stable-baselines3": peer_envs},
        "steps": {"ours": num_steps, "stable-baselines3": peer_steps},
        "measured": measured,
    }


def _measured(python: Path, **asked: Any) -> Figures:
    command = [python, "-m", "tests.bench.footprint", json.dumps(asked)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, stdout=subprocess.PIPE, text=True
    )
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def summary(figures: Mapping[str, Any]) -> Summary:
    measured = figures["measured"]

    def cells(grown: str, name: str) -> list[str]:
        each, base = measured[grown][name], measured["nothing"][name]
        used, before = each["peak_mb"] - each["imports_mb"], base["peak_mb"] - base["imports_mb"]
        cells = [f"{used:,.0f} MB", "" if grown == "nothing" else f"{used / before:.2f}x"]
        return cells + ([f"{each['device_mb']:,.0f} MB"] if each["device_mb"] else [])

    rows = [[grown, *cells(grown, "ours"), *cells(grown, "stable-baselines3")] for grown in measured]
    header = ["doubled", "ours", ""] + ["on the GPU"] * (len(rows[0]) - 5) + ["stable-baselines3", ""]
    imports = {name: measured["nothing"][name]["imports_mb"] for name in PROGRAMS}
    shapes = [f"{figures['envs'][name]:,} environments x {figures['steps'][name]:,} steps ({name})" for name in PROGRAMS]
    return Summary(
        tables=[(header, rows)],
        notes=[
            f"Peak of a process beyond its imports ({imports['ours']:,.0f} MB ours, {imports['stable-baselines3']:,.0f} MB "
            f"stable-baselines3) for PPO at hidden {figures['hidden']} with rollouts of {' and '.join(shapes)}, minibatches of "
            f"{figures['minibatch']:,}. Each of stable-baselines3's environments keeps some tables of its own.",
        ],
    )


SECTION = Section(
    title="Memory",
    measure=measure,
    summary=summary,
    full={
        "grown": ["nothing", "assets", "features", "environments", "lookback"],
        "hidden": 128,
        "num_steps": 32,
        "num_envs": 1024,
        "peer_steps": 1024,
        "peer_envs": 32,
        "minibatch": 4096,
    },
    fast={"grown": ["nothing", "environments"], "num_envs": 256, "peer_steps": 128, "peer_envs": 32, "minibatch": 1024},
)
