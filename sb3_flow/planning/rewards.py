"""The reward of a plan."""

from __future__ import annotations

import torch as th

from sb3_flow.planning.basis import make_basis
from sb3_flow.planning.measures import Measures
from sb3_flow.planning.observations import SAMPLES
from sb3_flow.planning.problems import Limits, Problems

#: Weights of the smoothness, in s^4/m^2, and of collisions, in 1/m.
SMOOTHNESS, PENETRATION = 0.05, 1.0


def rewards(problems: Problems, y: th.Tensor, measures: Measures, limits: Limits) -> th.Tensor:
    """
    1 for success, minus 0.05 times the mean square acceleration (over robots and time) in excess of the straight line, minus
    the depth of the deepest collision.

    :param problems: The problems
    :param y: The plans in meters, ``(B, N, D, m)``
    :param measures: Their measures
    :param limits: The limits
    :return: ``(B,)``, float64
    """
    stiffness = make_basis(y.shape[-1] + 5, SAMPLES, limits.horizon).stiffness.to(y.device)
    bending = (y.double() ** 2 @ stiffness).sum(dim=2).where(problems.robot_mask, 0).sum(dim=1) / problems.robot_mask.sum(
        dim=1
    )
    return measures.success.double() - SMOOTHNESS * bending - PENETRATION * measures.penetration
