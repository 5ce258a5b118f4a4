"""The expert that data sets are made of: many proposals, filtered, polished, and the good and different ones kept."""

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

    :param problem: Which problem each one solves, ascending, ``(K,)``, int64
    :param y: The plans, smoothest first for every problem, ``(K, N, D, m)``
    :param cost: Mean square acceleration, ``(K,)``, float64, in m^2/s^4
    :param margin: What the distances have to spare, in metres, ``(K,)``, float64
    :param certified: How many of each problem's proposals ended in a certified plan, ``(B,)``, int64
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
    Solve problems, each in several ways.

    :param problems: The problems, ``B`` of them
    :param filter_: The filter
    :param proposals_per_problem: Proposals of each problem
    :param generator: Where the noise comes from; None: PyTorch's own
    :param sigmas: Sizes of the noise in metres; the proposals of a problem take turns
    :param polish_rounds: Rounds of polishing; see ``polish``
    :param keep: The most plans of one problem
    :param apart: Mean distance in metres that two plans of one problem must have; the smoother one stays.
    :param worst: Plans whose cost is more than this many times the least of their problem are dropped.
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
