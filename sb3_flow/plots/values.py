"""Samples of a policy against the landscape of its critics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch as th

from sb3_flow.common.policies import FlowPolicy
from sb3_flow.plots.plane import make_plane
from sb3_flow.plots.style import ACTION, BLUE, GRAY, VALUES, legend, new_axes
from sb3_flow.plots.trace import policy_of, repeated, sample

#: Number of points of the grid along each axis.
GRID = 101


def values_of(policy: FlowPolicy, observation: Any, actions: np.ndarray) -> np.ndarray:
    """
    The critics' value of actions, by which ``best_of_n`` chooses: their mean, or what the algorithm uses instead.

    :param policy: The policy
    :param observation: One observation
    :param actions: In [-1, 1], ``(n, action_dim)``
    :return: ``(n,)``
    :raises ValueError: If the policy has no critics.
    """
    if getattr(policy, "critic", None) is None:
        raise ValueError(f"{type(policy).__name__} has no critics: it learns without rewards, so there are no values to draw.")
    dtype = next(policy.parameters()).dtype
    with th.no_grad():
        tensor = th.as_tensor(actions, dtype=dtype, device=policy.device)
        return policy.score(repeated(policy, observation, len(actions)), tensor).cpu().numpy()


def plot_values(
    model: Any,
    observation: Any,
    axes: Any = None,
    *,
    n: int = 300,
    sampler: str | None = None,
    projection: Literal["first", "pca"] | Sequence[int] = "first",
    seed: int = 0,
    title: str | None = None,
) -> Any:
    """
    Draw the critics' values of all actions at an observation, and samples of the policy.

    :param model: A model of this package with critics, or its policy
    :param observation: One observation, as ``predict`` takes it: normalized, if the model has a ``VecNormalize``
    :param axes: Matplotlib axes; None: new ones
    :param n: Number of sampled actions
    :param sampler: Name of a sampler; None: that of the policy
    :param projection: The plane, if actions have more than two dimensions, see ``make_plane``. The values are those on the
        plane; the samples are projected.
    :param seed: Seed of the noise
    :param title: Title; None: names of the algorithm and of the sampler, and the mean value of the samples
    :return: The axes
    :raises TypeError: If it is not a model of this package.
    :raises ValueError: If it has no critics, or there is no such sampler.
    :raises ImportError: If matplotlib is not installed.
    """
    policy = policy_of(model)
    policy.set_training_mode(False)
    ticks = np.linspace(-1, 1, GRID)
    values_of(policy, observation, np.zeros((1, policy.action_dim)))  # an error before anything is drawn
    actions = sample(model, observation, n, sampler, seed)
    of_samples = values_of(policy, observation, actions)
    plane = make_plane(actions, projection)
    points = plane.project(actions)
    if points.shape[1] == 1:
        axes = new_axes(axes, (5.5, 4))
        axes.plot(ticks, values_of(policy, observation, ticks[:, None]), color=GRAY, linewidth=2, label="value of an action")
        axes.scatter(points[:, 0], of_samples, s=16, color=BLUE, alpha=0.4, zorder=3, label="sampled actions")
        axes.set(xlabel=ACTION, ylabel="value Q(s, a)", xlim=(-1.05, 1.05))
        legend(axes, loc="best")
    else:
        axes = new_axes(axes, (5.8, 5))
        spread = 1.0 if not (plane.is_slice and projection == "pca") else max(1.0, float(np.abs(points).max()) * 1.1)
        x, y = np.meshgrid(spread * ticks, spread * ticks)
        z = values_of(policy, observation, plane.lift(np.stack([x.ravel(), y.ravel()], axis=1))).reshape(x.shape)
        filled = axes.contourf(x, y, z, levels=15, cmap=VALUES)
        axes.contour(x, y, z, levels=filled.levels, colors="white", linewidths=0.3)
        where = "value Q(s, a) on this plane" if plane.is_slice else "value Q(s, a)"
        axes.figure.colorbar(filled, ax=axes, label=where)
        axes.scatter(*points.T, s=14, facecolor="white", edgecolor="black", linewidth=0.6, zorder=3, label="sampled actions")
        axes.set(xlabel=plane.labels[0], ylabel=plane.labels[1], aspect="equal")
        legend(axes)
    name = sampler or policy.sampler
    default = f"{type(model).__name__}, sampler {name}: mean value {of_samples.mean():.2f}"
    axes.set_title(title if title is not None else default)
    return axes
