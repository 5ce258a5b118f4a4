"""Conversions between problems and observations, and between plans and actions."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_flow.planning.basis import make_basis
from sb3_flow.planning.problems import Limits, Problems

#: Number of samples per second of a plan, and the smallest number: 64 for 10 seconds, 84 for 14.
SAMPLES_PER_SECOND, SAMPLES = 6, 64
#: An action of 1 for the first mode is this many times half of the side of the workspace.
REACH = 1.5


def solver_samples(limits: Limits) -> int:
    """
    Default number of sampled times of a plan.

    :param limits: The limits
    """
    return max(SAMPLES, round(SAMPLES_PER_SECOND * limits.horizon))


def space(limits: Limits, max_robots: int, max_obstacles: int) -> spaces.Dict:
    """
    The observation space.

    :param limits: The limits
    :param max_robots: Number of rows of robots, ``N``
    :param max_obstacles: Number of rows of obstacles, ``M``
    :return: ``start``, ``goal``, ``velocity`` and ``acceleration``, ``(N, D)``, divided by the size, the largest speed and the
        largest acceleration; ``obstacles``, ``(M, D + 1)``, centers and radii divided by the size; ``robot_mask``, ``(N,)``,
        and ``obstacle_mask``, ``(M,)``: 0 for padding, else 1. Rows of padding are 0.
    """
    dimensions = limits.dimensions
    robots = {name: (max_robots, dimensions) for name in ("start", "goal", "velocity", "acceleration")}
    shapes = {**robots, "obstacles": (max_obstacles, dimensions + 1)}
    boxes = {name: spaces.Box(-1, 1, shape, np.float32) for name, shape in shapes.items()}
    masks = {"robot_mask": max_robots, "obstacle_mask": max_obstacles}
    return spaces.Dict({**boxes, **{name: spaces.Box(0, 1, (rows,), np.float32) for name, rows in masks.items()}})


def observation(problems: Problems, limits: Limits) -> dict[str, np.ndarray]:
    """
    Convert problems to observations.

    :param problems: ``B`` problems
    :param limits: The limits
    :return: Arrays of float32, ``(B, ...)``, within the bounds of ``space``
    """
    arrays = {}
    for name, tensor in problems._asdict().items():
        mask = problems.obstacle_mask if name.startswith("obstacle") else problems.robot_mask
        scaled = tensor.double() / _units(limits).get(name, 1.0)
        scaled = scaled.clamp(-1, 1).where(mask if tensor.ndim == 2 else mask.unsqueeze(-1), 0)
        arrays[name] = scaled.float().cpu().numpy()
    return arrays


def problems(observation: Mapping[str, th.Tensor], limits: Limits) -> Problems:
    """
    Convert observations to problems.

    :param observation: Tensors of float32, ``(B, ...)``
    :param limits: The limits
    :return: Problems on the same device
    """
    units = _units(limits)
    return Problems(
        **{
            name: observation[name] > 0.5 if name.endswith("mask") else observation[name] * units[name]
            for name in Problems._fields
        }
    )


def action_scale(limits: Limits, degree: int = 12) -> th.Tensor:
    """
    Amplitude of each mode for an action of 1. Stiffer modes have smaller amplitudes, so that all modes have the same mean
    square acceleration.

    :param limits: The limits
    :param degree: Degree of the polynomials
    :return: Amplitudes in meters, ``(m,)``, float32
    """
    stiffness = make_basis(degree, SAMPLES, limits.horizon).stiffness
    return (REACH * limits.size * (stiffness / stiffness[0]) ** -0.5).float()


def plans(actions: th.Tensor, limits: Limits, degree: int = 12, scale: th.Tensor | None = None) -> th.Tensor:
    """
    Convert actions to plans.

    :param actions: Actions by robot, axis and mode, ``(B, N D m)``; they are clipped to [-1, 1]
    :param limits: The limits
    :param degree: Degree of the polynomials
    :param scale: ``action_scale`` on the device of the actions; None: it is computed
    :return: Modal coordinates in meters, ``(B, N, D, m)``, float32
    """
    scale = _scale_on(actions.device, limits, degree) if scale is None else scale.float()
    return actions.float().clamp(-1, 1).reshape(len(actions), -1, limits.dimensions, len(scale)) * scale


def actions(y: th.Tensor, limits: Limits, robot_mask: th.Tensor | None = None, scale: th.Tensor | None = None) -> th.Tensor:
    """
    Convert plans to actions.

    :param y: Modal coordinates in meters, ``(B, N, D, m)``
    :param limits: The limits
    :param robot_mask: False for padding, ``(B, N)``, whose actions are 0. None: no padding.
    :param scale: ``action_scale`` on the device of the plans; None: it is computed
    :return: Actions, clipped to [-1, 1], ``(B, N D m)``, float32
    """
    scale = _scale_on(y.device, limits, y.shape[-1] + 5) if scale is None else scale.float()
    scaled = (y.float() / scale).clamp(-1, 1)
    if robot_mask is not None:
        scaled = scaled.where(robot_mask[..., None, None], 0)
    return scaled.flatten(start_dim=1)


@functools.lru_cache(maxsize=16)
@th.inference_mode(False)  # also usable in training
def _scale_on(device: th.device, limits: Limits, degree: int) -> th.Tensor:
    """``action_scale``, which is copied to a device only once: a copy in each update would make the device wait."""
    return action_scale(limits, degree).to(device)


def _units(limits: Limits) -> dict[str, float]:
    size = limits.size
    return {"start": size, "goal": size, "velocity": limits.v_max, "acceleration": limits.a_max, "obstacles": size}
