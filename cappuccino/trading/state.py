"""What a restart needs beside the fills, the decision row and the venue's own answer: the stored trader state.

Execution of a decision moves through steps, each journalled with the orders that belong to it, so that a process
that dies between any two writes is continued and nothing is done twice:

    sells  the decision is committed; its sales are journalled and sent, or about to be
    buys   the sales are over; the buys, fitted to the cash that was then there, are journalled and sent
    done   every order of the decision is settled, or was abandoned because its bar was over
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from cappuccino.core.clock import parse_iso
from cappuccino.core.errors import IntegrityError
from cappuccino.risk import day as days
from cappuccino.risk.day import Day
from cappuccino.risk.positions import Watch, from_json, to_json

VERSION = 2
Step = Literal["sells", "buys", "done"]
_ADDED_IN_2 = {
    "equity": "0",
    "bar_seconds": 0,
    "day": None,
    "failed_decisions": 0,
    "failure": "",
    "cleared_at": None,
}


@dataclass(kw_only=True)
class TraderState:
    """Mutable: the session owns the one instance.

    opening_cash: cash with which the account began, quote currency. last_bar: open time of the newest bar that was
    committed, decided: of the newest decision, first_decision: of the first (a contract's interval counts from it);
    epoch seconds, 0 before. closes, equity: at the newest decision. since_stop: decisions since a barrier sold the symbol.
    refusals: since the last decision row. bar_seconds: of the contract, for when its bundle cannot be read.
    day: the UTC day of the account. failed_decisions: in a row, `failure` says why the last one did; empty when it did not.
    cleared_at: the last moment at which the account was halted; the breaker's counts begin after it.
    """

    opening_cash: Decimal
    last_bar: int = 0
    decided: int = 0
    first_decision: int = 0
    step: Step = "done"
    sells: Mapping[str, Decimal] = field(default_factory=dict)
    buys: Mapping[str, Decimal] = field(default_factory=dict)
    closes: Mapping[str, Decimal] = field(default_factory=dict)
    equity: Decimal = Decimal(0)
    watches: dict[str, Watch] = field(default_factory=dict)
    since_stop: dict[str, int] = field(default_factory=dict)
    refusals: list[Mapping[str, Any]] = field(default_factory=list)
    reconciled_at: str = ""
    bar_seconds: int = 0
    day: Day | None = None
    failed_decisions: int = 0
    failure: str = ""
    cleared_at: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "opening_cash": str(self.opening_cash),
            "last_bar": self.last_bar,
            "decided": self.decided,
            "first_decision": self.first_decision,
            "step": self.step,
            "sells": _texts(self.sells),
            "buys": _texts(self.buys),
            "closes": _texts(self.closes),
            "equity": str(self.equity),
            "watches": {symbol: to_json(watch) for symbol, watch in self.watches.items()},
            "since_stop": dict(self.since_stop),
            "refusals": list(self.refusals),
            "reconciled_at": self.reconciled_at,
            "bar_seconds": self.bar_seconds,
            "day": None if self.day is None else days.to_json(self.day),
            "failed_decisions": self.failed_decisions,
            "failure": self.failure,
            "cleared_at": None if self.cleared_at is None else self.cleared_at.isoformat(),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> TraderState:
        """Raises IntegrityError when another version wrote it."""
        if document.get("version") == 1:
            document = {**_ADDED_IN_2, **document}
        elif document.get("version") != VERSION:
            raise IntegrityError(f"stored trader state has version {document.get('version')!r}, this program reads {VERSION}")
        return cls(
            opening_cash=Decimal(document["opening_cash"]),
            last_bar=document["last_bar"],
            decided=document["decided"],
            first_decision=document["first_decision"],
            step=document["step"],
            sells=_decimals(document["sells"]),
            buys=_decimals(document["buys"]),
            closes=_decimals(document["closes"]),
            equity=Decimal(document["equity"]),
            watches={symbol: from_json(watch) for symbol, watch in document["watches"].items()},
            since_stop=dict(document["since_stop"]),
            refusals=list(document["refusals"]),
            reconciled_at=document["reconciled_at"],
            bar_seconds=document["bar_seconds"],
            day=None if document["day"] is None else days.from_json(document["day"]),
            failed_decisions=document["failed_decisions"],
            failure=document["failure"],
            cleared_at=None if document["cleared_at"] is None else parse_iso(document["cleared_at"]),
        )


def _texts(values: Mapping[str, Decimal]) -> dict[str, str]:
    return {key: str(value) for key, value in values.items()}


def _decimals(values: Mapping[str, str]) -> dict[str, Decimal]:
    return {key: Decimal(value) for key, value in values.items()}
