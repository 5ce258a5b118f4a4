"""Weights of the improved actions: variants of ``exp(Q / lambda)``."""

from typing import Literal, get_args

import torch as th

WeightMode = Literal["release", "temp", "advantage"]
WEIGHT_MODES = get_args(WeightMode)

#: Exponents of "release" and "advantage" are clipped to plus and minus this.
CLIP = 3.0
#: Exponents of "temp" are at most this, because ``exp`` overflows at 88.
CAP = 10.0
#: Update rate of the running mean and standard deviation of the values.
RATE = 0.001


def weights(
    mode: WeightMode,
    q: th.Tensor,
    statistics: th.Tensor,
    temperature: th.Tensor | float,
    baseline: th.Tensor | None = None,
) -> th.Tensor:
    """
    The weight of each action in the regression, without gradient.

    :param mode: ``"release"``: ``exp(clip(q - mean / std, -3, 3) / temperature)``, as in the published code (without brackets,
        so it is constant for large values); ``"temp"``: ``exp((q - mean) / (std temperature))``; ``"advantage"``:
        ``exp(clip((q - baseline) / std, -3, 3) / temperature)``
    :param q: Values, ``(B,)``
    :param statistics: Their running mean and standard deviation, ``(2,)``
    :param temperature: ``lambda``
    :param baseline: Baseline of the advantage, ``(B,)``
    :return: ``(B,)``
    """
    mean, std = statistics[0], statistics[1].clamp(min=1e-3)
    if mode == "release":
        exponent = (q - mean / std).clamp(-CLIP, CLIP) / temperature
    elif mode == "temp":
        exponent = ((q - mean) / std / temperature).clamp(max=CAP)
    else:
        assert baseline is not None
        exponent = ((q - baseline) / std).clamp(-CLIP, CLIP) / temperature
    return exponent.exp().detach()


def update_statistics(statistics: th.Tensor, q: th.Tensor) -> None:
    """
    Move the running mean and standard deviation toward those of a batch, in place.

    :param statistics: ``(2,)``
    :param q: ``(B,)``
    """
    statistics.lerp_(th.stack([q.mean(), q.std(correction=0)]), RATE)
