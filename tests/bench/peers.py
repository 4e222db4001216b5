"""The peers' programs: an environment of their own, and one process in it that measures for us.

The environment is made from requirements.txt by the project's uv, and again when that file changes. Nothing of the project is
installed in it, and nothing of it in the project: a function that is called there imports NumPy, torch and the peers alone.
A call is one line of JSON, {"function": "module:name", "arguments": {...}}, and so is its answer. An argument `tables` holds
the arguments of `Tables.random`. What the function prints goes to stderr.

    with Peers() as peers:
        peers.call("tests.bench.environment:gym_trading_env", tables={"bars": 1_000}, seconds=1.0)
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
FOLDER = ROOT / "build" / "bench" / "venv"


def interpreter() -> Path:
    """Of the peers' environment, which is made when it is not there or older than its requirements."""
    python, made_of = FOLDER / "bin" / "python", FOLDER / "requirements.txt"
    if not made_of.exists() or made_of.read_bytes() != REQUIREMENTS.read_bytes():
        uv = ROOT / ".tools" / "uv" / "bin" / "uv"
        print(f"making {FOLDER.relative_to(ROOT)} of {REQUIREMENTS.relative_to(ROOT)} ...", file=sys.stderr, flush=True)
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, FOLDER], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, "-r", REQUIREMENTS], check=True)
        shutil.copy(REQUIREMENTS, made_of)
    return python


class Peers:
    """The process is started by the first call."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        if self._process is not None:
            with self._process:
                if kind:
                    self._process.kill()

    def call(self, function: str, **arguments: Any) -> Any:
        """
        Raises:
            RuntimeError: the process ended, as it does when the function raises.
        """
        if self._process is None:
            self._process = subprocess.Popen(
                [interpreter(), "-m", "tests.bench.peers"],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"function": function, "arguments": arguments}), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{function}: the peers' process ended with {self._process.wait()}: see what it wrote above")
        return json.loads(line)


def serve() -> None:
    """Answers calls until stdin ends. Only answers go to the stdout that the caller reads."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            call = json.loads(line)
            print(json.dumps(answered(call["function"], call["arguments"])), file=answers, flush=True)


def answered(function: str, arguments: dict[str, Any]) -> Any:
    from tests.bench.single import Tables

    if "tables" in arguments:
        arguments = arguments | {"tables": Tables.random(**arguments["tables"])}
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)(**arguments)


if __name__ == "__main__":
    serve()
