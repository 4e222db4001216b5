"""`spec.live` of a Deployment: where its approved candidate trades real money, in which steps of capital."""

from __future__ import annotations

from pydantic import Field, model_validator

from cappuccino.api.meta import Model, validations
from cappuccino.api.trader import LIVE_SECRET_SUFFIX, Venue


class CapitalStep(Model):
    """A share of the capital, and what must be seen before the next one."""

    share: float = Field(gt=0, le=1, description="Share of live.capitalUsd that the Trader of this step may use.")
    market_days: float = Field(default=7, ge=1, le=3650, description="Days of market time before the next step.")
    closed_trades: int = Field(default=20, ge=1, le=100_000, description="Trades from flat to flat before the next step.")


class LiveGate(Model):
    """What goes on to the next step, and what is demoted."""

    min_win_rate: float = Field(
        default=0.60, ge=0, le=1, description="Share of closed trades that must gain before the next step."
    )
    max_drawdown: float = Field(default=0.15, gt=0, le=0.20, description="Largest loss from a peak; beyond it is demotion.")
    min_fidelity: float = Field(
        default=0.5, ge=0, le=1, description="Nearness of fills to modelled fills, 0 to 1; below it is demotion."
    )


STEPS = (CapitalStep(share=0.1), CapitalStep(share=0.25), CapitalStep(share=1.0))
VENUE_RULE = (
    f"self.venue.kind != 'simulated' && has(self.venue.accountSecretRef) "
    f"&& self.venue.accountSecretRef.name.endsWith('{LIVE_SECRET_SUFFIX}')",
    f"live.venue is a real venue with an accountSecretRef whose name ends in {LIVE_SECRET_SUFFIX}: name both",
)


class LiveSpec(Model):
    """An approval is bound to all of it but dryRun."""

    model_config = validations(VENUE_RULE)

    venue: Venue = Field(description="The real venue and the Secret of the real account.")
    capital_usd: float = Field(gt=0, le=1e9, description="Capital of the last step; the account's other cash is never used.")
    steps: tuple[CapitalStep, ...] = Field(
        default=STEPS, min_length=1, max_length=10, description="Steps of capital, taken in the order of their shares."
    )
    gate: LiveGate = Field(default=LiveGate(), description="What goes on to the next step, and what is demoted.")
    dry_run: bool = Field(
        default=True,
        description="The approved candidate decides on the real account and sends nothing; false takes the verb approve.",
    )

    @model_validator(mode="after")
    def _venue(self) -> LiveSpec:
        secret = self.venue.account_secret_ref
        if self.venue.kind == "simulated" or secret is None or not secret.name.endswith(LIVE_SECRET_SUFFIX):
            raise ValueError(VENUE_RULE[1])
        return self

    @property
    def ladder(self) -> tuple[CapitalStep, ...]:
        return tuple(sorted(self.steps, key=lambda step: step.share))
