"""Planning problems: starts, goals, obstacles and limits of trajectories."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import NamedTuple

import torch as th


@dataclass(frozen=True)
class Limits:
    """
    Limits that all problems of one kind share.

    :param dimensions: ``D``, 2 or 3
    :param size: Half of the side of the workspace in meters: a square or cube around the origin that must contain the centers
        of the robots
    :param radius: Radius of a robot, in meters: two centers must not be closer than twice that
    :param v_max: Largest speed in m/s
    :param a_max: Largest acceleration in m/s^2
    :param horizon: Duration of a plan in seconds
    :raises ValueError: If a number is out of its range.
    """

    dimensions: int = 2
    size: float = 5.0
    radius: float = 0.2
    v_max: float = 2.5
    a_max: float = 2.0
    horizon: float = 10.0

    def __post_init__(self) -> None:
        if self.dimensions not in (2, 3):
            raise ValueError(f"`dimensions` is {self.dimensions}; it must be 2 or 3.")
        for name in ("size", "radius", "v_max", "a_max", "horizon"):
            value = getattr(self, name)
            if not (isinstance(value, Real) and 0 < float(value) < math.inf):
                raise ValueError(f"`{name}` is {value!r}; it must be above 0, and finite.")


class Problems(NamedTuple):
    """
    A batch of problems. Masks are False for padding, which is ignored.

    :param start: Positions at the start in meters, ``(B, N, D)``
    :param goal: Positions at the end, where the robots rest, ``(B, N, D)``
    :param velocity: Velocities at the start, ``(B, N, D)``
    :param acceleration: Accelerations at the start, ``(B, N, D)``
    :param robot_mask: False for padding, ``(B, N)``, bool
    :param obstacles: Centers and radii of the obstacles, circles or spheres, ``(B, M, D + 1)``; M may be 0.
    :param obstacle_mask: False for padding, ``(B, M)``, bool
    """

    start: th.Tensor
    goal: th.Tensor
    velocity: th.Tensor
    acceleration: th.Tensor
    robot_mask: th.Tensor
    obstacles: th.Tensor
    obstacle_mask: th.Tensor

    @property
    def boundary(self) -> th.Tensor:
        """Boundary conditions of each robot and axis, ``(B, N, D, 6)``; see ``Basis``."""
        rest = th.zeros_like(self.start)
        return th.stack([self.start, self.velocity, self.acceleration, self.goal, rest, rest], dim=-1)

    def select(self, index: th.Tensor) -> Problems:
        """
        Select problems.

        :param index: Indices; they may repeat
        """
        return Problems(*(tensor[index] for tensor in self))

    def repeat(self, k: int) -> Problems:
        """
        Repeat each problem ``k`` times: row ``b * k + j`` is the ``j``-th copy of problem ``b``.

        :param k: Number of copies
        """
        return Problems(*(tensor.repeat_interleave(k, dim=0) for tensor in self))

    def to(self, device: th.device | str | None = None, dtype: th.dtype | None = None) -> Problems:
        """
        Move to another device, or convert to another floating-point type. Masks stay boolean.

        :param device: The device; None: unchanged
        :param dtype: The type; None: unchanged
        """
        return Problems(*(x.to(device, dtype if x.is_floating_point() else None) for x in self))

    @staticmethod
    def rest_to_rest(start: th.Tensor, goal: th.Tensor, obstacles: th.Tensor | None = None) -> Problems:
        """
        Problems without padding, in which the robots rest at the start.

        :param start: ``(B, N, D)``
        :param goal: ``(B, N, D)``
        :param obstacles: ``(B, M, D + 1)``; None: no obstacles
        """
        batch, robots, dimensions = start.shape
        if obstacles is None:
            obstacles = start.new_zeros(batch, 0, dimensions + 1)
        rest = th.zeros_like(start)
        there = th.ones(batch, robots, dtype=th.bool, device=start.device)
        obstructing = th.ones(obstacles.shape[:2], dtype=th.bool, device=start.device)
        return Problems(start, goal, rest, rest, there, obstacles, obstructing)
