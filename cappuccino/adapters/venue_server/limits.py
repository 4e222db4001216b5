"""Requests per minute of market time, by account: an hour played in one second still has sixty minutes of requests."""

from __future__ import annotations

MINUTE_US = 60_000_000


class RateLimit:
    """A fixed window per minute. `per_minute` 0 switches it off."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._windows: dict[str, tuple[int, int]] = {}

    def take(self, account: str, at_us: int) -> tuple[bool, dict[str, str]]:
        """(may the request pass, the headers that tell the client where it stands)."""
        if not self.per_minute:
            return True, {}
        minute = at_us // MINUTE_US
        window, used = self._windows.get(account, (minute, 0))
        used = used + 1 if window == minute else 1
        self._windows[account] = (minute, used)
        return used <= self.per_minute, {
            "X-RateLimit-Limit": str(self.per_minute),
            "X-RateLimit-Remaining": str(max(self.per_minute - used, 0)),
            "X-RateLimit-Reset": str((minute + 1) * 60),
        }
