"""The exchange's memory: one append-only file of commands, a JSON list per line, after a header line.

A line is written to the file before anyone hears of its command, so a killed process loses nothing; `durable` waits for fsync,
which one thread does for all commands that wait at that time, so that a machine that loses power loses nothing acknowledged.
A last line without its end was never acknowledged and is cut off. Two processes cannot have one journal.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cappuccino.core.errors import Conflict, IntegrityError, InvalidInput

SCHEMA = "cappuccino/exchange-journal/v1"


class Journal:
    """`path` None keeps nothing: for an exchange that may forget."""

    def __init__(self, path: Path | None, *, tape: str, terms: dict[str, Any]) -> None:
        """
        Args:
            tape: the digest of the tape; a journal written on another tape cannot be replayed on this one.
            terms: what the exchange charges; the same holds.

        Raises:
            Conflict: the journal is of another tape or other terms, or another process has it.
            InvalidInput: the file cannot be opened.
            IntegrityError: a line other than the last cannot be read.
        """
        self._path = path
        self._header = {"schema": SCHEMA, "tape": tape, "terms": terms}
        self._waiting: list[asyncio.Future[None]] = []
        self._syncing: asyncio.Task[None] | None = None
        self._replayed: list[list[Any]] = []
        self._file = -1 if path is None else self._open(path)

    def _open(self, path: Path) -> int:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InvalidInput(f"journal {path} cannot be opened ({error.strerror}): name a writable file") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            raise Conflict(f"journal {path} is in use by another exchange: stop that one, or name another journal") from error
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(file, whole)
        lines = [self._parse(line, number) for number, line in enumerate(content[:whole].splitlines(), start=1)]
        if not lines:
            self._write(file, self._header)
            os.fsync(file)
        else:
            self._check(lines[0])
            self._replayed = lines[1:]
        return file

    def _parse(self, line: bytes, number: int) -> Any:
        try:
            return json.loads(line)
        except ValueError as error:
            raise IntegrityError(
                f"journal {self._path}, line {number} is not JSON: restore the file or name another"
            ) from error

    def _check(self, header: Any) -> None:
        if not isinstance(header, dict) or header.get("schema") != SCHEMA:
            raise IntegrityError(f"journal {self._path} does not begin with {SCHEMA}: it is another file, name another")
        for name in ("tape", "terms"):
            if header.get(name) != self._header[name]:
                was, now = (json.dumps(h.get(name))[:64] for h in (header, self._header))
                raise Conflict(
                    f"journal {self._path} was written with another {name} ({was}, now {now}): start with the same bars, start"
                    " and options, or name another journal"
                )

    def replay(self) -> Iterator[list[Any]]:
        """The encoded commands that were there, once."""
        replayed, self._replayed = self._replayed, []
        yield from replayed

    def append(self, encoded: list[Any]) -> None:
        """Write one command; it survives this process, and after `durable` this machine."""
        if self._file >= 0:
            self._write(self._file, encoded)

    @staticmethod
    def _write(file: int, value: Any) -> None:
        line = json.dumps(value, separators=(",", ":")).encode() + b"\n"
        while line:
            line = line[os.write(file, line) :]

    async def durable(self) -> None:
        """Return when everything appended so far is on the disk."""
        if self._file < 0:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        if self._syncing is None or self._syncing.done():
            self._syncing = asyncio.create_task(self._sync())
        await future

    async def _sync(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(os.fsync, self._file)
            except OSError as error:
                for future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for future in batch:
                if not future.done():
                    future.set_result(None)

    def close(self) -> None:
        if self._file >= 0:
            os.fsync(self._file)
            os.close(self._file)
            self._file = -1
