"""
Measures of plans in float64, independent of solver and certificate, on a grid of times ten times finer than the solver's.

The certificate decides whether a plan is safe, because it covers the times between samples. These measures are for tables,
rewards, and for testing the certificate.
"""

from __future__ import annotations

from typing import NamedTuple

import torch as th

from sb3_flow.planning.motion import motion
from sb3_flow.planning.observations import solver_samples
from sb3_flow.planning.problems import Limits, Problems

#: Number of intervals for each interval of the solver.
FINER = 10
#: Relative tolerance of the limits of speed, acceleration and workspace. Distances have no tolerance.
TOLERANCE = 0.01


class Measures(NamedTuple):
    """
    Measures of a batch of plans, each ``(B,)``, float64 except ``success``.

    :param success: Whether the plan satisfies all constraints: distances, and limits with a tolerance of 1 %; bool
    :param min_pair_distance: Smallest distance between the centers of two robots, in meters; inf with one robot
    :param min_obstacle_distance: Smallest distance from the center of a robot to the edge of an obstacle, in meters: negative
        inside the obstacle, inf without obstacles
    :param penetration: Largest depth of a collision, in meters; 0 without collisions
    :param max_speed: Largest speed in m/s
    :param max_acceleration: Largest acceleration in m/s^2
    :param max_coordinate: Largest absolute coordinate of a center, in meters
    :param smoothness: Mean square acceleration over robots and time, in m^2/s^4
    :param length: Mean length of the robots' paths, in meters
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
    Measure plans.

    :param problems: The problems
    :param y: Modal coordinates in meters, ``(B, N, D, m)``
    :param limits: Limits of the plans
    :return: Their measures, on the device of ``y``
    """
    problems = problems.to(y.device)
    samples = FINER * (solver_samples(limits) - 1) + 1
    times = th.linspace(0, limits.horizon, samples, dtype=th.float64)
    return judge(problems, motion(problems, y, limits.horizon, times), limits, limits.horizon)


def judge(problems: Problems, moves: th.Tensor, limits: Limits, duration: float, tolerance: float = TOLERANCE) -> Measures:
    """
    Measure sampled trajectories.

    :param problems: The problems; only masks and obstacles are used
    :param moves: Positions, velocities and accelerations at equidistant times, ``(3, B, N, D, S)``, float64
    :param limits: Limits of the trajectories
    :param duration: Time from the first to the last sample in seconds
    :param tolerance: Relative tolerance of the limits of speed, acceleration and workspace
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
    success = (pairs >= 2 * limits.radius) & (hurdles >= limits.radius)  # False for NaN
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
    Total rotation of the line from one robot to another, seen from above. In two plans whose angles for a pair differ by more
    than pi, the two robots pass on different sides.

    :param positions: ``(..., N, D, S)``
    :return: Angles in radians, counter-clockwise, ``(..., N, N)``; 0 on the diagonal
    """
    relative = (positions.unsqueeze(-3) - positions.unsqueeze(-4))[..., :2, :]
    before, after = relative[..., :-1], relative[..., 1:]
    cross = before[..., 0, :] * after[..., 1, :] - before[..., 1, :] * after[..., 0, :]
    return th.atan2(cross, (before * after).sum(dim=-2)).sum(dim=-1)


def different_sides(positions: th.Tensor, others: th.Tensor, robot_mask: th.Tensor) -> th.Tensor:
    """
    Number of pairs of robots that pass on different sides in two plans for one problem.

    :param positions: Positions of the first plan, ``(..., N, D, S)``
    :param others: Positions of the second plan, ``(..., N, D, S)``
    :param robot_mask: False for padding, ``(..., N)``
    :return: Number of pairs, ``(...)``
    """
    turned = (winding_angles(positions) - winding_angles(others)).abs() > th.pi
    return (turned & _pairs(robot_mask)).sum(dim=(-2, -1))


def mean_distance(positions: th.Tensor, others: th.Tensor, robot_mask: th.Tensor) -> th.Tensor:
    """
    Mean distance between two plans for one problem, over robots and time.

    :param positions: Positions of the first plan, ``(..., N, D, S)``
    :param others: Positions of the second plan, ``(..., N, D, S)``
    :param robot_mask: False for padding, ``(..., N)``
    :return: Distance in meters, ``(...)``
    """
    return _mean((positions - others).norm(dim=-2).mean(dim=-1), robot_mask)


def _pairs(robot_mask: th.Tensor) -> th.Tensor:
    """Mask with each pair of robots once, ``(..., N, N)``."""
    return (robot_mask.unsqueeze(-1) & robot_mask.unsqueeze(-2)).triu(1)


def _min_pair_distance(positions: th.Tensor, robots: th.Tensor) -> th.Tensor:
    pairs = _pairs(robots)
    smallest = positions.new_full((len(positions),), th.inf)
    for i in range(positions.shape[1] - 1):  # one robot at a time, to save memory
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
    """Largest value over robots and times; NaN propagates."""
    return values.amax(dim=-1).where(robots, 0).amax(dim=1)


def _mean(values: th.Tensor, robots: th.Tensor) -> th.Tensor:
    return values.where(robots, 0).sum(dim=-1) / robots.sum(dim=-1)
