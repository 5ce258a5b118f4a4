"""
The safety filter a second time: slow, literal, in float64, one robot, pair and sample after the other, without a line of the
package but for the basis.
"""

from dataclasses import dataclass

import numpy as np

from sb3_flow.planning.basis import Basis
from sb3_flow.planning.filter_settings import FilterSettings
from sb3_flow.planning.problems import Limits


@dataclass
class Scene:
    """One problem without padding: boundary conditions ``(N, D, 6)``, obstacles ``(M, D + 1)``."""

    basis: Basis
    limits: Limits
    settings: FilterSettings
    boundary: np.ndarray
    obstacles: np.ndarray

    def values(self, order: int, y: np.ndarray) -> np.ndarray:
        """A derivative at the samples, ``(N, D, S)``."""
        line, modes = (x.numpy() for x in self.basis.sampled(order))
        return self.boundary @ line.T + y @ modes.T

    def margin(self, k: int) -> float:
        first, last = self.settings.margin
        return last if k >= self.settings.margin_iterations else first + (last - first) * k / self.settings.margin_iterations

    def penalty(self, k: int) -> float:
        rho, last = self.settings.penalty
        for _ in range(min(k, self.settings.penalty_iterations)):
            rho *= (last / self.settings.penalty[0]) ** (1 / self.settings.penalty_iterations)
        return rho

    def out_of_balls(self, r: np.ndarray, d: float) -> np.ndarray:
        """Pushes of relative positions ``(D, S)`` out of a ball."""
        pushes = np.zeros_like(r)
        samples = r.shape[1]
        if self.settings.push == "samples":
            for s in range(samples):
                pushes[:, s] = max(0.0, d / np.sqrt(r[:, s] @ r[:, s] + 1e-12) - 1) * r[:, s]
            return pushes
        for s in range(samples - 1):
            u = r[:, s + 1] - r[:, s]
            theta = min(max(-(r[:, s] @ u) / (u @ u + 1e-9), 0.0), 1.0)
            q = (1 - theta) * r[:, s] + theta * r[:, s + 1]
            c = max(0.0, d / np.sqrt(q @ q + 1e-12) - 1)
            pushes[:, s] += (1 - theta) * c * q
            pushes[:, s + 1] += theta * c * q
        return pushes

    def forces(self, y: np.ndarray, k: int) -> list[np.ndarray]:
        """Pushes of positions, speeds and accelerations at the samples, each ``(N, D, S)``."""
        p, v, a = (self.values(order, y) for order in range(3))
        limits, settings, mu = self.limits, self.settings, self.margin(k)
        force = np.zeros_like(p)
        for i in range(len(p)):
            for j in range(len(p)):
                if i != j:
                    force[i] += self.out_of_balls(p[i] - p[j], 2 * limits.radius + mu)
            for *center, radius in self.obstacles:
                force[i] += self.out_of_balls(p[i] - np.array(center)[:, None], radius + limits.radius + mu)
            for d in range(p.shape[1]):
                ends = np.abs(self.boundary[i, d, [0, 3]]).max()
                border = max(limits.size - settings.border, ends)
                force[i, d] += np.clip(p[i, d], -border, border) - p[i, d]
        if settings.boost:
            for i in range(len(p)):
                share = np.mean([np.any(force[i, :, s] != 0) for s in range(p.shape[2])])
                force[i] *= (share + 0.05) ** -settings.boost

        def into_ball(x: np.ndarray, radius: float) -> np.ndarray:
            length = np.sqrt((x**2).sum(axis=1, keepdims=True) + 1e-12)
            return np.where(length > radius, (radius / length - 1) * x, 0.0)

        return [
            force,
            into_ball(v, settings.speed_share * limits.v_max),
            into_ball(a, settings.acceleration_share * limits.a_max),
        ]

    def push(self, y: np.ndarray, k: int) -> np.ndarray:
        """``g``, ``(N, D, m)``: means over the samples."""
        weights = (1.0, self.settings.speed_weight**2, self.settings.acceleration_weight**2)
        g = np.zeros_like(y)
        for order, (weight, force) in enumerate(zip(weights, self.forces(y, k), strict=True)):
            g += weight * force @ self.basis.sampled(order)[1].numpy() / self.basis.samples
        return g

    def run(self, proposal: np.ndarray, y_0: np.ndarray, multiplier: np.ndarray, iterations: int) -> np.ndarray:
        """``y_0`` to ``y_K`` of our own iteration, ``(K + 1, N, D, m)``."""
        s = self.settings
        phi = [self.basis.sampled(order)[1].numpy() for order in range(3)]
        position, speed, acceleration = (x.T @ x / self.basis.samples for x in phi)
        metric = s.anchor * np.diag(1 + s.smoothing * self.basis.stiffness.numpy())
        damping = s.majorization * position + s.speed_weight**2 * speed + s.acceleration_weight**2 * acceleration
        iterates = [y_0]
        previous = y_0
        for k in range(iterations):
            y = iterates[-1]
            ahead = y + s.momentum * (y - previous)
            g = self.push(ahead, k)
            rho = self.penalty(k)
            multiplier = multiplier + rho * g
            right = proposal @ metric + multiplier + rho * ahead @ damping + rho * g
            previous = y
            iterates.append(np.linalg.solve(metric + rho * damping, right.reshape(-1, len(metric)).T).T.reshape(y.shape))
        return np.stack(iterates)

    def predecessor_step(self, proposal: np.ndarray, y_0: np.ndarray, multiplier: np.ndarray) -> np.ndarray:
        """
        One iteration of the group's form: the dense quadratic programme of all robots in Bernstein coefficients, axis by axis,
        with sums over samples, and its multipliers, of the shape of the coefficients ``(N, D, n + 1)``.

        :return: Coefficients, ``(N, D, n + 1)``
        """
        basis, rho = self.basis, self.settings.penalty[0]
        w = list(basis.derivatives.numpy())
        robots = len(y_0)
        pairs = [(i, j) for i in range(robots) for j in range(i + 1, robots)]
        incidence = np.zeros((len(pairs), robots))
        for row, (i, j) in enumerate(pairs):
            incidence[row, i], incidence[row, j] = 1, -1
        assert np.array_equal(incidence.T @ incidence, robots * np.eye(robots) - 1)
        own = [w[0]] * (len(self.obstacles) + 1) + [w[1], w[2]]  # obstacles, border, speeds, accelerations
        rows = np.concatenate([np.kron(incidence, w[0]), *(np.kron(np.eye(robots), x) for x in own)])

        p, v, a = (self.values(order, y_0) for order in range(3))
        limits = self.limits

        def outside(r: np.ndarray, d: float) -> np.ndarray:
            return r * np.maximum(1.0, d / np.linalg.norm(r, axis=-2, keepdims=True))

        def inside(r: np.ndarray, d: float) -> np.ndarray:
            return r * np.minimum(1.0, d / np.linalg.norm(r, axis=-2, keepdims=True).clip(min=1e-9))

        wanted = [outside(p[i : i + 1] - p[j], 2 * limits.radius) for i, j in pairs]
        for *center, radius in self.obstacles:
            middle = np.array(center)[:, None]
            wanted.append(middle + outside(p - middle, radius + limits.radius))
        ends = np.abs(self.boundary[..., [0, 3]]).max(axis=-1, keepdims=True)
        border = np.maximum(limits.size, ends)
        wanted += [np.clip(p, -border, border), inside(v, limits.v_max), inside(a, limits.a_max)]
        targets = np.concatenate(wanted)  # (rows / S, D, S)

        conditions = np.concatenate([basis.derivatives.numpy()[:, s] for s in (0, -1)])
        line, modes = basis.line.numpy(), basis.modes.numpy()
        hessian = np.eye(rows.shape[1]) + rho * rows.T @ rows
        equal = np.kron(np.eye(robots), conditions)
        kkt = np.block([[hessian, equal.T], [equal, np.zeros((len(equal), len(equal)))]])
        result = []
        for d in range(y_0.shape[1]):
            coefficients = (self.boundary[:, d] @ line.T + y_0[:, d] @ modes.T).ravel()
            anchor = (self.boundary[:, d] @ line.T + proposal[:, d] @ modes.T).ravel()
            target = targets[:, d].ravel()
            moved = multiplier[:, d].ravel() - rho * rows.T @ (rows @ coefficients - target)
            right = np.concatenate([anchor + moved + rho * rows.T @ target, self.boundary[:, d].ravel()])
            result.append(np.linalg.solve(kkt, right)[: rows.shape[1]].reshape(robots, -1))
        return np.stack(result, axis=1)
