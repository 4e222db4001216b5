"""B paper accounts in one market: what they hold, and the pure functions that take them through a decision and a bar.

Every function maps tensors to new tensors: no generator, no transfer to the host, nothing changed in place, so that a
step can be compiled or captured whole.

Fill price = quote x (1 +- slippage); the fee is taken from the asset received; quantities are floored to the
increment; an order below the venue's minimum quantity or notional does not fill. There is no trade in a symbol whose
bar t or t + 1 is missing. A position is open while it can be sold, that is from `min_order_size` up: what flooring
leaves behind is dust, which is still marked. Invariants: cash >= 0, holdings >= 0; symbols have no order.

Units: quote currency, base units, fractions. Accounts are in the market's dtype.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from cappuccino.risk.barriers import NONE, Barriers, exit_in_bar
from cappuccino.risk.sizing import Sizing, decode, floor_qty, plan, shrink
from cappuccino.training.market import Market
from cappuccino.training.observation import COUNTER_CAP


@dataclass(kw_only=True)
class Accounts:
    """The state of B environments: everything a step changes, and all that a checkpoint needs.

    equity: cash and holdings at the close of bar t. entry: quantity-weighted average price of the open position's buys;
    peak: highest price seen since; both 0 when flat. bars_held: decisions since entry, the one at hand included.
    bars_since_stop: likewise, 255 when never. age: steps of the present episode.
    """

    t_B: Tensor
    age_B: Tensor
    cash_B: Tensor
    equity_B: Tensor
    holdings_BN: Tensor
    entry_BN: Tensor
    peak_BN: Tensor
    bars_held_BN: Tensor
    bars_since_stop_BN: Tensor

    def tensors(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def renewed(self, ended_B: Tensor, *, t_B: Tensor, age_B: Tensor, capital_usd: float) -> Accounts:
        """All at these bars and ages; in cash where `ended_B` is true."""
        ended_B1 = ended_B.unsqueeze(-1)
        return Accounts(
            t_B=t_B,
            age_B=age_B,
            cash_B=torch.where(ended_B, capital_usd, self.cash_B),
            equity_B=torch.where(ended_B, capital_usd, self.equity_B),
            holdings_BN=torch.where(ended_B1, 0.0, self.holdings_BN),
            entry_BN=torch.where(ended_B1, 0.0, self.entry_BN),
            peak_BN=torch.where(ended_B1, 0.0, self.peak_BN),
            bars_held_BN=torch.where(ended_B1, 0.0, self.bars_held_BN),
            bars_since_stop_BN=torch.where(ended_B1, float(COUNTER_CAP), self.bars_since_stop_BN),
        )


@dataclass(kw_only=True)
class Counters:
    """[B] sums since they were last taken: closed trades (flat to flat), orders filled, barrier exits, fees in quote
    currency, turnover (traded notional / equity), exposure (invested share, summed over closes), bars passed."""

    trades: Tensor
    fills: Tensor
    stops: Tensor
    fees: Tensor
    turnover: Tensor
    exposure: Tensor
    bars: Tensor

    def plus(self, **increments: Tensor | float) -> Counters:
        return replace(self, **{name: getattr(self, name) + value for name, value in increments.items()})


def is_open(market: Market, holdings_BN: Tensor) -> Tensor:
    return holdings_BN >= market.min_order_size_N


def rebalance(
    market: Market, sizing: Sizing, before: Accounts, counters: Counters, action_BN: Tensor
) -> tuple[Accounts, Counters]:
    """The decision at close t and its orders at open t + 1: sells, then buys."""
    close_BN, open_BN = market.close(before.t_B), market.ohlc_T4N[before.t_B + 1, 0]
    tradable_BN = market.tradable_TN[before.t_B] & market.tradable_TN[before.t_B + 1]
    minimum_BN = market.minimum(close_BN)
    target_BN, hold_BN = decode(torch, action_BN.to(close_BN.dtype), sizing)
    sell_qty_BN, buy_notional_BN = plan(
        torch,
        target=target_BN,
        hold=hold_BN | ~tradable_BN,
        equity=before.equity_B,
        holdings=before.holdings_BN,
        close=close_BN,
        min_notional=minimum_BN,
        sizing=sizing,
    )

    sold_BN, proceeds_BN = _sell(market, sell_qty_BN, before.holdings_BN, open_BN)
    cash_B = before.cash_B + proceeds_BN.sum(-1) * (1.0 - market.fee)
    holdings_BN = before.holdings_BN - sold_BN
    kept_BN = is_open(market, holdings_BN)

    fitted_BN = shrink(torch, buy_notional=buy_notional_BN, cash=cash_B, min_notional=minimum_BN, sizing=sizing)
    price_BN = open_BN * (1.0 + market.slippage_N)
    bought_BN = _accepted(market, floor_qty(torch, fitted_BN / price_BN, market.increment_N), price_BN)
    paid_BN = bought_BN * price_BN
    received_BN = bought_BN * (1.0 - market.fee)
    base_BN = torch.where(kept_BN, holdings_BN, 0.0)  # dust of an earlier position has no part in the entry
    entry_BN = torch.where(kept_BN, before.entry_BN, 0.0)
    size_BN = base_BN + received_BN
    average_BN = (base_BN * entry_BN + received_BN * price_BN) / torch.where(size_BN > 0, size_BN, 1.0)
    buy_BN = bought_BN > 0
    peak_BN = torch.where(kept_BN, before.peak_BN, 0.0)

    traded_B = (proceeds_BN + paid_BN).sum(-1)
    counters = counters.plus(
        trades=(is_open(market, before.holdings_BN) & ~kept_BN).to(cash_B.dtype).sum(-1),
        fills=(sold_BN > 0).to(cash_B.dtype).sum(-1) + buy_BN.to(cash_B.dtype).sum(-1),
        fees=traded_B * market.fee,
        turnover=traded_B / before.equity_B,
    )
    accounts = replace(
        before,
        cash_B=cash_B - paid_BN.sum(-1),
        holdings_BN=holdings_BN + received_BN,
        entry_BN=torch.where(buy_BN, average_BN, entry_BN),
        peak_BN=torch.where(buy_BN, torch.maximum(peak_BN, price_BN), peak_BN),
        bars_held_BN=torch.where(kept_BN, before.bars_held_BN, 0.0),
    )
    return accounts, counters


def pass_bar(market: Market, barriers: Barriers, before: Accounts, counters: Counters) -> tuple[Accounts, Counters]:
    """Bar t + 1 from its open to its close, watched by the barriers; t moves on."""
    next_t_B = before.t_B + 1
    open_BN, high_BN, low_BN, close_BN = market.ohlc_T4N[next_t_B].unbind(1)
    held_BN = is_open(market, before.holdings_BN)
    code_BN, quote_BN, peak_BN = exit_in_bar(
        torch,
        open=open_BN,
        high=high_BN,
        low=low_BN,
        close=close_BN,
        entry=before.entry_BN,
        peak=before.peak_BN,
        bars_held=before.bars_held_BN,
        barriers=barriers,
    )
    hit_BN = held_BN & (code_BN != NONE) & market.tradable_TN[next_t_B]
    sold_BN, proceeds_BN = _sell(market, torch.where(hit_BN, before.holdings_BN, 0.0), before.holdings_BN, quote_BN)
    holdings_BN = before.holdings_BN - sold_BN
    stopped_BN, kept_BN = sold_BN > 0, is_open(market, holdings_BN)
    traded_B = proceeds_BN.sum(-1)
    cash_B = before.cash_B + traded_B * (1.0 - market.fee)
    equity_B = cash_B + (holdings_BN * close_BN).sum(-1)
    stops_B = stopped_BN.to(cash_B.dtype).sum(-1)
    counters = counters.plus(
        trades=(held_BN & ~kept_BN).to(cash_B.dtype).sum(-1),
        fills=stops_B,
        stops=stops_B,
        fees=traded_B * market.fee,
        turnover=traded_B / before.equity_B,
        exposure=1.0 - cash_B / equity_B,
        bars=1.0,
    )
    accounts = replace(
        before,
        t_B=next_t_B,
        cash_B=cash_B,
        equity_B=equity_B,
        holdings_BN=holdings_BN,
        entry_BN=torch.where(kept_BN, before.entry_BN, 0.0),
        peak_BN=torch.where(kept_BN, peak_BN, 0.0),
        bars_held_BN=torch.where(kept_BN, before.bars_held_BN, 0.0),
        bars_since_stop_BN=torch.where(stopped_BN, 0.0, before.bars_since_stop_BN),
    )
    return accounts, counters


def _sell(market: Market, qty_BN: Tensor, holdings_BN: Tensor, quote_BN: Tensor) -> tuple[Tensor, Tensor]:
    """(quantity sold, proceeds before the fee) at a quote, both [B, N]."""
    price_BN = quote_BN * (1.0 - market.slippage_N)
    floored_BN = floor_qty(torch, qty_BN, market.increment_N)
    sold_BN = _accepted(market, torch.minimum(floored_BN, holdings_BN), price_BN)
    return sold_BN, sold_BN * price_BN


def _accepted(market: Market, qty_BN: Tensor, price_BN: Tensor) -> Tensor:
    """What the venue does not refuse for its size."""
    big_enough_BN = (qty_BN >= market.min_order_size_N) & (qty_BN * price_BN >= market.min_notional_N)
    return torch.where(big_enough_BN & (qty_BN > 0), qty_BN, 0.0)
