from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from cappuccino.core.errors import IntegrityError, NotFound
from cappuccino.core.identifiers import digest_of
from cappuccino.core.timeframe import Timeframe
from cappuccino.market.generator import ORIGIN, GeneratorBars, GeneratorConfig
from cappuccino.market.refresh import refresh
from cappuccino.market.store import load_manifest, manifest_key, read, write_manifest

HOUR = Timeframe.parse("1h")
SYMBOLS = ("BTC/USD", "ETH/USD")
SOURCE = GeneratorBars(config=GeneratorConfig(seed=3))


def snapshot(blobs, *, count=1000):
    return refresh(SOURCE, blobs, symbols=SYMBOLS, timeframe=HOUR, start=ORIGIN, now=ORIGIN + count * 3600)


def test_what_was_written_is_read_bit_for_bit(blobs):
    bars = read(blobs, load_manifest(blobs, snapshot(blobs).digest))
    rows = SOURCE.fetch(SYMBOLS, HOUR, ORIGIN, ORIGIN + 1000 * 3600)
    assert bars.symbols == SYMBOLS
    assert bars.ts.tolist() == list(range(ORIGIN, ORIGIN + 1000 * 3600, 3600))
    for name in ("open", "high", "low", "close", "volume"):
        assert getattr(bars, name).T.tobytes() == rows[name].to_numpy().tobytes()
    assert not bars.missing.any()


def test_partitions_are_by_symbol_and_month_under_their_digest(blobs):
    manifest = snapshot(blobs).manifest
    assert [(p["symbol"], p["month"], p["rows"]) for p in manifest["partitions"]] == [
        ("BTC/USD", "2024-01", 744),
        ("BTC/USD", "2024-02", 256),
        ("ETH/USD", "2024-01", 744),
        ("ETH/USD", "2024-02", 256),
    ]
    assert manifest["partitions"][0]["key"] == f"bars/BTC-USD/1h/2024-01/{manifest['partitions'][0]['sha256']}.parquet"
    assert manifest["bars"] == 2000


def test_the_same_bars_have_the_same_digest_in_another_store(blobs):
    other = type(blobs)()
    assert snapshot(blobs).digest == snapshot(other).digest
    assert blobs.payloads == other.payloads


THREADS = """
import polars as pl
from cappuccino.core.identifiers import sha256_hex
from cappuccino.market import store
rows = pl.DataFrame({name: [float(i) for i in range(5000)] for name in ("ts", "open", "high", "low", "close", "volume")})
print(pl.thread_pool_size(), sha256_hex(store._parquet(rows)))
"""


def test_the_number_of_threads_does_not_change_a_partitions_bytes():
    answers = []
    for threads in ("1", "4"):
        environment = {**os.environ, "POLARS_MAX_THREADS": threads}
        ran = subprocess.run([sys.executable, "-c", THREADS], env=environment, capture_output=True, text=True, check=True)
        answers.append(ran.stdout.split())
    assert [threads for threads, _ in answers] == ["1", "4"]
    assert answers[0][1] == answers[1][1]


def test_the_digest_is_that_of_the_manifest_and_it_survives_json(blobs):
    made = snapshot(blobs)
    assert made.digest == digest_of(made.manifest) == digest_of(json.loads(json.dumps(made.manifest)))


@pytest.mark.parametrize("where", [5, -5])
def test_one_changed_byte_in_a_partition_is_refused_by_name(blobs, where):
    made = snapshot(blobs)
    key = made.manifest["partitions"][1]["key"]
    payload = bytearray(blobs.get(key))
    payload[where] ^= 1
    blobs.replace(key, bytes(payload))
    with pytest.raises(IntegrityError, match=key):
        read(blobs, made.manifest)


def test_a_partition_that_is_gone_is_refused_by_name(blobs):
    made = snapshot(blobs)
    key = made.manifest["partitions"][2]["key"]
    blobs.delete(key)
    with pytest.raises(IntegrityError, match=f"{key} is gone"):
        read(blobs, made.manifest)


def test_a_partition_with_other_rows_than_the_manifest_says_is_refused(blobs):
    manifest = snapshot(blobs).manifest
    manifest["partitions"][0]["rows"] += 1
    with pytest.raises(IntegrityError, match="744 rows"):
        read(blobs, manifest)


def test_a_changed_manifest_is_refused(blobs):
    digest = snapshot(blobs).digest
    blobs.replace(manifest_key(digest), blobs.get(manifest_key(digest)).replace(b"2024-01", b"2024-03"))
    with pytest.raises(IntegrityError, match=digest[:12]):
        load_manifest(blobs, digest)


def test_a_manifest_of_another_schema_is_refused(blobs):
    digest = write_manifest(blobs, {"schema": "cappuccino/snapshot/v9"})
    with pytest.raises(IntegrityError, match="cappuccino/snapshot/v9"):
        load_manifest(blobs, digest)


def test_an_unknown_snapshot_is_not_found(blobs):
    with pytest.raises(NotFound):
        load_manifest(blobs, "0" * 64)


def test_real_bars_survive_the_store(blobs, real_rows):
    frame = real_rows("1h")

    class Rows:
        def available(self, symbols, timeframe):
            return {}

        def fetch(self, symbols, timeframe, start, end):
            return frame.filter(frame["symbol"].is_in(list(symbols)) & frame["ts"].is_between(start, end, closed="left"))

    first, end = int(frame["ts"].min()), int(frame["ts"].max()) + 3600
    symbols = sorted(frame["symbol"].unique())
    made = refresh(Rows(), blobs, symbols=symbols, timeframe=HOUR, start=first, now=end)
    bars = read(blobs, made.manifest)
    assert np.array_equal(bars.close.T.ravel(), frame.sort("symbol", "ts")["close"].to_numpy())
    assert len(made.manifest["partitions"]) == 70
