"""Random scenes with robots and obstacles, and checks for impossible scenes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch as th

from sb3_flow.planning.basis import make_basis
from sb3_flow.planning.problems import Limits, Problems

LAYOUTS = ("crossing", "circle", "permutation", "random")
#: Probability of each layout in "mixed" scenes.
MIX = {"crossing": 0.6, "permutation": 0.2, "random": 0.2}

#: Largest distance of a start from the border, smallest gap between two obstacles, and smallest gap between an obstacle and a
#: start or goal, in meters; smallest distance between two starts or two goals, in radii.
BORDER, GAP, CLEARANCE, APART = 1.2, 0.7, 0.1, 3.0
#: Range of the radii of obstacles in 2 and 3 dimensions, in meters; half of the side of the region of obstacles, as a fraction
#: of the size; largest offset of a goal from the point opposite its start, in meters.
OBSTACLE_RADII = {2: (0.2, 0.5), 3: (0.4, 1.0)}
OBSTACLE_REGION, GOAL_NOISE = 0.75, 0.3
#: Largest fraction of the limits that a straight trajectory may need; the rest allows detours.
STRAIGHT = 0.9
#: Number of candidates for a point, and number of attempts for a scene.
POINTS, SCENES = 300, 200


def standard_limits(robots: int, dimensions: int = 2) -> Limits:
    """
    A tight workspace for a number of robots.

    :param robots: Number of robots
    :param dimensions: 2 or 3
    :return: ``size`` 4 m for up to 8 robots, 5 m for up to 16, and 6.5 m for more, with a horizon of 14 instead of 10 seconds
    """
    size = next((size for most, size in ((8, 4.0), (16, 5.0)) if robots <= most), 6.5)
    return Limits(dimensions, size=size, horizon=10.0 if robots <= 16 else 14.0)


def standard_obstacles(robots: int) -> int:
    """
    Number of obstacles for ``standard_limits``.

    :param robots: Number of robots
    """
    return next((obstacles for most, obstacles in ((8, 8), (16, 12)) if robots <= most), 16)


@dataclass(frozen=True)
class Scenes:
    """
    A distribution of scenes.

    - ``"crossing"``: robots start near the border, and each goes to the opposite side, so that all meet in the middle.
    - ``"circle"``: the same from equidistant points on a circle (in 3 dimensions: from random points on a sphere).
    - ``"permutation"``: robots near the border exchange their positions.
    - ``"random"``: starts and goals are uniform in the workspace.
    - ``"mixed"``: crossing, permutation and random, with probabilities 0.6, 0.2 and 0.2.

    A robot fits through the gap between any two obstacles. A straight trajectory needs at most nine tenths of the largest
    speed and acceleration.

    :param limits: Limits of all scenes
    :param robots: Number of robots, or the smallest and the largest number
    :param obstacles: Number of obstacles, or the smallest and the largest number
    :param layout: One of the above
    :param max_robots: Number of rows of robots, including padding; None: the largest number of robots
    :param max_obstacles: The same for obstacles
    :raises ValueError: If an argument is out of its range.
    """

    limits: Limits = field(default_factory=Limits)
    robots: int | tuple[int, int] = 8
    obstacles: int | tuple[int, int] = 8
    layout: str = "mixed"
    max_robots: int | None = None
    max_obstacles: int | None = None

    def __post_init__(self) -> None:
        if self.layout not in (*LAYOUTS, "mixed"):
            raise ValueError(f"`layout` is {self.layout!r}; expected one of {', '.join(LAYOUTS)}, mixed.")
        for name, least in (("robots", 1), ("obstacles", 0)):
            low, high = _range(getattr(self, name))
            most = getattr(self, f"max_{name}")
            if not least <= low <= high:
                raise ValueError(f"`{name}` is {getattr(self, name)}; expected a number from {least}, or (lowest, highest).")
            if most is not None and most < high:
                raise ValueError(f"`max_{name}` is {most}, but there may be {high} {name}; raise it, or lower `{name}`.")

    @property
    def rows(self) -> tuple[int, int]:
        """Number of rows of robots and of obstacles, including padding."""
        robots, obstacles = self.max_robots, self.max_obstacles
        return (
            _range(self.robots)[1] if robots is None else robots,
            _range(self.obstacles)[1] if obstacles is None else obstacles,
        )

    def sample(self, rng: np.random.Generator, count: int = 1) -> Problems:
        """
        Draw scenes.

        :param rng: Random generator
        :param count: Number of scenes, ``B``
        :return: Problems in float32, padded
        :raises ValueError: If no scene fits into the workspace, or robots cannot reach their goals in time.
        """
        batch, (n, m), dimensions = count, self.rows, self.limits.dimensions
        start, goal = np.zeros((2, batch, n, dimensions), dtype=np.float32)
        obstacles = np.zeros((batch, m, dimensions + 1), dtype=np.float32)
        robot_mask, obstacle_mask = np.zeros((batch, n), dtype=bool), np.zeros((batch, m), dtype=bool)
        for b in range(batch):
            robots, hurdles = (int(rng.integers(low, high + 1)) for low, high in map(_range, (self.robots, self.obstacles)))
            layout = str(rng.choice(list(MIX), p=list(MIX.values()))) if self.layout == "mixed" else self.layout
            scene = self._scene(rng, robots, hurdles, layout)
            start[b, :robots], goal[b, :robots], obstacles[b, :hurdles] = scene
            robot_mask[b, :robots], obstacle_mask[b, :hurdles] = True, True
        tensors = [th.from_numpy(array) for array in (start, goal, robot_mask, obstacles, obstacle_mask)]
        rest = th.zeros_like(tensors[0])
        return Problems(tensors[0], tensors[1], rest, rest.clone(), *tensors[2:])

    def _scene(
        self, rng: np.random.Generator, robots: int, hurdles: int, layout: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        draw = {"crossing": _crossing, "circle": _circle, "permutation": _permutation, "random": _random}[layout]
        longest = STRAIGHT * straight_reach(self.limits)
        why = "the robots do not fit into the workspace"
        for _ in range(SCENES):
            ways = draw(rng, robots, self.limits)
            if ways is None:
                continue
            if np.linalg.norm(ways[1] - ways[0], axis=1).max() > longest:
                why = f"goals are too far; robots reach {longest:.2f} m in {self.limits.horizon} s with a reserve for detours"
                continue
            obstacles = _obstacles(rng, hurdles, np.concatenate(ways), self.limits)
            if obstacles is not None:
                return *ways, obstacles
            why = "the obstacles do not fit into the workspace"
        raise ValueError(
            f"Found no {layout} scene of {robots} robots and {hurdles} obstacles in {SCENES} attempts: {why}. "
            f"Reduce their number, or increase `size` or `horizon` ({self.limits})."
        )


def straight_reach(limits: Limits) -> float:
    """
    Largest distance of a straight trajectory from rest to rest within the limits of speed and acceleration.

    :param limits: The limits
    :return: Distance in meters; 1.65 ``v_max T`` or ``a_max T^2 / 6.53``, whichever is smaller
    """
    # Largest speed and acceleration of a straight polynomial of degree 12 over one meter.
    line = [make_basis(12, 256, limits.horizon).sampled(order)[0][:, 3].abs().max().item() for order in (1, 2)]
    return min(limits.v_max / line[0], limits.a_max / line[1])


def check(problems: Problems, limits: Limits) -> None:
    """
    Check that problems are not impossible.

    :param problems: The problems
    :param limits: Limits of the plans
    :raises ValueError: If a number is not finite; if two robots, or a robot and an obstacle, are too close at the start or at
        the goals; if a robot is outside of the workspace, exceeds a limit, or cannot reach its goal in time. The message names
        their rows.
    """
    for b in range(len(problems.start)):
        try:
            _check_one(limits, *(tensor[b].detach().cpu().numpy() for tensor in problems))
        except ValueError as error:
            if len(problems.start) == 1:
                raise
            raise ValueError(f"Problem {b}: {error}") from None


def _check_one(
    limits: Limits,
    start: np.ndarray,
    goal: np.ndarray,
    velocity: np.ndarray,
    acceleration: np.ndarray,
    robot_mask: np.ndarray,
    obstacles: np.ndarray,
    obstacle_mask: np.ndarray,
) -> None:
    robots, hurdles = robot_mask.nonzero()[0], obstacle_mask.nonzero()[0]
    for name, values in (("start", start), ("goal", goal), ("velocity", velocity), ("acceleration", acceleration)):
        if (i := _first(~np.isfinite(values[robots]).all(axis=1))) is not None:
            raise ValueError(f"The {name} of robot {robots[i]} is {values[robots[i]]}; expected finite numbers.")
    circles = obstacles[hurdles].astype(float)
    if (o := _first(~np.isfinite(circles).all(axis=1) | (circles[:, -1] < 0))) is not None:
        raise ValueError(f"Obstacle {hurdles[o]} is {circles[o]}; expected a finite center, and a radius of at least 0.")
    for name, verb, values in (("starts", "starts", start), ("goals", "ends", goal)):
        places = values[robots].astype(float)
        if (i := _first((np.abs(places) > limits.size).any(axis=1))) is not None:
            raise ValueError(
                f"Robot {robots[i]} {verb} outside of the workspace, at {places[i]}; "
                f"coordinates must be within +-{limits.size} m."
            )
        between = _distances(places, places) + np.where(np.eye(len(places), dtype=bool), np.inf, 0)
        if (i := _first(between.min(axis=1, initial=np.inf) < 2 * limits.radius)) is not None:
            j = between[i].argmin()
            raise ValueError(
                f"The {name} of robots {robots[i]} and {robots[j]} are {between[i, j]:.3f} m apart; they must be "
                f"{2 * limits.radius:g} m apart, two radii."
            )
        slack = _distances(places, circles[:, :-1]) - circles[:, -1] - limits.radius
        if (i := _first(slack.min(axis=1, initial=np.inf) < 0)) is not None:
            o = slack[i].argmin()
            raise ValueError(f"Robot {robots[i]} {verb} {-slack[i, o]:.3f} m too close to obstacle {hurdles[o]}.")
    _check_motion(limits, robots, *(values[robots].astype(float) for values in (start, goal, velocity, acceleration)))


def _check_motion(
    limits: Limits, robots: np.ndarray, start: np.ndarray, goal: np.ndarray, velocity: np.ndarray, acceleration: np.ndarray
) -> None:
    for name, values, most, unit in (
        ("speed", velocity, limits.v_max, "m/s"),
        ("acceleration", acceleration, limits.a_max, "m/s^2"),
    ):
        sizes = np.linalg.norm(values, axis=1)
        if (i := _first(sizes > most * (1 + 1e-6))) is not None:
            raise ValueError(f"Robot {robots[i]} starts with {name} {sizes[i]:.3f} {unit}; at most {most:g} is allowed.")
    # From rest to rest: accelerate, move at the largest speed if it is reached, and decelerate.
    speed, horizon = limits.v_max, limits.horizon
    ramp = speed / limits.a_max
    resting = speed * (horizon - ramp) if 2 * ramp < horizon else limits.a_max * horizon**2 / 4
    ways, moving = np.linalg.norm(goal - start, axis=1), np.linalg.norm(velocity, axis=1) > 0
    reach = np.where(moving, speed * horizon, resting)
    if (i := _first(ways > reach)) is not None:
        raise ValueError(
            f"Robot {robots[i]} is {ways[i]:.2f} m from its goal; in {horizon:g} s it moves at most {reach[i]:.2f} m "
            f"with {speed:g} m/s and {limits.a_max:g} m/s^2."
        )


def _first(bad: np.ndarray) -> int | None:
    """Index of the first True."""
    return int(bad.argmax()) if bad.any() else None


def _range(number: int | tuple[int, int]) -> tuple[int, int]:
    return (number, number) if isinstance(number, int) else (int(number[0]), int(number[1]))


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    distances: np.ndarray = np.linalg.norm(a[:, None] - b[None], axis=-1)
    return distances


def _place(count: int, draw: Callable[[int], np.ndarray], apart: float) -> np.ndarray | None:
    """
    Draw points with a smallest distance, one at a time.

    :param count: Number of points
    :param draw: Draws candidates for the i-th point, ``(k, D)``
    :param apart: Smallest distance between two points
    :return: ``(count, D)``, or None if no candidate for a point fits
    """
    points: list[np.ndarray] = []
    for i in range(count):
        candidates = draw(i)
        free = (_distances(candidates, np.array(points).reshape(-1, candidates.shape[1])) >= apart).all(axis=1)
        if not free.any():
            return None
        points.append(candidates[free.argmax()])
    return np.stack(points)


def _anywhere(rng: np.random.Generator, limits: Limits) -> np.ndarray:
    """Random positions at which a robot is inside of the workspace with its whole radius."""
    return rng.uniform(-1, 1, (POINTS, limits.dimensions)) * (limits.size - limits.radius)


def _near_the_border(rng: np.random.Generator, limits: Limits) -> np.ndarray:
    points = _anywhere(rng, limits)
    # One random coordinate is moved to the border; the others stay.
    axis = rng.integers(limits.dimensions, size=(POINTS, 1))
    depth = rng.uniform(limits.radius, min(BORDER, limits.size), (POINTS, 1))
    side = np.where(np.take_along_axis(points, axis, 1) < 0, -1, 1)
    np.put_along_axis(points, axis, side * (limits.size - depth), 1)
    return points


Ways = tuple[np.ndarray, np.ndarray]


def _opposite(rng: np.random.Generator, start: np.ndarray | None, limits: Limits) -> Ways | None:
    if start is None:
        return None
    most = limits.size - limits.radius

    def draw(i: int) -> np.ndarray:
        noise = rng.uniform(-GOAL_NOISE, GOAL_NOISE, (POINTS, limits.dimensions))
        goals: np.ndarray = np.clip(noise - start[i], -most, most)
        return goals

    goal = _place(len(start), draw, APART * limits.radius)
    return None if goal is None else (start, goal)


def _crossing(rng: np.random.Generator, robots: int, limits: Limits) -> Ways | None:
    return _opposite(rng, _place(robots, lambda i: _near_the_border(rng, limits), APART * limits.radius), limits)


def _circle(rng: np.random.Generator, robots: int, limits: Limits) -> Ways | None:
    apart, radius = APART * limits.radius, 0.9 * (limits.size - limits.radius)
    if limits.dimensions == 2:
        angles = rng.uniform(0, 2 * np.pi) + rng.permutation(robots) * 2 * np.pi / robots
        start: np.ndarray | None = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        if robots > 1 and 2 * radius * np.sin(np.pi / robots) < apart:
            return None
    else:

        def draw(i: int) -> np.ndarray:
            points = rng.normal(size=(POINTS, limits.dimensions))
            on_sphere: np.ndarray = radius * points / np.linalg.norm(points, axis=1, keepdims=True)
            return on_sphere

        start = _place(robots, draw, apart)
    return None if start is None else (start, -start)


def _permutation(rng: np.random.Generator, robots: int, limits: Limits) -> Ways | None:
    start = _place(robots, lambda i: _near_the_border(rng, limits), APART * limits.radius)
    if start is None:
        return None
    order = rng.permutation(robots)
    stay = robots > 1 and bool((order == np.arange(robots)).any())
    return None if stay else (start, start[order])


def _random(rng: np.random.Generator, robots: int, limits: Limits) -> Ways | None:
    ends = [_place(robots, lambda i: _anywhere(rng, limits), APART * limits.radius) for _ in range(2)]
    start, goal = ends
    return None if start is None or goal is None else (start, goal)


def _obstacles(rng: np.random.Generator, count: int, robots: np.ndarray, limits: Limits) -> np.ndarray | None:
    """
    Draw obstacles that do not overlap starts and goals.

    :param count: Number of obstacles
    :param robots: Starts and goals, ``(2 N, D)``
    :return: ``(count, D + 1)``, or None if no candidate for an obstacle fits
    """
    dimensions = limits.dimensions
    obstacles = np.zeros((0, dimensions + 1))
    for _ in range(count):
        centers = rng.uniform(-1, 1, (POINTS, dimensions)) * OBSTACLE_REGION * limits.size
        radii = rng.uniform(*OBSTACLE_RADII[dimensions], size=(POINTS, 1))
        free = (_distances(centers, robots) >= radii + limits.radius + CLEARANCE).all(axis=1)
        free &= (_distances(centers, obstacles[:, :-1]) >= radii + obstacles[:, -1] + GAP).all(axis=1)
        if not free.any():
            return None
        new = np.concatenate([centers, radii], axis=1)[free.argmax()]
        obstacles = np.concatenate([obstacles, new[None]])
    return obstacles
