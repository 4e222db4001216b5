"""A way to the database that can be cut, or that falls silent: TCP to the server's socket."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from psycopg.conninfo import conninfo_to_dict


class Partition:
    def __init__(self, database_url: str) -> None:
        told = conninfo_to_dict(database_url)
        self._path = f"{told['host']}/.s.PGSQL.{told.get('port', 5432)}"
        self._server = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.is_cut = self.is_silent = False
        self.url = f"postgresql://{told['user']}@127.0.0.1:{self._server.getsockname()[1]}/{told['dbname']}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                if self.is_cut:
                    near.close()
                    continue
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._path)
                self._open += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        """A connection that has lost bytes stays silent."""
        lost = False
        with suppress(OSError):
            while data := source.recv(65536):
                lost = lost or self.is_silent
                if not lost:
                    target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        self.is_cut = True
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def silence(self) -> None:
        """Every byte is taken and dropped: no end of a connection learns of it."""
        self.is_silent = True

    def heal(self) -> None:
        """New connections come through."""
        self.is_silent = False

    def close(self) -> None:
        self._server.close()
        self.cut()
