"""`summary.json`: what a run did, as plain figures. Its schema is in docs/reference/summary.md."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = "cappuccino/summary/v1"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class GateSummary(_Part):
    gate: str
    outcome: str = Field(description="Pass, Fail, Error or Inconclusive.")
    measured: float | None = Field(description="What was measured, in the gate's own unit.")
    threshold: float | None = Field(description="What it was held against.")
    minimum_detectable: float | None = Field(description="Annualised Sharpe that this evidence could have told from luck.")
    message: str


class CandidateSummary(_Part):
    bundle: str = Field(description="Digest of the bundle.")
    trial: int | None = Field(description="Number of its trial; absent for an ensemble.")
    verdict: str = Field(description="Passed, Observer or Refused.")
    stopped_by: str | None = Field(description="First gate that did not pass.")
    gates: list[GateSummary]


class DriftSummary(_Part):
    orders: int = Field(description="Newest orders that were measured.")
    slippage_bps: float = Field(description="Mean distance of a fill from the quote of its moment, against us.")
    modelled_slippage_bps: float = Field(description="The same as the bundle assumes it.")
    fee_bps: float = Field(description="Mean fee of a fill.")
    modelled_fee_bps: float = Field(description="The same as the bundle assumes it.")
    excess_bps: float = Field(description="Slippage and fee beyond the bundle's, of every order's value.")
    excess_low_bps: float | None = Field(description="What of it is certain at 99.9 %; absent with too few orders.")
    delay_seconds: float | None = Field(description="Mean time from a bar's close to its decision's fills.")


class TraderSummary(_Part):
    name: str
    role: str = Field(description="candidate, observer or baseline.")
    orders: int = Field(description="Orders acknowledged by the venue.")
    fills: int = Field(description="Executions.")
    fees_usd: float
    restarts: int
    closed_trades: int
    final_equity_usd: float | None = Field(description="Marked at the last close; absent if it never saw one.")
    total_return: float | None
    sharpe: float | None = Field(description="Annualised, of the paper record.")
    sharpe_standard_error: float | None
    grade: str | None = Field(description="A to F; absent while the record is too short for one.")
    score: float | None = Field(description="0 to 100.")
    grade_reason: str
    drift: DriftSummary | None = Field(description="What trading cost against the model; absent before the first order.")
    gates: list[GateSummary] = Field(description="Newest soak and grade evidence.")


class Summary(_Part):
    schema_: str = Field(default=SCHEMA, alias="schema")
    source: str = Field(description="generator, or the file of bars.")
    trials: dict[str, int] = Field(description="Number of trials by state.")
    candidates: list[CandidateSummary]
    traders: list[TraderSummary]
    ledger_matches_exchange: bool = Field(description="Every account's record equals the exchange's own, to the last digit.")
    ledger_differences: list[str] = Field(description="What differs, a phrase each; empty when nothing does.")
    elapsed_seconds: dict[str, float] = Field(description="Wall time by stage.")
    succeeded: bool = Field(description="The run did what it says: every stage ended and the ledger matches.")
    headline: str = Field(description="One honest sentence.")
