"""Aggregation of an ensemble of critics."""

from typing import Literal, get_args

import torch as th

Aggregation = Literal["mean", "min"]


def check_aggregation(q_agg: str) -> None:
    """
    Check the name of an aggregation.

    :param q_agg: The name
    :raises ValueError: If it is unknown; the message lists the names.
    """
    if q_agg not in get_args(Aggregation):
        raise ValueError(f"Unknown `q_agg` {q_agg!r}; choose 'mean' or 'min'.")


def aggregate(qs: th.Tensor, q_agg: str) -> th.Tensor:
    """
    Aggregate the values of an ensemble.

    :param qs: ``(n_critics, B)``
    :param q_agg: ``"mean"`` or ``"min"``
    :return: ``(B,)``
    """
    return qs.mean(dim=0) if q_agg == "mean" else qs.amin(dim=0)
