"""
The tubes of streaming flow policies: pure functions of tensors, in the notation of the paper.

Flow time ``t`` is the time of execution: the ``j``-th of ``H`` actions is executed at ``t = j / H``. A demonstrated chunk is a
curve ``xi(t)`` in the space of actions, piecewise linear with the knots ``xi_0, ..., xi_H``; ``xi_0`` is the action before the
chunk. The conditional flow is a thin Gaussian tube around the curve::

    deterministic    a(t) = xi(t) + sigma_0 exp(-k t) eta                                            eta ~ N(0, I)
    stochastic       a(t) = xi(t) + sigma_0 exp(-k t) eta + sigma_r t z_0                            z_0 ~ N(0, I)
                     z(t) = (1 - (1 - sigma_1) t) z_0 + t xi(t)

``k`` is the gain that pulls toward the curve. In the stochastic variant a latent ``z`` chooses between demonstrations: it is
noise at ``t = 0`` and approaches the action; ``sigma_r`` is such that both have the standard deviation ``sigma_1`` at ``t =
1``.
"""

import math
from collections.abc import Sequence

import torch as th


def segment(knots: th.Tensor, t: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """
    The curve through the knots.

    :param knots: ``(B, H + 1, A)``, at the times ``j / H``
    :param t: Times in [0, 1], ``(B, 1)``
    :return: ``xi(t)`` and its slope ``xi'(t)``, ``(B, A)`` each. At a knot the slope is that of the next segment; at the end,
        that of the last one.
    """
    n_segments = knots.shape[1] - 1
    s = t * n_segments
    j = s.floor().clamp(0, n_segments - 1)
    index = j.long().unsqueeze(-1).expand(-1, -1, knots.shape[2])
    start, end = knots.gather(1, index).squeeze(1), knots.gather(1, index + 1).squeeze(1)
    return th.lerp(start, end, (s - j).expand_as(start)), n_segments * (end - start)


def tube_std(t: th.Tensor, sigma_0: float, k: float) -> th.Tensor:
    """``sigma_0 exp(-k t)``, the standard deviation of the deterministic tube (its mean is ``xi``)."""
    return sigma_0 * th.exp(-k * t)


def velocity(a: th.Tensor, xi: th.Tensor, slope: th.Tensor, k: float) -> th.Tensor:
    """
    The velocity field of one demonstration in the deterministic variant: along the curve and toward it.

    :param a: Actions, ``(B, A)``
    :param xi: The curve at that time, ``(B, A)``
    :param slope: Its slope, ``(B, A)``
    :param k: The gain, per unit of flow time
    :return: ``xi' - k (a - xi)``, ``(B, A)``
    """
    return slope - k * (a - xi)


def latent_std(sigma_0: float, sigma_1: float, k: float) -> float:
    """
    Scale of the latent's effect on actions.

    :param sigma_0: Standard deviation of the tube at ``t = 0``
    :param sigma_1: Standard deviation at ``t = 1``
    :param k: The gain
    :return: ``sigma_r = sqrt(sigma_1^2 - sigma_0^2 exp(-2 k))``
    :raises ValueError: If ``sigma_1`` is below ``sigma_0 exp(-k)``.
    """
    variance = sigma_1**2 - (sigma_0 * math.exp(-k)) ** 2
    if variance < 0:
        raise ValueError(
            f"`sigma_1` is {sigma_1}; it must be at least `sigma_0` exp(-`k`), {sigma_0 * math.exp(-k):.4g}, because the "
            "latent can only widen the tube."
        )
    return math.sqrt(variance)


def latent_share(t: th.Tensor, sigma_1: float) -> th.Tensor:
    """``b(t) = 1 - (1 - sigma_1) t``, the coefficient of ``z_0`` in ``z``."""
    return 1.0 - (1.0 - sigma_1) * t


def latent_velocity(
    a: th.Tensor, z: th.Tensor, xi: th.Tensor, slope: th.Tensor, t: th.Tensor, sigma_0: float, sigma_1: float, k: float
) -> tuple[th.Tensor, th.Tensor]:
    """
    The velocity field of one demonstration in the stochastic variant, with ``z_0 = (z - t xi) / b(t)``.

    :param a: Action, ``(B, A)``
    :param z: Latent, ``(B, A)``
    :param xi: The curve at that time, ``(B, A)``
    :param slope: Its slope, ``(B, A)``
    :param t: Times, ``(B, 1)``
    :param sigma_0: Standard deviation of the tube at ``t = 0``
    :param sigma_1: Standard deviation at ``t = 1``
    :param k: The gain
    :return: ``xi' - k (a - xi) + sigma_r (1 + k t) z_0`` and ``xi + t xi' - (1 - sigma_1) z_0``, ``(B, A)`` each
    """
    z_0 = (z - t * xi) / latent_share(t, sigma_1)
    va = velocity(a, xi, slope, k) + latent_std(sigma_0, sigma_1, k) * (1.0 + k * t) * z_0
    return va, xi + t * slope - (1.0 - sigma_1) * z_0


def latent_covariance(t: th.Tensor, sigma_0: float, sigma_1: float, k: float) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
    """
    Covariance of the stochastic tube in each coordinate; its mean is ``(xi, t xi)``.

    :param t: Times
    :param sigma_0: Standard deviation of the tube at ``t = 0``
    :param sigma_1: Standard deviation at ``t = 1``
    :param k: The gain
    :return: Variance of ``a``, covariance of ``a`` and ``z``, variance of ``z``, each as ``t``
    """
    drawn, b = latent_std(sigma_0, sigma_1, k) * t, latent_share(t, sigma_1)
    return tube_std(t, sigma_0, k) ** 2 + drawn**2, drawn * b, b**2


def mixture_velocity(
    a: th.Tensor, t: th.Tensor, demonstrations: th.Tensor, weights: Sequence[float], sigma_0: float, k: float
) -> th.Tensor:
    """
    The marginal velocity field of several demonstrations with the same history, in the deterministic variant: the mean of
    their fields, weighted by the posterior probability of each demonstration given the action. A network learns it in the
    limit of infinite data.

    :param a: Actions, ``(B, A)``
    :param t: Times, ``(B, 1)``
    :param demonstrations: Their knots, ``(N, H + 1, A)``
    :param weights: Frequency of each demonstration, ``N`` numbers
    :param sigma_0: Standard deviation of the tube at ``t = 0``
    :param k: The gain
    :return: ``sum_i w_i (xi_i' - k (a - xi_i))`` with ``w_i ~ pi_i N(a; xi_i, sigma_t^2)``, ``(B, A)``
    """
    curves = [segment(knots.expand(len(a), -1, -1), t) for knots in demonstrations]
    xi, slope = (th.stack(parts, dim=1) for parts in zip(*curves, strict=True))
    squares = (a.unsqueeze(1) - xi).square().sum(dim=2) / tube_std(t, sigma_0, k) ** 2
    shares = th.softmax(th.as_tensor(weights, dtype=a.dtype).log() - squares / 2, dim=1)
    return (shares.unsqueeze(2) * velocity(a.unsqueeze(1), xi, slope, k)).sum(dim=1)
