"""Fault plans: what goes wrong on the exchange, by script or at random by seed. Pure but for the counting in `Faults`.

An opportunity is a request, an order that reached the book, an event of a stream, a tick (of the market, of its quotes, and of
each account's book); each account's are numbered by operation. At most one fault befalls an opportunity: the first rule of the
script that fits, else a draw that follows from (seed, operation, account, number) alone. Price gaps are part of the tape: they
follow from (seed, symbol, bar's time).

What happened is an `Incident`, a command like any other: it is in the journal, and the exchange keeps the list of them.

Rates are probabilities per opportunity; seconds are wall time, except the skew of a clock; shares are fractions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from decimal import Decimal
from hashlib import blake2b
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from cappuccino.core.errors import InvalidInput
from cappuccino.core.money import ZERO

Operation = Literal["submit", "cancel", "read", "clock", "order", "event", "tick", "quotes", "book", "bar"]
REQUESTS: tuple[Operation, ...] = ("submit", "cancel", "read", "clock")

KINDS: Mapping[str, tuple[Operation, ...]] = {
    "request_lost": REQUESTS,  # the connection is cut before the request is looked at
    "answer_lost": REQUESTS,  # ... after it was carried out
    "request_late": ("submit", "cancel"),  # ... and the request is carried out `seconds` later
    "rate_limited": REQUESTS,  # 429 with a reset, not carried out
    "error_before": REQUESTS,  # 503, not carried out
    "error_after": REQUESTS,  # 500, carried out
    "html_before": REQUESTS,  # a proxy's page with status 502, not carried out
    "html_after": REQUESTS,  # a page with status 200, carried out
    "slow": REQUESTS,  # carried out at once, answered after `seconds`
    "delayed": REQUESTS,  # carried out after `seconds`
    "rejected_size": ("order",),  # refused as too small
    "partial_fill": ("order",),  # at most `share` of what it asks for is filled when it arrives
    "event_twice": ("event",),
    "event_late": ("event",),  # told after the account's next one
    "event_lost": ("event",),
    "stream_cut": ("event",),  # the account's streams are disconnected, and the event with what waits is lost
    "clock_skew": ("clock",),  # the venue's clock is off by `seconds`
    "symbol_halted": ("tick",),  # no quotes and no fills of `symbol` for `ticks`
    "quotes_cut": ("quotes",),  # everybody's streams of quotes are disconnected, and this tick's are lost
    "balance_changed": ("book",),  # `amount` of `asset` comes or goes
    "price_gap": ("bar",),  # from the bar on all prices of a symbol are moved by `share`
}
LARGEST_SKEW_SECONDS = 60.0
LARGEST_DELAY_SECONDS = 0.3
LARGEST_GAP = 0.15
LONGEST_HALT_TICKS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One kind of fault with its sizes; a size that the kind does not have stays at its default."""

    kind: str
    seconds: float = 0.0
    share: Decimal = ZERO
    symbol: str = ""
    asset: str = ""
    amount: Decimal = ZERO
    ticks: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Incident:
    """A fault that happened. `subject`: the client order id, or else the path, that it befell; `tick` and `at_us` are when."""

    fault: Fault
    operation: Operation
    account: str = ""
    subject: str = ""
    tick: int = 0
    at_us: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """A scripted fault: befalls the opportunity after `skip` that fit, and the `times` - 1 next. `account` "": anybody's."""

    fault: Fault
    operation: Operation
    account: str = ""
    skip: int = 0
    times: int = 1

    def fits(self, operation: Operation, account: str) -> bool:
        return self.operation == operation and self.account in ("", account)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to go wrong; an empty plan is a venue without faults."""

    seed: int = 0
    rates: Mapping[str, float] = field(default_factory=dict)
    script: tuple[Rule, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rates or self.script)


class Faults:
    """Counts opportunities against a plan."""

    def __init__(self, plan: Plan = Plan(), *, symbols: Sequence[str] = (), start: int = 0) -> None:
        """`start`: the number of the first opportunity: an exchange that is started again must not repeat itself."""
        self.plan = plan
        self._symbols = symbols
        self._start = start
        self._counts: dict[tuple[Operation, str], int] = {}

    def at(self, operation: Operation, account: str) -> Fault | None:
        """The fault of the next opportunity."""
        if not self.plan:
            return None
        number = self._counts.get((operation, account), self._start)
        self._counts[operation, account] = number + 1
        return self._scripted(operation, account) or draw(self.plan, operation, account, number, symbols=self._symbols)

    def _scripted(self, operation: Operation, account: str) -> Fault | None:
        for place, rule in enumerate(self.plan.script):
            if rule.fits(operation, account):
                after = replace(rule, skip=rule.skip - 1) if rule.skip else replace(rule, times=rule.times - 1)
                rest = (after,) if after.times else ()
                self.plan = replace(self.plan, script=(*self.plan.script[:place], *rest, *self.plan.script[place + 1 :]))
                return None if rule.skip else rule.fault
        return None


def draw(plan: Plan, operation: Operation, who: str, number: int, *, symbols: Sequence[str] = ()) -> Fault | None:
    """The random fault of opportunity `number`, None most of the time. `symbols`: of which a halt takes one."""
    rates = [(kind, plan.rates[kind]) for kind, operations in KINDS.items() if kind in plan.rates and operation in operations]
    if not rates:
        return None
    digest = blake2b(f"{plan.seed}:{operation}:{who}:{number}".encode(), digest_size=24).digest()
    chance, size, which = (int.from_bytes(digest[at : at + 8], "big") / 2**64 for at in (0, 8, 16))
    for kind, rate in rates:
        chance -= rate
        if chance < 0:
            return _sized(kind, size, symbols[int(which * len(symbols))] if symbols else "")
    return None


def _sized(kind: str, size: float, symbol: str) -> Fault:
    """`size` in [0, 1) becomes what the kind has of seconds, share, ticks or amount."""
    both_ways = 2 * size - 1
    match kind:
        case "slow" | "delayed" | "request_late":
            return Fault(kind=kind, seconds=round(size * LARGEST_DELAY_SECONDS, 3))
        case "clock_skew":
            return Fault(kind=kind, seconds=round(both_ways * LARGEST_SKEW_SECONDS, 3))
        case "partial_fill":
            return Fault(kind=kind, share=Decimal(f"{0.05 + 0.9 * size:.3f}"))
        case "symbol_halted":
            return Fault(kind=kind, symbol=symbol, ticks=1 + int(size * LONGEST_HALT_TICKS))
        case "balance_changed":
            return Fault(kind=kind, asset="USD", amount=Decimal(f"{both_ways * 100:.2f}"))
        case "price_gap":
            return Fault(kind=kind, share=Decimal(f"{both_ways * LARGEST_GAP:.4f}"))
    return Fault(kind=kind)


def gaps(plan: Plan, ts: npt.NDArray[np.int64], symbols: Sequence[str]) -> npt.NDArray[np.float64]:
    """What a tape's prices are multiplied by, [T, N]; scripted gaps come at the bar of number `skip`."""
    jumps = np.ones((len(ts), len(symbols)))
    for column, symbol in enumerate(symbols):
        if "price_gap" in plan.rates:
            for row, at in enumerate(ts.tolist()):
                fault = draw(plan, "bar", symbol, at)
                jumps[row, column] *= 1.0 if fault is None else 1.0 + float(fault.share)
        for rule in plan.script:
            if rule.operation == "bar" and rule.fault.symbol in ("", symbol) and rule.skip < len(ts):
                jumps[rule.skip, column] *= 1.0 + float(rule.fault.share)
    return cast("npt.NDArray[np.float64]", np.cumprod(jumps, axis=0))


# --- JSON -----------------------------------------------------------------------------------------


def parse_plan(document: Any) -> Plan:
    """A plan from `{"seed": 1, "rates": {kind: rate}, "script": [{"kind": ..., "account": ..., "skip": ..., "times": ...}]}`.

    A rule of a kind that befalls several operations says which (`"operation": "submit"`); its sizes stand beside its kind.

    Raises:
        InvalidInput: says what is wrong with it.
    """
    if not isinstance(document, dict) or document.keys() - {"seed", "rates", "script"}:
        raise InvalidInput("faults: a plan has the fields seed, rates and script, and no others")
    rates, script = document.get("rates", {}), document.get("script", [])
    if not isinstance(rates, dict) or not isinstance(script, list):
        raise InvalidInput("faults: rates is an object of kind: rate, script a list of rules")
    for kind, rate in rates.items():
        _operations(kind)
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
            raise InvalidInput(f"faults: rate {rate!r} of {kind} is outside [0, 1]: give a probability")
    try:
        return Plan(seed=int(document.get("seed", 0)), rates=rates, script=tuple(_rule(rule) for rule in script))
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise InvalidInput(f"faults: {error}: correct the plan") from error


def _operations(kind: Any) -> tuple[Operation, ...]:
    if kind not in KINDS:
        raise InvalidInput(f"faults: kind {kind!r} is unknown: use one of {', '.join(KINDS)}")
    return KINDS[kind]


def _rule(document: Mapping[str, Any]) -> Rule:
    given = dict(document)
    operations = _operations(given.get("kind"))
    operation = given.pop("operation", operations[0])
    if operation not in operations:
        raise InvalidInput(f"faults: {given['kind']} does not befall {operation!r}: use one of {', '.join(operations)}")
    where = {name: given.pop(name) for name in ("account", "skip", "times") if name in given}
    rule = Rule(fault=fault_of(given), operation=operation, **where)
    if rule.skip < 0 or rule.times < 1:
        raise InvalidInput(
            f"faults: a rule of {rule.fault.kind} has skip {rule.skip}, times {rule.times}: use 0 and 1, or more"
        )
    return rule


def fault_of(document: Mapping[str, Any]) -> Fault:
    """The inverse of `to_json`. Raises TypeError or ArithmeticError."""
    numbers = {name: Decimal(str(document[name])) for name in ("share", "amount") if name in document}
    return Fault(**{**document, **numbers})


def to_json(fault: Fault) -> dict[str, Any]:
    """Only what differs from the default."""
    plain = Fault(kind=fault.kind)
    told = ((each.name, getattr(fault, each.name)) for each in fields(Fault))
    return {
        name: str(value) if isinstance(value, Decimal) else value
        for name, value in told
        if name == "kind" or value != getattr(plain, name)
    }


def incident_json(incident: Incident) -> dict[str, Any]:
    return {**{key: value for key, value in asdict(incident).items() if key != "fault"}, **to_json(incident.fault)}


def incident_of(document: Mapping[str, Any]) -> Incident:
    """The inverse of `incident_json`. Raises KeyError, TypeError or ArithmeticError."""
    own = {"operation", "account", "subject", "tick", "at_us"}
    fault = fault_of({key: value for key, value in document.items() if key not in own})
    return Incident(
        fault=fault,
        operation=cast("Operation", document["operation"]),
        account=document["account"],
        subject=document["subject"],
        tick=document["tick"],
        at_us=document["at_us"],
    )


def plan_json(plan: Plan) -> dict[str, Any]:
    script = [
        {**to_json(r.fault), "operation": r.operation, "account": r.account, "skip": r.skip, "times": r.times}
        for r in plan.script
    ]
    return {"seed": plan.seed, "rates": dict(plan.rates), "script": script}


def read_plan(text: str) -> Plan:
    """Raises InvalidInput."""
    try:
        return parse_plan(json.loads(text))
    except ValueError as error:
        raise InvalidInput(f"faults: the plan is not JSON ({error})") from error
