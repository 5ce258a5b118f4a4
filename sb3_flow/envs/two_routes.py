"""One start, one goal, and two ways of equal length between them: does a policy that has seen both keep both?"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_flow.common.environments import register_environment
from sb3_flow.common.optional import require

#: The maze, and the cells (row, column) where episodes start and end.
MAZE, START, GOAL = "pointmaze-medium-v0", (3, 3), (6, 2)
#: A cell on the middle of either route. Between start and goal there is no way that leads through neither.
GATES: dict[str, tuple[int, int]] = {"west": (5, 1), "east": (5, 4)}
#: How far the point moves in one step at most, in metres, in either direction.
REACH = 0.2
#: Positions to go to, in metres: the square around both routes.
TARGETS = spaces.Box(np.array([-2, 6], np.float32), np.array([14, 22], np.float32), dtype=np.float32)


class TwoRoutes(gym.Env[np.ndarray, np.ndarray]):
    """
    OGBench's point maze (medium), always from the same start to the same goal, between which there are two routes of six
    cells, 24 metres, each::

        # . S . #        S: start, G: goal; rows 3 to 6, columns 1 to 5 of the maze
        . . # . .        west: the way on the left; east: the one on the right, where x is larger
        . # . . #
        . G . # .

    Nothing is random: the start is the middle of its cell. So a policy that takes both routes has chosen itself, and the mean
    of the two first steps is to stay.

    An action is the position to go to, ``(x, y)`` in metres, ``Box((-2, 6), (14, 22))``; in a step the point comes up to 0.2
    metres nearer in either direction, and walls are in the way. The observation, ``(2,)``, is its position.

    The episode ends at the goal (within a metre of it) with reward 1; all other rewards are 0. ``info`` has ``is_success``,
    ``route``: ``"west"`` or ``"east"``, the gate that was passed last; None before the first. At the goal it is the way that
    was taken. ``measures``, which evaluations of ``sb3-flow train`` write down, tells for each way whether it led to the goal.

    :param render_mode: ``"rgb_array"``: ``render`` returns OGBench's picture from above, ``(200, 200, 3)``; None: nothing
    :raises ImportError: If OGBench is not installed.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (no class variable in Gymnasium's own class)

    def __init__(self, render_mode: str | None = None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"`render_mode` is {render_mode!r}; it must be 'rgb_array' or None.")
        register_environment(MAZE)
        self._mujoco: Any = require("mujoco", "mujoco", "The environment 'sb3_flow/TwoRoutes-v0'")
        #: OGBench's environment
        self.maze: Any = gym.make(MAZE, add_noise_to_goal=False, disable_env_checker=True).unwrapped
        self.action_space = TARGETS
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.render_mode = render_mode
        #: What an expert has to know: a cell on the middle of either route, and how far a step goes.
        self.gates, self.reach = dict(GATES), REACH
        self.route: str | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """
        Begin an episode.

        :param seed: Seed of random numbers, of which there are none
        :param options: Not used
        :return: The observation, and ``route``, None
        """
        super().reset(seed=seed)
        # Not the maze's own reset, which moves the start at random, by numpy's global generator.
        self._mujoco.mj_resetData(self.maze.model, self.maze.data)
        self.maze.set_goal(goal_xy=self.maze.ij_to_xy(GOAL))
        self.maze.set_state(np.array(self.maze.ij_to_xy(START), dtype=np.float64), np.zeros(2))
        self.route = None
        return self._observe(), {"route": None}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """
        Go towards a position.

        :param action: The position in metres, ``(2,)``; what lies outside of the action space is led back to its border.
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
        """The maze from above."""
        return None if self.render_mode is None else self.maze.render()

    def close(self) -> None:
        self.maze.close()
