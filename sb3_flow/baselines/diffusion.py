"""
Denoising diffusion with a cosine schedule (Ho, Jain and Abbeel, 2020; Nichol and Dhariwal, 2021), with two samplers.

Levels run from 0 (nearly data) to ``n - 1`` (noise). At level ``i`` a sample is ``sqrt(c_i) x + sqrt(1 - c_i) epsilon``, where
``c_i`` is the ``i``-th entry of the schedule, and a network predicts ``epsilon``.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate, pairwise
from operator import mul

import torch as th

#: Predicts the noise in samples, ``(B, D)``, of a level.
Denoiser = Callable[[th.Tensor, int], th.Tensor]
#: Shift of the cosine, and upper bound of ``beta``.
SHIFT, MAX_BETA = 0.008, 0.999


@cache
def cosine_schedule(n_levels: int) -> tuple[float, ...]:
    """
    The fraction of data in the variance of each level.

    :param n_levels: Number of levels
    :return: ``c_i = prod_(j <= i) (1 - beta_j)`` with ``beta_j = min(1 - f((j + 1) / n) / f(j / n), 0.999)`` and ``f(u) =
        cos^2(pi / 2 (u + 0.008) / 1.008)``
    """
    f = [math.cos(math.pi / 2 * (i / n_levels + SHIFT) / (1 + SHIFT)) ** 2 for i in range(n_levels + 1)]
    return tuple(accumulate((max(after / before, 1 - MAX_BETA) for before, after in pairwise(f)), mul))


def noisy(x: th.Tensor, epsilon: th.Tensor, share: th.Tensor) -> th.Tensor:
    """
    Add noise to data.

    :param x: Data, ``(B, D)``
    :param epsilon: Noise, ``(B, D)``
    :param share: Entries of the schedule, ``(B, 1)``
    :return: ``sqrt(c) x + sqrt(1 - c) epsilon``
    """
    return share.sqrt() * x + (1 - share).sqrt() * epsilon


def clean(x: th.Tensor, epsilon: th.Tensor, share: float, clip: float) -> th.Tensor:
    """
    Remove noise from samples: ``(x - sqrt(1 - c) epsilon) / sqrt(c)``, clipped.

    :param x: Samples, ``(B, D)``
    :param epsilon: Noise, ``(B, D)``
    :param share: ``c``
    :param clip: Bound on data
    :return: ``(B, D)``
    """
    return ((x - math.sqrt(1 - share) * epsilon) / math.sqrt(share)).clamp(-clip, clip)


def ddpm(denoise: Denoiser, noise: Sequence[th.Tensor], schedule: Sequence[float], clip: float = 1.0) -> th.Tensor:
    """
    Ancestral sampling: at each level, sample from the posterior of the level below, given the predicted data. The variance is
    that of ``q(x_(i-1) | x_i, x)``, the smaller of the two common choices.

    :param denoise: The network
    :param noise: Standard normal, one ``(B, D)`` for each level: the initial sample, then the added noise
    :param schedule: Schedule of all levels
    :param clip: Bound on data; infinity: no clipping
    :return: Samples, ``(B, D)``
    """
    x = noise[0]
    for step, i in enumerate(reversed(range(len(schedule)))):
        share, below = schedule[i], schedule[i - 1] if i else 1.0
        data = clean(x, denoise(x, i), share, clip)
        kept = share / below  # 1 - beta
        mean = math.sqrt(below) * (1 - kept) / (1 - share) * data + math.sqrt(kept) * (1 - below) / (1 - share) * x
        std = math.sqrt((1 - kept) * (1 - below) / (1 - share))
        x = mean + std * noise[step + 1] if i else mean
    return x


def ddim(denoise: Denoiser, noise: th.Tensor, schedule: Sequence[float], n_steps: int, clip: float = 1.0) -> th.Tensor:
    """
    Deterministic sampling on some of the levels (Song, Meng and Ermon, 2021, with eta = 0): ``0, r, 2 r, ...`` with
    ``r = n // n_steps``, in descending order.

    :param denoise: The network
    :param noise: Standard normal, ``(B, D)``
    :param schedule: Schedule of all levels
    :param n_steps: Number of levels to use, at most all
    :param clip: Bound on data; infinity: no clipping
    :return: Samples, ``(B, D)``
    """
    x, ratio = noise, len(schedule) // n_steps
    for step in reversed(range(n_steps)):
        share, below = schedule[step * ratio], schedule[(step - 1) * ratio] if step else 1.0
        epsilon = denoise(x, step * ratio)
        data = clean(x, epsilon, share, clip)
        x = math.sqrt(below) * data + math.sqrt(1 - below) * epsilon
    return x
