"""The market as B environments at once: decide at close t, fill at open t + 1, mark at the close of the next decision.

One step, for all environments together and without a transfer to the host:

1. the action is quantised and decoded to target weights of the equity at close t (`risk.sizing`);
2. at open t + 1 sells fill, then buys by notional, shrunk by one factor to the cash that is then there;
3. barriers look at that open, then at low, high and close of each bar until the next decision (`risk.barriers`);
   what they sell is not bought again before it;
4. the reward is log(E' / E), E marked at the closes of two successive decisions, net of all costs. They are `interval`
   bars apart, one unless told otherwise.

Fill price = quote x (1 +- slippage); the fee is taken from the asset received; quantities are floored to the
increment; an order below the venue's minimum quantity or notional does not fill. There is no trade in a symbol whose
bar t or t + 1 is missing. A position is open while it can be sold, that is from `min_order_size` up: what flooring
leaves behind is dust, which is still marked.

E below 20 % of the capital terminates an episode; `episode_bars` bars truncate it. Either way the next
observation is that of a fresh account at a random start, and the step also carries the observation before that reset,
for the bootstrap. Invariants: cash >= 0, holdings >= 0, capital is conserved less costs; symbols have no order.

Units: quote currency, base units, fractions. Accounts are float64 unless told otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from cappuccino.core.errors import InvalidInput
from cappuccino.risk.barriers import NONE, Barriers, exit_in_bar
from cappuccino.risk.sizing import Sizing, capital_needed, decode, floor_qty, plan, shrink
from cappuccino.training.market import Market
from cappuccino.training.observation import COUNTER_CAP, Observation

EPISODE_BARS = 256
RUIN = 0.20


@dataclass(kw_only=True)
class Accounts:
    """The state of B environments: everything a step changes, and all that a checkpoint needs.

    entry: quantity-weighted average price of the open position's buys; peak: highest price seen since; both 0 when
    flat. bars_held: decisions since entry, the one at hand included. bars_since_stop: likewise, 255 when never.
    age: steps of the present episode.
    """

    t_B: Tensor
    age_B: Tensor
    cash_B: Tensor
    holdings_BN: Tensor
    entry_BN: Tensor
    peak_BN: Tensor
    bars_held_BN: Tensor
    bars_since_stop_BN: Tensor

    def tensors(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def where(self, mask_B: Tensor, other: Self) -> Self:
        """`other` where the mask is true, else this."""
        chosen = {}
        for name, mine in self.tensors().items():
            mask = mask_B if mine.ndim == 1 else mask_B.unsqueeze(-1)
            chosen[name] = torch.where(mask, getattr(other, name), mine)
        return type(self)(**chosen)


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """`observation` is where the next decision is made; `last` is what the finished step led to, before any reset."""

    observation: Observation
    last: Observation
    reward_B: Tensor
    terminated_B: Tensor
    truncated_B: Tensor


class TradingEnv:
    """B accounts of `capital_usd` in one market, on rows lo <= t < hi of it.

    Raises:
        InvalidInput: too few rows, or a capital whose full action is below a venue minimum on any of them.
    """

    def __init__(
        self,
        market: Market,
        *,
        rows: tuple[int, int],
        num_envs: int,
        sizing: Sizing,
        barriers: Barriers,
        capital_usd: float,
        generator: torch.Generator,
        interval: int = 1,
        episode_bars: int = EPISODE_BARS,
    ) -> None:
        lo, hi = rows
        total = len(market.ohlc_T4N)
        if not (interval >= 1 and market.lookback - 1 <= lo and lo + interval < hi <= total):
            raise InvalidInput(
                f"training rows {lo}..{hi} of {total} with lookback {market.lookback} and interval {interval}: "
                f"start at {market.lookback - 1} or later and take more than {interval} rows"
            )
        self.market, self.sizing, self.barriers = market, sizing, barriers
        self.capital_usd = float(capital_usd)
        self.num_envs, self.num_assets = num_envs, len(market.symbols)
        self.interval = interval
        self.episode_steps = max(1, min(episode_bars, hi - lo - 1) // interval)
        self._starts = (lo, hi - self.episode_steps * interval)  # half-open: every episode fits into the rows
        self._generator = generator
        self._refuse_small_capital(rows)
        self.accounts = self._fresh()
        # Staggered ages, so that environments do not all truncate on the same step.
        age_B = torch.randint(self.episode_steps, (num_envs,), generator=generator, device=self._device)
        self.accounts.t_B = self.accounts.t_B + age_B * interval
        self.accounts.age_B = age_B
        self.counters = self._zero_counters()

    @property
    def _device(self) -> torch.device:
        return self.market.ohlc_T4N.device

    def _refuse_small_capital(self, rows: tuple[int, int]) -> None:
        highest_N = self.market.ohlc_T4N[rows[0] : rows[1]].amax((0, 1))
        minimum_N = self.market.minimum(highest_N)
        worst = int(minimum_N.argmax())
        minimum = float(minimum_N[worst])
        needed = capital_needed(minimum, self.sizing)
        if not self.capital_usd >= needed:
            raise InvalidInput(
                f"capital_usd {self.capital_usd:g}: a full action of {self.sizing.max_weight:.0%} buys "
                f"{self.sizing.max_weight * self.capital_usd:.2f} of {self.market.symbols[worst]}, whose venue minimum reaches "
                f"{minimum:.2f}: it takes a capital of at least {np.ceil(needed * 100) / 100:.2f}"
            )

    def _fresh(self) -> Accounts:
        """Accounts in cash at random starts."""
        dtype, device = self.market.ohlc_T4N.dtype, self._device
        zeros_BN = torch.zeros(self.num_envs, self.num_assets, dtype=dtype, device=device)
        return Accounts(
            t_B=torch.randint(*self._starts, (self.num_envs,), generator=self._generator, device=device),
            age_B=torch.zeros(self.num_envs, dtype=torch.int64, device=device),
            cash_B=torch.full((self.num_envs,), self.capital_usd, dtype=dtype, device=device),
            holdings_BN=zeros_BN,
            entry_BN=zeros_BN,
            peak_BN=zeros_BN,
            bars_held_BN=zeros_BN,
            bars_since_stop_BN=zeros_BN + COUNTER_CAP,
        )

    def _zero_counters(self) -> Counters:
        zero = torch.zeros(self.num_envs, dtype=self.market.ohlc_T4N.dtype, device=self._device)
        return Counters(**{field.name: zero for field in fields(Counters)})

    def take_counters(self) -> Counters:
        """The counters so far; they start again from zero."""
        taken, self.counters = self.counters, self._zero_counters()
        return taken

    def begin(self, t_B: Tensor) -> None:
        """Fresh accounts at these bars, each at the start of an episode: for evaluation, which chooses its own starts."""
        self.accounts = replace(self._fresh(), t_B=t_B.to(self._device))

    def observe(self) -> Observation:
        return self._observe(self.accounts)

    def _observe(self, accounts: Accounts) -> Observation:
        close_BN = self.market.close(accounts.t_B)
        value_BN = accounts.holdings_BN * close_BN
        equity_B = accounts.cash_B + value_BN.sum(-1)
        held_BN = accounts.entry_BN > 0
        entry_return_BN = torch.where(held_BN, close_BN / torch.where(held_BN, accounts.entry_BN, 1.0) - 1.0, 0.0)
        return Observation(
            t_B=accounts.t_B,
            account_BNA=torch.stack(
                (value_BN / equity_B[:, None], entry_return_BN, accounts.bars_held_BN, accounts.bars_since_stop_BN), -1
            ),
            cash_weight_B=accounts.cash_B / equity_B,
        )

    def equity(self, accounts: Accounts | None = None) -> Tensor:
        """[B] cash and holdings at the close of bar t; of the present accounts unless others are given."""
        accounts = accounts or self.accounts
        return accounts.cash_B + (accounts.holdings_BN * self.market.close(accounts.t_B)).sum(-1)

    @torch.no_grad()
    def step(self, action_BN: Tensor) -> Step:
        """`action_BN`: in action units; what lies outside [-1, 1] is clipped."""
        equity_B = next_equity_B = self.equity()
        accounts = self._rebalance(self.accounts, action_BN, equity_B)
        terminated_B = torch.zeros_like(equity_B, dtype=torch.bool)
        for _ in range(self.interval):
            accounts = self._pass_bar(accounts)
            next_equity_B = self.equity(accounts)
            terminated_B = terminated_B | (next_equity_B < RUIN * self.capital_usd)
            self._count(exposure=1.0 - accounts.cash_B / next_equity_B, bars=torch.ones_like(equity_B))
        held_BN = self._open(accounts.holdings_BN)
        accounts = replace(
            accounts,
            age_B=accounts.age_B + 1,
            bars_held_BN=torch.where(held_BN, accounts.bars_held_BN + 1.0, 0.0),
            bars_since_stop_BN=(accounts.bars_since_stop_BN + 1.0).clamp(max=COUNTER_CAP),
        )
        truncated_B = (accounts.age_B >= self.episode_steps) & ~terminated_B
        last = self._observe(accounts)
        self.accounts = accounts.where(terminated_B | truncated_B, self._fresh())
        return Step(
            observation=self.observe(),
            last=last,
            reward_B=torch.log(next_equity_B / equity_B),
            terminated_B=terminated_B,
            truncated_B=truncated_B,
        )

    def _rebalance(self, before: Accounts, action_BN: Tensor, equity_B: Tensor) -> Accounts:
        """The decision at close t and its orders at open t + 1: sells, then buys."""
        market = self.market
        close_BN, open_BN = market.close(before.t_B), market.ohlc_T4N[before.t_B + 1, 0]
        tradable_BN = market.tradable_TN[before.t_B] & market.tradable_TN[before.t_B + 1]
        minimum_BN = market.minimum(close_BN)
        target_BN, hold_BN = decode(torch, action_BN.to(close_BN.dtype), self.sizing)
        sell_qty_BN, buy_notional_BN = plan(
            torch,
            target=target_BN,
            hold=hold_BN | ~tradable_BN,
            equity=equity_B,
            holdings=before.holdings_BN,
            close=close_BN,
            min_notional=minimum_BN,
            sizing=self.sizing,
        )

        sold_BN, proceeds_BN = self._sell(sell_qty_BN, before.holdings_BN, open_BN)
        cash_B = before.cash_B + proceeds_BN.sum(-1) * (1.0 - market.fee)
        holdings_BN = before.holdings_BN - sold_BN
        kept_BN = self._open(holdings_BN)

        fitted_BN = shrink(torch, buy_notional=buy_notional_BN, cash=cash_B, min_notional=minimum_BN, sizing=self.sizing)
        price_BN = open_BN * (1.0 + market.slippage_N)
        bought_BN = self._accepted(floor_qty(torch, fitted_BN / price_BN, market.increment_N), price_BN)
        paid_BN = bought_BN * price_BN
        received_BN = bought_BN * (1.0 - market.fee)
        base_BN = torch.where(kept_BN, holdings_BN, 0.0)  # dust of an earlier position has no part in the entry
        entry_BN = torch.where(kept_BN, before.entry_BN, 0.0)
        size_BN = base_BN + received_BN
        average_BN = (base_BN * entry_BN + received_BN * price_BN) / torch.where(size_BN > 0, size_BN, 1.0)
        buy_BN = bought_BN > 0
        peak_BN = torch.where(kept_BN, before.peak_BN, 0.0)

        traded_B = (proceeds_BN + paid_BN).sum(-1)
        self._count(
            trades=(self._open(before.holdings_BN) & ~kept_BN).sum(-1),
            fills=(sold_BN > 0).sum(-1) + buy_BN.sum(-1),
            fees=traded_B * market.fee,
            turnover=traded_B / equity_B,
        )
        return replace(
            before,
            cash_B=cash_B - paid_BN.sum(-1),
            holdings_BN=holdings_BN + received_BN,
            entry_BN=torch.where(buy_BN, average_BN, entry_BN),
            peak_BN=torch.where(buy_BN, torch.maximum(peak_BN, price_BN), peak_BN),
            bars_held_BN=torch.where(kept_BN, before.bars_held_BN, 0.0),
        )

    def _pass_bar(self, before: Accounts) -> Accounts:
        """Bar t + 1 from its open to its close, watched by the barriers; t moves on."""
        market, next_t_B = self.market, before.t_B + 1
        open_BN, high_BN, low_BN, close_BN = market.ohlc_T4N[next_t_B].unbind(1)
        held_BN = self._open(before.holdings_BN)
        code_BN, quote_BN, peak_BN = exit_in_bar(
            torch,
            open=open_BN,
            high=high_BN,
            low=low_BN,
            close=close_BN,
            entry=before.entry_BN,
            peak=before.peak_BN,
            bars_held=before.bars_held_BN,
            barriers=self.barriers,
        )
        hit_BN = held_BN & (code_BN != NONE) & market.tradable_TN[next_t_B]
        sold_BN, proceeds_BN = self._sell(torch.where(hit_BN, before.holdings_BN, 0.0), before.holdings_BN, quote_BN)
        holdings_BN = before.holdings_BN - sold_BN
        stopped_BN, kept_BN = sold_BN > 0, self._open(holdings_BN)
        traded_B = proceeds_BN.sum(-1)
        self._count(
            trades=(held_BN & ~kept_BN).sum(-1),
            fills=stopped_BN.sum(-1),
            stops=stopped_BN.sum(-1),
            fees=traded_B * market.fee,
            turnover=traded_B / self.equity(before),
        )
        return replace(
            before,
            t_B=next_t_B,
            cash_B=before.cash_B + traded_B * (1.0 - market.fee),
            holdings_BN=holdings_BN,
            entry_BN=torch.where(kept_BN, before.entry_BN, 0.0),
            peak_BN=torch.where(kept_BN, peak_BN, 0.0),
            bars_held_BN=torch.where(kept_BN, before.bars_held_BN, 0.0),
            bars_since_stop_BN=torch.where(stopped_BN, 0.0, before.bars_since_stop_BN),
        )

    def _open(self, holdings_BN: Tensor) -> Tensor:
        return holdings_BN >= self.market.min_order_size_N

    def _sell(self, qty_BN: Tensor, holdings_BN: Tensor, quote_BN: Tensor) -> tuple[Tensor, Tensor]:
        """(quantity sold, proceeds before the fee) at a quote, both [B, N]."""
        price_BN = quote_BN * (1.0 - self.market.slippage_N)
        floored_BN = floor_qty(torch, qty_BN, self.market.increment_N)
        sold_BN = self._accepted(torch.minimum(floored_BN, holdings_BN), price_BN)
        return sold_BN, sold_BN * price_BN

    def _accepted(self, qty_BN: Tensor, price_BN: Tensor) -> Tensor:
        """What the venue does not refuse for its size."""
        big_enough_BN = (qty_BN >= self.market.min_order_size_N) & (qty_BN * price_BN >= self.market.min_notional_N)
        return torch.where(big_enough_BN & (qty_BN > 0), qty_BN, 0.0)

    def _count(self, **increments: Tensor) -> None:
        for name, value_B in increments.items():
            setattr(self.counters, name, getattr(self.counters, name) + value_B)
