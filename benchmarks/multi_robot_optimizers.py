"""General optimizers for multi-robot planning, with which the safety filter is compared."""

import abc
import functools
import importlib
from typing import Any

import numpy as np
import torch as th

from sb3_flow.planning.basis import make_basis
from sb3_flow.planning.observations import solver_samples
from sb3_flow.planning.problems import Limits, Problems

#: Margin of distances in meters, and factor of limits, so that the certificate holds between samples.
MARGIN, SHARE = 0.03, 0.95


class Optimizer(abc.ABC):
    """
    Minimize the mean square acceleration over modal coordinates, subject to distances and limits.

    :param limits: Limits of the plans
    :param seconds: Largest CPU time for a problem in seconds, if the solver has such a limit
    """

    def __init__(self, limits: Limits, seconds: float = 30.0) -> None:
        self.limits, self.seconds = limits, seconds
        basis = make_basis(12, solver_samples(limits), limits.horizon)
        self.stiffness = basis.stiffness.numpy()
        self.lines, self.modes = zip(
            *(tuple(part.numpy() for part in basis.sampled(order)) for order in range(3)), strict=True
        )

    def motion(self, problem: Problems, y: np.ndarray) -> tuple[np.ndarray, ...]:
        """Positions, velocities and accelerations at the samples, each ``(N, D, S)``."""
        boundary = problem.boundary[0].double().numpy()
        return tuple(boundary @ line.T + y @ modes.T for line, modes in zip(self.lines, self.modes, strict=True))

    def border(self, problem: Problems) -> np.ndarray:
        """Largest absolute coordinates of robots, ``(N, D, 1)``; larger for robots that start or end at the border."""
        ends = problem.boundary[0, :, :, [0, 3]].abs().amax(dim=-1, keepdim=True)
        return np.maximum(ends.double().numpy(), self.limits.size - MARGIN)

    @abc.abstractmethod
    def solve(self, problem: Problems, start: th.Tensor) -> tuple[th.Tensor, int]:
        """
        Solve one problem.

        :param problem: A batch of one, without padding
        :param start: Initial plan, ``(N, D, m)``
        :return: The plan, ``(N, D, m)`` in float32, and the number of iterations
        """


class SLSQP(Optimizer):
    """
    SciPy's sequential least squares. There is one constraint for each pair, each robot and obstacle, and each limit of a
    robot: the worst value over all samples and the chords between them, with its subgradient.
    """

    def solve(self, problem: Problems, start: th.Tensor) -> tuple[th.Tensor, int]:
        optimize = importlib.import_module("scipy.optimize")
        shape = tuple(start.shape)
        weights = np.broadcast_to(self.stiffness, shape).ravel()
        result = optimize.minimize(
            lambda x: 0.5 * float((weights * x**2).sum()),
            start.double().numpy().ravel(),
            jac=lambda x: weights * x,
            constraints={
                "type": "ineq",
                "fun": lambda x: self.rows(problem, x.reshape(shape))[0],
                "jac": lambda x: self.rows(problem, x.reshape(shape))[1].reshape(-1, x.size),
            },
            method="SLSQP",
            options={"maxiter": 200},
        )
        return th.from_numpy(result.x).view(shape).float(), int(result.nit)

    def rows(self, problem: Problems, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        The constraints, which must be at least 0, and their gradients.

        :param problem: A batch of one
        :param y: ``(N, D, m)``, float64
        :return: ``(R,)`` and ``(R, N, D, m)``
        """
        position, velocity, acceleration = self.motion(problem, y)
        obstacles, limits, robots = problem.obstacles[0].double().numpy(), self.limits, np.arange(len(y))
        first, second = np.triu_indices(len(y), 1)
        apart, toward = nearest(position[first] - position[second], self.modes[0])
        pairs = np.zeros((len(first), *y.shape))
        pairs[np.arange(len(first)), first] = toward
        pairs[np.arange(len(first)), second] = -toward
        clear, away = nearest(position[:, None] - obstacles[None, :, :-1, None], self.modes[0])
        around = np.zeros((len(y), len(obstacles), *y.shape))
        around[robots, :, robots] = away
        values = [apart - 2 * limits.radius - MARGIN, (clear - obstacles[:, -1] - limits.radius - MARGIN).ravel()]
        gradients = [pairs, around.reshape(-1, *y.shape)]
        for slack, growth in (
            within(velocity, self.modes[1], SHARE * limits.v_max),
            within(acceleration, self.modes[2], SHARE * limits.a_max),
            inside(position, self.modes[0], self.border(problem)),
        ):
            own = np.zeros((len(y), *y.shape))
            own[robots, robots] = growth
            values.append(slack)
            gradients.append(own)
        return np.concatenate(values), np.concatenate(gradients)


class IPOPT(Optimizer):
    """CasADi's interior point solver IPOPT, with constraints for each sample. Needs the package `casadi`."""

    def __init__(self, limits: Limits, seconds: float = 30.0) -> None:
        super().__init__(limits, seconds)
        self.casadi = importlib.import_module("casadi")
        self._solver = functools.lru_cache(self._make)

    def _make(self, robots: int, obstacles: int) -> Any:
        """The compiled problem, with lines, border and obstacles as parameters."""
        ca, limits = self.casadi, self.limits
        dimensions, (samples, n_modes) = limits.dimensions, self.modes[0].shape
        y = ca.SX.sym("y", n_modes, robots * dimensions)
        lines = [ca.SX.sym(f"line{order}", samples, robots * dimensions) for order in range(3)]
        border = ca.SX.sym("border", 1, robots * dimensions)
        circles = ca.SX.sym("obstacles", dimensions + 1, obstacles)
        motion = [line + ca.DM(modes) @ y for line, modes in zip(lines, self.modes, strict=True)]
        position, velocity, acceleration = (ca.horzsplit(x, dimensions) for x in motion)
        most = ca.repmat(border, samples, 1)
        rows = [ca.vec(most - motion[0]), ca.vec(most + motion[0])]
        for i in range(robots):
            for j in range(i):
                # Twice the margin, because both robots move between two samples.
                rows.append(ca.sum2((position[i] - position[j]) ** 2) - (2 * limits.radius + 2 * MARGIN) ** 2)
            for o in range(obstacles):
                away = position[i] - ca.repmat(circles[:-1, o].T, samples, 1)
                rows.append(ca.sum2(away**2) - (circles[-1, o] + limits.radius + MARGIN) ** 2)
            rows.append((SHARE * limits.v_max) ** 2 - ca.sum2(velocity[i] ** 2))
            rows.append((SHARE * limits.a_max) ** 2 - ca.sum2(acceleration[i] ** 2))
        problem = {
            "x": ca.vec(y),
            "p": ca.vertcat(*map(ca.vec, (*lines, border, circles))),
            "f": 0.5 * ca.sum1(ca.DM(self.stiffness) * ca.sum2(y**2)),
            "g": ca.vertcat(*rows),
        }
        options = {"ipopt.print_level": 0, "print_time": False, "ipopt.max_cpu_time": self.seconds, "ipopt.sb": "yes"}
        return ca.nlpsol("plan", "ipopt", problem, options)

    def solve(self, problem: Problems, start: th.Tensor) -> tuple[th.Tensor, int]:
        solver = self._solver(len(start), problem.obstacles.shape[1])
        y = start.double().numpy()
        parameters = *self.motion(problem, np.zeros_like(y)), self.border(problem), problem.obstacles[0].double().numpy()
        solution = solver(x0=y.ravel(), p=np.concatenate([part.ravel() for part in parameters]), lbg=0.0)
        return th.from_numpy(np.asarray(solution["x"]).reshape(y.shape)).float(), int(solver.stats()["iter_count"])


def nearest(relative: np.ndarray, modes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Smallest distance to the origin of the straight lines between samples, and its gradient.

    :param relative: Relative positions, ``(..., D, S)``
    :param modes: Derivatives of positions with respect to the coordinates of one robot, ``(S, m)``
    :return: ``(...)`` and ``(..., D, m)``. The gradient does not depend on the derivative of the closest point on a line.
    """
    start, step = relative[..., :-1], np.diff(relative, axis=-1)
    share = np.clip(-(start * step).sum(axis=-2) / np.maximum((step**2).sum(axis=-2), 1e-30), 0, 1)
    points = start + share[..., None, :] * step
    distances = np.sqrt((points**2).sum(axis=-2) + 1e-12)
    k = distances.argmin(axis=-1, keepdims=True)
    distance = np.take_along_axis(distances, k, axis=-1)
    direction = np.take_along_axis(points, k[..., None], axis=-1) / distance[..., None]
    share = np.take_along_axis(share, k, axis=-1)
    return distance[..., 0], direction * ((1 - share) * modes[k[..., 0]] + share * modes[k[..., 0] + 1])[..., None, :]


def within(vectors: np.ndarray, modes: np.ndarray, at_most: float) -> tuple[np.ndarray, np.ndarray]:
    """Smallest slack of the norms of vectors at the samples, ``(N, D, S)`` to ``(N,)``, and its gradient, ``(N, D, m)``."""
    lengths = np.sqrt((vectors**2).sum(axis=1))
    robots, k = np.arange(len(vectors)), lengths.argmax(axis=1)
    length = lengths[robots, k]
    return at_most - length, -(vectors[robots, :, k] / length[:, None])[..., None] * modes[k, None]


def inside(positions: np.ndarray, modes: np.ndarray, border: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest distance to the border over all samples, ``(N, D, S)`` to ``(N,)``, and its gradient, ``(N, D, m)``."""
    slack = (border - np.abs(positions)).reshape(len(positions), -1)
    robots, least = np.arange(len(positions)), slack.argmin(axis=1)
    axis, k = np.divmod(least, positions.shape[-1])
    gradient = np.zeros((*positions.shape[:2], modes.shape[1]))
    gradient[robots, axis] = -np.sign(positions[robots, axis, k])[:, None] * modes[k]
    return slack[robots, least], gradient


#: General optimizers by name.
OPTIMIZERS: dict[str, type[Optimizer]] = {"slsqp": SLSQP, "ipopt": IPOPT}
