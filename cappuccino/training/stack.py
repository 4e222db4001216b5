"""K actor-critics of one shape as one batched model, for training.

All parameters of all members lie in one buffer [K, P], so that gradients are one tensor, clipped and stepped at once.
Every product is batched over members: what a member computes does not depend on who else is in the stack.

The first layer's product is split, since nine tenths of it depend on the bar alone: the part of the market window is
computed once for a group of G environments on one bar, the part of the account once for each environment.

Shape suffixes: K members, U groups (of one step or of a minibatch), G environments of a group, N assets, L lookback,
F features, A account values, D width of an environment's state, H hidden width. An environment is one row of a joint
network's input and N rows of a shared one's.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cappuccino.training.networks import ActorCritic
from cappuccino.training.observation import ACCOUNT

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
_ALIGNMENT = 16  # numbers: every member's parameters begin at a whole vector, whatever the place in the stack

Parts = tuple[Tensor, Tensor]  # the market's part of the first layer, of actor and critic


@dataclass(frozen=True, kw_only=True, eq=False)
class Layers:
    """A network of every member; weights are [K, inputs, outputs], biases [K, 1, outputs]."""

    market: Tensor
    state: Tensor
    bias: Tensor
    rest: list[tuple[Tensor, Tensor]]

    def market_part(self, window: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, window, self.market)

    def __call__(self, part_KUX: Tensor, state_KUGX: Tensor) -> Tensor:
        """[K, rows, outputs]; X is what the rows of one environment hold together."""
        K, U, G, _ = state_KUGX.shape
        rows = state_KUGX.reshape(K, -1, self.state.shape[1])
        x = torch.bmm(rows, self.state).view(K, U, G, -1)
        x = (x + part_KUX.view(K, U, 1, -1)).relu_().view(K, -1, self.state.shape[2])
        *hidden, (last, bias) = self.rest
        for weight, shift in hidden:
            x = torch.baddbmm(shift, x, weight).relu_()
        if last.shape[2] == 1:  # a product with one column is slow, and rounds otherwise in a stack than alone
            return (x * last.transpose(1, 2)).sum(-1, keepdim=True) + bias
        return torch.baddbmm(bias, x, last)


@dataclass(frozen=True, kw_only=True, eq=False)
class Networks:
    """The stack's parameters as weights, for one pass."""

    assets: int
    actor: Layers
    critic: Layers
    log_std: Tensor  # [K, 1, 1, N], or 1 for N

    def market(self, windows_KUNLF: Tensor) -> Parts:
        """The market's part of both first layers."""
        window = windows_KUNLF.reshape(len(self.log_std), -1, self.actor.market.shape[1])
        return self.actor.market_part(window), self.critic.market_part(window)

    def __call__(self, market: Parts, state_KUGD: Tensor) -> tuple[Tensor, Tensor]:
        """Mean [K, U, G, N] and value [K, U, G]."""
        places = state_KUGD.shape[:3]
        mean = self.actor(market[0], state_KUGD).view(*places, self.assets)
        value = self.critic(market[1], state_KUGD).view(*places, -1).sum(-1)
        return mean, value

    def log_prob(self, mean_KUGN: Tensor, action_KUGN: Tensor) -> Tensor:
        """[K, U, G] log density of the whole action."""
        z = (action_KUGN - mean_KUGN) * torch.exp(-self.log_std)
        return (-0.5 * z.square() - self.log_std - _HALF_LOG_2PI).sum(-1)

    def entropy(self) -> Tensor:
        """[K] of one decision over all assets; the same in every state."""
        return (self.log_std + 0.5 + _HALF_LOG_2PI).expand(-1, 1, 1, self.assets).sum((1, 2, 3))


class Stack:
    """The parameters of K networks. `parameters_KP` is the leaf to differentiate by."""

    def __init__(self, nets: Sequence[ActorCritic], *, device: torch.device | str = "cpu") -> None:
        self._template = nets[0]
        members = [[_piece(*place) for place in _places(net)] for net in nets]
        self._shapes = [piece.shape for piece in members[0]]
        flat_KP = torch.stack([torch.cat([piece.flatten() for piece in pieces]) for pieces in members])
        self._padding = -flat_KP.shape[1] % _ALIGNMENT
        self.parameters_KP = nn.functional.pad(flat_KP.detach(), (0, self._padding)).to(device).requires_grad_()

    def __len__(self) -> int:
        return len(self.parameters_KP)

    def networks(self) -> Networks:
        *weights, log_std = self._split(self.parameters_KP)
        half = len(weights) // 2
        actor, critic = (
            Layers(market=market, state=state, bias=bias, rest=list(zip(rest[::2], rest[1::2], strict=True)))
            for market, state, bias, *rest in (weights[:half], weights[half:])
        )
        return Networks(assets=self._template.assets, actor=actor, critic=critic, log_std=log_std.unsqueeze(1))

    def states(self, account_BNA: Tensor, cash_weight_B: Tensor) -> Tensor:
        """[B, D] what networks take beside the market window, from scaled float32 account values."""
        cash_weight_B1 = cash_weight_B.unsqueeze(-1)
        if self._template.network == "joint":
            return torch.cat((account_BNA.flatten(1), cash_weight_B1), -1)
        cash_weight_BN1 = cash_weight_B1.unsqueeze(1).expand(-1, self._template.assets, 1)
        return torch.cat((account_BNA, cash_weight_BN1), -1).flatten(1)

    def keep(self, places: Sequence[int]) -> None:
        """Only these members stay, in this order."""
        self.parameters_KP = self.parameters_KP.detach()[list(places)].requires_grad_()

    def member(self, place: int) -> ActorCritic:
        """One member's network, on the CPU."""
        net = copy.deepcopy(self._template)
        pieces = self._split(self.parameters_KP.detach()[place : place + 1].cpu())
        with torch.no_grad():
            for (parameter, columns), (piece,) in zip(_places(net), pieces, strict=True):
                parameter[..., columns] = piece.T if parameter.ndim == 2 else piece[0]
        return net

    def _split(self, flat_KP: Tensor) -> list[Tensor]:
        sizes = [shape.numel() for shape in self._shapes]
        *pieces, _ = torch.split(flat_KP, [*sizes, self._padding], 1)
        return [piece.view(-1, *shape) for piece, shape in zip(pieces, self._shapes, strict=True)]


Columns = slice | Tensor


def _places(net: ActorCritic) -> Iterator[tuple[Tensor, Columns]]:
    """The parameters of a network and their columns, in the buffer's order."""
    every = slice(None)
    for mlp in (net.actor, net.critic):
        first, *rest = (module for module in mlp if isinstance(module, nn.Linear))
        column = torch.arange(first.in_features)
        in_window = (column % (net.window + len(ACCOUNT)) < net.window) & (column < first.in_features - 1)
        yield first.weight, column[in_window]
        yield first.weight, column[~in_window]
        yield first.bias, every
        for layer in rest:
            yield layer.weight, every
            yield layer.bias, every
    yield net.log_std, every


def _piece(parameter: Tensor, columns: Columns) -> Tensor:
    """[inputs, outputs] of a weight, [1, outputs] of a bias."""
    return parameter[:, columns].T if parameter.ndim == 2 else parameter.unsqueeze(0)
