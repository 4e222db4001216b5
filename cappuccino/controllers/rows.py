"""Rows of the record, as controllers and reports read them. Trials are in search/trials.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

Json = Mapping[str, Any]
PromotionAction = Literal["requested", "approved", "refused", "revoked", "started", "demoted"]
Outcome = Literal["Pass", "Fail", "Error", "Inconclusive"]


@dataclass(frozen=True, kw_only=True)
class SnapshotRow:
    digest: str
    dataset_uid: str
    manifest: Json
    recorded_at: datetime


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A stretch [start_at, end_at) without bars. unfillable: the source does not have them either."""

    symbol: str
    start_at: datetime
    end_at: datetime
    state: Literal["open", "healed", "unfillable"]


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """What a Study pinned on its first pass."""

    uid: str
    name: str
    spec: Json
    snapshot: str
    gate_starts_at: datetime


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One gate's verdict on one bundle. `scope` is a snapshot digest, or the account for soak and grade."""

    bundle_digest: str
    gate: str
    gate_version: int
    scope: str
    deployment_uid: str
    outcome: Outcome
    message: str
    measured: float | None = None
    threshold: float | None = None
    minimum_detectable: float | None = None
    detail: Json = field(default_factory=dict)
    recorded_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """`subject` is the digest of bundle, risk profile, costs and live section. `account`, `terms` (digest of a Trader's whole
    spec) and `step` are those of the live Trader that a started row lets trade; None otherwise."""

    deployment_uid: str
    subject: str
    bundle_digest: str
    action: PromotionAction
    actor: str
    reason: str
    recorded_at: datetime | None = None
    account: str | None = None
    terms: str | None = None
    step: int | None = None


@dataclass(frozen=True, kw_only=True)
class AccountRow:
    """`held` compares the lease with the database's clock: the one clock all holders share. `ended`: why the portfolio of a
    process that goes on is not traded any more; empty when its venue's tape ended."""

    name: str
    venue: str
    holder: str | None
    token: int
    expires_at: datetime | None
    held: bool
    halted_reason: str | None
    baseline_usd: Decimal | None
    reserve_usd: Decimal | None = None
    reserve_units: Json | None = None
    terms: str | None = None
    ended: str | None = None


@dataclass(frozen=True, kw_only=True)
class EquityPoint:
    bar_at: datetime
    equity_usd: Decimal
    cash_usd: Decimal
    positions: Json


@dataclass(frozen=True, kw_only=True)
class AccountRecord:
    """Everything one account did, each list in market time. Rows are the tables' columns."""

    name: str
    equity: tuple[EquityPoint, ...]
    fills: tuple[Json, ...]
    intents: tuple[Json, ...]  # each with the `state` of its newest order event and its `venue_order_id`, or None
    decisions: tuple[Json, ...]


@dataclass(frozen=True, kw_only=True)
class AccountActivity:
    """What a status shows of an account."""

    name: str
    orders: int = 0
    fills: int = 0
    decisions: int = 0
    last_bar_at: datetime | None = None
    equity_usd: Decimal | None = None
    peak_equity_usd: Decimal | None = None


@dataclass(frozen=True, kw_only=True)
class AuditRow:
    seq: int
    actor: str
    action: str
    subject: str
    body: Json
    recorded_at: datetime
