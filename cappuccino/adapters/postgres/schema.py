"""The tables of the record. The migrator owns them (expand only); grants say who may write which.

Money and quantities are NUMERIC, times are timestamptz (UTC). `recorded_at` is wall time; every other
`..._at` of trading tables is market time. Objects live here only under the local cluster.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData()


def _at(name: str, *, nullable: bool = False) -> Column[datetime]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def _recorded() -> Column[datetime]:
    return Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=func.now())


# --- objects of the local cluster -------------------------------------------------------------------

object_ = Table(
    "object",
    metadata,
    Column("kind", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("uid", Text, nullable=False, unique=True),
    Column("generation", BigInteger, nullable=False),
    Column("resource_version", BigInteger, nullable=False),
    Column("metadata", JSONB, nullable=False),  # labels, annotations, finalizers, ownerReferences, timestamps
    Column("spec", JSONB, nullable=False),
    Column("status", JSONB),
    PrimaryKeyConstraint("kind", "namespace", "name"),
)

workload = Table(
    "workload",
    metadata,
    Column("name", Text, primary_key=True),
    Column("spec", JSONB, nullable=False),
    Column("state", Text, nullable=False),  # Pending Running Succeeded Failed Stopped
    Column("pid", Integer),
    Column("exit_code", Integer),
    Column("restarts", Integer, nullable=False, server_default="0"),
    _at("started_at", nullable=True),
    _at("finished_at", nullable=True),
    Column("process", Text),  # start time of `pid`: a pid alone is no identity
    Column("failures", Integer, nullable=False, server_default="0"),  # in a row: the exponent of the back-off
    _at("due_at", nullable=True),  # not started again before
    Column("message", Text, nullable=False, server_default=""),
)

event = Table(  # what happened to an object, for a person; a repeated one counts up
    "event",
    metadata,
    Column("kind", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("uid", Text, nullable=False),
    Column("type", Text, nullable=False),  # Normal Warning
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("count", Integer, nullable=False, server_default="1"),
    _at("first_at"),
    _at("last_at"),
    PrimaryKeyConstraint("uid", "type", "reason", "message"),
)

# --- market -----------------------------------------------------------------------------------------

snapshot = Table(
    "snapshot",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("dataset_uid", Text, nullable=False, index=True),  # that registered it first
    Column("manifest", JSONB, nullable=False),  # partitions with digests, coverage, quarantined symbols
    _recorded(),
)

dataset_snapshot = Table(  # which snapshot a Dataset had when: the newest row is the current one
    "dataset_snapshot",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("dataset_uid", Text, nullable=False, index=True),
    Column("digest", Text, ForeignKey("snapshot.digest"), nullable=False),
    _recorded(),
)

gap = Table(
    "gap",
    metadata,
    Column("dataset_uid", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    _at("start_at"),
    _at("end_at"),
    Column("state", Text, nullable=False),  # open, healed, unfillable
    _recorded(),
    PrimaryKeyConstraint("dataset_uid", "symbol", "start_at"),
)

# --- search -----------------------------------------------------------------------------------------

study = Table(
    "study",
    metadata,
    Column("uid", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("spec", JSONB, nullable=False),  # pinned on the first pass
    Column("snapshot", Text, ForeignKey("snapshot.digest"), nullable=False),
    _at("gate_starts_at"),
    _recorded(),
)

trial = Table(
    "trial",
    metadata,
    Column("study_uid", Text, ForeignKey("study.uid"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("phase", Text, nullable=False, server_default=""),
    Column("parameters", JSONB, nullable=False),
    Column("distributions", JSONB, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("state", Text, nullable=False),  # Waiting Running Complete Pruned Failed
    Column("reason", Text, nullable=False, server_default=""),
    Column("objective", Float),
    Column("bundle_digest", Text),
    _at("created_at"),
    _at("started_at", nullable=True),
    _at("finished_at", nullable=True),
    PrimaryKeyConstraint("study_uid", "number"),
    CheckConstraint("state in ('Waiting','Running','Complete','Pruned','Failed')", name="trial_state"),
)

trial_report = Table(  # intermediate values: one per fold, or per rung
    "trial_report",
    metadata,
    Column("study_uid", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("step", Integer, nullable=False),
    Column("value", Float, nullable=False),
    _recorded(),
    PrimaryKeyConstraint("study_uid", "number", "step"),
)

trial_result = Table(  # written once by the trainer; the operator moves trial.state from it
    "trial_result",
    metadata,
    Column("study_uid", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("succeeded", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("objective", Float),
    Column("bundle_digest", Text),
    Column("record", JSONB, nullable=False),
    _recorded(),
    PrimaryKeyConstraint("study_uid", "number"),
)

# --- gates ------------------------------------------------------------------------------------------

window_opening = Table(  # every look at a gate window is remembered and divides its level
    "window_opening",
    metadata,
    Column("deployment_uid", Text, nullable=False),
    Column("bundle_digest", Text, nullable=False),
    Column("symbols", ARRAY(Text), nullable=False),
    _at("start_at"),
    _at("end_at"),
    _recorded(),
    PrimaryKeyConstraint("deployment_uid", "bundle_digest", "start_at", "end_at"),
)

evidence = Table(
    "evidence",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("bundle_digest", Text, nullable=False),
    Column("gate", Text, nullable=False),
    Column("gate_version", Integer, nullable=False),
    Column("scope", Text, nullable=False),  # snapshot digest, or account for soak and grade
    Column("deployment_uid", Text, nullable=False),
    Column("outcome", Text, nullable=False),  # Pass Fail Error Inconclusive
    Column("measured", Float),
    Column("threshold", Float),
    Column("minimum_detectable", Float),
    Column("message", Text, nullable=False),
    Column("detail", JSONB, nullable=False),
    _recorded(),
    UniqueConstraint("bundle_digest", "gate", "gate_version", "scope", "deployment_uid"),
    CheckConstraint("outcome in ('Pass','Fail','Error','Inconclusive')", name="evidence_outcome"),
)

promotion = Table(
    "promotion",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("deployment_uid", Text, nullable=False),
    Column("subject", Text, nullable=False),  # digest of bundle, risk profile and costs
    Column("bundle_digest", Text, nullable=False),
    Column("action", Text, nullable=False),  # requested, approved, refused, revoked, started, demoted
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    _recorded(),
    Column("account", Text),  # of the live Trader that a `started` row lets trade,
    Column("terms", Text),  # the digest of its whole spec,
    Column("step", Integer),  # and its step of capital; 0 is the dry run
)

# --- trading ----------------------------------------------------------------------------------------

account = Table(  # fences and halts: one row per venue account
    "account",
    metadata,
    Column("name", Text, primary_key=True),
    Column("venue", Text, nullable=False),
    Column("holder", Text),
    Column("token", BigInteger, nullable=False, server_default="0"),
    Column("expires_at", DateTime(timezone=True)),  # wall time
    Column("halted_reason", Text),
    Column("baseline_usd", Numeric),
    Column("reserve_usd", Numeric),  # cash of the venue account that is not this trader's to use
    Column("reserve_units", JSONB),  # units of it that are not, by symbol, as text
    Column("terms", Text),  # of the live Trader that takes it: without a standing permit it is halted
    Column("ended", Text),  # why a process that goes on trades it no more; empty: its venue's tape ended
)

intent = Table(
    "intent",
    metadata,
    Column("client_order_id", Text, primary_key=True),
    Column("account", Text, ForeignKey("account.name"), nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("trader_uid", Text, nullable=False),
    Column("decision", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("side", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("time_in_force", Text, nullable=False),
    Column("qty", Numeric),
    Column("notional", Numeric),
    Column("limit_price", Numeric),
    Column("quote_price", Numeric),  # the venue's mid when the order was made
    Column("reason", Text, nullable=False),  # target, stop_loss, trailing_stop, take_profit, time_limit, flatten
    _at("created_at"),
    _recorded(),
    CheckConstraint("(qty is null) <> (notional is null)", name="intent_size"),
    Index("intent_account", "account", "created_at"),
)

order_event = Table(  # every state an order was seen in, and why
    "order_event",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("client_order_id", Text, ForeignKey("intent.client_order_id"), nullable=False, index=True),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("venue_order_id", Text),
    Column("filled_qty", Numeric),
    _at("event_at"),
    _recorded(),
)

fill = Table(
    "fill",
    metadata,
    Column("execution_id", Text, nullable=False),
    Column("account", Text, ForeignKey("account.name"), nullable=False),
    Column("client_order_id", Text, nullable=False),
    Column("symbol", Text, nullable=False),
    Column("side", Text, nullable=False),
    Column("qty", Numeric, nullable=False),
    Column("price", Numeric, nullable=False),
    Column("fee", Numeric, nullable=False),
    Column("fee_asset", Text, nullable=False),
    _at("filled_at"),
    _recorded(),
    PrimaryKeyConstraint("account", "execution_id"),
)

decision = Table(  # one per closed bar, with the strategy's memory after it
    "decision",
    metadata,
    Column("account", Text, ForeignKey("account.name"), nullable=False),
    _at("bar_at"),
    Column("trader_uid", Text, nullable=False),
    Column("bundle_digest", Text, nullable=False),
    Column("intents", JSONB, nullable=False),
    Column("refusals", JSONB, nullable=False),
    Column("memory", JSONB, nullable=False),
    Column("trace", JSONB, nullable=False),
    Column("data_age_seconds", Float, nullable=False),
    _recorded(),
    PrimaryKeyConstraint("account", "bar_at"),
)

equity = Table(
    "equity",
    metadata,
    Column("account", Text, ForeignKey("account.name"), nullable=False),
    _at("bar_at"),
    Column("equity_usd", Numeric, nullable=False),
    Column("cash_usd", Numeric, nullable=False),
    Column("positions", JSONB, nullable=False),
    _recorded(),
    PrimaryKeyConstraint("account", "bar_at"),
)

trader_state = Table(  # what a restart needs beside the venue's own answer: position groups, last bar, reconciliation
    "trader_state",
    metadata,
    Column("account", Text, ForeignKey("account.name"), primary_key=True),
    Column("state", JSONB, nullable=False),
    _recorded(),
)

# --- audit ------------------------------------------------------------------------------------------

audit = Table(  # a hash chain: hash = sha256(previous hash + canonical JSON of the rest)
    "audit",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("body", JSONB, nullable=False),
    _recorded(),
    Column("previous_hash", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)
