"""Keeps one PostgreSQL server alive for as long as somebody uses it, and not longer.

Runs as its own process: `python -m cappuccino.adapters.postgres.keeper DIRECTORY COMMAND...`. Three files are locked
with flock, which the kernel releases when a process ends in whatever way:

- `users.lock`: every user of the server holds it shared. The keeper waits for it exclusively: it gets it at the moment
  when the last user is gone, and holds it while the server shuts down, so that a new user waits for the end of that.
- `keeper.lock`: held by the one keeper.
- `start.lock`: held by whoever is starting (embedded.py).

A server that ends by itself is started again.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from cappuccino.core.processes import command_line, started

_STOP_SECONDS = 20.0
_LOOK_SECONDS = 0.1
_PATIENCE = 30  # starts in a row that may fail once it has worked: backends of a killed server need a moment to go


def open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def running_postmaster(data: Path) -> int | None:
    """Pid of the server that runs on `data`; a pid file whose process is somebody else is removed."""
    pid_file = data / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return None
    if started(pid) is not None and str(data) in command_line(pid):
        return pid
    pid_file.unlink(missing_ok=True)
    return None


def stop_postmaster(pid: int) -> None:
    """Fast shutdown (SIGINT), then immediate (SIGQUIT); recovery from the log makes both safe."""
    identity = started(pid)
    for number in (signal.SIGINT, signal.SIGQUIT):
        deadline = time.monotonic() + _STOP_SECONDS
        try:
            os.kill(pid, number)
            while started(pid) == identity and identity is not None and time.monotonic() < deadline:
                time.sleep(_LOOK_SECONDS / 5)
        except ProcessLookupError:
            return
        if started(pid) != identity or identity is None:
            return


def main(arguments: list[str]) -> int:
    directory, command = Path(arguments[0]), arguments[1:]
    keeper = open_lock(directory / "keeper.lock")
    if not _locked(keeper):
        return 0  # another one is at work
    unused = threading.Event()

    def wait_for_users() -> None:
        fcntl.flock(open_lock(directory / "users.lock"), fcntl.LOCK_EX)
        unused.set()

    signal.signal(signal.SIGTERM, lambda *_: unused.set())
    threading.Thread(target=wait_for_users, daemon=True).start()
    orphan = running_postmaster(directory / "data")  # its keeper was killed
    if orphan is not None:
        stop_postmaster(orphan)
    code = _keep(command, directory / "data", unused)
    os.close(keeper)  # before users.lock: who gets that one must find no keeper (at exit their order is not defined)
    return code


def _locked(keeper: int) -> bool:
    """Whoever looks whether there is a keeper holds the lock for an instant."""
    for _ in range(20):
        try:
            fcntl.flock(keeper, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return True
    return False


def _keep(command: list[str], data: Path, unused: threading.Event) -> int:
    attempts_left = 0
    while not unused.is_set():
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603
        while server.poll() is None and not unused.wait(_LOOK_SECONDS):
            pass
        if server.poll() is None:
            _end(server)
        elif _was_ready(data):  # an accident: it had started well
            attempts_left = _PATIENCE
        elif attempts_left == 0:
            return server.returncode or 1
        unused.wait(0.5)
        attempts_left -= 1
    return 0


def _was_ready(data: Path) -> bool:
    """A server that was killed leaves its pid file behind; one that ended by itself removes it."""
    try:
        return "ready" in (data / "postmaster.pid").read_text()
    except OSError:
        return False


def _end(server: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        server.send_signal(number)
        try:
            server.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
