"""
Helpers of the tests of planning: small random problems, and an evaluation that shares no code with the package.
"""

from math import comb

import numpy as np
import torch as th

from sb3_flow.planning.basis import Basis
from sb3_flow.planning.problems import Limits, Problems


def judge(problems: Problems, y: th.Tensor, basis: Basis, limits: Limits, finer: int = 10) -> dict[str, np.ndarray]:
    """
    What is true of plans at the times of a grid, ``finer`` times as fine as the basis's samples, in float64: the least
    distance beyond what is asked for, and the largest excess over each limit, of every plan.

    NumPy alone, on the Bernstein coefficients: powers of t, and loops over robots.
    """
    t = np.linspace(0, 1, finer * (basis.samples - 1) + 1)
    n = basis.degree
    coefficients = basis.coefficients(problems.boundary, y).numpy()  # (B, N, D, n + 1)

    def evaluate(values: np.ndarray) -> np.ndarray:
        k = values.shape[-1] - 1
        return values @ np.stack([comb(k, i) * t**i * (1 - t) ** (k - i) for i in range(k + 1)])

    rates = [coefficients, np.diff(coefficients) * n / basis.horizon]
    rates.append(np.diff(rates[1]) * (n - 1) / basis.horizon)
    p, v, a = (evaluate(values) for values in rates)
    batch, robots = p.shape[:2]
    there, obstacles, obstructing = (x.numpy() for x in (problems.robot_mask, problems.obstacles, problems.obstacle_mask))
    pairs, walls = np.full(batch, np.inf), np.full(batch, np.inf)
    for i in range(robots):
        for j in range(i):
            distance = np.linalg.norm(p[:, i] - p[:, j], axis=1).min(axis=-1) - 2 * limits.radius
            pairs = np.minimum(pairs, np.where(there[:, i] & there[:, j], distance, np.inf))
        for m in range(obstacles.shape[1]):
            center, radius = obstacles[:, m, :-1, None].astype(float), obstacles[:, m, -1]
            distance = np.linalg.norm(p[:, i] - center, axis=1).min(axis=-1) - limits.radius - radius
            walls = np.minimum(walls, np.where(there[:, i] & obstructing[:, m], distance, np.inf))
    speed = np.where(there[..., None], np.linalg.norm(v, axis=2), 0).max(axis=(1, 2))
    acceleration = np.where(there[..., None], np.linalg.norm(a, axis=2), 0).max(axis=(1, 2))
    reach = np.where(there[..., None, None], np.abs(p), 0).max(axis=(1, 2, 3))
    return {
        "pairs": pairs,
        "obstacles": walls,
        "speed": limits.v_max - speed,
        "acceleration": limits.a_max - acceleration,
        "workspace": limits.size - reach,
    }


def least(slacks: dict[str, np.ndarray]) -> np.ndarray:
    """The least slack of every plan, whatever its unit."""
    return np.min(list(slacks.values()), axis=0)


def proposals(problems: Problems, basis: Basis, sigma: float, generator: th.Generator) -> th.Tensor:
    """Straight lines plus noise that gets smaller with the stiffness of the mode, ``(B, N, D, m)``."""
    shape = (*problems.start.shape, basis.n_modes)
    noise = th.randn(shape, generator=generator, dtype=th.float64)
    return (sigma * noise * (basis.stiffness / basis.stiffness[0]) ** -0.5).to(problems.start)


def crossing(batch: int, robots: int, seed: int = 0, obstacles: int = 8, size: float = 4.0) -> Problems:
    """Robots at the border of a square with discs in it; each goal is on the opposite side."""
    rng = np.random.default_rng(seed)
    rows = [_crossing(rng, robots, obstacles, size) for _ in range(batch)]
    start, goal, discs = (th.tensor(np.array(x), dtype=th.float32) for x in zip(*rows, strict=True))
    return Problems.rest_to_rest(start, goal, discs)


def _crossing(rng: np.random.Generator, robots: int, obstacles: int, size: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    while True:
        discs: list[np.ndarray] = []
        while len(discs) < obstacles:
            new = np.array([*rng.uniform(-0.75 * size, 0.75 * size, 2), rng.uniform(0.2, 0.5)])
            if all(np.hypot(*(new - old)[:2]) - new[2] - old[2] >= 0.7 for old in discs):
                discs.append(new)
        starts, tries = np.zeros((0, 2)), 0
        while len(starts) < robots and tries < 10_000:
            tries += 1
            new = rng.uniform(-size, size, 2)
            goal = -new + rng.uniform(-0.1, 0.1, 2)
            free = all(np.hypot(*(p - disc[:2])) >= disc[2] + 0.35 for disc in discs for p in (new, -new, goal))
            apart = all(np.hypot(*(new - old)) >= 0.6 for old in starts)
            if np.abs(new).max() >= size - 1.2 and free and apart:
                starts = np.vstack([starts, new])
        goals = np.clip(-starts, -size, size)
        if len(starts) == robots:
            return starts, goals, np.array(discs).reshape(obstacles, 3)
