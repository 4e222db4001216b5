"""What a bundle made of its Study's gate window, beside HODL over the same bars, with intervals.

Growth is log(E' / E) of a bar, alpha the intercept of a bar's simple return on HODL's. Each interval has 95 % and is that of
the gates' stationary bootstrap; `window` is the same times the bars of the window; p is one-sided. Cash has growth 0,
and HODL holds an equal weight of all symbols at the same costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cappuccino.bundle.store import load
from cappuccino.controllers.deployment import VERDICT
from cappuccino.controllers.rows import Evidence
from cappuccino.core.blobs import Blobs
from cappuccino.core.errors import InvalidInput
from cappuccino.core.identifiers import seed_of
from cappuccino.entrypoints.gating import window_runs
from cappuccino.entrypoints.recipe import prepare
from cappuccino.evaluation import bootstrap, metrics
from cappuccino.evaluation.backtest import BacktestResult
from cappuccino.evaluation.window_gate import WindowThresholds
from cappuccino.market import store

GATE = WindowThresholds()
Figures = dict[str, Any]
Returns = npt.NDArray[np.float64]


def judged(blobs: Blobs, snapshot: str, gate_starts_at: int, evidence: Sequence[Evidence]) -> list[Figures]:
    """What the gates of one Deployment judged, best first; `gate_starts_at` in epoch seconds."""
    bars = store.read(blobs, store.load_manifest(blobs, snapshot))
    found = []
    for verdict in sorted((row for row in evidence if row.gate == VERDICT), key=lambda row: row.detail["rank"]):
        bundle = load(blobs, verdict.bundle_digest)
        run, hodl = window_runs(bundle, prepare(bars, bundle.contract), gate_starts_at)
        seed = seed_of(snapshot, gate_starts_at, int(bars.close_ts[-1]), verdict.detail["rank"])  # the gate's own
        gates = [row for row in evidence if row.bundle_digest == verdict.bundle_digest and row.gate != VERDICT]
        found.append(
            {
                "trial": verdict.detail["number"],
                "verdict": verdict.detail["verdict"],
                "stopped_by": verdict.detail["stopped_by"],
                "gates": {
                    row.gate: {name: getattr(row, name) for name in ("outcome", "measured", "threshold", "message")}
                    for row in gates
                },
                "window": over(run, seed) | against(run.returns, hodl.returns, run.bars_per_year, seed),
                "hodl": over(hodl, seed),
            }
        )
    return found


def over(run: BacktestResult, seed: int) -> Figures:
    """Sharpe and growth are None where nothing was risked."""
    growth, how = np.log1p(run.returns), _bootstrap(run.bars_per_year, seed)
    try:
        sharpe = metrics.sharpe(run.returns, run.bars_per_year)
    except InvalidInput:
        sharpe = None
    return {
        "bars": len(run.returns),
        "total_return": run.total_return,
        "sharpe": sharpe,
        "max_drawdown": metrics.max_drawdown(run.equity),
        "closed_trades": len(run.trades),
        "fills": len(run.fills),
        "exposure": run.exposure,
        "fees_usd": run.fees_usd,
        "growth": interval(lambda sign: bootstrap.mean_above_zero(sign * growth, **how), len(growth)),
    }


def against(returns: Returns, hodl: Returns, bars_per_year: float, seed: int) -> Figures:
    """Alpha over HODL, and growth above HODL's, over the bars that both have."""
    how = _bootstrap(bars_per_year, seed)
    returns, hodl = returns[: len(hodl)], hodl[: len(returns)]
    more = np.log1p(returns) - np.log1p(hodl)
    return {
        "alpha": interval(lambda sign: bootstrap.alpha_above_zero(sign * returns, hodl, **how), len(returns)),
        "growth_above_hodl": interval(lambda sign: bootstrap.mean_above_zero(sign * more, **how), len(returns)),
    }


def interval(test: Callable[[float], bootstrap.Tested], bars: int) -> Figures | None:
    """`test` is asked of the series (sign 1) and of its mirror image (sign -1), whose lower bound is the upper one here."""
    try:
        up, down = test(1.0), test(-1.0)
    except InvalidInput:  # constant: there is nothing to test
        return None
    a_bar = {"estimate": up.estimate, "low": up.lower, "high": -down.lower}
    return a_bar | {"p": up.p, "window": {name: bars * value for name, value in a_bar.items()}}


def _bootstrap(bars_per_year: float, seed: int) -> dict[str, Any]:
    """The gate's; its one-sided level on either side leaves 95 % between."""
    block = bootstrap.block_bars(GATE.block_hours, bars_per_year)
    return {"block": block, "samples": GATE.bootstrap_samples, "seed": seed, "level": GATE.alpha}
