"""What a policy sees, and how it is scaled. Training, export and serving go through these functions alone.

Per asset: `lookback` rows of F raw features (newest last) and four account values; beside them the cash weight.
Their meaning is that of `strategies.interface.View`. Features are scaled per column with the training rows' mean
and standard deviation, in float32 as in the exported graph, and clipped to +-5. Account values, raw -> scaled:

    weight            position value / equity            3 w              (30 % is about 1)
    entry_return      close / average entry - 1          10 r, in +-5
    bars_held         decisions since entry              log(1 + min(n, 255)) / log 256
    bars_since_stop   decisions since a barrier's sale   log(1 + min(n, 255)) / log 256

Shape suffixes: B environments, T bars, N assets, L lookback, F features, A = 4 account values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cappuccino.core.errors import InvalidInput
from cappuccino.market.features import CLIP, fit_scaling

ACCOUNT = ("weight", "entry_return", "bars_held", "bars_since_stop")
COUNTER_CAP = 255


@dataclass(frozen=True, kw_only=True, eq=False)
class Scaling:
    """mean, std: [F] float32, the same for all assets; std is never 0."""

    mean: npt.NDArray[np.float32]
    std: npt.NDArray[np.float32]

    @classmethod
    def fit(cls, features_TNF: npt.NDArray[np.float64], rows: tuple[int, int]) -> Scaling:
        """From rows lo <= t < hi only."""
        mean, std = fit_scaling(features_TNF, slice(*rows))
        return cls(mean=mean.astype(np.float32), std=std.astype(np.float32))


@dataclass(frozen=True, kw_only=True, eq=False)
class Observation:
    """Index-only: the market part is `Market.windows(row_B)`, gathered where it is needed.

    t_B: the bar just closed. row_B: its row in the market's feature table, t itself where there is one scaling.
    account_BNA, cash_weight_B: raw, in the accounts' dtype.
    """

    t_B: Tensor
    row_B: Tensor
    account_BNA: Tensor
    cash_weight_B: Tensor


def scale_features(features: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Raw float32 [..., F] -> scaled; `mean` and `std` broadcast against it."""
    return ((features - mean) / std).clamp(-CLIP, CLIP)


def scale_account(account: Tensor) -> Tensor:
    """Raw [..., A] in the order of `ACCOUNT` -> scaled, same shape."""
    weight, entry_return, bars_held, bars_since_stop = account.unbind(-1)
    top = float(np.log1p(COUNTER_CAP))
    return torch.stack(
        (
            weight * 3.0,
            (entry_return * 10.0).clamp(-CLIP, CLIP),
            torch.log(bars_held.clamp(0.0, COUNTER_CAP) + 1.0) / top,
            torch.log(bars_since_stop.clamp(0.0, COUNTER_CAP) + 1.0) / top,
        ),
        -1,
    )


def check_finite(
    features_TNF: npt.NDArray[np.float64], *, rows: tuple[int, int], symbols: tuple[str, ...], lookback: int
) -> None:
    """Refuse features that a window of these rows would read and that are not finite.

    Raises:
        InvalidInput: names symbol, row and column of the first one.
    """
    first = rows[0] - lookback + 1
    if first < 0:
        raise InvalidInput(
            f"training rows start at {rows[0]}, lookback {lookback} needs {-first} more rows before: move the start"
        )
    bad = np.argwhere(~np.isfinite(features_TNF[first : rows[1]]))
    if len(bad):
        row, asset, column = (int(value) for value in bad[0])
        raise InvalidInput(
            f"feature column {column} of {symbols[asset]} is {features_TNF[first + row, asset, column]} at row {first + row}: "
            f"start the training rows after the features' warm-up"
        )
