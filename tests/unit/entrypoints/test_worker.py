"""How both clusters start their processes."""

from __future__ import annotations

import signal
import subprocess
import sys

SLEEPER = """
import sys, time, types
from cappuccino.entrypoints.worker import main
program = types.ModuleType("cappuccino.entrypoints.ingest")
program.main = lambda arguments: (print("up", flush=True), time.sleep(60))[0]
sys.modules[program.__name__] = program
sys.exit(main(["ingest"]))
"""


def test_a_program_without_a_handler_of_its_own_ends_by_sigterm_as_preempted() -> None:
    """By its exit code, not by the signal: process 1 of a container would not notice that."""
    with subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 143
