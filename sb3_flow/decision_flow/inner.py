"""
The inner decision process: each of ``T`` Euler steps is a decision. Pure functions of tensors.

The state before step ``k`` is the intermediate action ``x_k``, at time ``t_k = k / T``; the decision is a velocity, and
``x_{k+1} = x_k + u / T``. States are not clipped.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch as th
from torch.nn import functional as F

from sb3_flow.common.flow import same_time
from sb3_flow.common.type_aliases import Velocity

#: Cost of a velocity per unit of time: ``(x, t, u) -> (B,)``.
Cost = Callable[[th.Tensor, th.Tensor, th.Tensor], th.Tensor]


class InnerRollout(NamedTuple):
    """
    Paths from selected states to the end of the inner process.

    :param x: ``x_k``, the selected state, ``(B, D)``
    :param next_x: ``x_{k+1}``, ``(B, D)``
    :param end: ``x_T``, not clipped, ``(B, D)``
    :param cost: Cost of step ``k``, ``(B,)``
    :param total_cost: Cost of the steps from ``k`` on, ``(B,)``
    """

    x: th.Tensor
    next_x: th.Tensor
    end: th.Tensor
    cost: th.Tensor
    total_cost: th.Tensor


def inner_rollout(
    velocity: Velocity, x: th.Tensor, start: th.Tensor, k: th.Tensor, n_steps: int, cost: Cost | None = None
) -> InnerRollout:
    """
    Integrate a velocity field from a different start step for each sample, in one loop with static shapes.

    A sample does not move before its ``start``. If ``start`` is ``k``, ``x`` is the selected state; if it is smaller, the
    selected state is that of the path at step ``k``.

    :param velocity: The field
    :param x: Initial points, ``(B, D)``
    :param start: Step at which a sample starts to move, in ``0 .. k``, ``(B, 1)`` of int64
    :param k: Step of the selected state, in ``0 .. n_steps - 1``, ``(B, 1)`` of int64
    :param n_steps: ``T``
    :param cost: Cost of velocities; None: no cost
    :return: The paths
    """
    step = 1 / n_steps
    at, following = x, x
    first = total = x.new_zeros(len(x))
    for j in range(n_steps):
        t = same_time(j / n_steps, x)
        u = velocity(x, t)
        here = k == j
        at = th.where(here, x, at)
        if cost is not None:
            paid = step * cost(x, t, u)
            first = th.where(here[:, 0], paid, first)
            total = th.where(k[:, 0] <= j, total + paid, total)
        x = th.where(start <= j, th.add(x, u, alpha=step), x)
        following = th.where(here, x, following)
    return InnerRollout(at, following, x, first, total)


def divergence(u: th.Tensor, v: th.Tensor) -> th.Tensor:
    """
    Kullback-Leibler divergence of two Gaussian steps with unit noise that have these velocities as means.

    :param u: ``(B, D)``
    :param v: ``(B, D)``
    :return: ``|u - v|^2 / 2``, a sum over dimensions, ``(B,)``
    """
    return 0.5 * (u - v).square().sum(dim=1)


def misdirection(u: th.Tensor, x: th.Tensor, action: th.Tensor) -> th.Tensor:
    """
    Deviation of a velocity from the direction to an action.

    :param u: ``(B, D)``
    :param x: Current point, ``(B, D)``
    :param action: ``(B, D)``
    :return: One minus the cosine of the angle, in [0, 2], ``(B,)``
    """
    return 1 - F.cosine_similarity(u, action - x, dim=1)
