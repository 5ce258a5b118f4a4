"""The one-step actor of FQL and its kin: it agrees with a flow that starts from the same noise, and climbs the critics."""

from typing import NamedTuple

import torch as th
from torch.nn import functional as F

from sb3_flow.common.critics import aggregate, scale_of
from sb3_flow.common.policies import FlowPolicy, Network
from sb3_flow.common.types import Metrics, TensorObs


class Proposals(NamedTuple):
    """
    What the actor and its teacher, a flow, would do in the states of a batch, from the same noise.

    :param actions: The actor's, not clipped, with their graph, ``(B, action_dim)``
    :param teacher_actions: The flow's, ``(B, action_dim)`` in [-1, 1]
    :param q: Value of the actor's actions, clipped, with its graph, ``(B,)``
    :param scale: What values are divided by, a number
    """

    actions: th.Tensor
    teacher_actions: th.Tensor
    q: th.Tensor
    scale: th.Tensor


def propose(
    policy: FlowPolicy,
    actor: Network,
    observations: TensorObs,
    noise: th.Tensor,
    teacher_actions: th.Tensor,
    q_agg: str = "mean",
    normalize: bool = False,
) -> Proposals:
    """
    :param policy: Whose critics
    :param actor: As made by ``make_one_step_actor``
    :param observations: A raw batch
    :param noise: What both start from, ``(B, action_dim)``
    :param teacher_actions: What the flow made of it, without gradient, ``(B, action_dim)``
    :param q_agg: How the critics are aggregated
    :param normalize: Whether values are divided by the mean of their size
    :return: What both would do
    """
    # Not clipped for the distillation: outside the box the critic pushes no more, and this brings the actor back.
    actions = policy.one_step(actor, observations, noise)
    q = aggregate(policy.q_values(policy.critic, observations, actions.clamp(-1, 1), frozen=True), q_agg)
    return Proposals(actions, teacher_actions, q, scale_of(q) if normalize else q.new_ones(()))


def one_step_loss(proposals: Proposals, alpha: float) -> tuple[th.Tensor, Metrics]:
    """
    ``alpha E[|mu(s, z) - flow(s, z)|^2] - E[Q(s, clip(mu(s, z)))] / scale``. Gradient: the one-step actor only.

    :param proposals: As made by ``propose``
    :param alpha: Weight of the distillation
    :return: The loss, and what to log
    """
    distill_loss = F.mse_loss(proposals.actions, proposals.teacher_actions)
    q_loss = -proposals.q.mean() / proposals.scale
    loss = alpha * distill_loss + q_loss
    return loss, {"actor_loss": loss, "distill_loss": distill_loss, "q_loss": q_loss}
