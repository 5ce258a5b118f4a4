"""One start, one goal, and two routes of equal length: a test whether imitation keeps both modes of its data."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_flow.common.environments import register_environment
from sb3_flow.common.optional import require

#: The maze, and the cells (row, column) where episodes start and end.
MAZE, START, GOAL = "pointmaze-medium-v0", (3, 3), (6, 2)
#: A cell in the middle of each route. Every path from start to goal passes one of them.
GATES: dict[str, tuple[int, int]] = {"west": (5, 1), "east": (5, 4)}
#: Largest displacement in one step along each axis, in meters.
REACH = 0.2
#: Bounds of target positions, in meters: the square around both routes.
TARGETS = spaces.Box(np.array([-2, 6], np.float32), np.array([14, 22], np.float32), dtype=np.float32)


class TwoRoutes(gym.Env[np.ndarray, np.ndarray]):
    """
    OGBench's point maze (medium) with a fixed start and a fixed goal. There are two routes between them, each of six cells, 24
    meters::

        # . S . #        S: start, G: goal; rows 3 to 6, columns 1 to 5 of the maze
        . . # . .        west: the route on the left; east: the route on the right, where x is larger
        . # . . #
        . G . # .

    The environment is deterministic and the start is the middle of its cell, so only the policy chooses the route. The mean of
    the first steps of both routes is to stay.

    An action is a target position, ``(x, y)`` in meters, ``Box((-2, 6), (14, 22))``. In a step the point moves toward it, up
    to 0.2 meters along each axis, if no wall is in the way. The observation, ``(2,)``, is the position of the point.

    The episode ends within a meter of the goal, with reward 1; all other rewards are 0. ``info`` has ``is_success`` and
    ``route``: ``"west"`` or ``"east"``, the gate that was passed last, None before the first. At the goal it is the route that
    was taken. ``measures``, which evaluations of ``sb3-flow train`` record, has for each route whether it led to the goal.

    :param render_mode: ``"rgb_array"``: ``render`` returns OGBench's image from above, ``(200, 200, 3)``; None: no rendering
    :raises ImportError: If OGBench is not installed.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (no class variable in Gymnasium's own class)

    def __init__(self, render_mode: str | None = None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"`render_mode` is {render_mode!r}; it must be 'rgb_array' or None.")
        register_environment(MAZE)
        self._mujoco: Any = require("mujoco", "mujoco", "The environment 'sb3_flow/TwoRoutes-v0'")
        #: OGBench's environment.
        self.maze: Any = gym.make(MAZE, add_noise_to_goal=False, disable_env_checker=True).unwrapped
        self.action_space = TARGETS
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.render_mode = render_mode
        #: For experts: a cell in the middle of each route, and the largest displacement in a step.
        self.gates, self.reach = dict(GATES), REACH
        self.route: str | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """
        Start an episode.

        :param seed: Random seed; the environment is deterministic
        :param options: Not used
        :return: The observation, and ``info`` with ``route``, None
        """
        super().reset(seed=seed)
        # Not the maze's own reset, which randomizes the start with NumPy's global generator.
        self._mujoco.mj_resetData(self.maze.model, self.maze.data)
        self.maze.set_goal(goal_xy=self.maze.ij_to_xy(GOAL))
        self.maze.set_state(np.array(self.maze.ij_to_xy(START), dtype=np.float64), np.zeros(2))
        self.route = None
        return self._observe(), {"route": None}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """
        Move toward a position.

        :param action: The position in meters, ``(2,)``; it is clipped to the action space
        """
        target = np.clip(np.asarray(action, dtype=np.float64), TARGETS.low, TARGETS.high)
        if not np.isfinite(target).all():
            raise ValueError(f"The action is {action}; it must be finite.")
        _, reward, success, _, _ = self.maze.step(np.clip((target - self.maze.get_xy()) / REACH, -1.0, 1.0))
        cell = self.maze.xy_to_ij(self.maze.get_xy())
        self.route = next((name for name, gate in GATES.items() if cell == gate), self.route)
        measures = {name: float(success and name == self.route) for name in GATES}
        info = {"is_success": bool(success), "route": self.route, "measures": measures}
        return self._observe(), float(reward), bool(success), False, info

    def _observe(self) -> np.ndarray:
        position: np.ndarray = self.maze.get_xy().astype(np.float32)
        return position

    def render(self) -> np.ndarray | None:
        """Image of the maze from above."""
        return None if self.render_mode is None else self.maze.render()

    def close(self) -> None:
        self.maze.close()
