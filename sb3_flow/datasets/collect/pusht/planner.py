"""Planning of the next push, and of its commands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sb3_flow.datasets.collect.pusht.routes import Routes
from sb3_flow.datasets.collect.pusht.tee import rotation, to_world
from sb3_flow.datasets.collect.pusht.twin import State, Twin

#: Control steps of the longest push.
PUSH_STEPS = 14
#: Delay of the agent behind a command of constant velocity, in control steps: damping / stiffness * control rate.
LAG = 2
#: Control steps to come to rest, before and after a push.
SETTLE_STEPS = 2
#: Control steps of the retreat from the block after a push.
RETREAT_STEPS = 2


@dataclass(frozen=True)
class Stage:
    """
    Parameters of pushes, depending on the distance of the block from its goal.

    :param until: Smallest distance of this stage (pixels, root mean square of key points)
    :param speed: Speed of the command while pushing (pixels per step)
    :param angles: Candidate directions, relative to the inward normal (radians)
    """

    until: float
    speed: float
    angles: tuple[float, ...]


STAGES = (
    Stage(60.0, 11.0, (-0.5, -0.25, 0.0, 0.25, 0.5)),
    Stage(20.0, 4.0, (-0.5, -0.25, 0.0, 0.25, 0.5)),
    Stage(0.0, 2.5, (-0.6, -0.3, 0.0, 0.3, 0.6)),
)
#: Below this distance (pixels) pushes are ranked by the covered share of the goal instead of the distance.
FINE = 20.0
#: Additional cost of covering the goal before the end of a push. An episode ends as soon as enough is covered.
ON_THE_WAY = 0.02
#: Pushes that move the block less than this (pixels, at its ends) are not used: the next plan would be the same.
LEAST, ARM = 0.5, 60.0
#: Cost of a block that is inside a wall by more than a slack (pixels).
OUTSIDE, SLACK = 1000.0, 1.0


@dataclass(frozen=True)
class Habits:
    """
    Parameters that differ between episodes, so that the data has several modes.

    :param pace: Factor of all speeds
    :param finalists: Number of pushes that are simulated with the path to the push
    :param whim: Noise on the costs that rank pushes, relative to the difference between the median and the lowest cost
    :param travel: Speed on the path to a push (pixels per step), before the factor
    """

    pace: float = 1.0
    finalists: int = 10
    whim: float = 0.0
    travel: float = 14.0

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Habits:
        """
        Sample the habits of an episode.

        :param rng: The only source of randomness
        :return: The habits
        """
        return cls(float(rng.uniform(0.8, 1.2)), int(rng.integers(6, 15)), float(rng.uniform(0.0, 0.2)))


class Planner:
    """
    Planner with a horizon of one push.

    All contact points and directions are simulated without the path to the push. The best ones are simulated again with all
    of their commands, and the best of these is selected.

    :param twin: The simulator
    :param habits: The habits of this episode
    :param rng: Source of the noise on costs
    :param size: Width of the world (pixels)
    """

    def __init__(self, twin: Twin, habits: Habits, rng: np.random.Generator, size: float = 512.0) -> None:
        self._twin, self._habits, self._rng, self._size = twin, habits, rng, size
        self._routes = Routes(twin.tee, twin.radius, size)

    def plan(self, state: State) -> np.ndarray:
        """
        Select the next push.

        :param state: State of the environment
        :return: Commands for the path to the push, the push and the retreat, ``(steps, 2)``; empty if no push can be
            reached
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
            else:  # there are many good pushes; the final ones must be exact
                cost += noise * float(self._rng.standard_normal())
            finalists += bool(np.isfinite(cost))  # not pushes that miss the block
            if cost < best_cost:
                best, best_cost = commands, cost
        return best

    def _cost(self, poses: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Cost of final poses of the block, ``(N, 3)``, given its pose before the push, ``(3,)``."""
        tee = self._twin.tee
        cost = 1.0 - tee.coverage(poses) if tee.distance(before) < FINE else tee.distance(poses)
        outside = np.array([not self._twin.inside(pose, slack=SLACK) for pose in poses])
        shift = np.linalg.norm((poses - before) * (1.0, 1.0, ARM), axis=1)
        return np.where(shift < LEAST, np.inf, np.where(outside, cost + OUTSIDE, cost))

    def _try_pushes(
        self, block: np.ndarray, stage: Stage, places: list[int]
    ) -> tuple[list[tuple[int, np.ndarray, int]], float]:
        """All pushes at some contact points, the best first: contact point, world direction, steps. And the noise on costs."""
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
    Commands along a path, at a constant speed.

    :param start: Start of the path, ``(2,)``
    :param corners: Corners and end of the path, ``(N, 2)``
    :param speed: Largest distance between consecutive commands (pixels)
    :return: The commands, the last one at the end of the path, ``(steps, 2)``
    """
    points = np.concatenate([start[None], corners])
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    passed = np.concatenate([[0.0], np.cumsum(lengths)])
    steps = max(int(np.ceil(passed[-1] / speed)), 1)
    at = np.linspace(0.0, passed[-1], steps + 1)[1:]
    return np.stack([np.interp(at, passed, points[:, axis]) for axis in range(2)], axis=-1)
