"""How much of a good score is the search's own doing.

PSR: the probability that the true Sharpe is above a hurdle. DSR: PSR with the Sharpe that the best of N worthless
trials would show as the hurdle. PBO: how often the in-sample winner lands in the lower half out of sample (CSCV).
Holm: p-values of several candidates that took the same test.

Invariants: Sharpe ratios here are per bar, never annualised (the formulas are not scale free); N counts every trial
that has an out-of-sample value on overlapping bars (pruned ones too), never folds; seeds only if the best is chosen.
With N = 1 there was no selection and DSR is PSR against 0. PBO gates only from 16 trials on.

Sources: Bailey and Lopez de Prado, The Sharpe Ratio Efficient Frontier (2012) and The Deflated Sharpe Ratio (2014);
Bailey, Borwein, Lopez de Prado and Zhu, The Probability of Backtest Overfitting (2017); Holm (1979).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from cappuccino.core.errors import InvalidInput
from cappuccino.evaluation.metrics import NORMAL, Moments, per_bar_standard_error

EULER_GAMMA = 0.5772156649015329
PBO_BLOCKS = 16
MIN_TRIALS_PBO = 16
_CHUNK = 1024  # combinations held at a time


@dataclass(frozen=True, kw_only=True)
class Deflated:
    """`hurdle` is the expected best per-bar Sharpe of `trials` worthless ones; `probability` is DSR (PSR when trials is 1)."""

    probability: float
    hurdle: float
    trials: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Overfit:
    """`probability` is PBO; `logits` [C] of the winner's relative out-of-sample rank, one per split."""

    probability: float
    logits: npt.NDArray[np.float64]
    trials: int


def probabilistic_sharpe(m: Moments, hurdle: float = 0.0) -> float:
    """P(true per-bar Sharpe > `hurdle`), allowing for skew and kurtosis."""
    return NORMAL.cdf((m.sharpe_per_bar - hurdle) / per_bar_standard_error(m))


def expected_max_sharpe(trials: int, variance: float) -> float:
    """Expected largest per-bar Sharpe of `trials` independent trials whose true Sharpe is 0.

    sqrt(V) ((1 - g) z(1 - 1/N) + g z(1 - 1/(N e))), g Euler's constant; 0 for a single trial.
    """
    if trials < 1 or variance < 0:
        raise InvalidInput(
            f"{trials} trials with variance {variance}: count the candidate's own trial, and give a variance >= 0"
        )
    if trials == 1:
        return 0.0
    low, high = NORMAL.inv_cdf(1 - 1 / trials), NORMAL.inv_cdf(1 - 1 / (trials * math.e))
    return math.sqrt(variance) * ((1 - EULER_GAMMA) * low + EULER_GAMMA * high)


def deflated_sharpe(m: Moments, trial_sharpes: Sequence[float]) -> Deflated:
    """DSR of the selected trial, whose walk-forward returns have moments `m`.

    Args:
        trial_sharpes: per-bar Sharpe of every trial with an out-of-sample value, the selected one among them.

    Raises:
        InvalidInput: no trial, or a value that is not finite (a trial without a score does not count: leave it out).
    """
    values = np.asarray(trial_sharpes, dtype=np.float64)
    if len(values) == 0 or not np.isfinite(values).all():
        raise InvalidInput(f"DSR over {len(values)} trials needs finite Sharpe ratios of all: leave out trials without a score")
    variance = float(values.var(ddof=1)) if len(values) > 1 else 0.0
    hurdle = expected_max_sharpe(len(values), variance)
    return Deflated(probability=probabilistic_sharpe(m, hurdle), hurdle=hurdle, trials=len(values))


def backtest_overfitting(returns: npt.ArrayLike, blocks: int = PBO_BLOCKS) -> Overfit:
    """PBO by combinatorially symmetric cross-validation.

    Args:
        returns: [T, N] out-of-sample returns of N trials over the same bars.
        blocks: S, even; the bars are cut into S equal blocks and every half of them is once in sample
            (12,870 splits for 16). The T mod S oldest bars are left out.

    Raises:
        InvalidInput: fewer than 2 trials or 2 bars a block, an odd S, or a value that is not finite.
    """
    values = np.asarray(returns, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] < 2 or blocks < 2 or blocks % 2 or len(values) < 2 * blocks:
        raise InvalidInput(f"PBO of returns {values.shape} in {blocks} blocks: needs 2 trials, an even S and 2 bars a block")
    if not np.isfinite(values).all():
        raise InvalidInput("PBO: a return is not finite: leave out trials without a score")
    size = len(values) // blocks
    cut = values[len(values) - size * blocks :].reshape(blocks, size, values.shape[1])
    sums, squares = cut.sum(axis=1), (cut * cut).sum(axis=1)
    half = blocks // 2 * size
    chosen = np.array(list(combinations(range(blocks), blocks // 2)))
    logits = []
    for lo in range(0, len(chosen), _CHUNK):
        mask = np.zeros((len(chosen[lo : lo + _CHUNK]), blocks))
        np.put_along_axis(mask, chosen[lo : lo + _CHUNK], 1.0, axis=1)
        inside = _sharpes(mask @ sums, mask @ squares, half)
        outside = _sharpes((1 - mask) @ sums, (1 - mask) @ squares, half)
        winner = np.take_along_axis(outside, inside.argmax(axis=1)[:, None], axis=1)
        rank = (outside < winner).sum(axis=1) + ((outside == winner).sum(axis=1) + 1) / 2  # 1 is worst; ties share
        share = rank / (values.shape[1] + 1)
        logits.append(np.log(share / (1 - share)))
    every = np.concatenate(logits)
    return Overfit(probability=float((every <= 0).mean()), logits=every, trials=values.shape[1])


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p-values in the order given: rejecting those <= alpha keeps the family-wise error at alpha."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = highest
    return tuple(adjusted)


def _sharpes(sums: npt.NDArray[np.float64], squares: npt.NDArray[np.float64], n: int) -> npt.NDArray[np.float64]:
    mean = sums / n
    variance = squares / n - mean * mean
    flat = variance <= 1e-18
    return np.asarray(np.where(flat, 0.0, mean / np.sqrt(np.where(flat, 1.0, variance))), dtype=np.float64)
