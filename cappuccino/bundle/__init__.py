"""Content-addressed folders that are traded: save, load, verify, and from a bundle to a strategy."""

from cappuccino.bundle.format import Bundle, Kind
from cappuccino.bundle.store import fetch_local, load, open_local, save
from cappuccino.bundle.strategy import ensemble_of, members, strategy_of, verify

__all__ = ["Bundle", "Kind", "ensemble_of", "fetch_local", "load", "members", "open_local", "save", "strategy_of", "verify"]
