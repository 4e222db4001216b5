"""The market as tensors: bars, features and the venue's rules, kept once and shared by all environments.

Assets follow the order of the bars' symbols; rules and costs are looked up by symbol. Features are scaled here, once;
an observation is a row of that table. Folds trained together have a scaling each: the table then holds the T bars once
per scaling, one block after the other.

Shape suffixes: T bars, N assets, L lookback, F features, R = scalings x T rows of the feature table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cappuccino.core.errors import InvalidInput
from cappuccino.exchange.venue import AssetRules, Costs
from cappuccino.market.bars import Bars
from cappuccino.training.observation import Scaling, scale_features


@dataclass(frozen=True, kw_only=True, eq=False)
class Market:
    """Everything that environments share, kept once on the device.

    ohlc_T4N, tradable_TN, features_RNF (scaled, float32); per asset [N]: min_order_size and increment in base units,
    min_notional in quote currency, slippage as a fraction; fee as a fraction.
    """

    symbols: tuple[str, ...]
    lookback: int
    ohlc_T4N: Tensor
    tradable_TN: Tensor
    features_RNF: Tensor
    min_order_size_N: Tensor
    increment_N: Tensor
    min_notional_N: Tensor
    slippage_N: Tensor
    fee: float

    @classmethod
    def build(
        cls,
        *,
        bars: Bars,
        features_TNF: npt.NDArray[np.float64],
        scaling: Scaling | Sequence[Scaling],
        lookback: int,
        costs: Costs,
        rules: Mapping[str, AssetRules],
        dtype: torch.dtype = torch.float64,
        device: str = "cpu",
    ) -> Market:
        """
        Raises:
            InvalidInput: features of another shape than the bars, or a symbol without rules.
        """
        if features_TNF.ndim != 3 or features_TNF.shape[:2] != bars.close.shape:
            raise InvalidInput(
                f"features have shape {features_TNF.shape}, the bars are {bars.close.shape}: compute them from these bars"
            )
        missing = [symbol for symbol in bars.symbols if symbol not in rules]
        if missing:
            raise InvalidInput(f"no venue rules for {', '.join(missing)}: the venue lists {', '.join(sorted(rules)) or 'none'}")
        ordered = [rules[symbol] for symbol in bars.symbols]  # by name, never by position

        def tensor(values: object) -> Tensor:
            return torch.as_tensor(np.asarray(values, dtype=np.float64), dtype=dtype, device=device)

        raw = torch.as_tensor(features_TNF.astype(np.float32), device=device)
        blocks = [
            scale_features(raw, torch.as_tensor(each.mean, device=device), torch.as_tensor(each.std, device=device))
            for each in ([scaling] if isinstance(scaling, Scaling) else scaling)
        ]
        return cls(
            symbols=bars.symbols,
            lookback=lookback,
            ohlc_T4N=tensor(np.stack((bars.open, bars.high, bars.low, bars.close), axis=1)),
            tradable_TN=torch.as_tensor(~bars.missing, device=device),
            features_RNF=torch.cat(blocks),
            min_order_size_N=tensor([float(rule.min_order_size) for rule in ordered]),
            increment_N=tensor([float(rule.min_trade_increment) for rule in ordered]),
            min_notional_N=tensor([float(rule.min_notional) for rule in ordered]),
            slippage_N=tensor([costs.slippage(symbol) for symbol in bars.symbols]),
            fee=costs.fee,
        )

    @property
    def scalings(self) -> int:
        """Blocks of the feature table."""
        return len(self.features_RNF) // len(self.ohlc_T4N)

    def windows(self, row_B: Tensor) -> Tensor:
        """[B, N, L, F] scaled features of the L rows that end with this one, newest last."""
        if self.lookback == 1:
            return self.features_RNF[row_B].unsqueeze(2)
        windows = self.features_RNF.unfold(0, self.lookback, 1)  # a view: [R - L + 1, N, F, L]
        return windows[row_B - self.lookback + 1].transpose(2, 3)

    def close(self, t_B: Tensor) -> Tensor:
        """[B, N]"""
        return self.ohlc_T4N[t_B, 3]

    def minimum(self, price: Tensor) -> Tensor:
        """The venue's minimum in quote currency at this price [..., N]."""
        return torch.maximum(self.min_order_size_N * price, self.min_notional_N)
