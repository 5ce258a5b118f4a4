"""Integration of a flow backward in time."""

import torch as th

from sb3_flow.common.type_aliases import Velocity


def reverse(velocity: Velocity, x: th.Tensor, d: th.Tensor, n_steps: int) -> tuple[th.Tensor, th.Tensor]:
    """
    Integrate a flow backward from time 1 to time ``1 - d`` with Euler's method.

    The field is evaluated at the start of each backward step. The steps are therefore not the inverse of the steps of
    ``euler``; both approximate the same curve with errors of the order of the step size.

    :param velocity: The field, ``(x, f) -> u``
    :param x: Points at time 1, ``(B, D)``
    :param d: Length of the time interval, in [0, 1], ``(B, 1)``
    :param n_steps: Number of steps, at least 1, of size ``d / n_steps`` each
    :return: The points ``(B, D)`` and their times ``(B, 1)``
    """
    step, f = d / n_steps, th.ones_like(d)
    for _ in range(n_steps):
        x = x - step * velocity(x, f)
        f = f - step
    return x, f
