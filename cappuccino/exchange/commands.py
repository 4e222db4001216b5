"""The commands that move the exchange, and their form in the journal. Everything else about it follows from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from typing import Any

from cappuccino.exchange.orders import OrderRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenAccount:
    name: str
    capital_usd: Decimal
    key_id: str
    secret_key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Submit:
    account: str
    request: OrderRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancel:
    account: str
    order_id: str


@dataclass(frozen=True, slots=True)
class Advance:
    """To the next tick; on the last one, end."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start the clock."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Join:
    """The clock waits for this account's session from now on."""

    account: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Leave:
    account: str


Command = OpenAccount | Submit | Cancel | Advance | Start | Join | Leave

_NAMES: dict[type, str] = {
    OpenAccount: "open",
    Submit: "submit",
    Cancel: "cancel",
    Advance: "tick",
    Start: "start",
    Join: "join",
    Leave: "leave",
}
_TYPES = {name: kind for kind, name in _NAMES.items()}
_REQUEST = tuple(field.name for field in fields(OrderRequest))
_DECIMALS = ("qty", "notional", "limit_price", "stop_price")


def encode(command: Command) -> list[Any]:
    """JSON: the command's name, then its fields."""
    if isinstance(command, Advance):
        return ["tick"]
    name = _NAMES[type(command)]
    if isinstance(command, Submit):
        values = ((field, getattr(command.request, field)) for field in _REQUEST)
        return [name, command.account, {field: str(value) for field, value in values if value is not None}]
    if isinstance(command, OpenAccount):
        return [name, {**asdict(command), "capital_usd": str(command.capital_usd)}]
    rest = asdict(command)
    return [name, rest] if rest else [name]


def decode(encoded: list[Any]) -> Command:
    """The inverse of `encode`. Raises KeyError, IndexError, TypeError or ValueError for what it never wrote."""
    kind = _TYPES[encoded[0]]
    if kind is Submit:
        asked: dict[str, Any] = {key: Decimal(value) if key in _DECIMALS else value for key, value in encoded[2].items()}
        return Submit(account=encoded[1], request=OrderRequest(**asked))
    rest: dict[str, Any] = dict(encoded[1]) if len(encoded) > 1 else {}
    if kind is OpenAccount:
        rest["capital_usd"] = Decimal(rest["capital_usd"])
    command: Command = kind(**rest)
    return command
