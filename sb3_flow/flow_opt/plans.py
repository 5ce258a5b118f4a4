"""What planning gives: the best of several candidates, and what is known about each of them."""

from typing import NamedTuple

import torch as th

from sb3_flow.planning.basis import Basis


class Candidates(NamedTuple):
    """
    ``K`` plans for each problem.

    :param actions: As the environment takes them, in [-1, 1], ``(B, K, N D m)``
    :param y: What these are in metres, modal coordinates, ``(B, K, N, D, m)``
    :param feasible: Which of them are certified, ``(B, K)``, bool
    :param margin: The smallest slack of a distance that the certificate found, in metres, ``(B, K)``
    :param iterations: Of the safety filter, ``(B, K)``
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
        Which candidate to take: the smoothest certified one, or, where there is none, the one with the largest margin.

        :return: ``(B,)``
        """
        smoothest = self.cost.masked_fill(~self.feasible, th.inf).argmin(dim=1)
        return th.where(self.feasible.any(dim=1), smoothest, self.margin.nan_to_num(nan=-th.inf).argmax(dim=1))

    def joined(self, others: "Candidates") -> "Candidates":
        """These, and more candidates for the same problems."""
        return Candidates(*(th.cat(pair, dim=1) for pair in zip(self, others, strict=True)))


class Plan(NamedTuple):
    """
    Plans for ``B`` problems. One that is not certified is marked by ``feasible``: look at it before a robot moves.

    :param actions: As the environment takes them, in [-1, 1], ``(B, N D m)``
    :param y: What these are in metres, modal coordinates, ``(B, N, D, m)``
    :param coefficients: The same as Bernstein coefficients, ``(B, N, D, degree + 1)``, float64
    :param feasible: Whether the certificate holds: for all times, not only where somebody looked, ``(B,)``, bool
    :param margin: The smallest slack of a distance that the certificate found, in metres, ``(B,)``
    :param iterations: Of the safety filter, ``(B,)``
    :param cost: Mean square acceleration of the robots, in m^2/s^4, ``(B,)``
    :param time_ms: How long it took, all problems together
    :param candidates: All that it was chosen from
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
    The best candidate of each problem.

    :param candidates: All of them
    :param boundary: Boundary conditions, ``(B, N, D, 6)``
    :param basis: The basis
    :param time_ms: How long it took
    :return: The plans
    """
    chosen = th.arange(len(boundary), device=boundary.device), candidates.best()
    actions, y, feasible, margin, iterations, cost = (part[chosen] for part in candidates)
    return Plan(actions, y, basis.coefficients(boundary, y), feasible, margin, iterations, cost, time_ms, candidates)
