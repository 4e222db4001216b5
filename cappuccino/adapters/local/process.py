"""One child process: started behind a lifeline, ended with its whole group, its output in a bounded file."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cappuccino.core import lifeline
from cappuccino.core.errors import RetryLater
from cappuccino.core.processes import started

_TAIL_BYTES = 8192
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class LogFile:
    """The output of one workload over all its attempts. Above `bound_bytes` it becomes `.1` and starts again."""

    def __init__(self, path: Path, *, bound_bytes: int) -> None:
        self.path = path
        self._bound_bytes = bound_bytes
        path.parent.mkdir(parents=True, exist_ok=True)

    def rotate(self) -> None:
        """The child appends, so cutting the file under it is safe."""
        if self.path.exists() and self.path.stat().st_size > self._bound_bytes:
            shutil.copyfile(self.path, self.path.with_name(self.path.name + ".1"))
            os.truncate(self.path, 0)

    def last_line(self) -> str:
        """The last line that is not empty, without colours, at most 500 characters."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, self.path.stat().st_size - _TAIL_BYTES))
                lines = [_COLOURS.sub("", line).strip() for line in file.read().decode(errors="replace").splitlines()]
        except OSError:
            return ""
        return next((line[:500] for line in reversed(lines) if line), "")


class Child:
    """A running child. `go` lets it begin; until then it waits, and it ends when this process does."""

    def __init__(self, process: asyncio.subprocess.Process, pipe: int, identity: str | None) -> None:
        self._process = process
        self._pipe = pipe
        self.pid = process.pid
        self.identity = identity

    @classmethod
    async def spawn(cls, command: Sequence[str], *, environment: Mapping[str, str], log: LogFile) -> Child:
        """Raises RetryLater when the machine has no more processes to give, or the program is absent."""
        read_end, write_end = os.pipe()
        try:
            with log.path.open("ab") as output:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=read_end,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,  # a group of its own: Ctrl-C is for the runner, and the group ends as one
                    env={**environment, lifeline.VARIABLE: "stdin"},
                )
        except BaseException as error:
            os.close(write_end)
            if isinstance(error, OSError):
                raise RetryLater(f"{command[0]} cannot be started: {error}") from error
            raise
        finally:
            os.close(read_end)
        return cls(process, write_end, started(process.pid))

    def go(self) -> None:
        if self._pipe < 0:
            return  # it has ended before it could begin, and wait() has closed the pipe
        try:
            os.write(self._pipe, lifeline.GO)
        except BrokenPipeError:
            return  # it has ended already; wait() says how

    async def wait(self) -> int:
        """Its exit code, 128 + n for signal n as shells say it; nothing of its group is left then."""
        code = await self._process.wait()
        self._kill_group()
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        return 128 - code if code < 0 else code

    def terminate(self) -> None:
        if self._process.returncode is None:
            self._process.terminate()

    def kill(self) -> None:
        if self._process.returncode is None:
            self._kill_group()

    def _kill_group(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return


async def end_leftover(pid: int, identity: str, *, within_seconds: float = 10.0) -> None:
    """Kill what an earlier runner left, if `pid` still is that process, and wait until it is gone.

    Raises:
        RetryLater: it does not go.
    """
    deadline = time.monotonic() + within_seconds
    while started(pid) == identity:
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        if time.monotonic() > deadline:
            raise RetryLater(f"process {pid} of an earlier runner does not end: wait or end it by hand")
        await asyncio.sleep(0.02)
