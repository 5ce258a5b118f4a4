"""The expert that makes datasets: it filters and polishes many proposals and keeps plans that are smooth and different."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch as th

from sb3_flow.planning.costs import distance, noise, smoothness
from sb3_flow.planning.polish import polish
from sb3_flow.planning.problems import Problems
from sb3_flow.planning.safety_filter import SafetyFilter


class Expert(NamedTuple):
    """
    Certified plans.

    :param problem: Index of the problem of each plan, ascending, ``(K,)``, int64
    :param y: The plans, smoothest first for each problem, ``(K, N, D, m)``
    :param cost: Mean square acceleration, ``(K,)``, float64, in m^2/s^4
    :param margin: Smallest slack of the distances, in meters, ``(K,)``, float64
    :param certified: Number of proposals of each problem that became certified plans, ``(B,)``, int64
    """

    problem: th.Tensor
    y: th.Tensor
    cost: th.Tensor
    margin: th.Tensor
    certified: th.Tensor


@th.no_grad()
def solve(
    problems: Problems,
    filter_: SafetyFilter,
    proposals_per_problem: int = 8,
    generator: th.Generator | None = None,
    *,
    sigmas: Sequence[float] = (0.1, 0.2, 0.4),
    polish_rounds: int = 12,
    keep: int = 8,
    apart: float = 0.2,
    worst: float = 2.0,
) -> Expert:
    """
    Find several plans for each problem.

    :param problems: ``B`` problems
    :param filter_: The safety filter
    :param proposals_per_problem: Number of proposals for each problem
    :param generator: Random generator of the proposals; None: PyTorch's default
    :param sigmas: Standard deviations of the noise in meters; the proposals of a problem alternate between them
    :param polish_rounds: Rounds of polishing; see ``polish``
    :param keep: Largest number of plans for one problem
    :param apart: Smallest mean distance in meters between two plans of one problem; of two closer plans, the smoother stays
    :param worst: Plans are dropped if their cost is more than this many times the smallest cost of their problem
    :return: The plans
    """
    batch, many = len(problems.start), problems.repeat(proposals_per_problem)
    sizes = th.tensor(sigmas).to(problems.start)[th.arange(proposals_per_problem) % len(sigmas)].repeat(batch)
    filtered = filter_(many, noise(many, filter_.basis, sizes, generator))
    polished = polish(filter_, many, filtered.y, filtered.safe, polish_rounds)
    cost = smoothness(many, polished.y, filter_.basis)

    chosen: list[int] = []
    safe, costs = polished.safe.tolist(), cost.tolist()
    for problem in range(batch):
        candidates = range(problem * proposals_per_problem, (problem + 1) * proposals_per_problem)
        kept: list[int] = []
        for row in sorted((row for row in candidates if safe[row]), key=costs.__getitem__):
            if len(kept) == keep or (kept and costs[row] > worst * costs[kept[0]]):
                break
            same = many.select(th.tensor(kept, dtype=th.int64, device=cost.device))
            if not (distance(same, polished.y[row], polished.y[kept], filter_.basis) < apart).any():
                kept.append(row)
        chosen += kept
    rows = th.tensor(chosen, dtype=th.int64, device=cost.device)
    return Expert(
        rows // proposals_per_problem,
        polished.y[rows],
        cost[rows],
        polished.margin[rows],
        polished.safe.view(batch, proposals_per_problem).sum(dim=1),
    )
