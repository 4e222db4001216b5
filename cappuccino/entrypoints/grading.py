"""Soak and grade of a Deployment's traders, from what the record says they did on paper; and the gate of a live one.

Each pass writes one pair of evidence rows per trader (one row for a live one), in the scope account@bar/gates: the newest
counts. A bundle that cannot be read is an Error of its trader, and nobody else's.
Market time only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from cappuccino.api.deployment import DeploymentSpec
from cappuccino.bundle.format import Bundle
from cappuccino.bundle.store import load
from cappuccino.controllers.candidacy import GRADE, LIVE, SOAK, VERDICT, gates_of
from cappuccino.controllers.rows import AccountRecord
from cappuccino.controllers.rows import Evidence as EvidenceRow
from cappuccino.core.blobs import Blobs
from cappuccino.core.clock import from_epoch, iso, to_epoch
from cappuccino.core.errors import IntegrityError, InvalidInput, UserError
from cappuccino.core.timeframe import SECONDS_PER_YEAR, Timeframe
from cappuccino.evaluation import paper_gates
from cappuccino.evaluation.evidence import Evidence, Outcome, evidence
from cappuccino.evaluation.grade import Grade, PaperRecord, fill_fidelity, grade, paper_record
from cappuccino.evaluation.trades import Fill, Trade, closed_trades
from cappuccino.reconcile.ports import Record
from cappuccino.trading.book import Fill as BookedFill
from cappuccino.trading.drift import Drift, DriftMeter

DUST = Decimal("1e-8")  # of the quantity bought: what the fee leaves below the increment


@dataclass(frozen=True, kw_only=True)
class Graded:
    """One trader's paper record with its grade; `trades` closed, in order of their exits."""

    name: str
    role: str
    record: PaperRecord
    grade: Grade
    trades: tuple[Trade, ...]


async def run_grades(record: Record, blobs: Blobs, spec: Mapping[str, Any]) -> None:
    """Write soak and grade evidence for every trader of `spec` (see controllers/deployment)."""
    uid, deployment = str(spec["deploymentUid"]), DeploymentSpec.model_validate(spec["deployment"])
    traders: Sequence[Mapping[str, Any]] = spec["traders"]
    judged_by = gates_of(deployment)
    accounts = {trader["account"]: await record.record_of_account(trader["account"]) for trader in traders}
    bundles, unread = _bundles(blobs, traders)
    hodl = next((t["account"] for t in traders if t["role"] == "baseline" and bundles[t["account"]].kind == "hold"), None)
    benchmark = closes_of(accounts[hodl], bundles[hodl].contract.timeframe) if hodl else None
    seen_until = await _seen_until(record, uid)
    newest = max((a.equity[-1].bar_at for a in accounts.values() if a.equity), default=None)
    if newest is None:
        return
    for trader in traders:
        account = accounts[trader["account"]]
        row = await record.account(account.name)
        halted = row.halted_reason if row else None
        graded: Graded | None = None
        if why := unread.get(account.name):
            gates = (LIVE,) if "step" in trader else (SOAK, GRADE)
            soaked: tuple[Evidence, ...] = tuple(_unjudged(gate, f"its bundle cannot be read: {why}") for gate in gates)
        elif len(account.equity) < 3:
            continue
        else:
            bundle = bundles[account.name]
            graded = grade_account(trader["name"], trader["role"], account, benchmark, bundle)
            soaked = _evidence(graded, account, bundle.contract.timeframe, deployment, newest, halted)
            if "step" in trader:
                soaked = (_live(graded, deployment, int(trader["step"]), halted),)
            if seen_until is not None and account.equity[0].bar_at <= seen_until:
                began = account.equity[0].bar_at
                soaked = tuple(_not_paper(item, began, seen_until) for item in soaked)
        for item in soaked:
            who = {"trader": trader["name"], "role": trader["role"], "account": account.name}
            detail = dict(item.detail) | who | {"bar_at": iso(newest), "gates": judged_by}
            if graded and item.gate == GRADE:
                detail["terms"] = [asdict(term) for term in graded.grade.terms]
                detail["reason"] = graded.grade.reason
            await record.insert_evidence(
                evidence=EvidenceRow(
                    bundle_digest=trader["bundle"],
                    gate=item.gate,
                    gate_version=item.version,
                    scope=f"{account.name}@{iso(newest)}/{judged_by[:8]}",
                    deployment_uid=uid,
                    outcome=str(item.outcome),  # type: ignore[arg-type]
                    message=item.message,
                    measured=item.measured,
                    threshold=item.threshold,
                    minimum_detectable=item.minimum_detectable,
                    detail=detail,
                )
            )


def _bundles(blobs: Blobs, traders: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Bundle], dict[str, str]]:
    """By account: the bundle, or why it cannot be read. Raises for that of a baseline: without it everybody would be measured
    against cash."""
    bundles, unread = {}, {}
    for trader in traders:
        try:
            bundles[trader["account"]] = load(blobs, trader["bundle"])
        except (UserError, IntegrityError) as error:
            if trader["role"] == "baseline":
                raise
            unread[trader["account"]] = str(error)
    return bundles, unread


async def _seen_until(record: Record, deployment_uid: str) -> datetime | None:
    """Open time of the last bar that search and gates have seen: paper begins after it, or it is no paper."""
    verdicts = [row for row in await record.evidence(deployment_uid=deployment_uid) if row.gate == VERDICT]
    snapshots = [await record.snapshot(digest) for digest in {row.scope for row in verdicts}]
    return max((from_epoch(row.manifest["last_ts"]) for row in snapshots if row), default=None)


def _not_paper(item: Evidence, began: datetime, seen_until: datetime) -> Evidence:
    text = f"it traded bars from {iso(began)} on that its own search had seen (until {iso(seen_until)}): that proves nothing."
    return _unjudged(item.gate, text, item.detail)


def _unjudged(gate: str, text: str, detail: Mapping[str, Any] | None = None) -> Evidence:
    return evidence(gate, Outcome.ERROR, None, None, None, text, detail or {})


def closes_of(account: AccountRecord, timeframe: Timeframe) -> dict[datetime, float]:
    """Equity by the instant at which it was marked: bars of different length are comparable at their closes only."""
    return {point.bar_at + timedelta(seconds=timeframe.seconds): float(point.equity_usd) for point in account.equity}


def grade_account(
    name: str, role: str, account: AccountRecord, hodl: Mapping[datetime, float] | None, bundle: Bundle
) -> Graded:
    """Measure an account against HODL (equity by close) at the closes that both have; without HODL, against cash."""
    timeframe = bundle.contract.timeframe
    equity = closes_of(account, timeframe)
    other = dict.fromkeys(equity, 1.0) if hodl is None else hodl
    common = sorted(equity.keys() & other.keys())
    spacing = min((b - a for a, b in pairwise(common)), default=timedelta(seconds=timeframe.seconds))
    trades = closed_trades(fills_of(account))
    measured = paper_record(
        equity=[equity[at] for at in common],
        hodl=[other[at] for at in common],
        pnl=[trade.pnl_usd for trade in trades],
        bars_per_year=SECONDS_PER_YEAR / spacing.total_seconds(),
        fidelity=_fidelity(account, bundle),
    )
    return Graded(name=name, role=role, record=measured, grade=grade(measured), trades=trades)


def fills_of(account: AccountRecord) -> list[Fill]:
    """The account's fills as the trades' arithmetic reads them: fees in quote currency, `flat` by running position."""
    reasons = {intent["client_order_id"]: intent["reason"] for intent in account.intents}
    held: dict[str, Decimal] = {}
    bought: dict[str, Decimal] = {}
    found = []
    for row in account.fills:
        symbol, qty, price, fee = row["symbol"], row["qty"], row["price"], row["fee"]
        in_base = row["fee_asset"] == symbol.partition("/")[0]
        buys = row["side"] == "buy"
        held[symbol] = held.get(symbol, Decimal(0)) + (qty if buys else -qty) - (fee if in_base else 0)
        bought[symbol] = bought.get(symbol, Decimal(0)) + (qty if buys else 0)
        flat = not buys and held[symbol] <= DUST * bought[symbol]
        reason = reasons.get(row["client_order_id"], "unknown")
        found.append(
            Fill(
                ts=to_epoch(row["filled_at"]),
                symbol=symbol,
                side=row["side"],
                qty=float(qty),
                price=float(price),
                fee_usd=float(fee * price if in_base else fee),
                reason="signal" if reason == "target" else reason,
                flat=flat,
            )
        )
        if flat:
            held.pop(symbol)
            bought.pop(symbol)
    return found


def _fidelity(account: AccountRecord, bundle: Bundle) -> float | None:
    """How near decision orders filled to the modelled price: the quote of that instant moved by the bundle's slippage."""
    quotes = {intent["client_order_id"]: intent["quote_price"] for intent in account.intents}
    filled, modelled = [], []
    for row in account.fills:
        quote = quotes.get(row["client_order_id"])
        if quote is not None:
            slip = bundle.costs.slippage(row["symbol"])
            filled.append(float(row["price"]))
            modelled.append(float(quote) * (1 + slip if row["side"] == "buy" else 1 - slip))
    return fill_fidelity(filled, modelled)


def drift_of(account: AccountRecord, bundle: Bundle) -> Drift | None:
    """What trading cost of late against what the bundle assumes: what the trader itself shows."""
    intents = {intent["client_order_id"]: intent for intent in account.intents}
    meter = DriftMeter(bundle.costs, bar_seconds=bundle.contract.timeframe.seconds)
    names = [field.name for field in fields(BookedFill)]
    for row in account.fills:
        intent = intents[row["client_order_id"]]
        meter.count(
            BookedFill(**{name: row[name] for name in names}),
            decision=intent["decision"],
            reason=intent["reason"],
            quote_price=intent["quote_price"],
        )
    return meter.drift()


def _evidence(
    graded: Graded,
    account: AccountRecord,
    timeframe: Timeframe,
    deployment: DeploymentSpec,
    newest: datetime,
    halted: str | None,
) -> tuple[Evidence, Evidence]:
    soak, wanted, measured = deployment.gates.soak, deployment.gates.grade, graded.record
    facts = paper_gates.SoakFacts(
        market_days=measured.market_days,
        closed_trades=measured.closed_trades,
        total_return=measured.total_return,
        worst_hour=_worst_hour(account, timeframe),
        last_bar_age_bars=(newest - account.equity[-1].bar_at).total_seconds() / timeframe.seconds,
        halted_reason=halted,
    )
    soaked = paper_gates.soak(facts, paper_gates.SoakThresholds(market_days=soak.market_days, closed_trades=soak.closed_trades))
    thresholds = paper_gates.GradeThresholds(
        market_days=soak.market_days,
        closed_trades=soak.closed_trades,
        min_win_rate=wanted.min_win_rate,
        max_drawdown=wanted.max_drawdown,
    )
    return soaked, paper_gates.grade_gate(measured, graded.grade, thresholds)


def _live(graded: Graded, deployment: DeploymentSpec, step: int, halted: str | None) -> Evidence:
    """The gate of a step of capital; of the dry run that of step 1."""
    if deployment.live is None:
        raise InvalidInput(f"trader {graded.name} is live and its Deployment has no live section: it is about to end")
    asked, wanted = deployment.live.ladder[max(step, 1) - 1], deployment.live.gate
    thresholds = paper_gates.LiveThresholds(
        market_days=asked.market_days,
        closed_trades=asked.closed_trades,
        min_win_rate=wanted.min_win_rate,
        max_drawdown=wanted.max_drawdown,
        min_fidelity=wanted.min_fidelity,
    )
    return paper_gates.live_gate(graded.record, thresholds, halted_reason=halted)


def _worst_hour(account: AccountRecord, timeframe: Timeframe) -> float:
    """Lowest return over an hour of market time, or over a bar where bars are longer."""
    curve: npt.NDArray[np.float64] = np.array([float(point.equity_usd) for point in account.equity])
    span = max(1, 3600 // timeframe.seconds)
    return float((curve[span:] / curve[:-span] - 1).min()) if len(curve) > span else 0.0
