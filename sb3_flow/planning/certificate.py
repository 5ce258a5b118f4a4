"""Whether a plan is safe at all times, and not only at those that somebody looked at."""

from __future__ import annotations

from typing import NamedTuple

import torch as th

from sb3_flow.planning.basis import differences, make_basis
from sb3_flow.planning.problems import Limits, Problems

#: What every row must have to spare, in its own unit. Rounding in float64 is below a thousandth of it, for workspaces of
#: less than a kilometre.
ROUNDING = 1e-6


class Certified(NamedTuple):
    """
    A verdict on every plan of a batch.

    :param safe: Whether all constraints hold at all times, ``(B,)``, bool. False means only that this could not be shown.
    :param margin: What the distances between robots, and of robots from obstacles, have to spare at the least, in metres,
        ``(B,)``, float64: infinite if there is nobody to meet, and minus infinity if the plan is not finite
    """

    safe: th.Tensor
    margin: th.Tensor


class Slacks(NamedTuple):
    """
    What the rows of one kind have to spare at the least, by lower bounds that hold at all times. Each ``(B,)``, float64.

    :param pairs: Distances between robots, beyond two radii, in metres
    :param obstacles: Distances of robots from obstacles, beyond both radii, in metres
    :param speed: Below the largest speed, in m/s
    :param acceleration: Below the largest acceleration, in m/s^2
    :param workspace: Distances from the border of the workspace, in metres
    """

    pairs: th.Tensor
    obstacles: th.Tensor
    speed: th.Tensor
    acceleration: th.Tensor
    workspace: th.Tensor


class Certificate:
    """
    Judges plans by bounds that hold between the samples as well, in float64, whatever made the plan.

    A polynomial stays in the convex hull of its Bernstein coefficients. Those of an interval between two samples, of length
    ``h``, bound position, speed and acceleration there; let ``A_i`` be the bound of robot ``i``'s acceleration. The straight
    line between two values of ``r = p_i - p_j`` errs by no more than ``h^2 / 8 max |r''|``, so that on the interval::

        |r| >= min_theta |(1 - theta) r_s + theta r_(s + 1)| - h^2 / 8 (A_i + A_j)

    and the same with ``A_j = 0`` for an obstacle. The certificate covers plans as they are executed exactly; whoever follows
    them with an error adds that to the radius.

    :param limits: What all plans must keep to
    :param degree: Degree of the polynomials
    :param samples: Number of times that bound the intervals. More make the bounds tighter, by the square.
    """

    def __init__(self, limits: Limits, degree: int = 12, samples: int = 64) -> None:
        self.limits = limits
        self.basis = make_basis(degree, samples, limits.horizon)
        self.bow = self.basis.step**2 / 8
        local = [_local(degree, order, samples, limits.horizon) for order in range(3)]
        # Values by boundary conditions and modes: at the samples, then the coefficients on the intervals by derivative.
        values = [self.basis.derivatives[0], *(part.flatten(end_dim=1) for part in local)]
        self._rows = [len(part) for part in values]
        by_coordinates = th.cat([self.basis.line, self.basis.modes], dim=1)
        self._matrices = {th.device("cpu"): (th.cat(values) @ by_coordinates).T.contiguous()}

    def certify(self, problems: Problems, y: th.Tensor) -> Certified:
        """
        Judge plans.

        :param problems: The problems, ``B`` of them, in any floating-point type
        :param y: The plans, ``(B, N, D, m)``. Rows of padding do not matter.
        :return: Which are safe, and by what margin
        """
        slacks = self.slacks(problems, y)
        margin = th.minimum(slacks.pairs, slacks.obstacles)
        # Not-a-number is not at least anything.
        return Certified((th.stack(slacks) >= ROUNDING).all(dim=0), margin.nan_to_num(-th.inf, th.inf, -th.inf))

    @th.no_grad()
    def slacks(self, problems: Problems, y: th.Tensor) -> Slacks:
        """
        What plans have to spare.

        :param problems: The problems, ``B`` of them, in any floating-point type
        :param y: The plans, ``(B, N, D, m)``. Rows of padding do not matter.
        :return: The least slack of every kind; infinite where there are no such rows, and not a number or minus infinity where
            the plan is not finite
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
        centres, radii = problems.obstacles[..., :-1].double(), problems.obstacles[..., -1].double()
        distance = _chords(samples.unsqueeze(2) - centres[:, None, :, :, None]) - self.bow * bound.unsqueeze(2)
        slack = distance.amin(dim=-1) - radii.unsqueeze(1) - self.limits.radius  # (B, N, M)
        mask = problems.robot_mask.unsqueeze(2) & problems.obstacle_mask.unsqueeze(1)
        return _least(slack.flatten(start_dim=1), mask.flatten(start_dim=1))

    def _matrix(self, device: th.device) -> th.Tensor:
        if device not in self._matrices:
            self._matrices[device] = self._matrices[th.device("cpu")].to(device)
        return self._matrices[device]


def local_coefficients(degree: int, samples: int) -> th.Tensor:
    """
    The matrices that cut a polynomial into pieces: Bernstein coefficients on every interval between equidistant samples, by
    those on the whole.

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
    """A derivative on the intervals, by the coefficients of the polynomial: ``(S - 1, degree + 1 - order, degree + 1)``."""
    return local_coefficients(degree - order, samples) @ differences(degree, order, horizon)


def _chords(relative: th.Tensor) -> th.Tensor:
    """Least distances from the origin of the straight lines between samples: ``(..., D, S)`` to ``(..., S - 1)``."""
    start, step = relative[..., :-1], relative.diff(dim=-1)
    share = -(start * step).sum(dim=-2) / step.square().sum(dim=-2).clamp(min=1e-30)
    return (start + share.clamp(0, 1).unsqueeze(-2) * step).square().sum(dim=-2).sqrt()


def _least(slack: th.Tensor, mask: th.Tensor) -> th.Tensor:
    """The least slack of every problem: ``(B, K)`` to ``(B,)``; infinite without rows."""
    slack = th.where(mask, slack, th.inf)
    return slack.amin(dim=1) if slack.shape[1] else slack.new_full(slack.shape[:1], th.inf)
