"""A copy of Push-T's simulator, for planning."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sb3_flow.common.optional import require
from sb3_flow.datasets.collect.pusht.tee import Tee, to_body, to_world

#: Beyond this distance (pixels, beyond the agent's radius) the agent and the block do not touch.
APART = 2.0


class State(NamedTuple):
    """
    Complete state of Push-T's simulator. The velocity of the block is not part of it: it stops as soon as nothing pushes it.

    :param agent: Position and velocity of the agent (pixels, pixels per second), ``(4,)``
    :param block: Pose of the block (pixels, pixels, radians), ``(3,)``
    """

    agent: np.ndarray
    block: np.ndarray


class Twin:
    """
    Copies of the bodies of a Push-T environment, in a separate space.

    The block does not affect the motion of the agent. Its path is therefore known in advance, and only the part near the block
    is simulated.

    :param env: A ``gym_pusht`` environment (unwrapped) that has been reset
    """

    def __init__(self, env: Any) -> None:
        self._pymunk: Any = require("pymunk", "pusht", "Planning in Push-T")
        self._gains = float(env.k_p), float(env.k_v)
        self._dt = float(env.dt)
        self._substeps = int(1 / (env.dt * env.control_hz))
        parts = [np.array(shape.get_vertices()) for shape in env.block.shapes]
        parts.sort(key=lambda part: float(part[:, 1].min()))  # the shapes of a body are not ordered
        self.tee = Tee(parts, env.goal_pose)
        self.radius = max(float(shape.radius) for shape in env.agent.shapes)
        self._copy_space(env, parts)

    def _copy_space(self, env: Any, parts: list[np.ndarray]) -> None:
        pymunk = self._pymunk
        self._space = pymunk.Space()
        self._space.gravity, self._space.damping = env.space.gravity, env.space.damping
        segments = [shape for shape in env.space.shapes if isinstance(shape, pymunk.Segment)]
        for wall in segments:
            self._space.add(pymunk.Segment(self._space.static_body, wall.a, wall.b, wall.radius))
        ends = np.array([[*wall.a, *wall.b] for wall in segments]).reshape(-1, 2)
        thickness = max(wall.radius for wall in segments)
        self._low, self._high = ends.min(axis=0) + thickness, ends.max(axis=0) - thickness
        self._agent = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        self._block = pymunk.Body(env.block.mass, env.block.moment)
        shapes = [pymunk.Poly(self._block, part.tolist()) for part in parts]
        self._block.center_of_gravity = env.block.center_of_gravity
        self._space.add(self._agent, pymunk.Circle(self._agent, self.radius), self._block, *shapes)

    @staticmethod
    def state_of(env: Any) -> State:
        """
        The state of an environment.

        :param env: A ``gym_pusht`` environment (unwrapped) that has been reset
        :return: Its state
        """
        agent = np.array([*env.agent.position, *env.agent.velocity])
        return State(agent, np.array([*env.block.position, env.block.angle]))

    def inside(self, block: np.ndarray, slack: float = 0.0) -> bool:
        """
        Whether the block is between the walls.

        :param block: Its pose, ``(3,)``
        :param slack: Largest accepted penetration into a wall (pixels)
        :return: Whether all of its corners are
        """
        corners = to_world(self.tee.outline, block)
        return bool((corners >= self._low - slack).all() and (corners <= self._high + slack).all())

    def try_out(self, state: State, commands: np.ndarray) -> tuple[np.ndarray, State]:
        """
        Simulate commands.

        :param state: Initial state
        :param commands: Targets of the agent, one per control step (pixels), ``(steps, 2)``
        :return: The block's pose after each step, ``(steps, 3)``; the state after all of them
        """
        path = self._agent_path(state.agent, commands)
        poses = np.tile(state.block, (len(commands), 1))
        first, last = 0, len(path)
        if self.inside(state.block):
            near = np.flatnonzero(self.tee.gap(to_body(path[:, :2], state.block)) < self.radius + APART)
            if not len(near):
                return poses, State(path[-1], state.block)
            first = max(int(near[0]) - 1, 0)
        self._place(path[first - 1] if first else state.agent, state.block)
        velocities = path[first:last, 2:].tolist()
        space, agent, block, dt = self._space, self._agent, self._block, self._dt
        for index, velocity in enumerate(velocities, start=first + 1):
            agent.velocity = velocity
            space.step(dt)
            if index % self._substeps == 0:
                poses[index // self._substeps - 1] = (*block.position, block.angle)
        return poses, State(path[-1], poses[-1])

    def _agent_path(self, agent: np.ndarray, commands: np.ndarray) -> np.ndarray:
        """Position and velocity of the agent after each step of the simulator, ``(steps * substeps, 4)``."""
        x, y, u, v = agent.tolist()
        (stiffness, damping), dt = self._gains, self._dt
        path = []
        for target_x, target_y in commands.tolist():
            for _ in range(self._substeps):
                u += (stiffness * (target_x - x) - damping * u) * dt
                v += (stiffness * (target_y - y) - damping * v) * dt
                x += u * dt
                y += v * dt
                path.append((x, y, u, v))
        return np.array(path)

    def _place(self, agent: np.ndarray, block: np.ndarray) -> None:
        # Separate the bodies first, so that the solver discards contacts of previous simulations.
        self._agent.position, self._agent.velocity = (-1000.0, -1000.0), (0.0, 0.0)
        self._block.position = (1000.0, 1000.0)
        for _ in range(self._space.collision_persistence + 1):
            self._space.step(self._dt)
        self._agent.position = agent[:2].tolist()
        # The angle first: setting it rotates the block around its center of gravity, which changes its position.
        self._block.angle = float(block[2])
        self._block.position = block[:2].tolist()
        self._block.velocity, self._block.angular_velocity = (0.0, 0.0), 0.0
        self._space.reindex_shapes_for_body(self._agent)
        self._space.reindex_shapes_for_body(self._block)
