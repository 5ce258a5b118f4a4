"""What every critic of ours does: aggregate an ensemble, and follow a temporal difference target."""

from typing import Literal, get_args

import torch as th

from sb3_flow.common.policies import FlowPolicy
from sb3_flow.common.types import Batch, Metrics

Aggregation = Literal["mean", "min"]


def check_aggregation(q_agg: str) -> None:
    """
    :param q_agg: An argument of an algorithm
    :raises ValueError: If there is no such aggregation; the message lists them.
    """
    if q_agg not in get_args(Aggregation):
        raise ValueError(f"Unknown `q_agg` {q_agg!r}; choose 'mean' or 'min'.")


def aggregate(qs: th.Tensor, q_agg: str) -> th.Tensor:
    """
    One value out of those of an ensemble.

    :param qs: ``(n_critics, B)``
    :param q_agg: ``"mean"`` or ``"min"``
    :return: ``(B,)``
    """
    return qs.mean(dim=0) if q_agg == "mean" else qs.amin(dim=0)


def pessimistic(qs: th.Tensor, rho: float) -> th.Tensor:
    """
    The mean of an ensemble, lowered where its members disagree.

    :param qs: ``(n_critics, B)``
    :param rho: How many (population) standard deviations to subtract
    :return: ``mean - rho std``, ``(B,)``
    """
    return qs.mean(dim=0) - rho * qs.std(dim=0, correction=0)


def scale_of(q: th.Tensor) -> th.Tensor:
    """The mean of ``|Q|`` over a batch, what a loss is divided by to be independent of the scale of rewards; no gradient."""
    return q.detach().abs().mean().clamp(min=1e-8)


def td_loss(policy: FlowPolicy, batch: Batch, next_q: th.Tensor) -> tuple[th.Tensor, Metrics]:
    """
    The temporal difference error of all critics, ``E[(Q(s, a) - r - gamma m Q'(s', a'))^2]``.

    :param policy: Whose critics
    :param batch: A batch; those of its chunks that are not valid count nothing.
    :param next_q: Value of what follows, ``(B,)``, the same for every critic, without gradient
    :return: Its mean over critics and batch, and what to log. Gradient: critics only.
    """
    target = batch.rewards + batch.discounts * batch.masks * next_q
    qs = policy.q_values(policy.critic, batch.observations, batch.actions)
    loss = (batch.valids * (qs - target).square()).mean()
    return loss, {"critic_loss": loss, "q_mean": qs.mean(), "q_min": qs.amin(), "q_max": qs.amax()}
