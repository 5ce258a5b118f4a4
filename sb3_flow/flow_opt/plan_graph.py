"""Planning of FlowOpt as one graph of tensor operations, which can be exported."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch as th

from sb3_flow.common.type_aliases import TensorObs
from sb3_flow.flow_opt.plans import Candidates
from sb3_flow.planning.filter_loop import Tensors, filter_loop, polish_loop

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
    problems, n, k, runs = policy.problems(observations), len(noise), policy.best_of_n, 1 + len(policy.spreads)
    repeated = problems.repeat(k)
    # Proposals of the flow, then random ones, in case that a problem has no certified plan.
    normal = noise.unflatten(1, (runs, k)).transpose(0, 1).flatten(1, 2)
    flow = policy.propose(problems, normal[0])
    lines = [policy.random_plans(problems, normal[i], spread) for i, spread in enumerate(policy.spreads, start=1)]
    y_0, lambda_0 = policy.starts(repeated, flow) if policy.initialize else (flow, th.zeros_like(flow))
    inputs = [
        th.stack([first, *rest]) for first, rest in ((flow, lines), (y_0, lines), (lambda_0, [0 * line for line in lines]))
    ]

    def more(run: th.Tensor, memory: Tensors) -> th.Tensor:
        *_, solved = memory
        return (run < runs) & ~((run > 0) & solved.all())

    def propose(run: th.Tensor, memory: Tensors) -> Tensors:
        return tuple(part.index_select(0, run.reshape(1)).squeeze(0) for part in inputs)

    def note(run: th.Tensor, memory: Tensors, y: th.Tensor, safe: th.Tensor) -> Tensors:
        plans, certified, ran, solved = memory
        this = (th.arange(runs) == run).unsqueeze(1)
        feasible = policy.assess(problems, repeated, y, safe).feasible
        plans = th.where(this[..., None, None, None], y, plans)
        return plans, certified | this & safe, ran | this, solved | feasible.any(dim=1)

    none = th.zeros(runs, n * k, dtype=th.bool)
    memory = inputs[0].clone(), none, none[:, :1].clone(), none[0, :n].clone()
    plans, certified, ran, _ = filter_loop(policy.filter, repeated, memory, more, propose, note, none[0].clone())

    # All candidates of a problem are adjacent.
    y, safe, tried = (
        part.unflatten(1, (n, k)).transpose(0, 1).flatten(0, 2) for part in (plans, certified, ran.expand(-1, n * k))
    )
    every = problems.repeat(runs * k)
    if policy.gentle_filter is not None:
        y = polish_loop(policy.gentle_filter, every, y, safe, policy.polish_rounds)
    candidates = policy.assess(problems, every, y, th.zeros_like(safe, dtype=th.int64))
    return candidates._replace(feasible=candidates.feasible & tried.view(n, -1)).only_best()
