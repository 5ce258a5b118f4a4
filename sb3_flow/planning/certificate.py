"""Certificate that a plan is safe at all times, not only at sampled times."""

from __future__ import annotations

from typing import NamedTuple

import torch as th

from sb3_flow.planning.basis import differences, make_basis
from sb3_flow.planning.problems import Limits, Problems

#: Required slack of every constraint, in its own unit. Rounding in float64 is below a thousandth of it for workspaces smaller
#: than a kilometer.
ROUNDING = 1e-6


class Certified(NamedTuple):
    """
    Result of the certificate for each plan of a batch.

    :param safe: Whether all constraints hold at all times, ``(B,)``, bool. False means only that this could not be proven.
    :param margin: Smallest slack of the distances between robots and to obstacles, in meters, ``(B,)``, float64: infinite
        without other robots and obstacles, minus infinity if the plan is not finite
    """

    safe: th.Tensor
    margin: th.Tensor


class Slacks(NamedTuple):
    """
    Smallest slack of each kind of constraint: lower bounds that hold at all times. Each ``(B,)``, float64.

    :param pairs: Distance between robots minus two radii, in meters
    :param obstacles: Distance between robot and obstacle minus both radii, in meters
    :param speed: Largest allowed speed minus speed, in m/s
    :param acceleration: Largest allowed acceleration minus acceleration, in m/s^2
    :param workspace: Distance to the border of the workspace, in meters
    """

    pairs: th.Tensor
    obstacles: th.Tensor
    speed: th.Tensor
    acceleration: th.Tensor
    workspace: th.Tensor


class Certificate:
    """
    Certifies plans with bounds in float64 that also hold between the samples. It does not depend on how a plan was made.

    A polynomial stays in the convex hull of its Bernstein coefficients. The coefficients on an interval of length ``h``
    between two samples bound position, speed and acceleration there; let ``A_i`` be the bound of robot ``i``'s acceleration.
    The straight line between two values of ``r = p_i - p_j`` has an error of at most ``h^2 / 8 max |r''|``, so on the
    interval::

        |r| >= min_theta |(1 - theta) r_s + theta r_(s + 1)| - h^2 / 8 (A_i + A_j)

    and the same with ``A_j = 0`` for an obstacle. The certificate assumes exact execution. Add the tracking error to the
    radius.

    :param limits: Limits of all plans
    :param degree: Degree of the polynomials
    :param samples: Number of times that bound the intervals. The error of the bounds falls with the square of this number.
    """

    def __init__(self, limits: Limits, degree: int = 12, samples: int = 64) -> None:
        self.limits = limits
        self.basis = make_basis(degree, samples, limits.horizon)
        self.bow = self.basis.step**2 / 8
        local = [_local(degree, order, samples, limits.horizon) for order in range(3)]
        # From boundary conditions and modes to values at the samples, then to coefficients on the intervals by derivative.
        values = [self.basis.derivatives[0], *(part.flatten(end_dim=1) for part in local)]
        self._rows = [len(part) for part in values]
        by_coordinates = th.cat([self.basis.line, self.basis.modes], dim=1)
        self._matrices = {th.device("cpu"): (th.cat(values) @ by_coordinates).T.contiguous()}

    def certify(self, problems: Problems, y: th.Tensor) -> Certified:
        """
        Certify plans.

        :param problems: ``B`` problems, in any floating-point type
        :param y: The plans, ``(B, N, D, m)``. Padding is ignored.
        :return: Which plans are safe, and their margins
        """
        slacks = self.slacks(problems, y)
        margin = th.minimum(slacks.pairs, slacks.obstacles)
        # Comparisons with NaN are false.
        return Certified((th.stack(slacks) >= ROUNDING).all(dim=0), margin.nan_to_num(-th.inf, th.inf, -th.inf))

    @th.no_grad()
    def slacks(self, problems: Problems, y: th.Tensor) -> Slacks:
        """
        Slack of plans.

        :param problems: ``B`` problems, in any floating-point type
        :param y: The plans, ``(B, N, D, m)``. Padding is ignored.
        :return: Smallest slack of each kind of constraint; infinite if there are none of a kind, NaN or minus infinity if the
            plan is not finite
        :raises ValueError: If the shapes do not fit together.
        """
        batch, robots, dimensions = problems.start.shape
        expected = (batch, robots, dimensions, self.basis.n_modes)
        if y.shape != expected or dimensions != self.limits.dimensions:
            raise ValueError(
                f"The plans have shape {tuple(y.shape)}; expected {expected}, with {self.limits.dimensions} dimensions: "
                "problems, robots, axes, and the modes of the certificate's degree."
            )
        there = problems.robot_mask
        coordinates = th.cat([problems.boundary.double(), y.double()], dim=-1)
        coordinates = th.where(there[..., None, None], coordinates, 0.0)
        samples, *local = th.split(coordinates @ self._matrix(y.device), self._rows, dim=-1)
        position, velocity, acceleration = (part.reshape(*part.shape[:3], self.basis.samples - 1, -1) for part in local)

        speed = velocity.square().sum(dim=2).amax(dim=(-2, -1)).sqrt()  # (B, N)
        bound = acceleration.square().sum(dim=2).amax(dim=-1).sqrt()  # (B, N, S - 1)
        return Slacks(
            self._pairs(samples, bound, there),
            self._obstacles(samples, bound, problems),
            _least(self.limits.v_max - speed, there),
            _least(self.limits.a_max - bound.amax(dim=-1), there),
            _least(self.limits.size - position.abs().amax(dim=(-3, -2, -1)), there),
        )

    def _pairs(self, samples: th.Tensor, bound: th.Tensor, there: th.Tensor) -> th.Tensor:
        first, second = th.triu_indices(there.shape[1], there.shape[1], 1, device=there.device)
        distance = _chords(samples[:, first] - samples[:, second]) - self.bow * (bound[:, first] + bound[:, second])
        return _least(distance.amin(dim=-1) - 2 * self.limits.radius, there[:, first] & there[:, second])

    def _obstacles(self, samples: th.Tensor, bound: th.Tensor, problems: Problems) -> th.Tensor:
        centers, radii = problems.obstacles[..., :-1].double(), problems.obstacles[..., -1].double()
        distance = _chords(samples.unsqueeze(2) - centers[:, None, :, :, None]) - self.bow * bound.unsqueeze(2)
        slack = distance.amin(dim=-1) - radii.unsqueeze(1) - self.limits.radius  # (B, N, M)
        mask = problems.robot_mask.unsqueeze(2) & problems.obstacle_mask.unsqueeze(1)
        return _least(slack.flatten(start_dim=1), mask.flatten(start_dim=1))

    def _matrix(self, device: th.device) -> th.Tensor:
        if device not in self._matrices:
            self._matrices[device] = self._matrices[th.device("cpu")].to(device)
        return self._matrices[device]


def local_coefficients(degree: int, samples: int) -> th.Tensor:
    """
    Matrices that subdivide a polynomial: from its Bernstein coefficients to those on each interval between equidistant
    samples.

    Coefficient ``i`` of an interval is the polar form at ``i`` copies of its right and ``degree - i`` of its left end.

    :param degree: Degree of the polynomial
    :param samples: Number of samples ``S``, both ends included
    :return: ``(S - 1, degree + 1, degree + 1)``, float64
    """
    times = th.linspace(0, 1, samples, dtype=th.float64)
    left, right = times[:-1, None, None], times[1:, None, None]
    rows = []
    for i in range(degree + 1):
        row = th.eye(degree + 1, dtype=th.float64).expand(samples - 1, -1, -1)
        for k in range(degree):
            time = right if k < i else left
            row = (1 - time) * row[:, :-1] + time * row[:, 1:]
        rows.append(row)
    return th.cat(rows, dim=1)


def _local(degree: int, order: int, samples: int, horizon: float) -> th.Tensor:
    """Maps coefficients to those of a derivative on the intervals, ``(S - 1, degree + 1 - order, degree + 1)``."""
    return local_coefficients(degree - order, samples) @ differences(degree, order, horizon)


def _chords(relative: th.Tensor) -> th.Tensor:
    """Smallest distance to the origin of each straight line between samples: ``(..., D, S)`` to ``(..., S - 1)``."""
    start, step = relative[..., :-1], relative.diff(dim=-1)
    share = -(start * step).sum(dim=-2) / step.square().sum(dim=-2).clamp(min=1e-30)
    return (start + share.clamp(0, 1).unsqueeze(-2) * step).square().sum(dim=-2).sqrt()


def _least(slack: th.Tensor, mask: th.Tensor) -> th.Tensor:
    """Smallest slack of each problem: ``(B, K)`` to ``(B,)``; infinite without constraints."""
    slack = th.where(mask, slack, th.inf)
    return slack.amin(dim=1) if slack.shape[1] else slack.new_full(slack.shape[:1], th.inf)
