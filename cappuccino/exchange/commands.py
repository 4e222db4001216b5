"""The commands that move the exchange, and their form in the journal. Everything else about it follows from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from typing import Any

from cappuccino.exchange.faults import Incident, incident_json, incident_of
from cappuccino.exchange.orders import OrderRequest
from cappuccino.exchange.venue import Face


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenAccount:
    """`face`: the protocol that the account's key is for; fees are taken as that venue takes them."""

    name: str
    capital_usd: Decimal
    key_id: str
    secret_key: str
    face: Face = "alpaca"


@dataclass(frozen=True, kw_only=True, slots=True)
class Submit:
    """`share`: at most this part of what is asked for is filled on arrival; None: all that the market gives."""

    account: str
    request: OrderRequest
    share: Decimal | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancel:
    account: str
    order_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Edit:
    """Another size and price for a limit order that rests."""

    account: str
    order_id: str
    qty: Decimal
    limit_price: Decimal


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


Command = OpenAccount | Submit | Cancel | Edit | Advance | Start | Join | Leave | Incident

_NAMES: dict[type, str] = {
    OpenAccount: "open",
    Submit: "submit",
    Cancel: "cancel",
    Edit: "edit",
    Advance: "tick",
    Start: "start",
    Join: "join",
    Leave: "leave",
    Incident: "fault",
}
_TYPES = {name: kind for kind, name in _NAMES.items()}
_REQUEST = tuple(field.name for field in fields(OrderRequest))
_DECIMALS = ("qty", "notional", "limit_price", "stop_price", "capital_usd")


def encode(command: Command) -> list[Any]:
    """JSON: the command's name, then its fields."""
    if isinstance(command, Advance):
        return ["tick"]
    name = _NAMES[type(command)]
    if isinstance(command, Submit):
        values = ((field, getattr(command.request, field)) for field in _REQUEST)
        encoded = [name, command.account, {field: str(value) for field, value in values if value is not None}]
        return encoded if command.share is None else [*encoded, str(command.share)]
    if isinstance(command, Incident):
        return [name, incident_json(command)]
    rest = {key: str(value) if isinstance(value, Decimal) else value for key, value in asdict(command).items()}
    return [name, rest] if rest else [name]


def decode(encoded: list[Any]) -> Command:
    """The inverse of `encode`. Raises KeyError, IndexError, TypeError or ValueError for what it never wrote."""
    kind = _TYPES[encoded[0]]
    if kind is Submit:
        asked: dict[str, Any] = {key: Decimal(value) if key in _DECIMALS else value for key, value in encoded[2].items()}
        share = Decimal(encoded[3]) if len(encoded) > 3 else None
        return Submit(account=encoded[1], request=OrderRequest(**asked), share=share)
    rest: dict[str, Any] = dict(encoded[1]) if len(encoded) > 1 else {}
    if kind is Incident:
        return incident_of(rest)
    command: Command = kind(**{key: Decimal(value) if key in _DECIMALS else value for key, value in rest.items()})
    return command
