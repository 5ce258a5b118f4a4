"""Pushes: displacements of the samples that would restore each violated constraint by itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch as th

#: Keeps the direction between two robots at the same position finite, in m^2.
TINY = 1e-12


def chord_pushes(relative: Sequence[th.Tensor], required: th.Tensor) -> tuple[list[th.Tensor], list[th.Tensor], th.Tensor]:
    """
    Pushes out of balls at the closest point of the straight line between two samples.

    With ``r_s`` the relative position, ``u = r_(s + 1) - r_s``, ``theta = clamp(-r_s u / u u, 0, 1)``, ``q = r_s + theta u``
    and ``c = max(0, d / |q| - 1)``, the push ``c q`` is split: ``1 - theta`` of it to sample ``s``, ``theta`` to ``s + 1``.
    Gradients also flow through ``theta``, because it decides how the push is split.

    :param relative: Relative positions by axis, each ``(..., S)``, in meters
    :param required: Distance ``d``, or 0 for no push; broadcasts to ``(..., S - 1)``
    :return: Pushes by axis, the parts of them that go to the later sample, each ``(..., S - 1)``, and the smallest squared
        distance, ``(...)``
    """
    starts = [r[..., :-1] for r in relative]
    steps = [r[..., 1:] - r[..., :-1] for r in relative]
    share = (_dot(starts, steps) / (_dot(steps, steps) + 1e-9)).neg().clamp(0, 1)
    nearest = [th.addcmul(start, share, step) for start, step in zip(starts, steps, strict=True)]
    pushes, squared = sample_pushes(nearest, required)
    return pushes, [share * push for push in pushes], squared


def sample_pushes(relative: Sequence[th.Tensor], required: th.Tensor) -> tuple[list[th.Tensor], th.Tensor]:
    """
    Pushes out of balls: ``max(0, d / |r| - 1) r``, the displacement to the nearest point outside.

    :param relative: Relative positions by axis, each ``(..., S)``, in meters
    :param required: Distance ``d``, or 0 for no push; broadcasts to ``(..., S)``
    :return: Pushes by axis, each ``(..., S)``, and the smallest squared distance, ``(...)``
    """
    squared = _dot(relative, relative)
    excess = ((squared + TINY).rsqrt() * required - 1).relu()
    return [excess * r for r in relative], squared.amin(dim=-1)


def inward_pushes(values: th.Tensor, limit: float) -> tuple[th.Tensor, th.Tensor]:
    """
    Pushes into a ball around 0: ``-max(0, 1 - limit / |v|) v``, the displacement to its nearest point.

    :param values: Velocities or accelerations, ``(B, N, D, S)``
    :param limit: Radius of the ball, in their unit
    :return: Pushes, ``(B, N, D, S)``, and the largest norm in each problem, ``(B,)``
    """
    squared = values.square().sum(dim=2, keepdim=True)
    excess = (1 - limit * (squared + TINY).rsqrt()).relu()
    return -excess * values, squared.flatten(start_dim=1).amax(dim=1).sqrt()


def spread(pushes: th.Tensor, later: th.Tensor) -> th.Tensor:
    """
    Distribute the pushes of chords to the samples: ``pushes - later`` to the start of each interval, ``later`` to its end.

    :param pushes: Pushes, ``(..., S - 1)``
    :param later: Parts of the later samples, ``(..., S - 1)``
    :return: ``(..., S)``
    """
    return th.nn.functional.pad(pushes - later, (0, 1)) + th.nn.functional.pad(later, (1, 0))


def _dot(a: Sequence[th.Tensor], b: Sequence[th.Tensor]) -> th.Tensor:
    """Sum of products over the axes; it needs less memory traffic than one tensor with the axes inside."""
    total = a[0] * b[0]
    for x, y in zip(a[1:], b[1:], strict=True):
        total = th.addcmul(total, x, y)
    return total
