"""Proximal policy optimisation (Schulman et al. 2017), read from top to bottom as CleanRL's: rollout, advantages, update.

Advantages are generalised advantage estimates (Schulman et al. 2016). A truncated episode is bootstrapped with the value
of the observation it ended on; a ruined one with zero; neither passes anything on to the episode after it. The rollout
keeps index-only observations: market windows are gathered again for each minibatch. Nothing is read back by the host
but one row of metrics per member and update (and one number per member and epoch if target_kl is set).

K members learn side by side in one environment, each with its own settings, rows and generator; an ordinary run is K = 1.
All that is random in an update is drawn before it, from each member's own generator, and no sum crosses members: with one
thread a member's curve is the same bit for bit alone, in any company and on every run. With more threads torch may
sum in another order.

Shape suffixes: K members, U groups of G environments that share their bars, B = K U G environments, S steps, N assets,
D width of an environment's state; V = S U groups of a whole rollout, M of a minibatch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cappuccino.core.errors import InvalidInput, UserError
from cappuccino.training.config import PPOConfig
from cappuccino.training.environment import Accounts, TradingEnv
from cappuccino.training.observation import Observation, scale_account
from cappuccino.training.stack import Networks, Stack

METRICS = (
    "reward",  # mean log growth from one decision to the next
    "policy_loss",
    "value_loss",
    "entropy",
    "approx_kl",
    "clipfrac",
    "explained_variance",
    "trades",  # closed, flat to flat, in this rollout
    "fills",
    "stops",
    "fees",  # quote currency
    "turnover",  # traded notional / equity a bar
    "exposure",  # mean invested share
)
Row = dict[str, float]


class Diverged(UserError):
    """A loss or a parameter is not finite: this run has no policy."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """All that is random in one update: noise [S, B, N], starts [S, B], orders [epochs, K, V]."""

    noise_SBN: Tensor
    starts_SB: Tensor
    orders_EKV: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Rollout:
    """[S, K, U, G, ...]; row is of the feature table and common to a group, states are scaled, rewards are scaled."""

    row_SKU: Tensor
    state: Tensor
    action: Tensor
    log_prob: Tensor
    value: Tensor
    next_value: Tensor
    reward: Tensor
    terminated: Tensor
    done: Tensor


def estimate_advantages(
    *,
    reward_SB: Tensor,
    value_SB: Tensor,
    next_value_SB: Tensor,
    terminated_SB: Tensor,
    done_SB: Tensor,
    gamma: float | Tensor,
    gae_lambda: float | Tensor,
) -> Tensor:
    """[S, B] generalised advantage estimates; B may be several axes, over which gamma and lambda broadcast.

    next_value_SB: value of the observation that each step led to, before any reset. `done` is terminated or truncated.
    """
    going_on_SB, survived_SB = ((~flag_SB).to(reward_SB.dtype) for flag_SB in (done_SB, terminated_SB))
    delta_SB = reward_SB + gamma * next_value_SB * survived_SB - value_SB
    decay_SB = gamma * gae_lambda * going_on_SB
    advantages = [delta_SB[-1]]
    for step in range(len(delta_SB) - 2, -1, -1):
        advantages.append(delta_SB[step] + decay_SB[step] * advantages[-1])
    return torch.stack(advantages[::-1])


def clipped_surrogate_loss(ratio: Tensor, advantage: Tensor, clip_coef: float | Tensor) -> Tensor:
    """The pessimistic bound, mean over the last axis: moving the ratio past 1 +- clip_coef in the advantage's favour
    gains nothing."""
    clipped = ratio.clamp(1.0 - clip_coef, 1.0 + clip_coef)  # type: ignore[arg-type]
    return -torch.min(ratio * advantage, clipped * advantage).mean(-1)


class PPO:
    """K learners of one shape in one environment. `update` counts finished updates.

    Raises:
        InvalidInput: an episode is shorter than a rollout.
    """

    def __init__(
        self, env: TradingEnv, stack: Stack, configs: Sequence[PPOConfig], *, generators: Sequence[torch.Generator]
    ) -> None:
        first = configs[0]
        if first.num_steps > env.episode_steps:
            raise InvalidInput(
                f"num_steps is {first.num_steps}, an episode has {env.episode_steps} decisions on these rows: "
                f"use fewer steps or give more training rows"
            )
        self.env, self.stack, self.configs, self.generators = env, stack, list(configs), list(generators)
        self.optimizer = self._adam()
        self.update = 0
        starts, ages = zip(
            *(
                (env.draw_starts(generator, 1, member)[0], env.draw_ages(generator, member))
                for member, generator in enumerate(generators)
            ),
            strict=True,
        )
        env.reset(torch.cat(starts), torch.cat(ages))

    @property
    def config(self) -> PPOConfig:
        """What the members have in common (`SHAPE`)."""
        return self.configs[0]

    @property
    def timesteps(self) -> int:
        """Of each member."""
        return self.update * self.config.batch_size

    def _adam(self) -> torch.optim.Adam:
        """One group per member, whose parameter is its row of the stack."""
        flat_KP = self.stack.parameters_KP.detach()
        return torch.optim.Adam([{"params": [flat_KP[member]]} for member in range(len(flat_KP))], eps=1e-5, fused=True)

    def _own(self, name: str) -> Tensor:
        """[K] a setting of each member."""
        values = [float(getattr(config, name)) for config in self.configs]
        return torch.tensor(values, device=self.env.device)

    def step(self) -> list[Row | Diverged]:
        """One rollout and its update; `METRICS` of each member, or what it died of."""
        config = self.config
        for group, own in zip(self.optimizer.param_groups, self.configs, strict=True):
            group["lr"] = own.learning_rate * (1.0 - self.update / config.num_updates if own.anneal_lr else 1.0)
        drawn = self._draw()
        rollout = self.rollout(drawn)
        losses_5K = self.learn(rollout, drawn.orders_EKV)
        self.update += 1
        count = self.env.take_counters()

        def total(counter_B: Tensor) -> Tensor:
            return counter_B.view(len(self.configs), -1).sum(1)

        bars_K = total(count.bars)
        columns = [
            _by_member(rollout.reward).mean(1) / self._own("reward_scale"),
            *losses_5K,
            total(count.trades),
            total(count.fills),
            total(count.stops),
            total(count.fees),
            total(count.turnover) / bars_K,
            total(count.exposure) / bars_K,
            self.stack.parameters_KP.detach().sum(1),
        ]
        rows = torch.stack([column.double() for column in columns], 1).tolist()
        return [self._result(values, own) for values, own in zip(rows, self.configs, strict=True)]

    def _result(self, values: list[float], config: PPOConfig) -> Row | Diverged:
        broken = [name for name, value in zip((*METRICS, "parameters"), values, strict=True) if not math.isfinite(value)]
        if broken:
            return Diverged(
                f"training diverged in update {self.update} of {config.num_updates}: {', '.join(broken)} not finite "
                f"with learning_rate {config.learning_rate:g}: lower learning_rate or max_grad_norm"
            )
        return dict(zip(METRICS, values, strict=False))

    def _draw(self) -> Drawn:
        config, env = self.config, self.env
        groups = config.batch_size // config.group_size
        noise, starts, orders = [], [], []
        for member, generator in enumerate(self.generators):
            shape = (config.num_steps, config.num_envs, env.num_assets)
            noise.append(torch.randn(shape, generator=generator, device=env.device))
            starts.append(env.draw_starts(generator, config.num_steps, member))
            permutations = [torch.randperm(groups, generator=generator, device=env.device) for _ in range(config.update_epochs)]
            orders.append(torch.stack(permutations))
        return Drawn(noise_SBN=torch.cat(noise, 1), starts_SB=torch.cat(starts, 1), orders_EKV=torch.stack(orders, 1))

    def _grouped(self, x_B: Tensor) -> Tensor:
        """[B, ...] -> [K, U, G, ...]"""
        return x_B.view(len(self.configs), -1, self.config.group_size, *x_B.shape[1:])

    def _seen(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """Row [K, U] and state [K, U, G, D] as the networks take them."""
        account_BNA = scale_account(observation.account_BNA.float())
        state_BD = self.stack.states(account_BNA, observation.cash_weight_B.float())
        return self._grouped(observation.row_B)[..., 0], self._grouped(state_BD)

    def _forward(self, networks: Networks, row_KU: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        windows = self.env.market.windows(row_KU.flatten())
        return networks(networks.market(windows), state)

    @torch.no_grad()
    def rollout(self, drawn: Drawn) -> Rollout:
        """`num_steps` steps of all environments under the present policies."""
        env, networks = self.env, self.stack.networks()
        std, reward_scale_K11 = torch.exp(networks.log_std), self._own("reward_scale")[:, None, None]
        observation = env.observe()
        # At most one truncation per environment fits into a rollout, so one slot each is enough.
        truncated_at = observation
        kept: list[tuple[Tensor, ...]] = []
        for noise_BN, starts_B in zip(drawn.noise_SBN, drawn.starts_SB, strict=True):
            row, state = self._seen(observation)
            mean, value = self._forward(networks, row, state)
            action = mean + std * self._grouped(noise_BN)
            step = env.step(action.flatten(0, 2), starts_B)
            terminated, truncated = self._grouped(step.terminated_B), self._grouped(step.truncated_B)
            reward = self._grouped(step.reward_B).float() * reward_scale_K11
            log_prob = networks.log_prob(mean, action)
            kept.append((row, state, action, log_prob, value, reward, terminated, truncated))
            truncated_at = _where(truncated.any(-1, keepdim=True).expand_as(truncated).flatten(), step.last, truncated_at)
            observation = step.observation
        rows, states, actions, log_probs, values, rewards, terminateds, truncateds = (
            torch.stack(column) for column in zip(*kept, strict=True)
        )
        _, following = self._forward(networks, *self._seen(observation))
        _, bootstrap = self._forward(networks, *self._seen(truncated_at))
        return Rollout(
            row_SKU=rows,
            state=states,
            action=actions,
            log_prob=log_probs,
            value=values,
            next_value=torch.where(truncateds, bootstrap, torch.cat((values[1:], following[None]))),
            reward=rewards,
            terminated=terminateds,
            done=terminateds | truncateds,
        )

    def learn(self, rollout: Rollout, orders_EKV: Tensor) -> Tensor:
        """Epochs of minibatches over one rollout; the losses' part of `METRICS` [6, K]."""
        config = self.config
        members = len(self.configs)
        advantage = estimate_advantages(
            reward_SB=rollout.reward,
            value_SB=rollout.value,
            next_value_SB=rollout.next_value,
            terminated_SB=rollout.terminated,
            done_SB=rollout.done,
            gamma=self._own("gamma")[:, None, None],
            gae_lambda=self._own("gae_lambda")[:, None, None],
        )
        target = advantage + rollout.value
        scalars = torch.stack((rollout.log_prob, advantage, target), -1)
        # A group at a step is one row, member by member: a minibatch is one gather of rows.
        transitions = torch.cat((rollout.state, rollout.action, scalars), -1).transpose(0, 1).flatten(0, 2)
        row = rollout.row_SKU.transpose(0, 1).flatten()
        widths = [rollout.state.shape[-1], rollout.action.shape[-1], 1, 1, 1]
        first_K1 = torch.arange(0, len(row), len(row) // members, device=row.device)[:, None]

        clip_coef, max_grad_norm = self._own("clip_coef")[:, None], self._own("max_grad_norm")[:, None]
        ent_coef, vf_coef = self._own("ent_coef"), self._own("vf_coef")
        norm_adv = self._own("norm_adv")[:, None] > 0
        learning = [True] * members
        losses_5K, epochs_K = torch.zeros(5, members, device=row.device), torch.zeros(members, device=row.device)
        for order_KV in orders_EKV:
            epoch: list[Tensor] = []
            for order_KM in order_KV.chunk(config.num_minibatches, 1):
                index = (order_KM + first_K1).flatten()
                batch = transitions[index].view(members, -1, *transitions.shape[1:])
                state, action, old_log_prob, advantage_M, target_M = torch.split(batch, widths, -1)
                networks = self.stack.networks()
                mean, value = self._forward(networks, row[index].view(members, -1), state)
                log_ratio = (networks.log_prob(mean, action) - old_log_prob.squeeze(-1)).flatten(1)
                ratio, advantage_KM, target_KM = log_ratio.exp(), advantage_M.flatten(1), target_M.flatten(1)
                deviation = advantage_KM.std(1, correction=0, keepdim=True)
                normalised = (advantage_KM - advantage_KM.mean(1, keepdim=True)) / (deviation + 1e-8)
                advantage_KM = torch.where(norm_adv, normalised, advantage_KM)

                policy_loss = clipped_surrogate_loss(ratio, advantage_KM, clip_coef)
                value_loss = 0.5 * (value.flatten(1) - target_KM).square().mean(1)
                entropy = networks.entropy()
                loss = policy_loss - ent_coef * entropy + vf_coef * value_loss

                (gradient_KP,) = torch.autograd.grad(loss.sum(), self.stack.parameters_KP)
                norm = torch.linalg.vector_norm(gradient_KP, dim=1, keepdim=True)
                gradient_KP *= (max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
                self._descend(gradient_KP, learning)

                with torch.no_grad():
                    approx_kl = ((ratio - 1.0) - log_ratio).mean(1)
                    clipfrac = ((ratio - 1.0).abs() > clip_coef).float().mean(1)
                    epoch.append(torch.stack((policy_loss, value_loss, entropy, approx_kl, clipfrac)))
            epoch_5K, active_K = torch.stack(epoch).mean(0), torch.tensor(learning, device=row.device)
            losses_5K = losses_5K + torch.where(active_K, epoch_5K, 0.0)
            epochs_K = epochs_K + active_K
            if any(own.target_kl is not None for own in self.configs):
                kl = epoch_5K[3].tolist()
                learning = [
                    goes_on and not (own.target_kl is not None and kl[member] > own.target_kl)
                    for member, (goes_on, own) in enumerate(zip(learning, self.configs, strict=True))
                ]
                if not any(learning):
                    break
        explained_K = 1.0 - _by_member(advantage).var(1) / (_by_member(target).var(1) + 1e-12)
        return torch.cat((losses_5K / epochs_K, explained_K[None]))

    def _descend(self, gradient_KP: Tensor, learning: Sequence[bool]) -> None:
        """One step of Adam for the members that still learn from this rollout."""
        for group, gradient_P, goes_on in zip(self.optimizer.param_groups, gradient_KP, learning, strict=True):
            group["params"][0].grad = gradient_P if goes_on else None
        self.optimizer.step()

    def keep(self, members: Sequence[int], env: TradingEnv) -> None:
        """Only these go on, in this order, in an environment of as many members; call it between two updates."""
        place = torch.arange(len(self.configs) * self.config.num_envs, device=self.env.device)
        kept_B = place.view(len(self.configs), -1)[list(members)].flatten()
        env.accounts = Accounts(**{name: value[kept_B] for name, value in self.env.accounts.tensors().items()})
        states = [self.optimizer.state[group["params"][0]] for group in self.optimizer.param_groups]
        self.env = env
        self.configs = [self.configs[member] for member in members]
        self.generators = [self.generators[member] for member in members]
        self.stack.keep(members)
        self.optimizer = self._adam()
        for group, member in zip(self.optimizer.param_groups, members, strict=True):
            self.optimizer.state[group["params"][0]] = states[member]


def _by_member(x_SKUG: Tensor) -> Tensor:
    """[K, S U G]: a sum over it does not depend on the other members."""
    return x_SKUG.transpose(0, 1).flatten(1)


def _where(mask_B: Tensor, new: Observation, old: Observation) -> Observation:
    return replace(
        old,
        row_B=torch.where(mask_B, new.row_B, old.row_B),
        account_BNA=torch.where(mask_B[:, None, None], new.account_BNA, old.account_BNA),
        cash_weight_B=torch.where(mask_B, new.cash_weight_B, old.cash_weight_B),
    )
