"""Planning problems: where robots are, where they go, what is in their way, and what their trajectories must keep to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch as th


@dataclass(frozen=True)
class Limits:
    """
    What all problems of one kind have in common.

    :param dimensions: ``D``, 2 or 3
    :param size: Half of the side of the workspace, a square or cube around the origin in which the centres of the robots stay,
        in metres
    :param radius: Radius of a robot, in metres: two centres are never closer than twice that
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
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` is {getattr(self, name)}; it must be above 0.")


class Problems(NamedTuple):
    """
    A batch of problems. Rows that a mask leaves out are padding: they push nobody, and nobody pushes them.

    :param start: Positions at the start in metres, ``(B, N, D)``
    :param goal: Positions at the end, where the robots rest, ``(B, N, D)``
    :param velocity: Velocities at the start, ``(B, N, D)``
    :param acceleration: Accelerations at the start, ``(B, N, D)``
    :param robot_mask: Which robots there are, ``(B, N)``, bool
    :param obstacles: Centres and radii of the obstacles, circles or spheres, ``(B, M, D + 1)``; M may be 0.
    :param obstacle_mask: Which obstacles there are, ``(B, M)``, bool
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
        """Boundary conditions of every robot and axis, ``(B, N, D, 6)``; see ``Basis``."""
        rest = th.zeros_like(self.start)
        return th.stack([self.start, self.velocity, self.acceleration, self.goal, rest, rest], dim=-1)

    def select(self, index: th.Tensor) -> Problems:
        """
        Some of the problems.

        :param index: Which ones, and how often
        """
        return Problems(*(tensor[index] for tensor in self))

    def repeat(self, k: int) -> Problems:
        """
        Every problem ``k`` times, one after the other: row ``b * k + j`` is the ``j``-th copy of problem ``b``.

        :param k: How often
        """
        return Problems(*(tensor.repeat_interleave(k, dim=0) for tensor in self))

    def to(self, device: th.device | str | None = None, dtype: th.dtype | None = None) -> Problems:
        """
        On another device, or in another floating-point type; masks stay what they are.

        :param device: The device; None: where they are
        :param dtype: The type; None: as they are
        """
        return Problems(*(x.to(device, dtype if x.is_floating_point() else None) for x in self))

    @staticmethod
    def rest_to_rest(start: th.Tensor, goal: th.Tensor, obstacles: th.Tensor | None = None) -> Problems:
        """
        Problems without padding, in which the robots rest at the start.

        :param start: ``(B, N, D)``
        :param goal: ``(B, N, D)``
        :param obstacles: ``(B, M, D + 1)``; None: there are none.
        """
        batch, robots, dimensions = start.shape
        if obstacles is None:
            obstacles = start.new_zeros(batch, 0, dimensions + 1)
        rest = th.zeros_like(start)
        there = th.ones(batch, robots, dtype=th.bool, device=start.device)
        obstructing = th.ones(obstacles.shape[:2], dtype=th.bool, device=start.device)
        return Problems(start, goal, rest, rest, there, obstacles, obstructing)
