"""Aggregation of an ensemble of critics."""

from typing import Literal, get_args

import torch as th

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
