"""The reversal of a flow: from a finished action back to what it may have been made of."""

import torch as th

from sb3_flow.common.type_aliases import Velocity


def reverse(velocity: Velocity, x: th.Tensor, d: th.Tensor, n_steps: int) -> tuple[th.Tensor, th.Tensor]:
    """
    Follow a flow back from time 1 to time ``1 - d``, by Euler's method.

    The field is evaluated where each step begins, so that these are not the steps of ``euler`` taken back: both follow the
    same curve up to errors of the order of a step.

    :param velocity: The field, ``(x, f) -> u``
    :param x: Where it ends at time 1, ``(B, D)``
    :param d: How far to go back, in [0, 1], ``(B, 1)``
    :param n_steps: Number of steps, at least 1, of size ``d / n_steps`` each
    :return: The points ``(B, D)``, and the times ``(B, 1)`` they belong to
    """
    step, f = d / n_steps, th.ones_like(d)
    for _ in range(n_steps):
        x = x - step * velocity(x, f)
        f = f - step
    return x, f
