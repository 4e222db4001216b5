"""Snapshots: bars as partitioned Parquet under content addresses, and the manifest that names them.

A partition holds one symbol's bars of one calendar month (UTC) that the source really had; missing bars are
made flat when it is read. Its key ends in the SHA-256 of its bytes, so a partition is written once and a
revised bar makes another one. `content` is the SHA-256 of the values themselves: an unchanged month keeps
its entry, and the snapshot its digest, whatever library version would write today.

A snapshot's digest is the SHA-256 of its manifest's canonical JSON; the manifest has no clock in it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from cappuccino.core.blobs import Blobs
from cappuccino.core.errors import IntegrityError, NotFound
from cappuccino.core.identifiers import canonical_json, digest_of, sha256_hex
from cappuccino.core.timeframe import Timeframe
from cappuccino.market.bars import Bars
from cappuccino.market.quality import dense
from cappuccino.market.source import VALUES, no_rows

SCHEMA_NAME = "cappuccino/snapshot/v1"
Manifest: TypeAlias = dict[str, Any]
Partition: TypeAlias = dict[str, Any]


def manifest_key(digest: str) -> str:
    return f"snapshots/{digest}.json"


def write_partitions(
    blobs: Blobs, rows: pl.DataFrame, timeframe: Timeframe, *, known: Iterable[Partition] = ()
) -> tuple[list[Partition], int]:
    """Stores accepted rows by symbol and month; a month that `known` (a manifest's partitions) has is not written.

    Returns:
        (the partitions' entries sorted by symbol and month, how many were written).
    """
    by_content = {(entry["symbol"], entry["month"], entry["content"]): entry for entry in known}
    month = pl.from_epoch("ts", time_unit="s").dt.strftime("%Y-%m").alias("month")
    entries: list[Partition] = []
    written = 0
    for frame in rows.with_columns(month).sort("symbol", "ts").partition_by("symbol", "month", maintain_order=True):
        symbol, name = frame["symbol"][0], frame["month"][0]
        content = _content(frame)
        entry = by_content.get((symbol, name, content))
        if entry is None:
            payload = _parquet(frame)
            sha256 = sha256_hex(payload)
            folder = f"bars/{symbol.replace('/', '-')}/{timeframe}/{name}"
            entry = {"symbol": symbol, "month": name, "key": f"{folder}/{sha256}.parquet", "sha256": sha256, "content": content}
            entry |= {"rows": len(frame), "bytes": len(payload)}
            blobs.put(entry["key"], payload)
            written += 1
        entries.append(entry)
    return entries, written


def write_manifest(blobs: Blobs, manifest: Manifest) -> str:
    """Stores the manifest under its digest and gives the digest."""
    digest = digest_of(manifest)
    blobs.put(manifest_key(digest), canonical_json(manifest))
    return digest


def load_manifest(blobs: Blobs, digest: str) -> Manifest:
    """The manifest of a snapshot.

    Raises:
        NotFound: there is no such snapshot.
        IntegrityError: its bytes are not what the digest says.
    """
    payload = blobs.get(manifest_key(digest))
    if sha256_hex(payload) != digest:
        raise IntegrityError(
            f"snapshot {digest[:12]}: its manifest hashes to {sha256_hex(payload)[:12]}: restore it or refresh"
        )
    manifest: Manifest = json.loads(payload)
    if manifest.get("schema") != SCHEMA_NAME:
        found = manifest.get("schema")
        raise IntegrityError(f"snapshot {digest[:12]}: schema {found!r} is not {SCHEMA_NAME}: refresh the Dataset")
    return manifest


def read_rows(blobs: Blobs, manifest: Mapping[str, Any], *, symbols: Sequence[str] | None = None) -> pl.DataFrame:
    """The stored bars as rows (source.SCHEMA), sorted by symbol and ts; every partition's digest is verified.

    Raises:
        IntegrityError: names the partition that is gone, changed, or not what the manifest says.
    """
    wanted = set(manifest["symbols"] if symbols is None else symbols)
    frames = [_read_partition(blobs, entry) for entry in manifest["partitions"] if entry["symbol"] in wanted]
    return pl.concat(frames).sort("symbol", "ts") if frames else no_rows()


def read(blobs: Blobs, manifest: Mapping[str, Any]) -> Bars:
    """The snapshot's panel: its symbols in the manifest's order, missing bars flat and flagged.

    Raises:
        IntegrityError: as `read_rows`.
    """
    timeframe = Timeframe.parse(manifest["timeframe"])
    rows = read_rows(blobs, manifest)
    return dense(rows, manifest["symbols"], timeframe, manifest["first_ts"], manifest["last_ts"] + timeframe.seconds)


def _read_partition(blobs: Blobs, entry: Partition) -> pl.DataFrame:
    where = f"partition {entry['key']}"
    try:
        payload = blobs.get(entry["key"])
    except NotFound as error:
        raise IntegrityError(f"{where} is gone: restore it or refresh the Dataset") from error
    if sha256_hex(payload) != entry["sha256"]:
        raise IntegrityError(f"{where}: its bytes hash to {sha256_hex(payload)[:12]}, not {entry['sha256'][:12]}: restore it")
    frame = pl.read_parquet(payload)
    if len(frame) != entry["rows"] or frame.columns != ["ts", *VALUES]:
        found = f"{len(frame)} rows of {', '.join(frame.columns)}"
        raise IntegrityError(f"{where}: {found}, expected {entry['rows']}: refresh the Dataset")
    return frame.select(pl.lit(entry["symbol"]).alias("symbol"), pl.all())


def _content(frame: pl.DataFrame) -> str:
    columns = [frame["ts"].to_numpy().astype("<i8"), *(frame[name].to_numpy().astype("<f8") for name in VALUES)]
    return sha256_hex(b"".join(np.ascontiguousarray(column).tobytes() for column in columns))


def _parquet(frame: pl.DataFrame) -> bytes:
    """Sorted rows in one row group: nothing is aggregated, so any number of threads writes the same bytes."""
    out = io.BytesIO()
    frame.select("ts", *VALUES).write_parquet(out, compression="zstd", compression_level=3, row_group_size=1 << 20)
    return out.getvalue()
