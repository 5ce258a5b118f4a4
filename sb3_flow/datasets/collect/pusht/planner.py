"""Which push to make next, and the commands that make it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sb3_flow.datasets.collect.pusht.routes import Routes
from sb3_flow.datasets.collect.pusht.tee import rotation, to_world
from sb3_flow.datasets.collect.pusht.twin import State, Twin

#: Control steps of the longest push.
PUSH_STEPS = 14
#: Control steps by which the agent lags behind a steady command: twice the damping over the stiffness, times the rate.
LAG = 2
#: Steps to come to rest, before a push and after it.
SETTLE_STEPS = 2
#: Steps back from the block after a push.
RETREAT_STEPS = 2


@dataclass(frozen=True)
class Stage:
    """
    How to push, by how far the block is from its goal.

    :param until: The stage of all distances above this one (pixels, root mean square of key points)
    :param speed: Of the command while pushing (pixels per step)
    :param angles: Directions to try, from the inward normal (radians)
    """

    until: float
    speed: float
    angles: tuple[float, ...]


STAGES = (
    Stage(60.0, 11.0, (-0.5, -0.25, 0.0, 0.25, 0.5)),
    Stage(20.0, 4.0, (-0.5, -0.25, 0.0, 0.25, 0.5)),
    Stage(0.0, 2.5, (-0.6, -0.3, 0.0, 0.3, 0.6)),
)
#: Below this distance (pixels) the share of the goal that is covered ranks pushes, and no longer the distance.
FINE = 20.0
#: What covering the goal on the way is worse than covering it in the end: an episode ends as soon as enough is covered.
ON_THE_WAY = 0.02
#: Pushes that move the block less far than this (pixels, at its ends) are not worth the way: the next plan would be the same.
LEAST, ARM = 0.5, 60.0
#: Cost of a block that is squeezed into a wall by more than a slack (pixels).
OUTSIDE, SLACK = 1000.0, 1.0


@dataclass(frozen=True)
class Habits:
    """
    What differs between episodes, so that the data has several ways to do a thing.

    :param pace: Factor of all speeds
    :param finalists: How many pushes are simulated with the way there
    :param whim: Noise on the measure that ranks pushes, relative to what the best one is ahead of the middle one
    :param travel: Speed on the way to a push (pixels per step), before the factor
    """

    pace: float = 1.0
    finalists: int = 10
    whim: float = 0.0
    travel: float = 14.0

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Habits:
        """
        Draw the habits of an episode.

        :param rng: The only source of randomness
        :return: Them
        """
        return cls(float(rng.uniform(0.8, 1.2)), int(rng.integers(6, 15)), float(rng.uniform(0.0, 0.2)))


class Planner:
    """
    Looks one push ahead.

    Every place and direction is tried in the simulator, without the way there; the best ones are tried again with all of
    their commands, and the best of these is chosen.

    :param twin: The simulator
    :param habits: Of this episode
    :param rng: For the noise that ranks what is nearly equal
    :param size: Width of the world (pixels)
    """

    def __init__(self, twin: Twin, habits: Habits, rng: np.random.Generator, size: float = 512.0) -> None:
        self._twin, self._habits, self._rng, self._size = twin, habits, rng, size
        self._routes = Routes(twin.tee, twin.radius, size)

    def plan(self, state: State) -> np.ndarray:
        """
        Choose the next push.

        :param state: Of the environment
        :return: Commands: the way there, the push, a step back, ``(steps, 2)``; none if there is no way to any push
        """
        distance = float(self._twin.tee.distance(state.block))
        stage = next(stage for stage in STAGES if distance >= stage.until)
        ways = self._routes.ways(state.agent[:2], state.block)
        tried, noise = self._try_pushes(state.block, stage, list(ways))
        best, best_cost, finalists = np.zeros((0, 2)), np.inf, 0
        for place, direction, steps in tried:
            if finalists == self._habits.finalists:
                break
            commands = self._commands(state, ways[place], direction, stage.speed * self._habits.pace, steps)
            poses, _ = self._twin.try_out(state, commands)
            costs = self._cost(poses, state.block)
            cost = float(costs[-1])
            if distance < FINE:
                cost = min(cost, float(costs.min()) + ON_THE_WAY)
            else:  # where there are many good pushes; the last ones must be exact
                cost += noise * float(self._rng.standard_normal())
            finalists += bool(np.isfinite(cost))  # not those that turn out to miss the block
            if cost < best_cost:
                best, best_cost = commands, cost
        return best

    def _cost(self, poses: np.ndarray, before: np.ndarray) -> np.ndarray:
        """What it costs to leave the block in some poses, ``(N, 3)``, where it had been in another one, ``(3,)``."""
        tee = self._twin.tee
        cost = 1.0 - tee.coverage(poses) if tee.distance(before) < FINE else tee.distance(poses)
        outside = np.array([not self._twin.inside(pose, slack=SLACK) for pose in poses])
        shift = np.linalg.norm((poses - before) * (1.0, 1.0, ARM), axis=1)
        return np.where(shift < LEAST, np.inf, np.where(outside, cost + OUTSIDE, cost))

    def _try_pushes(
        self, block: np.ndarray, stage: Stage, places: list[int]
    ) -> tuple[list[tuple[int, np.ndarray, int]], float]:
        """All pushes from some places, the best first: place, direction (in the world), steps. And the noise on costs."""
        stands = to_world(self._routes.stands, block)
        inward = -self._routes.normals @ rotation(block[2]).T
        speed = stage.speed * self._habits.pace
        pushes, poses = [], []
        for place in places:
            for angle in stage.angles:
                direction = rotation(angle) @ inward[place]
                agent = np.concatenate([stands[place], (0.0, 0.0)])
                commands = self._line(stands[place], direction, speed, PUSH_STEPS + LAG)
                poses.append(self._twin.try_out(State(agent, block), commands)[0][LAG:])
                pushes.append((place, direction))
        if not pushes:
            return [], 0.0
        costs = np.stack([self._cost(steps, block) for steps in poses])
        steps, lowest = costs.argmin(axis=1) + 1, costs.min(axis=1)
        spread = float(np.median(lowest[np.isfinite(lowest)]) - lowest.min()) if np.isfinite(lowest).any() else 0.0
        noise = self._habits.whim * spread
        ranked = lowest + noise * self._rng.standard_normal(len(lowest))
        return [(*pushes[index], int(steps[index])) for index in ranked.argsort(kind="stable")], noise

    def _line(self, start: np.ndarray, direction: np.ndarray, speed: float, steps: int) -> np.ndarray:
        line = start + speed * direction * np.arange(1, steps + 1)[:, None]
        return np.clip(line, 0.0, self._size)

    def _commands(self, state: State, way: np.ndarray, direction: np.ndarray, speed: float, steps: int) -> np.ndarray:
        travel = self._habits.travel * self._habits.pace
        there = walk(state.agent[:2], way, travel)
        push = self._line(way[-1], direction, speed, steps)
        back = self._line(push[-1], -direction, travel, RETREAT_STEPS)
        hold = np.ones((SETTLE_STEPS, 1))
        return np.concatenate([there, hold * way[-1], push, hold * push[-1], back])


def walk(start: np.ndarray, corners: np.ndarray, speed: float) -> np.ndarray:
    """
    Commands along a way, at a steady speed.

    :param start: Where it begins, ``(2,)``
    :param corners: Its corners and its end, ``(N, 2)``
    :param speed: At most so far from one command to the next (pixels)
    :return: The commands, the last one at the end of the way, ``(steps, 2)``
    """
    points = np.concatenate([start[None], corners])
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    passed = np.concatenate([[0.0], np.cumsum(lengths)])
    steps = max(int(np.ceil(passed[-1] / speed)), 1)
    at = np.linspace(0.0, passed[-1], steps + 1)[1:]
    return np.stack([np.interp(at, passed, points[:, axis]) for axis in range(2)], axis=-1)
