"""Multi-robot planning with a receding horizon."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch as th

from sb3_flow.envs.multi_robot import POINTS, MultiRobot, Observation
from sb3_flow.planning.measures import judge
from sb3_flow.planning.motion import motion
from sb3_flow.planning.problems import Problems

#: A robot has arrived within this distance of its goal in meters, and below this speed in m/s.
ARRIVED, SLOW = 0.1, 0.1
#: Reward for a collision.
COLLISION = -10.0
#: Relative tolerance of limits, for rounding.
ROUNDING = 1e-5
#: Number of times at which a step is measured, and number of drawn points.
STEPS, DRAWN = 101, 11


class MultiRobotReplan(MultiRobot):
    """
    ``MultiRobot`` with a receding horizon: an action is a plan for the next ``horizon`` seconds, of which the first ``delta``
    seconds are executed. The next observation shows the robots in motion.

    Spaces are those of ``MultiRobot``; in the observation, ``start``, ``velocity`` and ``acceleration`` are the current ones.
    An episode ends:

    - with success (``is_success``) when all robots are within 0.1 m of their goals and slower than 0.1 m/s;
    - with reward -10 when robots collide or the executed part of a plan exceeds the limits (``is_collision``);
    - by truncation after twice the horizon.

    Otherwise the reward is ``-delta`` per step. ``info`` has the measures of the executed part, ``certified`` and
    ``certificate_margin`` of the plan, and ``is_fallback``: whether the previous plan was continued.

    A certified plan ends at rest, so it is safe at all later times. With ``fallback``, only certified plans are executed:
    otherwise robots continue the last certified plan, and before the first one they do not move.

    :param delta: Time between two plans in seconds, at most the horizon
    :param fallback: Whether to reject plans that are not certified
    :param kwargs: Arguments of ``MultiRobot``
    :raises ValueError: If an argument is out of its range.
    """

    def __init__(self, delta: float = 1.0, fallback: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 < delta <= self.limits.horizon:
            raise ValueError(f"`delta` is {delta}; it must be above 0 and at most the horizon, {self.limits.horizon} s.")
        self.delta, self.fallback = delta, fallback
        #: Seconds since the start of the episode.
        self.time = 0.0
        #: The current plan: its problem, the plan, and for how many seconds it was followed.
        self._followed: tuple[Problems, th.Tensor, float] | None = None
        self._past: list[th.Tensor] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """
        Start an episode.

        :param seed: As for ``MultiRobot``
        :param options: As for ``MultiRobot``
        """
        observation, info = super().reset(seed=seed, options=options)
        problem = self._problem()
        stay = problem._replace(goal=problem.start)
        self._followed, self.time, self._past = (stay, th.zeros(1, *self._shape), 0.0), 0.0, []
        return observation, info

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """
        Execute the first ``delta`` seconds of a plan.

        :param action: The plan, ``(N D m,)``
        """
        problem, y = self._proposed(action)
        info = self._certify(problem, y)
        assert self._followed is not None
        info["is_fallback"] = self.fallback and not info["certified"]
        if not info["is_fallback"]:
            self._followed = (problem, y, 0.0)
        planned, self.plan, since = self._followed
        times = th.linspace(since, since + self.delta, STEPS, dtype=th.float64)
        moves = motion(planned, self.plan, self.limits.horizon, times)
        measures = judge(planned, moves, self.limits, self.delta, tolerance=ROUNDING)

        self.time += self.delta
        self._followed = (planned, self.plan, since + self.delta)
        self._past.append(moves[0, 0][..., :: (STEPS - 1) // (DRAWN - 1)])
        there = problem.robot_mask[0]
        collision = not measures.success.item()
        way = (moves[0, 0, there, :, -1] - problem.goal[0, there]).norm(dim=-1)
        arrived = bool((way <= ARRIVED).all() and (moves[1, 0, there, :, -1].norm(dim=-1) <= SLOW).all())
        info |= self._report(measures) | {"is_success": arrived and not collision, "is_collision": collision}
        reward = COLLISION if collision else 0.0 if arrived else -self.delta
        terminated = collision or arrived
        truncated = not terminated and self.time >= 2 * self.limits.horizon - self.delta / 2
        state = moves[..., -1].float()
        observation = self._observe(problem._replace(start=state[0], velocity=state[1], acceleration=state[2]))
        return observation, reward, terminated, truncated, info

    def render(self) -> np.ndarray | None:
        """Image of the robots with past and future trajectories, ``(480, 480, 3)`` of uint8."""
        return None if self.render_mode is None else self.picture(0.0)

    def picture(self, time: float) -> np.ndarray:
        """
        Image of the robots on their current plan.

        :param time: Seconds from now
        :return: ``(480, 480, 3)`` of uint8
        :raises RuntimeError: Before the first ``reset``.
        """
        problem = self._problem()
        assert self._followed is not None
        planned, plan, since = self._followed
        times = since + th.linspace(0, self.limits.horizon, POINTS, dtype=th.float64)
        times = th.cat(
            [times[times < since + time], th.tensor([since + time] * 2, dtype=th.float64), times[times > since + time]]
        )
        now = int((times < since + time).sum())
        positions = motion(planned, plan, self.limits.horizon, times)[0, 0]
        past = th.cat([*self._past, positions[..., : now + 1]], dim=-1)
        return self._draw(problem, positions[..., now], past, positions[..., now + 1 :])
