"""
What plans are worth, by a judge of its own: float64, on a grid ten times finer than the solver's, point by point.

Whether a plan is safe is for the certificate to say, which knows what happens between the points. This here is for tables, for
rewards, and to catch a certificate that is wrong.
"""

from __future__ import annotations

from typing import NamedTuple

import torch as th

from sb3_flow.planning.motion import motion
from sb3_flow.planning.observations import solver_samples
from sb3_flow.planning.problems import Limits, Problems

#: How many times more intervals there are than the solver has.
FINER = 10
#: By how much a plan may exceed its limits of speed, acceleration and place and still succeed. Distances have no tolerance.
TOLERANCE = 0.01


class Measures(NamedTuple):
    """
    Measures of a batch of plans, each ``(B,)``, float64 but for ``success``.

    :param success: Whether the plan keeps to everything: distances, and limits with a tolerance of 1 %; bool
    :param min_pair_distance: Smallest distance between the centres of two robots, in metres; inf with one robot
    :param min_obstacle_distance: Smallest distance from the centre of a robot to the edge of an obstacle, in metres: below
        zero inside of it, inf without obstacles
    :param penetration: How deep a robot is in another one or in an obstacle at worst, in metres; 0 if it never is
    :param max_speed: Largest speed in m/s
    :param max_acceleration: Largest acceleration in m/s^2
    :param max_coordinate: Largest distance of a centre from the middle along an axis, in metres
    :param smoothness: Squared acceleration, as a mean over robots and time, in m^2/s^4
    :param length: Length of the ways, as a mean over robots, in metres
    """

    success: th.Tensor
    min_pair_distance: th.Tensor
    min_obstacle_distance: th.Tensor
    penetration: th.Tensor
    max_speed: th.Tensor
    max_acceleration: th.Tensor
    max_coordinate: th.Tensor
    smoothness: th.Tensor
    length: th.Tensor


def measure(problems: Problems, y: th.Tensor, limits: Limits) -> Measures:
    """
    Judge plans.

    :param problems: The problems
    :param y: Modal coordinates in metres, ``(B, N, D, m)``
    :param limits: What plans must keep to
    :return: Their measures, on the device of ``y``
    """
    problems = problems.to(y.device)
    samples = FINER * (solver_samples(limits) - 1) + 1
    times = th.linspace(0, limits.horizon, samples, dtype=th.float64)
    return judge(problems, motion(problems, y, limits.horizon, times), limits, limits.horizon)


def judge(problems: Problems, moves: th.Tensor, limits: Limits, duration: float, tolerance: float = TOLERANCE) -> Measures:
    """
    Judge trajectories that are given point by point.

    :param problems: The problems: their masks and obstacles
    :param moves: Positions, velocities and accelerations at equal distances in time, ``(3, B, N, D, S)``, float64
    :param limits: What they must keep to
    :param duration: Time from the first to the last point in seconds
    :param tolerance: Share by which limits of speed, acceleration and place may be exceeded
    :return: Measures
    """
    positions = moves[0]
    robots = problems.robot_mask
    pairs = _min_pair_distance(positions, robots)
    hurdles = _min_obstacle_distance(positions, problems)
    speed, acceleration = moves[1].norm(dim=2), moves[2].norm(dim=2)
    max_speed, max_acceleration = _max(speed, robots), _max(acceleration, robots)
    max_coordinate = _max(positions.abs().amax(dim=2), robots)
    penetration = th.maximum(2 * limits.radius - pairs, limits.radius - hurdles).clamp(min=0)
    more = 1 + tolerance
    success = (pairs >= 2 * limits.radius) & (hurdles >= limits.radius)  # false for what is not a number
    success &= (max_speed <= more * limits.v_max) & (max_acceleration <= more * limits.a_max)
    success &= max_coordinate <= more * limits.size
    length = positions.diff(dim=-1).norm(dim=2).sum(dim=-1)
    squares = th.trapezoid(acceleration**2, dx=duration / (moves.shape[-1] - 1)) / duration
    return Measures(
        success,
        pairs,
        hurdles,
        penetration,
        max_speed,
        max_acceleration,
        max_coordinate,
        _mean(squares, robots),
        _mean(length, robots),
    )


def winding_angles(positions: th.Tensor) -> th.Tensor:
    """
    By how much the line from one robot to another turns, seen from above. Plans in which these angles of a pair differ by
    more than pi pass on different sides.

    :param positions: ``(..., N, D, S)``
    :return: Angles in radians, counter-clockwise, ``(..., N, N)``; 0 on the diagonal
    """
    relative = (positions.unsqueeze(-3) - positions.unsqueeze(-4))[..., :2, :]
    before, after = relative[..., :-1], relative[..., 1:]
    cross = before[..., 0, :] * after[..., 1, :] - before[..., 1, :] * after[..., 0, :]
    return th.atan2(cross, (before * after).sum(dim=-2)).sum(dim=-1)


def different_sides(positions: th.Tensor, others: th.Tensor, robot_mask: th.Tensor) -> th.Tensor:
    """
    In how many pairs of robots two plans for one problem pass on different sides.

    :param positions: Of the first plan, ``(..., N, D, S)``
    :param others: Of the second plan, the same
    :param robot_mask: Which robots there are, ``(..., N)``
    :return: Number of pairs, ``(...)``
    """
    turned = (winding_angles(positions) - winding_angles(others)).abs() > th.pi
    return (turned & _pairs(robot_mask)).sum(dim=(-2, -1))


def mean_distance(positions: th.Tensor, others: th.Tensor, robot_mask: th.Tensor) -> th.Tensor:
    """
    How far two plans for one problem are apart, as a mean over robots and time.

    :param positions: Of the first plan, ``(..., N, D, S)``
    :param others: Of the second plan, the same
    :param robot_mask: Which robots there are, ``(..., N)``
    :return: Metres, ``(...)``
    """
    return _mean((positions - others).norm(dim=-2).mean(dim=-1), robot_mask)


def _pairs(robot_mask: th.Tensor) -> th.Tensor:
    """Every pair of robots once, ``(..., N, N)``."""
    return (robot_mask.unsqueeze(-1) & robot_mask.unsqueeze(-2)).triu(1)


def _min_pair_distance(positions: th.Tensor, robots: th.Tensor) -> th.Tensor:
    pairs = _pairs(robots)
    smallest = positions.new_full((len(positions),), th.inf)
    for i in range(positions.shape[1] - 1):  # one robot after the other, or it would not fit into memory
        distances = (positions[:, i + 1 :] - positions[:, i, None]).norm(dim=2).amin(dim=-1)
        smallest = th.minimum(smallest, distances.where(pairs[:, i, i + 1 :], th.inf).amin(dim=1))
    return smallest


def _min_obstacle_distance(positions: th.Tensor, problems: Problems) -> th.Tensor:
    smallest = positions.new_full((len(positions),), th.inf)
    obstacles = problems.obstacles.double()
    for i in range(obstacles.shape[1]):
        distances = (positions - obstacles[:, i, None, :-1, None]).norm(dim=2).amin(dim=-1) - obstacles[:, i, -1:]
        there = problems.robot_mask & problems.obstacle_mask[:, i, None]
        smallest = th.minimum(smallest, distances.where(there, th.inf).amin(dim=1))
    return smallest


def _max(values: th.Tensor, robots: th.Tensor) -> th.Tensor:
    """Largest value of a robot at a time; NaN stays."""
    return values.amax(dim=-1).where(robots, 0).amax(dim=1)


def _mean(values: th.Tensor, robots: th.Tensor) -> th.Tensor:
    return values.where(robots, 0).sum(dim=-1) / robots.sum(dim=-1)
