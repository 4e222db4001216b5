"""Bars from one Parquet, CSV, Feather or Arrow file with symbol, ts, open, high, low, close, volume.

`ts` is the open time: a datetime column in UTC, RFC 3339 text with Z or +00:00, or whole epoch seconds or
milliseconds. A stamp without a zone, or in another one, is refused: guessing shifts a market by hours. Only
the shape is judged here; values are quality's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import polars as pl

from cappuccino.core.errors import InvalidInput, NotFound
from cappuccino.core.timeframe import TIMEFRAMES, Timeframe
from cappuccino.market.source import SCHEMA, VALUES

_READERS: Mapping[str, Callable[[bytes], pl.DataFrame]] = {
    ".parquet": pl.read_parquet,
    ".csv": lambda payload: pl.read_csv(payload, infer_schema_length=None),
    ".feather": pl.read_ipc,
    ".arrow": pl.read_ipc,
    ".ipc": pl.read_ipc,
}
_UTC_NAMES = {"UTC", "Etc/UTC", "GMT", "+00:00"}
_RFC3339_UTC = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(\.\d+)?(Z|\+00:?00)$"
_MILLISECONDS_FROM = 100_000_000_000  # as seconds this is the year 5138
_TOO_LARGE = 100_000_000_000_000  # as milliseconds too


class FileBars:
    """A `BarSource`. The file is read once, at the first call."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._rows: pl.DataFrame | None = None
        self._symbols: list[str] | None = None
        self._native: Timeframe | None = None

    def fetch(self, symbols: Sequence[str], timeframe: Timeframe, start: int, end: int) -> pl.DataFrame:
        rows = self._usable(symbols, timeframe)
        return rows.filter(pl.col("symbol").is_in(list(symbols)) & pl.col("ts").is_between(start, end, closed="left"))

    def available(self, symbols: Sequence[str], timeframe: Timeframe) -> Mapping[str, tuple[int, int]]:
        rows = self._usable(symbols, timeframe).filter(pl.col("symbol").is_in(list(symbols)))
        ranges = rows.group_by("symbol").agg(pl.col("ts").min().alias("first"), pl.col("ts").max().alias("last"))
        return {symbol: (first, last + timeframe.seconds) for symbol, first, last in ranges.iter_rows()}

    def symbols(self) -> list[str]:
        """What the file has, sorted."""
        if self._symbols is None:
            self._symbols = sorted(self._read()["symbol"].unique().to_list())
        return self._symbols

    def timeframe(self) -> Timeframe | None:
        """The spacing that most neighbouring bars have; None when no two bars are neighbours."""
        if self._native is None:
            steps = self._read().sort("symbol", "ts").select(pl.col("ts").diff().over("symbol"))["ts"].drop_nulls()
            usual = steps.filter(steps > 0).mode().sort()
            self._native = Timeframe(int(usual[0])) if len(usual) else None
        return self._native

    def _usable(self, symbols: Sequence[str], timeframe: Timeframe) -> pl.DataFrame:
        """The rows, once it is clear that the file can answer.

        Raises:
            InvalidInput: a symbol or the timeframe is not what the file has.
        """
        rows, there = self._read(), self.symbols()
        unknown = [symbol for symbol in symbols if symbol not in there]
        if unknown:
            raise InvalidInput(f"{self.path}: has no symbol {', '.join(unknown)}: use one of {', '.join(there)}")
        native = self.timeframe()
        if native is not None and native != timeframe:
            remedy = f"set timeframe: {native}" if str(native) in TIMEFRAMES else f"give bars of {', '.join(TIMEFRAMES)}"
            raise InvalidInput(f"{self.path}: its bars are {native}, not {timeframe}: {remedy}")
        return rows

    def _read(self) -> pl.DataFrame:
        if self._rows is None:
            self._rows = self._parsed()
        return self._rows

    def _parsed(self) -> pl.DataFrame:
        reader = _READERS.get(self.path.suffix.lower())
        if reader is None:
            raise InvalidInput(f"{self.path}: {self.path.suffix or 'no suffix'} is not known: use {', '.join(_READERS)}")
        try:
            payload = self.path.read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"{self.path}: there is no such file: correct the path") from error
        except OSError as error:
            raise InvalidInput(f"{self.path}: cannot be read ({error.strerror}): allow it to be read") from error
        try:
            frame = reader(payload)
        except (pl.exceptions.PolarsError, OSError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InvalidInput(f"{self.path}: not a readable {self.path.suffix[1:]} file ({reason}): write it again") from error
        absent = [name for name in SCHEMA if name not in frame.columns]
        if absent:
            raise InvalidInput(f"{self.path}: has no column {', '.join(absent)}: it has {', '.join(frame.columns) or 'none'}")
        if not len(frame):
            raise InvalidInput(f"{self.path}: has no rows: give a file with bars")
        numbers = [self._number(frame[name]) for name in VALUES]
        return pl.DataFrame([self._symbol(frame["symbol"]), self._stamps(frame["ts"]), *numbers])

    def _symbol(self, column: pl.Series) -> pl.Series:
        text = column.cast(pl.String)
        if text.null_count():
            row = text.is_null().arg_max()
            raise InvalidInput(f"{self.path}: symbol is empty in row {row}: every row names its symbol")
        return text

    def _number(self, column: pl.Series) -> pl.Series:
        numbers = column.cast(pl.Float64, strict=False)
        wrong = numbers.is_null() & column.is_not_null()
        if wrong.any():
            row = wrong.arg_max() or 0
            raise InvalidInput(f"{self.path}: {column.name} is {column[row]!r} in row {row}: write a number")
        return numbers.fill_null(float("nan"))

    def _stamps(self, column: pl.Series) -> pl.Series:
        """Epoch seconds [Int64]."""
        if column.null_count():
            raise InvalidInput(f"{self.path}: ts is empty in row {column.is_null().arg_max()}: every row has its open time")
        dtype = column.dtype
        if isinstance(dtype, pl.Datetime):
            if dtype.time_zone not in _UTC_NAMES:
                zone = dtype.time_zone or "no time zone"
                raise InvalidInput(f"{self.path}: ts has {zone} (first value {column[0]}): write open times in UTC")
            return self._whole_seconds(column.dt.timestamp("ms"), 1000)
        if dtype == pl.String:
            return self._parsed_text(column)
        if dtype.is_float():
            whole = column.cast(pl.Int64, strict=False)
            wrong = whole.is_null() | (whole.cast(pl.Float64) != column)
            if wrong.any():
                row = wrong.arg_max() or 0
                raise InvalidInput(f"{self.path}: ts is {column[row]} in row {row}: write whole epoch seconds or milliseconds")
            column, dtype = whole, whole.dtype
        if not dtype.is_integer():
            raise InvalidInput(f"{self.path}: ts is of type {dtype}: write a UTC datetime, epoch seconds or RFC 3339 text")
        stamps = column.cast(pl.Int64)
        outside = (stamps < 0) | (stamps >= _TOO_LARGE)
        if outside.any():
            row = outside.arg_max() or 0
            raise InvalidInput(f"{self.path}: ts is {stamps[row]} in row {row}: write epoch seconds or milliseconds")
        return self._whole_seconds(stamps, 1000) if (stamps >= _MILLISECONDS_FROM).any() else stamps.rename("ts")

    def _parsed_text(self, column: pl.Series) -> pl.Series:
        wrong = ~column.str.contains(_RFC3339_UTC)
        if wrong.any():
            row = wrong.arg_max() or 0
            raise InvalidInput(f"{self.path}: ts is {column[row]!r} in row {row}: write UTC as 2024-01-01T00:00:00Z")
        plain = column.str.replace(r"(Z|\+00:?00)$", "").str.replace(" ", "T", literal=True)
        times = plain.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", strict=False, time_unit="ms")
        if times.null_count():
            row = times.is_null().arg_max() or 0
            raise InvalidInput(f"{self.path}: ts is {column[row]!r} in row {row}: there is no such time")
        return self._whole_seconds(times.dt.timestamp("ms"), 1000)

    def _whole_seconds(self, stamps: pl.Series, per_second: int) -> pl.Series:
        odd = stamps % per_second != 0
        if odd.any():
            row = odd.arg_max() or 0
            raise InvalidInput(f"{self.path}: ts is {stamps[row]} ms in row {row}: open times are whole seconds")
        return (stamps // per_second).rename("ts")
