"""The program of the workload tests, behind the lifeline as every entry point is: `workload_program.py ACTION FOLDER ...`."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from cappuccino.core import lifeline


def main() -> int:
    lifeline.watch()
    action, folder = sys.argv[1], Path(sys.argv[2])
    with (folder / "begun").open("a") as file:
        file.write(f"{os.getpid()}\n")
    alone = (folder / "alone").open("w")
    try:
        fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        (folder / "double").touch()
    if action == "exit":  # the codes of its attempts, one after the other; the last one stays
        codes = sys.argv[3].split(",")
        attempt = len((folder / "begun").read_text().split())
        print(f"attempt {attempt} says goodbye\n", file=sys.stderr)
        return int(codes[min(attempt, len(codes)) - 1])
    if action == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if action == "polite":
        signal.signal(signal.SIGTERM, lambda *_: ((folder / "polite").touch(), sys.exit(143)))
    if action == "family":
        child = [sys.executable, "-c", "import time; time.sleep(600)"]
        with subprocess.Popen(child, pass_fds=[alone.fileno()]) as grandchild:  # it holds the lock too
            (folder / "grandchild").write_text(str(grandchild.pid))
            time.sleep(600)
    if action == "tell":
        secrets = os.environ.get("SECRETS")
        (folder / "told").write_text(",".join(sorted(os.listdir(secrets))) if secrets else "none")
    if action == "loud":
        for number in range(20_000):
            print("x" * 100, number, flush=True)
    (folder / "ready").touch()
    time.sleep(600)
    return 0


if __name__ == "__main__":
    sys.exit(main())
