"""Random scenes: robots that have to pass one another between obstacles; and what makes a scene impossible."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch as th

from sb3_flow.planning.basis import make_basis
from sb3_flow.planning.problems import Limits, Problems

LAYOUTS = ("crossing", "circle", "permutation", "random")
#: How often each layout is drawn in "mixed" scenes.
MIX = {"crossing": 0.6, "permutation": 0.2, "random": 0.2}

#: In metres: from a start to the border, between the edges of two obstacles, and between the edges of an obstacle and of a
#: robot that rests. Two starts, or two goals, are apart by a number of radii.
BORDER, GAP, CLEARANCE, APART = 1.2, 0.7, 0.1, 3.0
#: Radii of obstacles in the plane and in space, in metres; how far from the middle they are, as a share of the size; and how
#: far a goal that is opposite of its start may be off, in metres.
OBSTACLE_RADII = {2: (0.2, 0.5), 3: (0.4, 1.0)}
OBSTACLE_REGION, GOAL_NOISE = 0.75, 0.3
#: Share of the limits that the straight way may take; nearer to them there is no room for a detour.
STRAIGHT = 0.9
#: How often a point is drawn at most, and a scene, before we call it too full.
POINTS, SCENES = 300, 200


def standard_limits(robots: int, dimensions: int = 2) -> Limits:
    """
    A workspace in which a number of robots has room, but not much.

    :param robots: Number of robots
    :param dimensions: 2 or 3
    :return: Half of the side 4 m up to 8 robots, 5 m up to 16, and 6.5 m for more, which have 14 seconds instead of 10
    """
    size = next((size for most, size in ((8, 4.0), (16, 5.0)) if robots <= most), 6.5)
    return Limits(dimensions, size=size, horizon=10.0 if robots <= 16 else 14.0)


def standard_obstacles(robots: int) -> int:
    """
    A number of obstacles that goes with ``standard_limits``.

    :param robots: Number of robots
    """
    return next((obstacles for most, obstacles in ((8, 8), (16, 12)) if robots <= most), 16)


@dataclass(frozen=True)
class Scenes:
    """
    A distribution of scenes.

    - ``"crossing"``: robots start near the border, and each goes to the opposite side, so that all meet in the middle.
    - ``"circle"``: the same from a circle or sphere, at equal distances (in space: at random).
    - ``"permutation"``: robots near the border exchange their places.
    - ``"random"``: starts and goals are anywhere.
    - ``"mixed"``: crossing, permutation and random, in 60, 20 and 20 of 100 scenes.

    Obstacles are apart by a gap that a robot fits through. Ways are so short that the straight one takes at most nine tenths
    of the speed and acceleration that robots have.

    :param limits: What all scenes have in common
    :param robots: Number of robots, or the smallest and the largest
    :param obstacles: Number of obstacles, or the smallest and the largest
    :param layout: One of the above
    :param max_robots: Number of rows that robots are padded to; None: as many as there can be
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
                raise ValueError(f"`max_{name}` is {most}, but there may be {high} {name}.")

    @property
    def rows(self) -> tuple[int, int]:
        """Number of rows of robots and of obstacles, padding included."""
        robots, obstacles = self.max_robots, self.max_obstacles
        return (
            _range(self.robots)[1] if robots is None else robots,
            _range(self.obstacles)[1] if obstacles is None else obstacles,
        )

    def sample(self, rng: np.random.Generator, count: int = 1) -> Problems:
        """
        Draw scenes, one after the other.

        :param rng: Where randomness comes from
        :param count: How many, ``B``
        :return: Problems in float32, padded
        :raises ValueError: If no scene fits into the workspace, or none can be done in time.
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
        why = "there is no room for the robots"
        for _ in range(SCENES):
            ways = draw(rng, robots, self.limits)
            if ways is None:
                continue
            if np.linalg.norm(ways[1] - ways[0], axis=1).max() > longest:
                why = f"robots come only {longest:.2f} m far in {self.limits.horizon} s, with some room for detours"
                continue
            obstacles = _obstacles(rng, hurdles, np.concatenate(ways), self.limits)
            if obstacles is not None:
                return *ways, obstacles
            why = "there is no room for the obstacles"
        raise ValueError(
            f"Found no {layout} scene of {robots} robots and {hurdles} obstacles in {SCENES} attempts: {why}. "
            f"Take fewer, a larger `size`, or a longer `horizon` ({self.limits})."
        )


def straight_reach(limits: Limits) -> float:
    """
    How far robots come that go straight from rest to rest and keep to their largest speed and acceleration.

    :param limits: The limits
    :return: Distance in metres; 1.65 ``v_max T`` or ``a_max T^2 / 6.53``, whichever is less
    """
    # Of polynomials of degree 12, along one metre.
    line = [make_basis(12, 256, limits.horizon).sampled(order)[0][:, 3].abs().max().item() for order in (1, 2)]
    return min(limits.v_max / line[0], limits.a_max / line[1])


def check(problems: Problems, limits: Limits) -> None:
    """
    See that no problem is impossible before anybody moves.

    :param problems: The problems
    :param limits: What they must keep to
    :raises ValueError: If a number is not finite; if two robots, or a robot and an obstacle, are too near to each other at the
        start or at the goals; if a robot is outside of the workspace, is faster than it may be, or cannot come to its goal
        in time. The message names them, by their rows.
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
        raise ValueError(f"Obstacle {hurdles[o]} is {circles[o]}; expected a finite centre, and a radius of at least 0.")
    for name, verb, values in (("starts", "starts", start), ("goals", "ends", goal)):
        places = values[robots].astype(float)
        if (i := _first((np.abs(places) > limits.size).any(axis=1))) is not None:
            raise ValueError(f"Robot {robots[i]} {verb} outside of the workspace, at {places[i]}: +-{limits.size} m a side.")
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
            raise ValueError(f"Robot {robots[i]} {verb} {-slack[i, o]:.3f} m too near to obstacle {hurdles[o]}.")
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
    # From rest to rest: speed up, slow down, and in between be as fast as possible, if there is time for that.
    speed, horizon = limits.v_max, limits.horizon
    ramp = speed / limits.a_max
    resting = speed * (horizon - ramp) if 2 * ramp < horizon else limits.a_max * horizon**2 / 4
    ways, moving = np.linalg.norm(goal - start, axis=1), np.linalg.norm(velocity, axis=1) > 0
    reach = np.where(moving, speed * horizon, resting)
    if (i := _first(ways > reach)) is not None:
        raise ValueError(
            f"Robot {robots[i]} is {ways[i]:.2f} m from its goal; in {horizon:g} s it comes at most {reach[i]:.2f} m far "
            f"with {speed:g} m/s and {limits.a_max:g} m/s^2."
        )


def _first(bad: np.ndarray) -> int | None:
    """The index of the first that is bad."""
    return int(bad.argmax()) if bad.any() else None


def _range(number: int | tuple[int, int]) -> tuple[int, int]:
    return (number, number) if isinstance(number, int) else (int(number[0]), int(number[1]))


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    distances: np.ndarray = np.linalg.norm(a[:, None] - b[None], axis=-1)
    return distances


def _place(count: int, draw: Callable[[int], np.ndarray], apart: float) -> np.ndarray | None:
    """
    Points that are apart, one after the other.

    :param count: How many
    :param draw: Draws candidates for the i-th point, ``(k, D)``
    :param apart: Smallest distance between two points
    :return: ``(count, D)``, or None if there was no room
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
    """Places of robots that are inside of the workspace as a whole."""
    return rng.uniform(-1, 1, (POINTS, limits.dimensions)) * (limits.size - limits.radius)


def _near_the_border(rng: np.random.Generator, limits: Limits) -> np.ndarray:
    points = _anywhere(rng, limits)
    # One axis, drawn at random, is brought to the border; the others are where they are.
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
    Obstacles between robots that are there already.

    :param count: How many
    :param robots: Starts and goals, ``(2 N, D)``
    :return: ``(count, D + 1)``, or None if there was no room
    """
    dimensions = limits.dimensions
    obstacles = np.zeros((0, dimensions + 1))
    for _ in range(count):
        centres = rng.uniform(-1, 1, (POINTS, dimensions)) * OBSTACLE_REGION * limits.size
        radii = rng.uniform(*OBSTACLE_RADII[dimensions], size=(POINTS, 1))
        free = (_distances(centres, robots) >= radii + limits.radius + CLEARANCE).all(axis=1)
        free &= (_distances(centres, obstacles[:, :-1]) >= radii + obstacles[:, -1] + GAP).all(axis=1)
        if not free.any():
            return None
        new = np.concatenate([centres, radii], axis=1)[free.argmax()]
        obstacles = np.concatenate([obstacles, new[None]])
    return obstacles
