"""
The published network of streaming flow policies, without its unused parameters.

The published network is a U-Net with convolutions of length 5 over a sequence of one action. Only the center of each kernel
has an effect, which is a linear layer. The equivalent network here is an MLP with residual blocks, modulated by history and
time, with a third of the parameters.
"""

import math
from collections.abc import Sequence

import torch as th
from torch import nn

from sb3_flow.common.networks import mish, sinusoid

#: Length of the published kernels, which determines the scale of the initial weights.
KERNEL = 5


def center(n_in: int, n_out: int) -> nn.Linear:
    """The center of a kernel of length 5, initialized as PyTorch initializes the kernel: uniform in ``+-1 / sqrt(5 n_in)``."""
    layer = nn.Linear(n_in, n_out)
    bound = 1 / math.sqrt(KERNEL * n_in)
    nn.init.uniform_(layer.weight, -bound, bound)
    nn.init.uniform_(layer.bias, -bound, bound)
    return layer


class Block(nn.Module):
    """``linear -> group norm -> mish``. Eight groups; fewer if a group would have less than four values."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        groups = next(n for n in (8, 4, 2, 1) if n == 1 or (n_out % n == 0 and n_out >= 4 * n))
        self.linear, self.norm = center(n_in, n_out), nn.GroupNorm(groups, n_out)

    def forward(self, x: th.Tensor) -> th.Tensor:
        return mish(self.norm(self.linear(x)))


class ResidualBlock(nn.Module):
    """
    Two blocks with a skip connection; the condition scales and shifts the output of the first block.

    :param n_in: Size of the input
    :param n_out: Size of the output
    :param n_condition: Size of the condition
    """

    def __init__(self, n_in: int, n_out: int, n_condition: int) -> None:
        super().__init__()
        self.first, self.second = Block(n_in, n_out), Block(n_out, n_out)
        self.modulation = nn.Linear(n_condition, 2 * n_out)
        self.skip = nn.Identity() if n_in == n_out else nn.Linear(n_in, n_out)

    def forward(self, x: th.Tensor, condition: th.Tensor) -> th.Tensor:
        """
        :param x: ``(B, n_in)``
        :param condition: ``(B, n_condition)``, after its activation
        :return: ``(B, n_out)``
        """
        scale, shift = self.modulation(condition).chunk(2, dim=1)
        return self.second(scale * self.first(x) + shift) + self.skip(x)  # type: ignore[no-any-return]


class ModulatedMLP(nn.Module):
    """
    A velocity field with the interface of ``VelocityMLP``: a downward and an upward path with skip connections.

    :param n_features: Size of the history's features
    :param dim: Size of the points
    :param widths: Widths of the downward path; published: 256, 512, 1024
    :param encode_time_dim: Size of the embedding of the time, an even number of at least 4; published: 256
    :raises ValueError: If ``widths`` is empty or ``encode_time_dim`` is invalid.
    """

    def __init__(self, n_features: int, dim: int, widths: Sequence[int], encode_time_dim: int) -> None:
        super().__init__()
        if not widths:
            raise ValueError("`net_arch` is empty; give the width of at least one stage, such as [256, 512, 1024].")
        if encode_time_dim < 4 or encode_time_dim % 2:
            raise ValueError(f"`encode_time_dim` is {encode_time_dim}; it must be an even number of at least 4.")
        self.encode_time_dim = encode_time_dim
        self.time_in = nn.Linear(encode_time_dim, 4 * encode_time_dim)
        self.time_out = nn.Linear(4 * encode_time_dim, encode_time_dim)
        n_condition = encode_time_dim + n_features

        def stage(n_in: int, n_out: int) -> nn.ModuleList:
            return nn.ModuleList([ResidualBlock(n_in, n_out, n_condition), ResidualBlock(n_out, n_out, n_condition)])

        self.down = nn.ModuleList(stage(n_in, n_out) for n_in, n_out in zip([dim, *widths[:-1]], widths, strict=True))
        self.down_links = nn.ModuleList(nn.Linear(width, width) for width in widths[:-1])
        self.middle = stage(widths[-1], widths[-1])
        ups = list(zip(reversed(widths[1:]), reversed(widths[:-1]), strict=True))
        self.up = nn.ModuleList(stage(2 * n_in, n_out) for n_in, n_out in ups)
        self.up_links = nn.ModuleList(nn.Linear(n_out, n_out) for _, n_out in ups)
        self.last = Block(widths[0], widths[0])
        self.out = nn.Linear(widths[0], dim)

    def context(self, features: th.Tensor) -> th.Tensor:
        """The features themselves, because all layers depend on the time."""
        return features

    def forward(self, context: th.Tensor, points: th.Tensor, t: th.Tensor) -> th.Tensor:
        """
        :param context: The features, ``(B, n_features)``
        :param points: ``(B, dim)``
        :param t: ``(B, 1)``
        :return: Velocities, ``(B, dim)``
        """
        time = sinusoid(t, self.encode_time_dim, intervals=self.encode_time_dim // 2 - 1)
        time = self.time_out(mish(self.time_in(time)))
        condition = mish(th.cat([time, context], dim=1))
        x, skips = points, []
        for i, stage in enumerate(self.down):
            for block in stage:  # type: ignore[attr-defined]
                x = block(x, condition)
            skips.append(x)
            if i < len(self.down_links):
                x = self.down_links[i](x)
        for block in self.middle:
            x = block(x, condition)
        for stage, link in zip(self.up, self.up_links, strict=True):
            x = th.cat([x, skips.pop()], dim=1)
            for block in stage:  # type: ignore[attr-defined]
                x = block(x, condition)
            x = link(x)
        return self.out(self.last(x))  # type: ignore[no-any-return]
