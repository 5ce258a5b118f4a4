"""
MeanFlow: a network of average velocities, which samples in one step (Geng et al., 2025).

Time is reversed here, as in that paper: ``t = 0`` is data and ``t = 1`` is noise, ``x_t = (1 - t) x_0 + t eps``. The average
velocity over ``[r, t]`` satisfies ``u(x, r, t) = v(x, t) - (t - r) du/dt``, with the total derivative along the path.
"""

from collections.abc import Callable

import torch as th
from torch.nn import functional as F

#: A field of average velocities, conditioned on observations: ``(x, r, t) -> u``.
AverageVelocity = Callable[[th.Tensor, th.Tensor, th.Tensor], th.Tensor]


def mean_flow_loss(field: AverageVelocity, data: th.Tensor, noise: th.Tensor, r: th.Tensor, t: th.Tensor) -> th.Tensor:
    """
    The MeanFlow loss, ``|u(x_t, r, t) - sg(v - (t - r) du/dt)|^2`` with ``v = eps - x_0``, as a mean over dimensions.

    :param field: The field to train
    :param data: ``x_0``, ``(B, D)``
    :param noise: ``eps``, ``(B, D)``
    :param r: Start of the interval, ``(B, 1)``
    :param t: End of the interval, ``(B, 1)`` in [r, 1]
    :return: One loss per sample, ``(B,)``
    """
    velocity = noise - data
    x_t = th.lerp(data, noise, t)
    # Forward mode without a graph, because the derivative is part of the target.
    with th.no_grad():
        slope = th.func.jvp(field, (x_t, r, t), (velocity, th.zeros_like(r), th.ones_like(t)))[1]
        target = velocity - (t - r) * slope
    return F.mse_loss(field(x_t, r, t), target, reduction="none").mean(dim=1)


def mean_flow_step(field: AverageVelocity, noise: th.Tensor) -> th.Tensor:
    """
    From noise to data in one step, ``eps - u(eps, 0, 1)``.

    :param field: The field
    :param noise: ``(B, D)``
    :return: ``(B, D)``
    """
    zero = noise.new_zeros((noise.shape[0], 1))
    return noise - field(noise, zero, zero + 1)
