"""A store in memory and the shared real bars."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from cappuccino.core.errors import Conflict, NotFound

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"


class MemoryBlobs:
    """The Blobs port over a dict; `writes` lists the keys put or replaced, in order."""

    def __init__(self) -> None:
        self.payloads: dict[str, bytes] = {}
        self.writes: list[str] = []

    def put(self, key: str, payload: bytes) -> None:
        if self.payloads.get(key, payload) != payload:
            raise Conflict(f"{key} holds other bytes")
        self.replace(key, payload)

    def replace(self, key: str, payload: bytes) -> None:
        self.payloads[key] = payload
        self.writes.append(key)

    def get(self, key: str) -> bytes:
        if key not in self.payloads:
            raise NotFound(key)
        return self.payloads[key]

    def exists(self, key: str) -> bool:
        return key in self.payloads

    def delete(self, key: str) -> None:
        self.payloads.pop(key, None)

    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self.payloads if key.startswith(prefix))


@pytest.fixture
def blobs() -> MemoryBlobs:
    return MemoryBlobs()


@pytest.fixture(scope="session")
def real_rows():
    """By timeframe, the shared file's rows with ts in epoch seconds."""

    def rows(timeframe: str) -> pl.DataFrame:
        path = DATA / f"crypto-{timeframe}-2024-01-07.parquet"
        if not path.exists():
            pytest.skip(f"{path.name} is not here")
        return pl.read_parquet(path).with_columns(pl.col("ts").dt.epoch("s"))

    return rows
