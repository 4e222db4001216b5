"""From actions in [-1, 1] to targets: the one place where a strategy's numbers become intents.

An action that is not finite (features still warming up) asks for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cappuccino.risk.sizing import Sizing, decode
from cappuccino.strategies.interface import Target


def targets_of(action: npt.NDArray[np.float64], symbols: Sequence[str], sizing: Sizing) -> tuple[Target, ...]:
    """Targets of the symbols whose action [N] leaves the dead zone; quantised and decoded by `risk/sizing`."""
    finite = np.isfinite(action)
    weight, hold = decode(np, np.where(finite, action, 0.0), sizing)
    return tuple(
        Target(symbol=symbol, weight=w)
        for symbol, w, held in zip(symbols, weight.tolist(), hold.tolist(), strict=True)
        if not held
    )


def traced(action: npt.NDArray[np.float64]) -> list[float | None]:
    """`action` for a trace, which is JSON: null where it is not finite."""
    return [value if np.isfinite(value) else None for value in action.tolist()]
