"""General optimisers for the plans of several robots: what the safety filter is measured against."""

import abc
import importlib
from typing import Any

import numpy as np
import torch as th

from sb3_flow.planning.basis import make_basis
from sb3_flow.planning.observations import solver_samples
from sb3_flow.planning.problems import Limits, Problems

#: What is added to distances in metres, and what limits are multiplied by, so that the certificate holds between samples.
MARGIN, SHARE = 0.03, 0.95


class Optimiser(abc.ABC):
    """
    Minimises the mean square acceleration over modal coordinates, under distances and limits.

    :param limits: What plans keep to
    :param seconds: Seconds of CPU time after which a problem is given up, where the solver has such a limit
    """

    def __init__(self, limits: Limits, seconds: float = 30.0) -> None:
        self.limits, self.seconds = limits, seconds
        basis = make_basis(12, solver_samples(limits), limits.horizon)
        self.stiffness = basis.stiffness.numpy()
        self.lines, self.modes = zip(
            *(tuple(part.numpy() for part in basis.sampled(order)) for order in range(3)), strict=True
        )

    @abc.abstractmethod
    def solve(self, problem: Problems, start: th.Tensor) -> tuple[th.Tensor, int]:
        """
        Solve one problem.

        :param problem: A batch of one, without padding
        :param start: Where to begin, ``(N, D, m)``
        :return: The plan, ``(N, D, m)`` in float32, and the number of iterations
        """


class SLSQP(Optimiser):
    """
    SciPy's sequential least squares, with one row for each pair, each robot and obstacle, and each limit of a robot: the worst
    of all samples, chords between them included, and its subgradient.
    """

    def solve(self, problem: Problems, start: th.Tensor) -> tuple[th.Tensor, int]:
        optimize = importlib.import_module("scipy.optimize")
        shape = tuple(start.shape)
        boundary = problem.boundary[0].double()
        line = [boundary @ th.as_tensor(matrix).T for matrix in self.lines]
        modes = [th.as_tensor(matrix).T for matrix in self.modes]
        first, second = th.triu_indices(shape[0], shape[0], 1)
        centres, radii = problem.obstacles[0, :, :-1].double(), problem.obstacles[0, :, -1].double()
        size, radius = self.limits.size, self.limits.radius

        def rows(flat: th.Tensor) -> th.Tensor:
            y = flat.view(shape)
            position, velocity, acceleration = (part + y @ matrix for part, matrix in zip(line, modes, strict=True))
            pairs = nearest(position[first] - position[second]) - 2 * radius - MARGIN
            around = position.unsqueeze(1) - centres[None, :, :, None]
            obstacles = (nearest(around) - radii - radius - MARGIN).flatten()
            speed = SHARE * self.limits.v_max - velocity.norm(dim=1).amax(dim=-1)
            strength = SHARE * self.limits.a_max - acceleration.norm(dim=1).amax(dim=-1)
            inside = size - position.abs().amax(dim=(1, 2))
            return th.cat([pairs, obstacles, speed, strength, inside])

        def as_tensor(x: np.ndarray) -> th.Tensor:
            return th.from_numpy(x.copy())

        weights = np.broadcast_to(self.stiffness, shape).ravel()
        result = optimize.minimize(
            lambda x: 0.5 * float((weights * x**2).sum()),
            start.double().numpy().ravel(),
            jac=lambda x: weights * x,
            constraints={
                "type": "ineq",
                "fun": lambda x: rows(as_tensor(x)).numpy(),
                "jac": lambda x: th.autograd.functional.jacobian(rows, as_tensor(x)).numpy(),
            },
            method="SLSQP",
            options={"maxiter": 200},
        )
        return th.from_numpy(result.x).view(shape).float(), int(result.nit)


class IPOPT(Optimiser):
    """CasADi's interior point solver, with rows for each sample. Needs the package `casadi`."""

    def __init__(self, limits: Limits, seconds: float = 30.0) -> None:
        super().__init__(limits, seconds)
        self.casadi = importlib.import_module("casadi")
        self._solvers: dict[tuple[int, int], Any] = {}

    def _solver(self, robots: int, obstacles: int) -> Any:
        """The compiled problem, with lines and obstacles as parameters."""
        ca, limits = self.casadi, self.limits
        dimensions, samples, n_modes = limits.dimensions, *self.modes[0].shape
        y = ca.SX.sym("y", n_modes, robots * dimensions)
        lines = [ca.SX.sym(f"line{order}", samples, robots * dimensions) for order in range(3)]
        circles = ca.SX.sym("obstacles", dimensions + 1, obstacles)
        values = [line + ca.DM(matrix) @ y for line, matrix in zip(lines, self.modes, strict=True)]

        def of(order: int, robot: int) -> Any:
            return values[order][:, robot * dimensions : (robot + 1) * dimensions]

        rows = []
        for i in range(robots):
            for j in range(i):
                # Two robots that meet move twice as far between two samples.
                rows.append(ca.sum2((of(0, i) - of(0, j)) ** 2) - (2 * limits.radius + 2 * MARGIN) ** 2)
            for o in range(obstacles):
                away = of(0, i) - ca.repmat(circles[:-1, o].T, samples, 1)
                rows.append(ca.sum2(away**2) - (circles[-1, o] + limits.radius + MARGIN) ** 2)
            rows.append((SHARE * limits.v_max) ** 2 - ca.sum2(of(1, i) ** 2))
            rows.append((SHARE * limits.a_max) ** 2 - ca.sum2(of(2, i) ** 2))
            rows += [limits.size - part for axis in ca.horzsplit(of(0, i)) for part in (axis, -axis)]
        problem = {
            "x": ca.vec(y),
            "p": ca.vertcat(*(ca.vec(line) for line in lines), ca.vec(circles)),
            "f": 0.5 * ca.sum1(ca.DM(self.stiffness) * ca.sum2(y**2)),
            "g": ca.vertcat(*rows),
        }
        options = {"ipopt.print_level": 0, "print_time": False, "ipopt.max_cpu_time": self.seconds, "ipopt.sb": "yes"}
        return ca.nlpsol("plan", "ipopt", problem, options)

    def solve(self, problem: Problems, start: th.Tensor) -> tuple[th.Tensor, int]:
        robots, dimensions, n_modes = start.shape
        circles = problem.obstacles[0].double().numpy()
        key = robots, len(circles)
        solver = self._solvers.setdefault(key, None) or self._solver(*key)
        self._solvers[key] = solver
        boundary = problem.boundary[0].double().numpy().reshape(robots * dimensions, -1)
        lines = [(matrix @ boundary.T).ravel(order="F") for matrix in self.lines]
        solution = solver(
            x0=start.double().numpy().reshape(robots * dimensions, n_modes).ravel(),
            p=np.concatenate([*lines, circles.ravel()]),
            lbg=0.0,
        )
        y = np.asarray(solution["x"]).reshape(robots, dimensions, n_modes)
        return th.from_numpy(y).float(), int(solver.stats()["iter_count"])


#: General optimisers by name.
OPTIMISERS: dict[str, type[Optimiser]] = {"slsqp": SLSQP, "ipopt": IPOPT}


def nearest(relative: th.Tensor) -> th.Tensor:
    """The least distance from the origin of the straight lines between samples, ``(..., D, S)`` to ``(...)``."""
    start, step = relative[..., :-1], relative.diff(dim=-1)
    share = -(start * step).sum(dim=-2) / step.square().sum(dim=-2).clamp(min=1e-30)
    closest = start + share.clamp(0, 1).unsqueeze(-2) * step
    return (closest.square().sum(dim=-2) + 1e-12).sqrt().amin(dim=-1)
