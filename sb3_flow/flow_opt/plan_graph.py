"""Planning of FlowOpt as one graph of tensor operations, which can be exported."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch as th

from sb3_flow.common.type_aliases import TensorObs
from sb3_flow.flow_opt.plans import Candidates
from sb3_flow.planning.filter_loop import Tensors, filter_loop, polish_loop, while_loop

if TYPE_CHECKING:
    from sb3_flow.flow_opt.policies import FlowOptPolicy


def plan_in_graph(policy: FlowOptPolicy, observations: TensorObs, noise: th.Tensor) -> Candidates:
    """
    As ``FlowOptPolicy.plan`` without a deadline.

    :param policy: The policy
    :param observations: A raw batch of ``B``
    :param noise: Standard normal, ``(B, n_noises, action_dim)``
    :return: The best candidate of each problem, ``K = 1``. Its ``iterations`` are 0.
    """
    problems, k = policy.problems(observations), policy.best_of_n
    repeated = problems.repeat(k)
    # Proposals of the flow, then random ones for the fallback.
    normal = [part.flatten(end_dim=1) for part in th.split(noise, k, dim=1)]
    flow = policy.propose(problems, normal[0])
    lines = [policy.random_plans(problems, part, spread) for part, spread in zip(normal[1:], policy.spreads, strict=True)]
    y_0, lambda_0 = policy.starts(repeated, flow) if policy.initialize else (flow, th.zeros_like(flow))
    proposals, starts = th.stack([flow, *lines]), th.stack([y_0, *lines])
    forces = th.stack([lambda_0, *(th.zeros_like(line) for line in lines)])

    def more(run: th.Tensor, *best: th.Tensor) -> th.Tensor:
        return (run < len(normal)) & ~Candidates(*best).feasible.all()

    def repair(run: th.Tensor, *best: th.Tensor) -> Tensors:
        x, y_0, lambda_0 = (part.index_select(0, run.reshape(1)).squeeze(0) for part in (proposals, starts, forces))
        y, safe = filter_loop(policy.filter, repeated, x, y_0, lambda_0, skip=th.zeros_like(x[:, 0, 0, 0], dtype=th.bool))
        if policy.gentle_filter is not None:
            y = polish_loop(policy.gentle_filter, repeated, y, safe, policy.polish_rounds)
        candidates = policy.assess(problems, repeated, y, th.zeros_like(safe, dtype=th.int64))
        return run + 1, *Candidates(*best).joined(candidates).only_best()

    none = policy.assess(problems, problems, policy.to_plans(noise[:, 0]), th.zeros_like(noise[:, 0, 0], dtype=th.int64))
    feasible, margin = th.zeros_like(none.feasible), th.full_like(none.margin, -th.inf)
    none = none._replace(actions=th.full_like(none.actions, th.nan), feasible=feasible, margin=margin)
    return Candidates(*while_loop(more, repair, [th.zeros((), dtype=th.int64), *none])[1:])
