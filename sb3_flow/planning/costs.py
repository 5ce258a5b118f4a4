"""Smoothness of plans, distance between plans, and random proposals."""

from __future__ import annotations

import torch as th

from sb3_flow.planning.basis import Basis
from sb3_flow.planning.problems import Problems


def smoothness(problems: Problems, y: th.Tensor, basis: Basis) -> th.Tensor:
    """
    Exact mean square acceleration over robots and time.

    :param problems: ``B`` problems
    :param y: The plans, ``(B, N, D, m)``
    :param basis: Basis of the plans
    :return: ``(B,)``, float64, in m^2/s^4; smaller is smoother
    """
    boundary = problems.boundary.double()
    line = ((boundary @ basis.bending.to(y.device)) * boundary).sum(dim=-1)
    by_axis = line + (y.double().square() * basis.stiffness.to(y.device)).sum(dim=-1)
    there = problems.robot_mask
    total = th.where(there.unsqueeze(2), by_axis, 0.0).sum(dim=(1, 2))
    return total / there.sum(dim=1).clamp(min=1)


def distance(problems: Problems, y: th.Tensor, other: th.Tensor, basis: Basis) -> th.Tensor:
    """
    Mean distance between the same robots of two plans at the same times.

    :param problems: ``B`` problems
    :param y: Plans, ``(B, N, D, m)``
    :param other: Other plans of the same problems, ``(B, N, D, m)``
    :param basis: Basis of the plans
    :return: ``(B,)``, in meters
    """
    _, modes = basis.sampled()
    apart = ((y - other) @ modes.T.to(y)).square().sum(dim=2).sqrt().mean(dim=-1)
    there = problems.robot_mask
    return (apart * there).sum(dim=1) / there.sum(dim=1).clamp(min=1)


def noise(problems: Problems, basis: Basis, sigma: float | th.Tensor, generator: th.Generator | None = None) -> th.Tensor:
    """
    Random proposals: straight lines plus smooth noise, ``sigma (stiffness_1 / stiffness_j)^(1/2)`` times a standard normal for
    mode ``j``.

    :param problems: ``B`` problems
    :param basis: Basis of the plans
    :param sigma: Standard deviation of the first mode in meters; a tensor ``(B,)`` has one for each problem
    :param generator: Random generator on the problems' device; None: PyTorch's default
    :return: ``(B, N, D, m)``; 0 for padding
    """
    shape = (*problems.start.shape, basis.n_modes)
    normal = th.randn(shape, generator=generator, dtype=problems.start.dtype, device=problems.start.device)
    return smooth(problems, basis, sigma, normal)


def smooth(problems: Problems, basis: Basis, sigma: float | th.Tensor, normal: th.Tensor) -> th.Tensor:
    """
    As ``noise``, from standard normal numbers.

    :param problems: ``B`` problems
    :param basis: Basis of the plans
    :param sigma: Standard deviation of the first mode in meters; a tensor ``(B,)`` has one for each problem
    :param normal: The numbers, ``(B, N, D, m)``
    :return: ``(B, N, D, m)``; 0 for padding
    """
    scale = (basis.stiffness[0] / basis.stiffness).sqrt().to(normal)
    size = sigma[:, None, None, None] if isinstance(sigma, th.Tensor) else sigma
    return size * scale * normal * problems.robot_mask[..., None, None]
