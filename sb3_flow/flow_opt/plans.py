"""Results of planning: candidates and the best plan among them."""

from typing import NamedTuple

import torch as th

from sb3_flow.planning.basis import Basis


class Candidates(NamedTuple):
    """
    ``K`` plans for each problem.

    :param actions: Actions of the environment, in [-1, 1], ``(B, K, N D m)``
    :param y: The same as modal coordinates in meters, ``(B, K, N, D, m)``
    :param feasible: Whether they are certified, ``(B, K)``, bool
    :param margin: Smallest slack of the distances, by the certificate, in meters, ``(B, K)``
    :param iterations: Iterations of the safety filter, ``(B, K)``
    :param cost: Mean square acceleration of the robots, in m^2/s^4, ``(B, K)``
    """

    actions: th.Tensor
    y: th.Tensor
    feasible: th.Tensor
    margin: th.Tensor
    iterations: th.Tensor
    cost: th.Tensor

    def best(self) -> th.Tensor:
        """
        Index of the best candidate: the smoothest certified one, or the one with the largest margin if none is certified.

        :return: ``(B,)``
        """
        smoothest = self.cost.masked_fill(~self.feasible, th.inf).argmin(dim=1)
        return th.where(self.feasible.any(dim=1), smoothest, self.margin.nan_to_num(nan=-th.inf).argmax(dim=1))

    def only_best(self) -> "Candidates":
        """The best candidate of each problem, ``K = 1``."""
        chosen = self.best().unsqueeze(1)
        rows = th.arange(len(chosen), device=chosen.device).unsqueeze(1)
        return Candidates(*(part[rows, chosen] for part in self))

    def joined(self, others: "Candidates") -> "Candidates":
        """Append candidates for the same problems."""
        return Candidates(*(th.cat(pair, dim=1) for pair in zip(self, others, strict=True)))


class Plan(NamedTuple):
    """
    Plans for ``B`` problems. Check ``feasible`` before you execute a plan.

    :param actions: Actions of the environment, in [-1, 1], ``(B, N D m)``
    :param y: The same as modal coordinates in meters, ``(B, N, D, m)``
    :param coefficients: The same as Bernstein coefficients, ``(B, N, D, degree + 1)``, float64
    :param feasible: Whether the plan is certified to be safe at all times, ``(B,)``, bool
    :param margin: Smallest slack of the distances, by the certificate, in meters, ``(B,)``
    :param iterations: Iterations of the safety filter, ``(B,)``
    :param cost: Mean square acceleration of the robots, in m^2/s^4, ``(B,)``
    :param time_ms: Wall time for all problems together, in milliseconds
    :param candidates: The candidates from which the plans were chosen
    """

    actions: th.Tensor
    y: th.Tensor
    coefficients: th.Tensor
    feasible: th.Tensor
    margin: th.Tensor
    iterations: th.Tensor
    cost: th.Tensor
    time_ms: float
    candidates: Candidates


def best_plan(candidates: Candidates, boundary: th.Tensor, basis: Basis, time_ms: float) -> Plan:
    """
    Choose the best candidate of each problem.

    :param candidates: The candidates
    :param boundary: Boundary conditions, ``(B, N, D, 6)``
    :param basis: The basis
    :param time_ms: Wall time in milliseconds
    :return: The plans
    """
    chosen = th.arange(len(boundary), device=boundary.device), candidates.best()
    actions, y, feasible, margin, iterations, cost = (part[chosen] for part in candidates)
    return Plan(actions, y, basis.coefficients(boundary, y), feasible, margin, iterations, cost, time_ms, candidates)
