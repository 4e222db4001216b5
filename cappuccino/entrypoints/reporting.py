"""From the record to a summary and a report: what a Study searched, what the gates said, what the traders did.

Reads only. The exchange's ledger, where there is one to ask, is the referee of the traders' own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np

from cappuccino.api import Deployment, Study, Trader
from cappuccino.bundle.store import load
from cappuccino.controllers.deployment import BASELINE, GRADE, SOAK, VERDICT
from cappuccino.controllers.rows import AccountRecord
from cappuccino.controllers.rows import Evidence as EvidenceRow
from cappuccino.core.blobs import Blobs
from cappuccino.core.clock import to_epoch
from cappuccino.core.errors import NotFound
from cappuccino.core.money import dec
from cappuccino.core.timeframe import SECONDS_PER_YEAR
from cappuccino.entrypoints.grading import Graded, closes_of, drift_of, fills_of, grade_account
from cappuccino.entrypoints.summary import CandidateSummary, DriftSummary, GateSummary, Summary, TraderSummary
from cappuccino.evaluation.arena import Standing, standings
from cappuccino.evaluation.evidence import Evidence, Outcome
from cappuccino.evaluation.report import CandidateReport, ReportInput, TradeMark, TraderReport, TrialPoint
from cappuccino.market.bars import Bars
from cappuccino.reconcile.observers import DEPLOYMENT_LABEL
from cappuccino.reconcile.ports import Key, Objects, Record
from cappuccino.search.goal import Goal
from cappuccino.search.trials import TrialRow
from cappuccino.trading.drift import Drift

Ledger = Mapping[str, Any]  # of one account, as the simulated exchange tells it


@dataclass(frozen=True, kw_only=True)
class Traded:
    """One Trader of the Deployment with everything its account did; `graded` is None before there are three closes, `drift`
    before the first order.

    kind: of its bundle. closes: equity by the instant at which it was marked.
    """

    trader: Trader
    kind: str
    account: AccountRecord
    closes: Mapping[datetime, float]
    graded: Graded | None
    drift: Drift | None
    evidence: tuple[EvidenceRow, ...]


@dataclass(frozen=True, kw_only=True)
class Told:
    """What there is to tell of one Deployment. infeasible: complete trials that break their Study's constraints, by number."""

    deployment: Deployment
    trials: Sequence[TrialRow]
    evidence: Sequence[EvidenceRow]
    traded: Sequence[Traded]
    infeasible: Collection[int] = ()


async def collect(objects: Objects, record: Record, blobs: Blobs, *, namespace: str, name: str) -> Told:
    """Everything of a Deployment.

    Raises:
        NotFound: there is no such Deployment.
    """
    document = await objects.get(Key("Deployment", namespace, name))
    if document is None:
        raise NotFound(f"deployment/{name} does not exist in namespace {namespace}: see `cappuccino get deployments`")
    deployment = Deployment.parse(document)
    study = None
    if deployment.spec.study_ref:
        study = await objects.get(Key("Study", namespace, deployment.spec.study_ref.name))
    found = await objects.list("Trader", namespace=namespace, labels={DEPLOYMENT_LABEL: name})
    traders = [Trader.parse(each) for each in found]
    accounts = {trader.name: await record.record_of_account(trader.spec.account) for trader in traders}
    evidence = await record.evidence(deployment_uid=deployment.uid)
    bundles = {trader.name: load(blobs, trader.spec.bundle_digest) for trader in traders}
    hodl = next((closes_of(accounts[n], b.contract.timeframe) for n, b in bundles.items() if b.kind == "hold"), None)
    traded = []
    for trader in sorted(traders, key=lambda t: (t.spec.role == "baseline", t.name)):
        account, bundle = accounts[trader.name], bundles[trader.name]
        enough = len(account.equity) >= 3
        graded = grade_account(trader.name, trader.spec.role, account, hodl, bundle) if enough else None
        own = [row for row in evidence if row.detail.get("trader") == trader.name]
        newest = {row.gate: row for row in own}  # rows come oldest first
        closes = closes_of(account, bundle.contract.timeframe)
        traded.append(
            Traded(
                trader=trader,
                kind=bundle.kind,
                account=account,
                closes=closes,
                graded=graded,
                drift=drift_of(account, bundle),
                evidence=tuple(newest.values()),
            )
        )
    trials = await record.trials(study["metadata"]["uid"]) if study else []
    goal = Study.parse(study).spec.goal if study else Goal()
    infeasible = [row.number for row in trials if row.state == "Complete" and goal.breach(row.metrics)]
    return Told(deployment=deployment, trials=trials, evidence=evidence, traded=traded, infeasible=infeasible)


def summary_of(told: Told, ledgers: Mapping[str, Ledger], *, source: str, elapsed: Mapping[str, float], ended: bool) -> Summary:
    """`ended`: every stage ran to its end. `ledgers` by account."""
    states = [row.state for row in told.trials]
    differences = [text for item in told.traded for text in differs(item, ledgers.get(item.account.name))]
    verdicts = [row for row in told.evidence if row.gate == VERDICT]
    matches = bool(told.traded) and not differences
    return Summary(
        schema="cappuccino/summary/v1",
        source=source,
        trials={state: states.count(state) for state in sorted(set(states))},
        candidates=[_candidate(row, told.evidence) for row in verdicts],
        traders=[_trader(item) for item in told.traded],
        ledger_matches_exchange=matches,
        ledger_differences=differences,
        elapsed_seconds={name: round(seconds, 2) for name, seconds in elapsed.items()},
        succeeded=ended and (matches or _nobody(told)) and not _broken(told),
        headline=headline(told),
    )


def _nobody(told: Told) -> bool:
    """There is nobody to trade and nobody was judged: an honest search whose every trial failed."""
    return not told.traded and not any(row.gate == VERDICT for row in told.evidence)


def _broken(told: Told) -> bool:
    """Something did not do what the run says: a trial that crashed, a gate that could not be evaluated, a bundle not intact."""
    crashed = any(row.state == "Failed" and row.result is None for row in told.trials)
    before = [row for row in told.evidence if row.gate not in (SOAK, GRADE)]
    return crashed or any(row.outcome == "Error" or (row.gate == "integrity" and row.outcome == "Fail") for row in before)


def differs(item: Traded, ledger: Ledger | None) -> list[str]:
    """What a trader's record says otherwise than the exchange's ledger: fills one by one, then cash and positions."""
    who = item.trader.name
    if ledger is None:
        return [f"{who}: the exchange has no account {item.account.name}"]
    ours = {row["execution_id"]: _fill_key(row) for row in item.account.fills}
    theirs = {row["execution_id"]: _fill_key(row) for row in ledger["fills"]}
    found = [f"{who}: fill {key} is not in the record" for key in theirs.keys() - ours.keys()]
    found += [f"{who}: fill {key} is not in the exchange" for key in ours.keys() - theirs.keys()]
    found += [
        f"{who}: fill {key} differs: {ours[key]} against {theirs[key]}"
        for key in ours.keys() & theirs.keys()
        if ours[key] != theirs[key]
    ]
    cash, held = _book(item)
    if cash != Decimal(ledger["cash_usd"]):
        found.append(f"{who}: cash {cash} against {ledger['cash_usd']}")
    true = {symbol: Decimal(position["qty"]) for symbol, position in ledger["positions"].items()}
    if held != {symbol: qty for symbol, qty in true.items() if qty}:
        found.append(f"{who}: positions {held} against {true}")
    return sorted(found)


def _book(item: Traded) -> tuple[Decimal, dict[str, Decimal]]:
    """Cash and what is held, from the record's fills: exact, because money moves by quantity x price and the fee beside it."""
    cash, held = dec(item.trader.spec.capital_usd), dict[str, Decimal]()
    for row in item.account.fills:
        base, value = row["symbol"].partition("/")[0], row["qty"] * row["price"]
        bought = row["side"] == "buy"
        cash += (-value if bought else value) - (row["fee"] if row["fee_asset"] != base else 0)
        moved = (row["qty"] if bought else -row["qty"]) - (row["fee"] if row["fee_asset"] == base else 0)
        held[row["symbol"]] = held.get(row["symbol"], Decimal(0)) + moved
    return cash, {symbol: qty for symbol, qty in held.items() if qty}


def _fill_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    numbers = tuple(Decimal(str(row[name])).normalize() for name in ("qty", "price", "fee"))
    return (row["client_order_id"], row["symbol"], row["side"], *numbers, row["fee_asset"])


def headline(told: Told) -> str:
    verdicts = [row.detail.get("verdict") for row in told.evidence if row.gate == VERDICT]
    passed, observing = verdicts.count("Passed"), sum(item.trader.spec.role == "observer" for item in told.traded)
    if not verdicts:
        return "No candidate was judged."
    said = f"{passed} of {len(verdicts)} candidates passed every gate before trading"
    return f"{said}; {observing} trade as observers and can never be promoted." if observing else f"{said}."


def report_of(
    told: Told, summary: Summary, bars: Bars | None, *, title: str, now: datetime, notes: Sequence[str] = ()
) -> ReportInput:
    """`bars` are the venue's, for prices to draw the trades on."""
    baselines = {item.kind: item for item in told.traded if item.trader.spec.role == "baseline"}
    return ReportInput(
        title=title,
        headline=summary.headline,
        generated_at=now,
        bars_per_year=SECONDS_PER_YEAR / _spacing(told),
        facts=[
            ("Source", summary.source),
            ("Trials", ", ".join(f"{count} {state.lower()}" for state, count in summary.trials.items())),
            ("Ledger", "equals the exchange's" if summary.ledger_matches_exchange else "; ".join(summary.ledger_differences)),
        ],
        trials=[
            TrialPoint(
                number=row.number,
                state="Infeasible" if row.number in told.infeasible else row.state,
                objective=row.objective,
                reason=row.reason,
            )
            for row in told.trials
        ],
        candidates=[_candidate_report(row, told.evidence) for row in told.evidence if row.gate == VERDICT],
        traders=[_trader_report(item, baselines, bars) for item in told.traded if len(item.account.equity) >= 3],
        standings=_standings(told),
        elapsed_seconds=list(summary.elapsed_seconds.items()),
        notes=notes,
    )


def _gate(row: EvidenceRow) -> GateSummary:
    return GateSummary(
        gate=row.gate,
        outcome=row.outcome,
        measured=row.measured,
        threshold=row.threshold,
        minimum_detectable=row.minimum_detectable,
        message=row.message,
    )


def _before_trading(digest: str, evidence: Sequence[EvidenceRow]) -> list[EvidenceRow]:
    return [row for row in evidence if row.bundle_digest == digest and row.gate not in (VERDICT, BASELINE, SOAK, GRADE)]


def _candidate(verdict: EvidenceRow, evidence: Sequence[EvidenceRow]) -> CandidateSummary:
    return CandidateSummary(
        bundle=verdict.bundle_digest,
        trial=verdict.detail.get("number"),
        verdict=verdict.detail["verdict"],
        stopped_by=verdict.detail.get("stopped_by"),
        gates=[_gate(row) for row in _before_trading(verdict.bundle_digest, evidence)],
    )


def _trader(item: Traded) -> TraderSummary:
    equity, graded = item.account.equity, item.graded
    acknowledged = [intent for intent in item.account.intents if intent["venue_order_id"] is not None]
    status = item.trader.status
    return TraderSummary(
        name=item.trader.name,
        role=item.trader.spec.role,
        orders=len(acknowledged),
        fills=len(item.account.fills),
        fees_usd=round(sum(fill.fee_usd for fill in fills_of(item.account)), 6),
        restarts=(status.restarts or 0) if status else 0,
        closed_trades=len(graded.trades) if graded else 0,
        final_equity_usd=float(equity[-1].equity_usd) if equity else None,
        total_return=graded.record.total_return if graded else None,
        sharpe=graded.record.sharpe if graded else None,
        sharpe_standard_error=graded.record.sharpe_se if graded else None,
        grade=graded.grade.letter if graded else None,
        score=graded.grade.score if graded else None,
        grade_reason=graded.grade.reason if graded else "no record yet",
        drift=DriftSummary(**asdict(item.drift)) if item.drift else None,
        gates=[_gate(row) for row in item.evidence],
    )


def _candidate_report(verdict: EvidenceRow, evidence: Sequence[EvidenceRow]) -> CandidateReport:
    number = verdict.detail.get("number")
    return CandidateReport(
        name=verdict.detail["kind"] if number is None else f"trial {number}",
        digest=verdict.bundle_digest,
        verdict=verdict.detail["verdict"],
        evidence=[
            Evidence(
                gate=row.gate,
                version=row.gate_version,
                outcome=Outcome(row.outcome),
                measured=row.measured,
                threshold=row.threshold,
                minimum_detectable=row.minimum_detectable,
                message=row.message,
                detail=row.detail,
            )
            for row in _before_trading(verdict.bundle_digest, evidence)
        ],
    )


def _trader_report(item: Traded, baselines: Mapping[str, Traded], bars: Bars | None) -> TraderReport:
    instants = sorted(item.closes)
    at = np.array([to_epoch(instant) for instant in instants])

    def curve(other: Traded | None) -> np.ndarray[Any, np.dtype[np.float64]] | None:
        if other is None or not all(instant in other.closes for instant in instants):
            return None
        return np.array([other.closes[instant] for instant in instants])

    prices = {}
    if bars is not None:
        rows = np.searchsorted(bars.close_ts, at).clip(max=len(bars) - 1)
        prices = {symbol: bars.close[rows, n] for n, symbol in enumerate(bars.symbols)}
    own = curve(item)
    assert own is not None  # its own closes
    summary = _trader(item)
    return TraderReport(
        name=item.trader.name,
        role=item.trader.spec.role,
        at=at,
        equity=own,
        hodl=curve(baselines.get("hold")),
        cash=curve(baselines.get("cash")),
        prices=prices,
        trades=[
            TradeMark(at=fill.ts, symbol=fill.symbol, side=fill.side, price=fill.price, reason=fill.reason)
            for fill in fills_of(item.account)
        ],
        facts=[
            ("Orders", str(summary.orders)),
            ("Fills", str(summary.fills)),
            ("Closed trades", str(summary.closed_trades)),
            ("Fees", f"${summary.fees_usd:,.2f}"),
            *_drift_facts(item.drift),
            ("Final equity", f"${summary.final_equity_usd:,.2f}"),
            ("Restarts", str(summary.restarts)),
        ],
        grade=item.graded.grade if item.graded else None,
    )


def _drift_facts(drift: Drift | None) -> list[tuple[str, str]]:
    if drift is None:
        return []
    certain = (
        "too few orders to be certain" if drift.excess_low_bps is None else f"at least {drift.excess_low_bps:+.1f} at 99.9 %"
    )
    return [
        ("Slippage, modelled", f"{drift.slippage_bps:.1f}, {drift.modelled_slippage_bps:.1f} bps"),
        ("Fee, modelled", f"{drift.fee_bps:.1f}, {drift.modelled_fee_bps:.1f} bps"),
        (f"Beyond the model in {drift.orders} orders", f"{drift.excess_bps:+.1f} bps ({certain})"),
    ]


def _common(told: Told) -> list[datetime]:
    """The closes that every trader has."""
    curves = [set(item.closes) for item in told.traded if len(item.closes) >= 3]
    return sorted(set.intersection(*curves)) if curves else []


def _spacing(told: Told) -> float:
    """Seconds from one common close to the next; an hour where there are none."""
    return min((b - a for a, b in pairwise(_common(told))), default=timedelta(hours=1)).total_seconds()


def _standings(told: Told) -> tuple[Standing, ...]:
    common = _common(told)
    if len(common) < 3:
        return ()
    curves = {item.trader.name: [item.closes[at] for at in common] for item in told.traded if len(item.closes) >= 3}
    return standings(curves, SECONDS_PER_YEAR / _spacing(told), seed=0)
