"""Warm start: the rest of a partly executed plan, as a proposal for the remaining problem."""

from __future__ import annotations

import functools

import numpy as np
import torch as th

from sb3_flow.planning.basis import N_BOUNDARY, bernstein, make_basis
from sb3_flow.planning.problems import Problems

#: Number of Gauss-Legendre points, exact for products of polynomials up to degree 63.
QUADRATURE = 32


def warm_start(problems: Problems, y: th.Tensor, horizon: float, time: float) -> th.Tensor:
    """
    Remaining plans, followed by standing at the goal, as plans for the problems that ``advance`` returns.

    The remaining plan and the standing phase together are not a polynomial. This is the closest polynomial, in mean square
    position, that meets the boundary conditions. It is a proposal and may be unsafe even if the plan was safe.

    :param problems: The problems of the plans
    :param y: Modal coordinates in meters, ``(B, N, D, m)``
    :param horizon: Duration of the plans in seconds
    :param time: Time since the start of the plans, in seconds, from 0 to ``horizon``
    :return: Modal coordinates, of the shape and type of ``y``
    """
    coordinates = th.cat([problems.boundary.double(), y.double()], dim=-1)
    return (coordinates @ _shift(y.shape[-1], horizon, time).to(y.device)).to(y.dtype)


@functools.lru_cache(maxsize=16)
@th.inference_mode(False)  # also usable in training
def _shift(n_modes: int, horizon: float, time: float) -> th.Tensor:
    """Maps boundary conditions and modal coordinates to modal coordinates of the shifted plan, ``(6 + m, m)``."""
    degree = n_modes + N_BOUNDARY - 1
    basis = make_basis(degree, 64, horizon)
    nodes, weights = (th.from_numpy(array) for array in np.polynomial.legendre.leggauss(QUADRATURE))
    joint = 1 - time / horizon  # end of the plan, as a fraction of the horizon
    u = th.cat([joint * (nodes + 1) / 2, joint + (1 - joint) * (nodes + 1) / 2])
    weights = th.cat([joint * weights / 2, (1 - joint) * weights / 2])
    coordinates = th.cat([basis.line, basis.modes], dim=1)  # (n + 1, 6 + m)

    def values(shares: th.Tensor, order: int = 0) -> th.Tensor:
        return bernstein(degree, shares.clamp(0, 1), order, horizon) @ coordinates

    now = th.tensor([time / horizon], dtype=th.float64)
    state = th.cat([values(now, order) for order in range(3)])
    end = th.eye(N_BOUNDARY + n_modes, dtype=th.float64)[3:N_BOUNDARY]
    line = bernstein(degree, u, 0, horizon) @ basis.line @ th.cat([state, end])
    modes = bernstein(degree, u, 0, horizon) @ basis.modes
    return ((modes * weights.unsqueeze(1)).T @ (values(u + time / horizon) - line)).T.contiguous()
