"""Behaviour cloning by flow matching, which several algorithms begin with."""

import torch as th

from sb3_flow.common.flow import flow_matching_loss
from sb3_flow.common.types import Batch, Metrics, Velocity


def cloning_loss(velocity: Velocity, batch: Batch, x0: th.Tensor, t: th.Tensor) -> tuple[th.Tensor, Metrics]:
    """
    Flow matching towards the actions of the data, ``E[|v(s, x_t, t) - (a - x_0)|^2]``, a mean over dimensions.

    :param velocity: The field, given the batch's observations
    :param batch: A batch; those of its chunks that are not valid count nothing.
    :param x0: Start of the straight path, ``(B, action_dim)``
    :param t: Time on that path, ``(B, 1)``
    :return: The loss, and what to log
    """
    loss = (batch.valids * flow_matching_loss(velocity, x0, batch.actions, t)).mean()
    return loss, {"bc_flow_loss": loss}
