"""Trajectories as polynomials that meet their boundary conditions for any coordinates."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch as th

#: Position, velocity and acceleration, at the start and at the end.
N_BOUNDARY = 6


@dataclass(frozen=True)
class Basis:
    """
    Modal coordinates of the polynomials of one degree. All tensors are float64 on the CPU.

    A trajectory ``p(t)``, ``0 <= t <= horizon``, is the polynomial that meets six boundary conditions ``b`` with the least
    mean square acceleration, plus ``m = degree - 5`` modes that vanish there with their first two derivatives::

        p = line b + sum_j y_j mode_j(t),   <mode_i mode_j> = 1[i = j],   <mode_i'' mode_j''> = stiffness_j 1[i = j]

    where ``<.>`` is the mean over time. Any ``y`` meets the boundary conditions, ``y`` has the unit of ``p`` (meters, root
    mean square), and accelerations are decoupled: ``<p''^2> = <line''^2> + sum_j stiffness_j y_j^2``. The smoothest modes come
    first.

    This is our choice. The authors' published solvers use Bernstein coefficients, whose Gram matrix has a condition number of
    millions.

    :param degree: Degree ``n`` of the polynomials
    :param samples: Number ``S`` of equidistant times from 0 to ``horizon``, both included
    :param horizon: Duration in seconds
    :param line: Maps boundary conditions to Bernstein coefficients, ``(n + 1, 6)``
    :param modes: Bernstein coefficients of the modes, ``(n + 1, m)``
    :param stiffness: Mean square acceleration of each mode, ascending, ``(m,)``, in 1/s^4
    :param bending: Mean square acceleration of a line: ``b' bending b``, ``(6, 6)``
    :param derivatives: Maps Bernstein coefficients to position, velocity and acceleration at the samples, ``(3, S, n + 1)``
    """

    degree: int
    samples: int
    horizon: float
    line: th.Tensor
    modes: th.Tensor
    stiffness: th.Tensor
    bending: th.Tensor
    derivatives: th.Tensor

    @property
    def n_modes(self) -> int:
        """``m``"""
        return self.degree - 5

    @property
    def step(self) -> float:
        """Time between two samples, in seconds."""
        return self.horizon / (self.samples - 1)

    def coefficients(self, boundary: th.Tensor, y: th.Tensor) -> th.Tensor:
        """
        Bernstein coefficients of trajectories, in float64.

        :param boundary: Boundary conditions, ``(..., 6)``: position, velocity and acceleration at the start, then at the end
        :param y: Modal coordinates, ``(..., m)``
        :return: ``(..., n + 1)``
        """
        line, modes = self.line.to(boundary.device), self.modes.to(y.device)
        return boundary.double() @ line.T + y.double() @ modes.T

    def sampled(self, derivative: int = 0) -> tuple[th.Tensor, th.Tensor]:
        """
        Matrices that evaluate trajectories at the samples: ``boundary @ line.T + y @ modes.T``.

        :param derivative: 0: positions, 1: velocities, 2: accelerations
        :return: ``line``, ``(S, 6)``, and ``modes``, ``(S, m)``
        """
        values = self.derivatives[derivative]
        return values @ self.line, values @ self.modes


@functools.lru_cache(maxsize=16)
@th.inference_mode(False)  # also usable in training
def make_basis(degree: int = 12, samples: int = 64, horizon: float = 10.0) -> Basis:
    """
    Build a basis.

    :param degree: Degree of the polynomials, at least 6
    :param samples: Number of times at which constraints are evaluated, at least 2
    :param horizon: Duration in seconds
    :return: The basis
    :raises ValueError: If a number is out of its range.
    """
    if degree < N_BOUNDARY:
        raise ValueError(
            f"`degree` is {degree}; it must be at least {N_BOUNDARY}: below that, the boundary conditions leave no freedom."
        )
    if samples < 2 or not horizon > 0:
        raise ValueError(f"`samples` is {samples} and `horizon` {horizon}; expected at least 2, and more than 0 seconds.")
    u = th.linspace(0, 1, samples, dtype=th.float64)
    derivatives = th.stack([bernstein(degree, u, order, horizon) for order in range(3)])
    ends = th.tensor([0.0, 1.0], dtype=th.float64)
    by_end = th.stack([bernstein(degree, ends, order, horizon) for order in range(3)], dim=1)
    conditions = by_end.flatten(end_dim=1)  # (6, n + 1); only the outer three coefficients of each end matter

    free = slice(3, degree - 2)
    null = th.eye(degree + 1, dtype=th.float64)[:, free]
    mass, stiffness = gram(degree, 0, horizon), gram(degree, 2, horizon)
    # Generalized eigenvalues: A2 V = A1 V Lambda, V' A1 V = I.
    root = th.linalg.cholesky(mass[free, free])
    halfway = th.linalg.solve_triangular(root, stiffness[free, free], upper=False)
    eigenvalues, vectors = th.linalg.eigh(th.linalg.solve_triangular(root, halfway.T, upper=False))
    vectors = th.linalg.solve_triangular(root.T, vectors, upper=True)
    vectors = vectors * vectors[0].sign()  # all modes leave the start in the positive direction
    modes = null @ vectors

    particular = th.linalg.pinv(conditions)
    line = particular - modes @ ((modes.T @ stiffness @ particular) / eigenvalues.unsqueeze(1))
    return Basis(degree, samples, horizon, line, modes, eigenvalues, line.T @ stiffness @ line, derivatives)


def bernstein(degree: int, u: th.Tensor, order: int = 0, horizon: float = 1.0) -> th.Tensor:
    """
    Derivatives of the Bernstein polynomials.

    :param degree: Their degree ``n``
    :param u: Times as fractions of the horizon, ``(S,)``, in [0, 1]
    :param order: Order of the derivative
    :param horizon: Duration in seconds
    :return: Maps coefficients to values, ``(S, n + 1)``, in 1/s^order
    """
    low = degree - order
    index = th.arange(low + 1, dtype=u.dtype, device=u.device)
    binomial = th.tensor([math.comb(low, i) for i in range(low + 1)], dtype=u.dtype, device=u.device)
    u = u.unsqueeze(-1)
    return (binomial * u**index * (1 - u) ** (low - index)) @ differences(degree, order, horizon).to(u)


def differences(degree: int, order: int, horizon: float = 1.0) -> th.Tensor:
    """
    Matrix from Bernstein coefficients to those of a derivative.

    :param degree: Degree ``n``
    :param order: Order of the derivative
    :param horizon: Duration in seconds
    :return: ``(n + 1 - order, n + 1)``, float64
    """
    matrix = th.eye(degree + 1, dtype=th.float64)
    for k in range(order):
        matrix = (degree - k) / horizon * matrix.diff(dim=0)
    return matrix


def gram(degree: int, order: int, horizon: float = 1.0) -> th.Tensor:
    """
    Exact means over time of the products of (derivatives of) Bernstein polynomials.

    :param degree: Degree ``n``
    :param order: Order of the derivative
    :param horizon: Duration in seconds
    :return: ``(n + 1, n + 1)``, float64
    """
    low = degree - order
    products = [
        [math.comb(low, i) * math.comb(low, j) / math.comb(2 * low, i + j) / (2 * low + 1) for j in range(low + 1)]
        for i in range(low + 1)
    ]
    down = differences(degree, order, horizon)
    return down.T @ th.tensor(products, dtype=th.float64) @ down
