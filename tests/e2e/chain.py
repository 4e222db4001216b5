"""Runs of the whole chain as a person starts it: one command, its exit code, and the summary it leaves."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from cappuccino.adapters.postgres.embedded import EmbeddedServer
from cappuccino.api.manifests import load

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "examples" / "rules"
Edit = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Run:
    code: int
    output: str
    errors: str


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def manifests(folder: Path, *, source: Path = RULES, **edits: Edit) -> Path:
    """A copy of an example's manifests; an edit is named after the kind whose spec it changes."""
    folder.mkdir(parents=True, exist_ok=True)
    for document, where in load(source):
        edit = edits.get(document["kind"].lower())
        if edit:
            edit(document["spec"])
        (folder / f"{Path(where.partition(':')[0]).stem}.json").write_text(json.dumps(document))
    return folder


def start(folder: Path, *arguments: str, port: int, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cappuccino.entrypoints.demo", "--folder", str(folder), "--port", str(port), *arguments]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
    )


def finish(process: subprocess.Popen[str], *, within: float = 280) -> Run:
    try:
        output, errors = process.communicate(timeout=within)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=30)
        raise AssertionError(f"the demo did not end within {within:g} s:\n{output[-3000:]}\n{errors[-2000:]}") from None
    return Run(code=process.returncode, output=output, errors=errors)


def demo(folder: Path, *arguments: str, port: int | None = None, environment: Mapping[str, str] | None = None) -> Run:
    return finish(start(folder, *arguments, port=port or free_port(), environment=environment))


def summary(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return result


def wait_for(what: Callable[[], bool], *, within: float = 60, why: str = "") -> None:
    deadline = time.monotonic() + within
    while not what():
        assert time.monotonic() < deadline, f"waited {within:g} s in vain: {why}"
        time.sleep(0.05)


def rows(folder: Path, *queries: str) -> list[list[tuple[Any, ...]]]:
    with EmbeddedServer(folder / "state" / "postgres") as server, psycopg.connect(server.url()) as connection:
        return [connection.execute(query.encode()).fetchall() for query in queries]
