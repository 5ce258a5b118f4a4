"""
The cascade: small residual blocks ``T_n(a; s) = a + f_n(s, a)``, each one step of a Wasserstein gradient flow.

A block changes the entropy of the action distribution by ``E[ln |det(I + df/da)|]``. ``log_det`` computes this logarithm:
exactly for few dimensions, by an estimate with one probe for many.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch as th
from torch import nn
from torch.nn import functional as F

#: Up to this number of dimensions the full Jacobian is computed.
EXACT_DIM = 12


class Chain(NamedTuple):
    """
    Actions before and after each block.

    :param starts: ``a_0, ..., a_{N-1}``, the inputs of the blocks, ``(N, B, D)``
    :param moved: Displacement by each block, ``(N, B, D)``
    :param actions: ``a_N``, the output of the last block, not clipped, ``(B, D)``
    """

    starts: th.Tensor
    moved: th.Tensor
    actions: th.Tensor


class Blocks(nn.Module):
    """
    ``N`` small networks ``f_n(s, a)`` with Mish, computed as one batched network. The last layers are initialized to zero, so
    that untrained blocks are the identity.

    :param n_blocks: ``N``
    :param n_features: Size of the features of ``s``
    :param dim: Size of the actions
    :param net_arch: Widths of the hidden layers, at least one
    """

    def __init__(self, n_blocks: int, n_features: int, dim: int, net_arch: Sequence[int]) -> None:
        super().__init__()
        if not net_arch:
            raise ValueError("`block_arch` is empty; give the width of at least one hidden layer, such as [256, 256].")
        self.n_features = n_features
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for n_from, n_to in pairwise([n_features + dim, *net_arch, dim]):
            weight = th.empty(n_blocks, n_from, n_to)
            for own in weight:
                nn.init.xavier_uniform_(own)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(th.zeros(n_blocks, 1, n_to)))
        self.make_identity()

    def make_identity(self) -> None:
        """Set the last layers to zero, so that each block is the identity."""
        for last in (self.weights[-1], self.biases[-1]):
            nn.init.zeros_(last)

    def context(self, features: th.Tensor) -> th.Tensor:
        """The part of the first layers that depends on features only: ``(B, n_features) -> (N, B, width)``."""
        return th.matmul(features, self.weights[0][:, : self.n_features]) + self.biases[0]  # type: ignore[no-any-return]

    def forward(self, context: th.Tensor, actions: th.Tensor, which: slice = slice(None)) -> th.Tensor:
        """
        Displacement by each block.

        :param context: As returned by ``context``, ``(N, B, width)``
        :param actions: Inputs of the blocks, ``(N, B, dim)``
        :param which: Which blocks to evaluate; ``context`` and ``actions`` are those of these blocks
        :return: ``f_n(s, a)``, ``(N, B, dim)``
        """
        hidden = F.mish(context + th.bmm(actions, self.weights[0][which, self.n_features :]))
        last = len(self.weights) - 1
        for i in range(1, last + 1):
            hidden = th.baddbmm(self.biases[i][which], hidden, self.weights[i][which])
            if i < last:
                hidden = F.mish(hidden)
        return hidden

    def derivative(self, context: th.Tensor, actions: th.Tensor, directions: th.Tensor) -> th.Tensor:
        """
        Directional derivatives of ``f_n`` with respect to the action, by the chain rule. They can be compiled and
        differentiated.

        :param context: As returned by ``context``, ``(N, B, width)``
        :param actions: Points at which to differentiate, ``(N, B, dim)``
        :param directions: Directions, ``(N, B, K, dim)``
        :return: ``J d`` for each direction ``d``, ``(N, B, K, dim)``
        """
        first = self.weights[0][:, self.n_features :]
        inputs, tangents = context + th.bmm(actions, first), along(directions, first)
        for i in range(1, len(self.weights)):
            tangents = along(mish_slope(inputs).unsqueeze(2) * tangents, self.weights[i])
            inputs = th.baddbmm(self.biases[i], F.mish(inputs), self.weights[i])
        return tangents

    def cascade(self, features: th.Tensor, actions: th.Tensor, added: Sequence[th.Tensor | float]) -> Chain:
        """
        Apply all blocks in sequence.

        :param features: ``(B, n_features)``
        :param actions: ``a_0``, ``(B, dim)``
        :param added: Noise that is added after each block, ``(B, dim)`` or 0
        :return: Actions before and after each block
        """
        context = self.context(features)
        starts, moved = [], []
        for n, noise in enumerate(added):
            which = slice(n, n + 1)
            starts.append(actions)
            moved.append(self(context[which], actions.unsqueeze(0), which)[0])
            actions = actions + moved[-1] + noise
        return Chain(th.stack(starts), th.stack(moved), actions)


def along(tangents: th.Tensor, weight: th.Tensor) -> th.Tensor:
    """``(N, B, K, n) x (N, n, m) -> (N, B, K, m)`` as ``N`` large products instead of ``N B`` small ones."""
    product: th.Tensor = th.bmm(tangents.flatten(1, 2), weight).view(*tangents.shape[:-1], -1)
    return product


def mish_slope(x: th.Tensor) -> th.Tensor:
    """The derivative of Mish."""
    gate = F.softplus(x).tanh()
    return gate + x * x.sigmoid() * (1 - gate.square())


def log_det(blocks: Blocks, context: th.Tensor, actions: th.Tensor, probe: th.Tensor) -> th.Tensor:
    """
    ``ln |det(I + df/da)|`` at each action: exact up to 12 dimensions; above, Hutchinson's estimate to second order,
    ``e J e - e J J e / 2``. (With the first-order estimate ``e J e``, blocks would contract too much.)

    :param blocks: The blocks
    :param context: As returned by ``blocks.context``, ``(N, B, width)``
    :param actions: Points at which to evaluate, ``(N, B, D)``
    :param probe: ``e``, random signs, ``(B, D)``
    :return: ``(N, B)``
    """
    dim = actions.shape[-1]
    if dim <= EXACT_DIM:
        identity = th.eye(dim, dtype=actions.dtype, device=actions.device)
        columns = blocks.derivative(context, actions, identity.expand(*actions.shape, dim))
        return th.linalg.slogdet(identity + columns).logabsdet  # type: ignore[no-any-return] # of the transpose: the same
    probe = probe.expand_as(actions).unsqueeze(2)
    once = blocks.derivative(context, actions, probe)
    twice = blocks.derivative(context, actions, once)
    estimate: th.Tensor = (probe * (once - 0.5 * twice)).sum(dim=(2, 3))
    return estimate
