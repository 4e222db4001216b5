"""Proximal policy optimisation (Schulman et al. 2017), read from top to bottom as CleanRL's: rollout, advantages, update.

Advantages are generalised advantage estimates (Schulman et al. 2016). A truncated episode is bootstrapped with the value
of the observation it ended on; a ruined one with zero; neither passes anything on to the episode after it. The rollout
keeps index-only observations: market windows are gathered again for each minibatch. Nothing is read back by the host
but one row of metrics per update (and one number per epoch if target_kl is set).

Randomness comes from one generator; with the same seed, thread count and build of torch the curve is the same bit for bit.
Shape suffixes: S steps, B environments, N assets, A account values; M a minibatch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cappuccino.core.errors import InvalidInput, UserError
from cappuccino.training.config import PPOConfig
from cappuccino.training.environment import TradingEnv
from cappuccino.training.networks import ActorCritic
from cappuccino.training.observation import Observation, scale_account

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


class Diverged(UserError):
    """A loss or a parameter is not finite: this run has no policy."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rollout:
    """[S, B, ...]; account and cash weight are scaled float32, rewards are scaled."""

    t_SB: Tensor
    account_SBNA: Tensor
    cash_weight_SB1: Tensor
    action_SBN: Tensor
    log_prob_SB: Tensor
    value_SB: Tensor
    next_value_SB: Tensor
    reward_SB: Tensor
    terminated_SB: Tensor
    done_SB: Tensor


def estimate_advantages(
    *,
    reward_SB: Tensor,
    value_SB: Tensor,
    next_value_SB: Tensor,
    terminated_SB: Tensor,
    done_SB: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """[S, B] generalised advantage estimates.

    next_value_SB: value of the observation that each step led to, before any reset. `done` is terminated or truncated.
    """
    going_on_SB, survived_SB = ((~flag_SB).to(reward_SB.dtype) for flag_SB in (done_SB, terminated_SB))
    delta_SB = reward_SB + gamma * next_value_SB * survived_SB - value_SB
    decay_SB = gamma * gae_lambda * going_on_SB
    advantages = [delta_SB[-1]]
    for step in range(len(delta_SB) - 2, -1, -1):
        advantages.append(delta_SB[step] + decay_SB[step] * advantages[-1])
    return torch.stack(advantages[::-1])


def clipped_surrogate_loss(ratio_M: Tensor, advantage_M: Tensor, clip_coef: float) -> Tensor:
    """The pessimistic bound: moving the ratio past 1 +- clip_coef in the advantage's favour gains nothing."""
    clipped_M = ratio_M.clamp(1.0 - clip_coef, 1.0 + clip_coef)
    return -torch.min(ratio_M * advantage_M, clipped_M * advantage_M).mean()


class PPO:
    """One learner in one environment. `update` counts finished updates."""

    def __init__(self, env: TradingEnv, net: ActorCritic, config: PPOConfig, *, generator: torch.Generator) -> None:
        if config.num_steps > env.episode_steps:
            raise InvalidInput(
                f"num_steps is {config.num_steps}, an episode has {env.episode_steps} decisions on these rows: "
                f"use fewer steps or give more training rows"
            )
        self.env, self.net, self.config, self.generator = env, net, config, generator
        self.optimizer = torch.optim.Adam(net.parameters(), lr=config.learning_rate, eps=1e-5, fused=True)
        self.update = 0

    @property
    def timesteps(self) -> int:
        return self.update * self.config.batch_size

    def step(self) -> dict[str, float]:
        """One rollout and its update; returns `METRICS`.

        Raises:
            Diverged: a loss or a parameter is not finite.
        """
        if self.config.anneal_lr:
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * (1.0 - self.update / self.config.num_updates)
        rollout = self.rollout()
        losses = self.learn(rollout)
        self.update += 1
        count = self.env.take_counters()
        bars = count.bars.sum()
        parameters_finite = torch.stack([parameter.detach().sum() for parameter in self.net.parameters()]).sum()
        row = torch.stack(
            [
                rollout.reward_SB.mean() / self.config.reward_scale,
                *losses,
                count.trades.sum(),
                count.fills.sum(),
                count.stops.sum(),
                count.fees.sum(),
                count.turnover.sum() / bars,
                count.exposure.sum() / bars,
                parameters_finite,
            ]
        )
        values = [float(value) for value in row.double().tolist()]
        if not torch.isfinite(row).all():
            broken = [name for name, value in zip((*METRICS, "parameters"), values, strict=True) if value - value != 0]
            raise Diverged(
                f"training diverged in update {self.update} of {self.config.num_updates}: {', '.join(broken)} not finite "
                f"with learning_rate {self.config.learning_rate:g}: lower learning_rate or max_grad_norm"
            )
        return dict(zip(METRICS, values, strict=False))

    def _encode(self, t: Tensor, account: Tensor, cash_weight: Tensor) -> Tensor:
        return self.net.encode(self.env.market.windows(t), account, cash_weight)

    @torch.no_grad()
    def rollout(self) -> Rollout:
        """`num_steps` steps of all environments under the present policy."""
        env, net = self.env, self.net
        observation = env.observe()
        account_BNA, cash_weight_B1 = _scaled(observation)
        std = torch.exp(net.log_std)
        # At most one truncation per environment fits into a rollout, so one slot each is enough.
        truncated_at: tuple[Tensor, ...] = (observation.t_B, account_BNA, cash_weight_B1)
        kept: list[tuple[Tensor, ...]] = []
        truncations = []
        for _ in range(self.config.num_steps):
            x = self._encode(observation.t_B, account_BNA, cash_weight_B1)
            mean_BN = net.mean(x)
            noise_BN = torch.randn(mean_BN.shape, generator=self.generator, device=mean_BN.device)
            action_BN = mean_BN + std * noise_BN
            step = env.step(action_BN)
            kept.append(
                (
                    observation.t_B,
                    account_BNA,
                    cash_weight_B1,
                    action_BN,
                    net.log_prob(mean_BN, action_BN),
                    net.value(x),
                    step.reward_B.float() * self.config.reward_scale,
                    step.terminated_B,
                    step.terminated_B | step.truncated_B,
                )
            )
            truncations.append(step.truncated_B)
            ended = (step.last.t_B, *_scaled(step.last))
            truncated_at = _where(step.truncated_B, ended, truncated_at)
            observation = step.observation
            account_BNA, cash_weight_B1 = _scaled(observation)
        t, account, cash_weight, action, log_prob, value, reward, terminated, done = (
            torch.stack(column) for column in zip(*kept, strict=True)
        )
        following_B = net.value(self._encode(observation.t_B, account_BNA, cash_weight_B1))
        bootstrap_B = net.value(self._encode(*truncated_at))
        next_value = torch.where(torch.stack(truncations), bootstrap_B, torch.cat((value[1:], following_B[None])))
        return Rollout(
            t_SB=t,
            account_SBNA=account,
            cash_weight_SB1=cash_weight,
            action_SBN=action,
            log_prob_SB=log_prob,
            value_SB=value,
            next_value_SB=next_value,
            reward_SB=reward,
            terminated_SB=terminated,
            done_SB=done,
        )

    def learn(self, rollout: Rollout) -> list[Tensor]:
        """Epochs of minibatches over one rollout; returns the losses' part of `METRICS`."""
        config, net = self.config, self.net
        advantage_SB = estimate_advantages(
            reward_SB=rollout.reward_SB,
            value_SB=rollout.value_SB,
            next_value_SB=rollout.next_value_SB,
            terminated_SB=rollout.terminated_SB,
            done_SB=rollout.done_SB,
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
        )
        return_SB = advantage_SB + rollout.value_SB
        t, account, cash_weight, action, old_log_prob, advantage, target = (
            tensor.flatten(0, 1)
            for tensor in (
                rollout.t_SB,
                rollout.account_SBNA,
                rollout.cash_weight_SB1,
                rollout.action_SBN,
                rollout.log_prob_SB,
                advantage_SB,
                return_SB,
            )
        )
        seen: list[Tensor] = []
        for _ in range(config.update_epochs):
            order = torch.randperm(config.batch_size, generator=self.generator, device=t.device)
            epoch: list[Tensor] = []
            for index_M in order.chunk(config.num_minibatches):
                x = self._encode(t[index_M], account[index_M], cash_weight[index_M])
                log_ratio_M = net.log_prob(net.mean(x), action[index_M]) - old_log_prob[index_M]
                ratio_M = log_ratio_M.exp()
                advantage_M = advantage[index_M]
                if config.norm_adv:
                    advantage_M = (advantage_M - advantage_M.mean()) / (advantage_M.std(correction=0) + 1e-8)

                policy_loss = clipped_surrogate_loss(ratio_M, advantage_M, config.clip_coef)
                value_loss = 0.5 * (net.value(x) - target[index_M]).square().mean()
                entropy = net.entropy()
                loss = policy_loss - config.ent_coef * entropy + config.vf_coef * value_loss

                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(net.parameters(), config.max_grad_norm)
                self.optimizer.step()

                with torch.no_grad():
                    approx_kl = ((ratio_M - 1.0) - log_ratio_M).mean()
                    clipfrac = ((ratio_M - 1.0).abs() > config.clip_coef).float().mean()
                    epoch.append(torch.stack((policy_loss, value_loss, entropy, approx_kl, clipfrac)).detach())
            seen += epoch
            if config.target_kl is not None and float(torch.stack(epoch)[:, 3].mean()) > config.target_kl:
                break
        explained = 1.0 - advantage_SB.var() / (return_SB.var() + 1e-12)
        return [*torch.stack(seen).mean(0).unbind(), explained]


def _scaled(observation: Observation) -> tuple[Tensor, Tensor]:
    """Account [B, N, A] and cash weight [B, 1] as networks take them."""
    return scale_account(observation.account_BNA.float()), observation.cash_weight_B.float().unsqueeze(-1)


def _where(mask_B: Tensor, new: tuple[Tensor, ...], old: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.where(mask_B.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(new, old, strict=True))
