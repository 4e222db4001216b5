"""Bars from Alpaca's crypto history, which needs no keys.

The client follows `next_page_token` by itself but has no timeout: one is mounted here. What may pass by
waiting (no connection, 429, 5xx, a body that is not JSON) is RetryLater; a refusal is InvalidInput.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import polars as pl
import requests
from alpaca.common.exceptions import APIError
from alpaca.data.historical import CryptoHistoricalDataClient
from alpaca.data.requests import CryptoBarsRequest
from alpaca.data.timeframe import TimeFrame, TimeFrameUnit
from requests.adapters import HTTPAdapter

from cappuccino.core.clock import from_epoch, to_epoch
from cappuccino.core.errors import InvalidInput, RetryLater
from cappuccino.core.timeframe import Timeframe
from cappuccino.market.source import SCHEMA, no_rows

_FIELDS = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}


class _TimedAdapter(HTTPAdapter):
    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        super().__init__()

    def send(self, request: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        kwargs["timeout"] = kwargs.get("timeout") or self._timeout_seconds
        return super().send(request, **kwargs)


class AlpacaHistory:
    """A `BarSource`. `url` is another endpoint of the same protocol, such as the simulated exchange's."""

    def __init__(self, *, url: str | None = None, timeout_seconds: float = 20.0) -> None:
        self._where = f"alpaca history at {url}" if url else "alpaca history"
        self._client = CryptoHistoricalDataClient(raw_data=True, url_override=url)
        adapter = _TimedAdapter(timeout_seconds)
        self._client._session.mount("https://", adapter)
        self._client._session.mount("http://", adapter)

    def available(self, symbols: Sequence[str], timeframe: Timeframe) -> Mapping[str, tuple[int, int]]:  # noqa: ARG002
        return {}

    def fetch(self, symbols: Sequence[str], timeframe: Timeframe, start: int, end: int) -> pl.DataFrame:
        if not symbols or start >= end:
            return no_rows()
        request = CryptoBarsRequest(
            symbol_or_symbols=list(symbols),
            timeframe=_alpaca_timeframe(timeframe),
            start=from_epoch(start),
            end=from_epoch(end - 1),  # the venue's end is inclusive
        )
        try:
            answer: Any = self._client.get_crypto_bars(request)
            rows = [
                (symbol, to_epoch(datetime.fromisoformat(bar["t"])), *(float(bar[key]) for key in _FIELDS.values()))
                for symbol, bars in answer.items()
                for bar in bars
            ]
        except APIError as error:
            raise self._sorted(error, symbols) from error
        except requests.exceptions.RequestException as error:
            raise RetryLater(f"{self._where}: {type(error).__name__}, no usable answer: check the network, retrying") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RetryLater(f"{self._where}: the answer is not bars ({type(error).__name__}: {error}), retrying") from error
        frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
        return frame.filter(pl.col("ts").is_between(start, end, closed="left"))

    def _sorted(self, error: APIError, symbols: Sequence[str]) -> InvalidInput | RetryLater:
        status = error.status_code
        text = str(error).strip().replace("\n", " ")[:200]
        if status is not None and 400 <= status < 500 and status not in (408, 429):
            return InvalidInput(f"{self._where}: refused {', '.join(symbols)} with {status} ({text}): correct symbols or url")
        return RetryLater(f"{self._where}: answered {status} ({text}), retrying", after_seconds=30.0)


def _alpaca_timeframe(timeframe: Timeframe) -> TimeFrame:
    minutes = timeframe.seconds // 60
    if minutes % 1440 == 0:
        return TimeFrame(minutes // 1440, TimeFrameUnit.Day)
    if minutes % 60 == 0:
        return TimeFrame(minutes // 60, TimeFrameUnit.Hour)
    return TimeFrame(minutes, TimeFrameUnit.Minute)
