"""The artifact port: write-once bytes under keys. Snapshots, bundles and checkpoints are stored through it."""

from __future__ import annotations

from typing import Protocol


class Blobs(Protocol):
    """Keys are relative, with `/` between parts."""

    def put(self, key: str, payload: bytes) -> None:
        """Write once: an existing key with the same bytes is success.

        Raises:
            Conflict: the key holds other bytes.
        """
        ...

    def replace(self, key: str, payload: bytes) -> None:
        """Write atomically over what is there: for checkpoints only."""
        ...

    def get(self, key: str) -> bytes:
        """Raises NotFound, which names the key."""
        ...

    def exists(self, key: str) -> bool: ...

    def delete(self, key: str) -> None:
        """Absent is success."""
        ...

    def keys(self, prefix: str) -> list[str]:
        """Sorted keys under `prefix`."""
        ...
