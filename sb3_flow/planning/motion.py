"""Motion of robots that follow a plan."""

from __future__ import annotations

import torch as th

from sb3_flow.planning.basis import N_BOUNDARY, bernstein, make_basis
from sb3_flow.planning.problems import Problems


def motion(problems: Problems, y: th.Tensor, horizon: float, times: th.Tensor) -> th.Tensor:
    """
    Motion of robots that follow a plan. After its end they rest at their goals.

    :param problems: The problems of the plans
    :param y: Modal coordinates in meters, ``(B, N, D, m)``
    :param horizon: Duration of the plans in seconds
    :param times: Times in seconds from the start of the plans, ``(S,)``
    :return: Positions, velocities and accelerations, ``(3, B, N, D, S)``, float64
    """
    coefficients = make_basis(y.shape[-1] + N_BOUNDARY - 1, 64, horizon).coefficients(problems.boundary, y)
    u = (times.double() / horizon).clamp(0, 1).to(y.device)
    degree = coefficients.shape[-1] - 1
    return th.stack([coefficients @ bernstein(degree, u, order, horizon).T for order in range(3)])


def advance(problems: Problems, y: th.Tensor, horizon: float, time: float) -> Problems:
    """
    The remaining problems after plans were followed for some time.

    :param problems: The problems of the plans
    :param y: Modal coordinates in meters, ``(B, N, D, m)``
    :param horizon: Duration of the plans in seconds
    :param time: Time since the start of the plans, in seconds
    :return: Problems with new start, velocity and acceleration
    """
    position, velocity, acceleration = motion(problems, y, horizon, th.tensor([time]))[..., 0].to(problems.start.dtype)
    return problems._replace(start=position, velocity=velocity, acceleration=acceleration)
