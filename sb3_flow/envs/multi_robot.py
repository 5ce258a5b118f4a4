"""Several robots that move among obstacles; one action is a joint plan of all robots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces

from sb3_flow.envs.multi_robot_drawing import Scenery, draw
from sb3_flow.planning import observations
from sb3_flow.planning.basis import make_basis
from sb3_flow.planning.certificate import Certificate
from sb3_flow.planning.measures import Measures, measure
from sb3_flow.planning.motion import motion
from sb3_flow.planning.problems import Limits, Problems
from sb3_flow.planning.rewards import rewards
from sb3_flow.planning.scenes import Scenes, check, standard_limits, standard_obstacles

#: Number of points of a drawn trajectory.
POINTS = 200

Observation = dict[str, np.ndarray]


class MultiRobot(gym.Env[Any, np.ndarray]):
    """
    Robots of one size, discs in 2 or balls in 3 dimensions, move to their goals in a given time without collisions with each
    other or with obstacles. An episode is one step; its action is a whole plan.

    **Observation**: a ``Dict`` of float32 in [-1, 1] (masks: 0 or 1), with one row per robot or obstacle. Rows of padding are
    0, and so are their masks:

    - ``start``, ``goal``, ``(N, D)``: positions divided by ``size``
    - ``velocity``, ``acceleration``, ``(N, D)``: at the start, divided by the largest ones; here always 0
    - ``obstacles``, ``(M, D + 1)``: centers and radii divided by ``size``
    - ``robot_mask``, ``(N,)``, ``obstacle_mask``, ``(M,)``

    **Action**: ``Box(-1, 1, (N D m,))``, by robot, axis and mode: modal coordinates of the trajectories (see
    ``sb3_flow.planning.basis``), divided by ``action_scale``. Action 0 is the straight trajectory, and all actions meet the
    boundary conditions. Actions are clipped to the box before they are evaluated. Padding is ignored.

    **Reward**::

        1[success] - 0.05 (J - J_straight) - penetration

    where J is the mean square acceleration over robots and time in m^2/s^4, and penetration the depth of the deepest collision
    in meters. A plan is successful if it has no collision and keeps to the limits within 1 %, measured at times ten times
    denser than those of the solver. The certificate also covers the times in between: ``certificate_margin`` in ``info`` is
    the smallest slack of the distances at all times, and ``certified`` tells whether all constraints hold at all times.

    ``info`` has ``is_success``, ``certified``, ``certificate_margin``, and from ``sb3_flow.planning.measures`` (which has the
    units) ``min_pair_distance``, ``min_obstacle_distance``, ``penetration``, ``max_speed``, ``max_acceleration``,
    ``smoothness`` and ``length``.

    :param dimensions: ``D``, 2 or 3
    :param num_robots: Number of robots, or the smallest and the largest number
    :param num_obstacles: Number of obstacles, or the smallest and the largest number; None: 8 for up to 8 robots, 12 for up to
        16, then 16
    :param max_robots: Number of rows of robots, ``N``; None: the largest number of robots
    :param max_obstacles: Number of rows of obstacles, ``M``, at least 1; None: the largest number of obstacles
    :param size: Half of the side of the workspace in meters, which must contain the centers of the robots; None: 4 for up to 8
        robots, 5 for up to 16, then 6.5
    :param radius: Radius of a robot in meters
    :param v_max: Largest speed in m/s
    :param a_max: Largest acceleration in m/s^2
    :param horizon: Duration of a plan in seconds; None: 10 for up to 16 robots, then 14
    :param layout: ``"crossing"``, ``"circle"``, ``"permutation"``, ``"random"`` or ``"mixed"``; see
        ``sb3_flow.planning.scenes``
    :param degree: Degree of the trajectories, at least 6; there are ``m = degree - 5`` modes
    :param render_mode: ``"rgb_array"``: ``render`` returns an image, ``(480, 480, 3)``; None: no rendering
    :raises ValueError: If an argument is out of its range, or an action is not finite.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 2}  # noqa: RUF012 (no class variable in Gymnasium's own class)

    def __init__(
        self,
        dimensions: int = 2,
        num_robots: int | Sequence[int] = 8,
        num_obstacles: int | Sequence[int] | None = None,
        max_robots: int | None = None,
        max_obstacles: int | None = None,
        size: float | None = None,
        radius: float = 0.2,
        v_max: float = 2.5,
        a_max: float = 2.0,
        horizon: float | None = None,
        layout: str = "mixed",
        degree: int = 12,
        render_mode: str | None = None,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"`render_mode` is {render_mode!r}; it must be 'rgb_array' or None.")
        robots = _numbers("num_robots", num_robots)
        most = robots if isinstance(robots, int) else robots[1]
        hurdles = standard_obstacles(most) if num_obstacles is None else _numbers("num_obstacles", num_obstacles)
        standard = standard_limits(most, dimensions)
        #: Limits of plans.
        self.limits = Limits(
            dimensions,
            standard.size if size is None else size,
            radius,
            v_max,
            a_max,
            standard.horizon if horizon is None else horizon,
        )
        if max_obstacles is None:
            max_obstacles = max(1, hurdles if isinstance(hurdles, int) else hurdles[1])
        if max_obstacles < 1:
            raise ValueError(f"`max_obstacles` is {max_obstacles}; it must be at least 1, because spaces cannot be empty.")
        #: Distribution of random scenes.
        self.scenes = Scenes(self.limits, robots, hurdles, layout, max_robots, max_obstacles)
        self.degree, self.render_mode = degree, render_mode
        rows, hurdle_rows = self.scenes.rows
        self._certificate = Certificate(self.limits, degree, observations.solver_samples(self.limits))
        self._shape = (rows, dimensions, degree - 5)
        self.observation_space = observations.space(self.limits, rows, hurdle_rows)
        self.action_space = spaces.Box(-1, 1, (int(np.prod(self._shape)),), np.float32)
        #: The problem of the last observation, a batch of one; None before ``reset``.
        self.problem: Problems | None = None
        #: The last plan, ``(1, N, D, m)`` in meters; None before ``step``.
        self.plan: th.Tensor | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """
        Start an episode.

        :param seed: Random seed
        :param options: ``{"scene": {"start": ..., "goal": ..., "obstacles": ...}}``: a scene instead of a random one. Arrays
            in meters, ``(n, D)``, ``(n, D)`` and ``(m, D + 1)``, with at most as many robots and obstacles as there are rows;
            obstacles are optional.
        :return: The observation and an empty ``info``
        :raises ValueError: If the scene is impossible; the message names the robots. If there are other options.
        """
        super().reset(seed=seed)
        if unknown := set(options or {}) - {"scene"}:
            raise ValueError(f"The options of `reset` are {', '.join(sorted(map(str, unknown)))}; expected `scene` only.")
        scene = (options or {}).get("scene")
        problem = self.scenes.sample(self.np_random) if scene is None else self._given(scene)
        self.plan = None
        return self._observe(problem), {}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """
        Execute a plan.

        :param action: The plan, ``(N D m,)``
        """
        problem, y = self._proposed(action)
        self.plan = y
        measures, info = measure(problem, y, self.limits), self._certify(problem, y)
        info |= self._report(measures)
        reward = rewards(problem, y, measures, self.limits).item()
        return self._observation(), reward, True, False, info

    def plan_from_action(self, action: np.ndarray) -> np.ndarray:
        """
        Convert an action to trajectories in the current scene.

        :param action: The action, ``(N D m,)``
        :return: Their Bernstein coefficients in meters, ``(N, D, degree + 1)``, float64; 0 for padding
        """
        problem, y = self._proposed(action)
        basis = make_basis(self.degree, observations.SAMPLES, self.limits.horizon)
        coefficients: np.ndarray = basis.coefficients(problem.boundary, y)[0].numpy()
        return coefficients

    def render(self) -> np.ndarray | None:
        """Image of the scene, after a step with all trajectories and the robots at their ends, ``(480, 480, 3)`` of uint8."""
        return None if self.render_mode is None else self.picture(0.0 if self.plan is None else self.limits.horizon)

    def picture(self, time: float) -> np.ndarray:
        """
        Image of the plan during execution.

        :param time: Seconds since the start, from 0 to the horizon
        :return: ``(480, 480, 3)`` of uint8
        :raises RuntimeError: Before the first ``reset``.
        """
        times = th.linspace(0, self.limits.horizon, POINTS, dtype=th.float64)
        times = th.cat([times[times < time], th.tensor([time, time], dtype=th.float64), times[times > time]])
        now = int((times < time).sum())
        problem = self._problem()
        plan = th.zeros(1, *self._shape) if self.plan is None else self.plan
        positions = motion(problem, plan, self.limits.horizon, times)[0, 0]
        past, future = positions[..., : now + 1], positions[..., now + 1 :]
        return self._draw(problem, positions[..., now], past, future if self.plan is not None else future[..., :0])

    def _draw(self, problem: Problems, robots: th.Tensor, past: th.Tensor, future: th.Tensor) -> np.ndarray:
        there, obstacles = problem.robot_mask[0], problem.obstacles[0, problem.obstacle_mask[0]]
        parts = (robots[there], problem.goal[0, there], obstacles, past[there], future[there])
        return draw(Scenery(self.limits.size, self.limits.radius, *(part.double().numpy() for part in parts)))

    def _problem(self) -> Problems:
        if self.problem is None:
            raise RuntimeError("There is no scene yet; call `reset` first.")
        return self.problem

    def _observe(self, problem: Problems) -> Observation:
        """Set the problem, rounded as in the observation, because plans are evaluated for what was observed."""
        shown = observations.observation(problem, self.limits)
        self.problem = observations.problems({name: th.from_numpy(array) for name, array in shown.items()}, self.limits)
        return self._observation()

    def _observation(self) -> Observation:
        return {name: array[0] for name, array in observations.observation(self._problem(), self.limits).items()}

    def _proposed(self, action: np.ndarray) -> tuple[Problems, th.Tensor]:
        values = np.asarray(action, dtype=np.float32).reshape(-1)
        if values.size != np.prod(self._shape):
            raise ValueError(f"The action has {values.size} numbers; expected {np.prod(self._shape)}: {self._shape}.")
        if not np.isfinite(values).all():
            raise ValueError(
                f"The action has the value {values[~np.isfinite(values)][0]}, which is not finite; expected finite numbers."
            )
        problem = self._problem()
        y = observations.plans(th.from_numpy(values)[None], self.limits, self.degree)
        return problem, y.where(problem.robot_mask[..., None, None], 0)

    def _certify(self, problem: Problems, y: th.Tensor) -> dict[str, Any]:
        certified = self._certificate.certify(problem, y)
        return {"certified": bool(certified.safe), "certificate_margin": certified.margin.item()}

    def _report(self, measures: Measures) -> dict[str, Any]:
        report: dict[str, Any] = {name: value.item() for name, value in measures._asdict().items()}
        del report["max_coordinate"]
        return {"is_success": report.pop("success"), **report}

    def _given(self, scene: Mapping[str, Any]) -> Problems:
        if unknown := set(scene) - {"start", "goal", "obstacles"}:
            raise ValueError(f"The scene has unknown keys: {', '.join(sorted(unknown))}; expected start, goal and obstacles.")
        rows, dimensions = self.scenes.rows, self.limits.dimensions
        tensors = {}
        for name, most, width in (
            ("start", rows[0], dimensions),
            ("goal", rows[0], dimensions),
            ("obstacles", rows[1], dimensions + 1),
        ):
            if name not in scene and name != "obstacles":
                raise ValueError(f"The scene has no `{name}`; add it.")
            array = np.asarray(scene.get(name, np.zeros((0, width))), dtype=np.float32)
            if array.ndim != 2 or array.shape[1] != width or len(array) > most:
                raise ValueError(f"`{name}` has shape {array.shape}; expected up to {most} rows of {width} numbers.")
            tensors[name] = th.from_numpy(array.copy())[None]
        robots, hurdles = tensors["start"].shape[1], tensors["obstacles"].shape[1]
        if robots == 0 or tensors["goal"].shape[1] != robots:
            raise ValueError(f"There are {robots} starts and {tensors['goal'].shape[1]} goals; expected one each per robot.")
        problem = Problems.rest_to_rest(**tensors)
        check(problem, self.limits)
        return Problems(
            **{
                name: _padded(tensor, rows[1] - hurdles if name.startswith("obstacle") else rows[0] - robots)
                for name, tensor in problem._asdict().items()
            }
        )


def _numbers(name: str, value: int | Sequence[int]) -> int | tuple[int, int]:
    """A number, or a range as a list (as in YAML) or tuple."""
    found: list[Any] = [*value] if isinstance(value, (Sequence, np.ndarray)) and len(value) == 2 else [value]
    if not all(isinstance(number, Real) and float(number).is_integer() for number in found):
        raise ValueError(f"`{name}` is {value!r}; it must be a number, or the smallest and the largest number.")
    low, high = int(found[0]), int(found[-1])
    return low if len(found) == 1 else (low, high)


def _padded(tensor: th.Tensor, rows: int) -> th.Tensor:
    return th.cat([tensor, tensor.new_zeros(1, rows, *tensor.shape[2:])], dim=1)
