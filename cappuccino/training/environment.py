"""The market as B environments at once: decide at close t, fill at open t + 1, mark at the close of the next decision.

One step, for all environments together and without a transfer to the host:

1. the action is quantised and decoded to target weights of the equity at close t (`risk.sizing`);
2. at open t + 1 sells fill, then buys by notional, shrunk by one factor to the cash that is then there;
3. barriers look at that open, then at low, high and close of each bar until the next decision (`risk.barriers`);
   what they sell is not bought again before it;
4. the reward is log(E' / E), E marked at the closes of two successive decisions, net of all costs. They are `interval`
   bars apart, one unless told otherwise.

2 and 3 are in `training.accounts`, with the fills' arithmetic and its invariants.

E below 20 % of the capital terminates an episode; `episode_steps` decisions truncate it. Either way the next
observation is that of a fresh account at the start that the caller gives, and the step also carries the observation
before that reset, for the bootstrap. The environment draws nothing by itself: starts come in as arguments.

K members (folds, seeds, trials) can share the environment: each has its own rows and `num_envs` accounts, member by
member. In groups of G, neighbouring environments walk the same bars for good, so that what depends on the bar alone can
be computed once per group: they truncate together, and one that is ruined alone begins again in cash where its group is.

Shape suffixes: B = K x num_envs accounts, N assets, S steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from cappuccino.core.errors import InvalidInput
from cappuccino.risk.barriers import Barriers
from cappuccino.risk.sizing import Sizing, capital_needed
from cappuccino.training.accounts import Accounts, Counters, is_open, pass_bar, rebalance
from cappuccino.training.market import Market
from cappuccino.training.observation import COUNTER_CAP, Observation

__all__ = ["EPISODE_STEPS", "RUIN", "Accounts", "Counters", "Step", "TradingEnv"]

EPISODE_STEPS = 256
RUIN = 0.20

Rows = tuple[int, int]
Advance = Callable[["Accounts", "Counters", Tensor, Tensor], tuple["Accounts", "Counters", "Step"]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """`observation` is where the next decision is made; `last` is what the finished step led to, before any reset."""

    observation: Observation
    last: Observation
    reward_B: Tensor
    terminated_B: Tensor
    truncated_B: Tensor


class TradingEnv:
    """Accounts of `capital_usd` in one market: for each member `num_envs` of them on its rows lo <= t < hi.

    The market has one scaling for all members, or one for each distinct range of rows, in the order of their first mention.
    New environments stand at their members' first bars: `reset` puts them where they shall begin.

    Raises:
        InvalidInput: too few rows, a market with another number of scalings, environments that do not divide into
            groups, a capital whose full action is below a venue minimum on any of the rows, or `compiled` on a machine
            that cannot.
    """

    def __init__(
        self,
        market: Market,
        *,
        rows: Rows | Sequence[Rows],
        num_envs: int,
        sizing: Sizing,
        barriers: Barriers,
        capital_usd: float,
        interval: int = 1,
        episode_steps: int = EPISODE_STEPS,
        group_size: int = 1,
        compiled: bool = False,
    ) -> None:
        members: list[Rows] = [rows] if isinstance(rows[0], int) else list(rows)  # type: ignore[list-item,arg-type]
        distinct = list(dict.fromkeys(members))
        for lo, hi in distinct:
            self._refuse_few_rows(market, lo, hi, interval)
        if market.scalings not in (1, len(distinct)):
            raise InvalidInput(
                f"the market has {market.scalings} scalings for {len(distinct)} distinct ranges of rows: "
                f"build it with one scaling, or with one for each range"
            )
        if num_envs % group_size:
            raise InvalidInput(f"{num_envs} environments do not divide into groups of {group_size}: change one of them")
        self.market, self.sizing, self.barriers = market, sizing, barriers
        self.capital_usd = float(capital_usd)
        self.num_envs, self.num_assets, self.num_members = num_envs, len(market.symbols), len(members)
        self.interval, self.group_size = interval, group_size
        lengths = [min(episode_steps, max(1, (hi - lo - 1) // interval)) for lo, hi in members]
        self.episode_steps = min(lengths)  # the shortest of any member
        # Half-open: every episode fits into its member's rows.
        self._starts = [(lo, hi - steps * interval) for (lo, hi), steps in zip(members, lengths, strict=True)]
        self._lengths = lengths
        self._length_B = self._per_account(lengths)
        block = len(market.ohlc_T4N) if market.scalings > 1 else 0
        self._feature_offset_B = self._per_account([block * distinct.index(member) for member in members])
        self._refuse_small_capital(distinct)
        self._fresh_A = torch.tensor((0.0, 0.0, 0.0, COUNTER_CAP), dtype=market.ohlc_T4N.dtype, device=self.device)
        self.reset(self._per_account([lo for lo, _ in members]))
        self.counters = self._zero_counters()
        self._step = self._compiled() if compiled else self._advance

    @staticmethod
    def _refuse_few_rows(market: Market, lo: int, hi: int, interval: int) -> None:
        total = len(market.ohlc_T4N)
        if not (interval >= 1 and market.lookback - 1 <= lo and lo + interval < hi <= total):
            raise InvalidInput(
                f"training rows {lo}..{hi} of {total} with lookback {market.lookback} and interval {interval}: "
                f"start at {market.lookback - 1} or later and take more than {interval} rows"
            )

    def _refuse_small_capital(self, ranges: Sequence[Rows]) -> None:
        for lo, hi in ranges:
            minimum_N = self.market.minimum(self.market.ohlc_T4N[lo:hi].amax((0, 1)))
            worst = int(minimum_N.argmax())
            minimum = float(minimum_N[worst])
            needed = capital_needed(minimum, self.sizing)
            if not self.capital_usd >= needed:
                raise InvalidInput(
                    f"capital_usd {self.capital_usd:g}: a full action of {self.sizing.max_weight:.0%} buys "
                    f"{self.sizing.max_weight * self.capital_usd:.2f} of {self.market.symbols[worst]}, whose venue minimum "
                    f"reaches {minimum:.2f}: it takes a capital of at least {np.ceil(needed * 100) / 100:.2f}"
                )

    @property
    def device(self) -> torch.device:
        return self.market.ohlc_T4N.device

    def _per_account(self, values: Sequence[int]) -> Tensor:
        """[B] from one value per member."""
        return torch.tensor(values, device=self.device).repeat_interleave(self.num_envs)

    def draw_starts(self, generator: torch.Generator, steps: int, member: int = 0) -> Tensor:
        """[steps, num_envs] random start bars in one member's rows, equal within a group."""
        return self._draw(generator, *self._starts[member], steps)

    def draw_ages(self, generator: torch.Generator, member: int = 0) -> Tensor:
        """[num_envs] random ages for `reset`, equal within a group, so that not all truncate on the same step."""
        return self._draw(generator, 0, self._lengths[member], 1)[0]

    def _draw(self, generator: torch.Generator, lo: int, hi: int, steps: int) -> Tensor:
        shape = (steps, self.num_envs // self.group_size)
        drawn = torch.randint(lo, hi, shape, generator=generator, device=generator.device)
        return drawn.repeat_interleave(self.group_size, -1).to(self.device)

    def reset(self, starts_B: Tensor, ages_B: Tensor | None = None) -> None:
        """Fresh accounts whose episodes began at these bars, `ages_B` steps ago (now, unless given)."""
        starts_B = starts_B.to(self.device)
        age_B = torch.zeros_like(starts_B) if ages_B is None else ages_B.to(self.device)
        dtype = self.market.ohlc_T4N.dtype
        cash_B = torch.full((len(starts_B),), self.capital_usd, dtype=dtype, device=self.device)

        def filled(value: float) -> Tensor:
            return torch.full((len(starts_B), self.num_assets), value, dtype=dtype, device=self.device)

        self.accounts = Accounts(
            t_B=starts_B + age_B * self.interval,
            age_B=age_B,
            cash_B=cash_B,
            equity_B=cash_B.clone(),
            holdings_BN=filled(0.0),
            entry_BN=filled(0.0),
            peak_BN=filled(0.0),
            bars_held_BN=filled(0.0),
            bars_since_stop_BN=filled(COUNTER_CAP),
        )

    def _zero_counters(self) -> Counters:
        shape, dtype = (self.num_members * self.num_envs,), self.market.ohlc_T4N.dtype
        return Counters(**{field.name: torch.zeros(shape, dtype=dtype, device=self.device) for field in fields(Counters)})

    def take_counters(self) -> Counters:
        """The counters so far; they start again from zero."""
        taken, self.counters = self.counters, self._zero_counters()
        return taken

    def observe(self) -> Observation:
        return self._observe(self.accounts)

    def _observe(self, accounts: Accounts) -> Observation:
        close_BN = self.market.close(accounts.t_B)
        weight_BN = accounts.holdings_BN * close_BN / accounts.equity_B[:, None]
        held_BN = accounts.entry_BN > 0
        entry_return_BN = torch.where(held_BN, close_BN / torch.where(held_BN, accounts.entry_BN, 1.0) - 1.0, 0.0)
        return Observation(
            t_B=accounts.t_B,
            row_B=accounts.t_B + self._feature_offset_B,
            account_BNA=torch.stack((weight_BN, entry_return_BN, accounts.bars_held_BN, accounts.bars_since_stop_BN), -1),
            cash_weight_B=accounts.cash_B / accounts.equity_B,
        )

    @torch.no_grad()
    def _compiled(self) -> Advance:
        """`_advance` as one compiled graph for these shapes, tried once with float32 actions."""
        from torch._dynamo.exc import BackendCompilerFailed  # seconds to import, so only where it is needed

        compiled: Advance = torch.compile(  # type: ignore[call-overload]  # its overloads lack isolate_recompiles
            self._advance, fullgraph=True, dynamic=False, isolate_recompiles=True
        )
        hold_BN = torch.zeros_like(self.accounts.holdings_BN, dtype=torch.float32)
        try:
            compiled(self.accounts, self.counters, hold_BN, self.accounts.t_B.clone())
        except BackendCompilerFailed as error:
            raise InvalidInput(
                f"the environment cannot be compiled on {self.device} ({str(error).splitlines()[0]}): "
                f"install a C++ compiler and Python's headers (g++, or name a compiler in CXX), or leave `compiled` off"
            ) from error
        return compiled

    @torch.no_grad()
    def step(self, action_BN: Tensor, starts_B: Tensor) -> Step:
        """One decision of every account; one whose episode ends begins again at `starts_B`.

        `action_BN`: in action units; what lies outside [-1, 1] is clipped. `starts_B`: equal within a group.
        """
        self.accounts, self.counters, step = self._step(self.accounts, self.counters, action_BN, starts_B)
        return step

    def _advance(
        self, before: Accounts, counters: Counters, action_BN: Tensor, starts_B: Tensor
    ) -> tuple[Accounts, Counters, Step]:
        accounts, counters = rebalance(self.market, self.sizing, before, counters, action_BN)
        terminated_B = torch.zeros_like(before.t_B, dtype=torch.bool)
        for _ in range(self.interval):
            accounts, counters = pass_bar(self.market, self.barriers, accounts, counters)
            terminated_B = terminated_B | (accounts.equity_B < RUIN * self.capital_usd)
        held_BN = is_open(self.market, accounts.holdings_BN)
        accounts = replace(
            accounts,
            age_B=accounts.age_B + 1,
            bars_held_BN=torch.where(held_BN, accounts.bars_held_BN + 1.0, 0.0),
            bars_since_stop_BN=(accounts.bars_since_stop_BN + 1.0).clamp(max=COUNTER_CAP),
        )
        full_B = accounts.age_B >= self._length_B
        ended_B = full_B | terminated_B
        moves_B = ended_B if self.group_size == 1 else full_B
        last = self._observe(accounts)
        reward_B = torch.log(accounts.equity_B / before.equity_B)
        accounts = accounts.renewed(
            ended_B,
            t_B=torch.where(moves_B, starts_B, accounts.t_B),
            age_B=torch.where(moves_B, 0, accounts.age_B),
            capital_usd=self.capital_usd,
        )
        observation = Observation(
            t_B=accounts.t_B,
            row_B=accounts.t_B + self._feature_offset_B,
            account_BNA=torch.where(ended_B[:, None, None], self._fresh_A, last.account_BNA),
            cash_weight_B=torch.where(ended_B, 1.0, last.cash_weight_B),
        )
        step = Step(
            observation=observation,
            last=last,
            reward_B=reward_B,
            terminated_B=terminated_B,
            truncated_B=full_B & ~terminated_B,
        )
        return accounts, counters, step
