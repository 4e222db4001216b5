"""A timeframe is the duration D of a bar; bar t covers [ts, ts + D)."""

from __future__ import annotations

from dataclasses import dataclass

from cappuccino.core.errors import InvalidInput

_SECONDS = {"1m": 60, "5m": 300, "15m": 900, "30m": 1800, "1h": 3600, "4h": 14400, "1d": 86400}
SECONDS_PER_YEAR = 365 * 86400  # crypto trades every day


@dataclass(frozen=True, order=True)
class Timeframe:
    seconds: int

    @classmethod
    def parse(cls, text: str) -> Timeframe:
        if text not in _SECONDS:
            raise InvalidInput(f"timeframe {text!r} is unknown: use one of {', '.join(_SECONDS)}")
        return cls(_SECONDS[text])

    @property
    def bars_per_year(self) -> float:
        return SECONDS_PER_YEAR / self.seconds

    def floor(self, epoch_seconds: int) -> int:
        """Open time of the bar that contains the instant."""
        return epoch_seconds - epoch_seconds % self.seconds

    def __str__(self) -> str:
        return next((name for name, seconds in _SECONDS.items() if seconds == self.seconds), f"{self.seconds}s")


TIMEFRAMES = tuple(_SECONDS)
