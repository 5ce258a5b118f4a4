"""Types of the arguments and results of updates."""

from collections.abc import Callable
from typing import NamedTuple

import torch as th

TensorObs = th.Tensor | dict[str, th.Tensor]
Metrics = dict[str, th.Tensor]
#: A velocity field for given observations: ``(x, t) -> v``, of shapes ``(B, D), (B, 1) -> (B, D)``.
Velocity = Callable[[th.Tensor, th.Tensor], th.Tensor]


class Batch(NamedTuple):
    """
    A minibatch of ``B`` transitions of ``n`` steps each (``n = 1`` without n-step returns).

    :param observations: ``(B, *shape)`` or a dictionary of these
    :param actions: ``(B, action_dim)`` in [-1, 1]; for chunks of ``h`` actions ``(B, h * action_dim)``, time first
    :param rewards: ``(B,)``, the discounted sum of the rewards of the ``n`` steps
    :param masks: ``(B,)``, 0 for a termination within these steps, else 1
    :param discounts: ``(B,)``, gamma to the power of the number of summed steps, the factor of the bootstrap value
    :param next_observations: as ``observations``, after these steps
    :param valids: ``(B,)``, 0 for a chunk that reaches past the end of its trajectory, else 1
    :param action_valids: ``(B, h)``, 0 for the actions of such a chunk that lie past the end (its last action, repeated), else
        1; buffers always give it. None: as ``valids`` for the whole chunk.
    """

    observations: TensorObs
    actions: th.Tensor
    rewards: th.Tensor
    masks: th.Tensor
    discounts: th.Tensor
    next_observations: TensorObs
    valids: th.Tensor
    action_valids: th.Tensor | None = None
