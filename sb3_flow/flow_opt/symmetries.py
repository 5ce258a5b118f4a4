"""Data augmentation: symmetries of the square and time reversal map a plan to a plan of another problem."""

import itertools

import torch as th
from torch.nn import functional as F

from sb3_flow.planning.basis import Basis, gram
from sb3_flow.planning.problems import Problems

#: Rotations by quarter turns and reflections of the plane; in 3 dimensions, those that keep heights.
N_SYMMETRIES = 8


def symmetries(dimensions: int) -> th.Tensor:
    """
    Matrices of the symmetries; the first one is the identity.

    :param dimensions: ``D``, 2 or 3
    :return: ``(8, D, D)``, float64
    """
    signs, eye = itertools.product((1.0, -1.0), repeat=2), th.eye(2, dtype=th.float64)
    plane = th.stack([th.diag(th.tensor(s, dtype=th.float64)) @ p for s in signs for p in (eye, eye.flip(0))])
    if dimensions == 2:
        return plane
    return F.pad(plane, (0, 1, 0, 1)) + th.diag(th.tensor([0.0, 0.0, 1.0], dtype=th.float64))


def parities(basis: Basis) -> th.Tensor:
    """
    Parities of the modes under time reversal: 1 or -1.

    :param basis: The basis
    :return: ``(m,)``, float64
    """
    overlap = basis.modes.T @ gram(basis.degree, 0) @ basis.modes.flip(0)
    return overlap.diagonal().sign()


def transform(
    problems: Problems, y: th.Tensor, matrices: th.Tensor, parity: th.Tensor, backwards: th.Tensor
) -> tuple[Problems, th.Tensor]:
    """
    Apply symmetries to problems and their plans.

    :param problems: The problems
    :param y: Plans, ``(B, N, D, m)``
    :param matrices: A symmetry for each problem, ``(B, D, D)``
    :param parity: As returned by ``parities``, ``(m,)``
    :param backwards: Whether to reverse time, ``(B,)``, bool; ignored for problems in which a robot does not start at rest
    :return: Transformed problems and plans
    """

    def turn(points: th.Tensor) -> th.Tensor:
        return th.einsum("bij,bnj->bni", matrices, points)

    moving = th.cat([problems.velocity, problems.acceleration], dim=-1).flatten(start_dim=1).any(dim=1)
    backwards = backwards & ~moving
    back = backwards[:, None, None]
    start, goal = turn(problems.start), turn(problems.goal)
    turned = problems._replace(
        start=th.where(back, goal, start),
        goal=th.where(back, start, goal),
        velocity=turn(problems.velocity),
        acceleration=turn(problems.acceleration),
        obstacles=th.cat([turn(problems.obstacles[..., :-1]), problems.obstacles[..., -1:]], dim=-1),
    )
    y = th.einsum("bij,bnjm->bnim", matrices, y)
    return turned, th.where(back.unsqueeze(-1), parity * y, y)
