"""
The networks of FlowOpt: transformers over sets of robots and obstacles, with one output per robot.

Each robot is one token without positional encoding, so the networks take robots and obstacles in any order and number. Blocks
are those of the diffusion transformer (DiT; Peebles and Xie, 2023) with additional cross-attention to the obstacles.
"""

import math
from typing import NamedTuple

import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_flow.common.networks import gelu_tanh, linear

#: Size of the sinusoidal time embedding, and the factor that scales times in [0, 1] before.
TIME_FREQUENCIES, TIME_SCALE = 256, 1000.0


class Scene(NamedTuple):
    """
    Problems as input of the networks, scaled to the order of 1.

    :param robots: Boundary conditions of each robot, ``(B, N, 4 D)``
    :param robot_mask: False for padding, ``(B, N)``, bool
    :param obstacles: Center and radius of each obstacle, ``(B, M, D + 1)``
    :param obstacle_mask: False for padding, ``(B, M)``, bool
    """

    robots: th.Tensor
    robot_mask: th.Tensor
    obstacles: th.Tensor
    obstacle_mask: th.Tensor


class Context(NamedTuple):
    """
    Encoded scenes. They are constant during the integration of a flow.

    :param robots: Embedded robots, ``(B, N, width)``
    :param robot_mask: ``(B, N)``, bool
    :param map: Embedded obstacles after a learned token, ``(B, 1 + M, width)``
    :param map_mask: ``(B, 1 + M)``, bool
    :param pooled: Sum of pooled robots and pooled obstacles, ``(B, width)``
    """

    robots: th.Tensor
    robot_mask: th.Tensor
    map: th.Tensor
    map_mask: th.Tensor
    pooled: th.Tensor

    def repeat(self, k: int) -> "Context":
        """Repeat each scene ``k`` times; copies of a scene are adjacent."""
        return Context(*(part.repeat_interleave(k, dim=0) for part in self))


class Attention(nn.Module):
    """
    Masked multi-head attention.

    :param width: Size of a token
    :param heads: Number of attention heads; must divide ``width``
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"`width` is {width} and `attention_heads` is {heads}; heads must divide the width.")
        self.heads = heads
        self.query, self.key_value = linear(width, width), linear(width, 2 * width)
        self.out = linear(width, width)

    def forward(self, tokens: th.Tensor, others: th.Tensor, mask: th.Tensor) -> th.Tensor:
        """
        :param tokens: Queries, ``(B, N, width)``
        :param others: Keys and values, ``(B, L, width)``
        :param mask: False for padding of ``others``, ``(B, L)``, bool; at least one is True
        :return: ``(B, N, width)``
        """
        query = self.query(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(others).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
        return self.out(seen.transpose(1, 2).flatten(start_dim=2))  # type: ignore[no-any-return]


class Perceptron(nn.Module):
    """One hidden layer, with GELU."""

    def __init__(self, n_in: int, n_hidden: int, n_out: int) -> None:
        super().__init__()
        self.hidden, self.out = linear(n_in, n_hidden), linear(n_hidden, n_out)

    def forward(self, tokens: th.Tensor) -> th.Tensor:
        return self.out(gelu_tanh(self.hidden(tokens)))  # type: ignore[no-any-return]


class SetBlock(nn.Module):
    """Transformer block over a set with pre-layer norm: self-attention and perceptron, both residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention = Attention(width, heads)
        self.perceptron = Perceptron(width, 4 * width, width)

    def forward(self, tokens: th.Tensor, mask: th.Tensor) -> th.Tensor:
        normed = self.norms[0](tokens)
        tokens = tokens + self.attention(normed, normed, mask)
        return tokens + self.perceptron(self.norms[1](tokens))  # type: ignore[no-any-return]


class SceneEncoder(nn.Module):
    """
    Encoder of scenes: tokens for robots and obstacles, and one pooled vector.

    :param dimensions: ``D``
    :param width: Size of a token
    :param heads: Number of attention heads
    """

    def __init__(self, dimensions: int, width: int, heads: int) -> None:
        super().__init__()
        self.robot = Perceptron(4 * dimensions, width, width)
        self.obstacle = Perceptron(dimensions + 1, width, width)
        #: Learned token, so that attention to obstacles is defined without obstacles.
        self.empty = nn.Parameter(th.zeros(1, 1, width))
        self.blocks = nn.ModuleList(SetBlock(width, heads) for _ in range(2))
        self.pool_robots, self.pool_map = (linear(2 * width, width) for _ in range(2))

    def forward(self, scene: Scene) -> Context:
        """
        :param scene: The scenes
        :return: Encoded scenes
        """
        robots = self.robot(scene.robots)
        tokens = th.cat([self.empty.expand(len(robots), -1, -1), self.obstacle(scene.obstacles)], dim=1)
        mask = F.pad(scene.obstacle_mask, (1, 0), value=True)
        for block in self.blocks:
            tokens = block(tokens, mask)
        pooled = self.pool_robots(_pool(robots, scene.robot_mask)) + self.pool_map(_pool(tokens, mask))
        return Context(robots, scene.robot_mask, tokens, mask, pooled)


class Block(nn.Module):
    """
    DiT block: self-attention of robots, cross-attention to obstacles, and a perceptron. The condition shifts and scales the
    input of each part and gates its output. Gates are initialized to 0, so an untrained block is the identity.

    :param width: Size of a token
    :param heads: Number of attention heads
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention, self.cross_attention = Attention(width, heads), Attention(width, heads)
        self.perceptron = Perceptron(width, 4 * width, width)
        self.modulation = _zero(nn.Linear(width, 9 * width))

    def forward(self, tokens: th.Tensor, condition: th.Tensor, context: Context) -> th.Tensor:
        """
        :param tokens: ``(B, N, width)``
        :param condition: ``(B, 1, width)``
        :param context: Encoded scenes
        :return: ``(B, N, width)``
        """
        changes = self.modulation(F.silu(condition)).chunk(9, dim=-1)
        normed = _modulate(tokens, *changes[:2])
        tokens = tokens + changes[2] * self.attention(normed, normed, context.robot_mask)
        tokens = tokens + changes[5] * self.cross_attention(_modulate(tokens, *changes[3:5]), context.map, context.map_mask)
        return tokens + changes[8] * self.perceptron(_modulate(tokens, *changes[6:8]))  # type: ignore[no-any-return]


class TrajectoryTransformer(nn.Module):
    """
    Maps coordinates of trajectories, a time and scenes to one output per robot, for instance a velocity.

    :param dimensions: ``D``
    :param n_in: Input size per robot
    :param n_out: Output size per robot; the output of an untrained network is 0
    :param width: Size of a token
    :param depth: Number of blocks
    :param heads: Number of attention heads
    """

    def __init__(self, dimensions: int, n_in: int, n_out: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"`depth` is {depth}; it must be at least 1.")
        self.encoder = SceneEncoder(dimensions, width, heads)
        self.point = linear(n_in, width)
        self.time = nn.Sequential(nn.Linear(TIME_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        for layer in (self.time[0], self.time[2]):
            nn.init.normal_(layer.weight, std=0.02)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.modulation, self.head = _zero(nn.Linear(width, 2 * width)), _zero(nn.Linear(width, n_out))

    def context(self, scene: Scene) -> Context:
        """Encode scenes; the result serves for any number of times."""
        return self.encoder(scene)  # type: ignore[no-any-return]

    def forward(self, context: Context, points: th.Tensor, t: th.Tensor) -> th.Tensor:
        """
        :param context: As returned by ``context``
        :param points: ``(B, N, n_in)``
        :param t: Times in [0, 1], ``(B, 1)``
        :return: ``(B, N, n_out)``
        """
        tokens = self.point(points) + context.robots
        condition = (self.time(embed_time(t)) + context.pooled).unsqueeze(1)
        for block in self.blocks:
            tokens = block(tokens, condition, context)
        tokens = _modulate(tokens, *self.modulation(F.silu(condition)).chunk(2, dim=-1))
        return self.head(tokens)  # type: ignore[no-any-return]


def embed_time(t: th.Tensor) -> th.Tensor:
    """
    Sinusoidal embedding with geometrically decreasing frequencies.

    :param t: Times in [0, 1], ``(B, 1)``
    :return: ``(B, 256)``
    """
    half = TIME_FREQUENCIES // 2
    frequencies = th.exp(-math.log(10_000.0) * th.arange(half, device=t.device, dtype=t.dtype) / half)
    angles = TIME_SCALE * t * frequencies
    return th.cat([angles.cos(), angles.sin()], dim=1)


def _modulate(tokens: th.Tensor, shift: th.Tensor, scale: th.Tensor) -> th.Tensor:
    return F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6) * (1 + scale) + shift


def _pool(tokens: th.Tensor, mask: th.Tensor) -> th.Tensor:
    """Maximum and mean over the tokens that are not padding, ``(B, 2 width)``."""
    there = mask.unsqueeze(-1)
    largest = tokens.masked_fill(~there, -th.inf).amax(dim=1)
    mean = (tokens * there).sum(dim=1) / there.sum(dim=1)
    return th.cat([largest, mean], dim=1)


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
