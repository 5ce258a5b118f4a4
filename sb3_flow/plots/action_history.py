"""The distribution of a policy's actions at one observation during training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from sb3_flow.plots.plane import make_plane
from sb3_flow.plots.style import ACTION, new_axes
from sb3_flow.plots.trace import policy_of, sample

#: Number of bins of an action.
BINS = 60


class ActionHistory(BaseCallback):
    """
    Callback that samples actions at one observation at the start of training, every ``every`` timesteps, and at the end. The
    noise is the same each time and has its own generator, so training is the same as without the callback.

    :param observation: One observation, as ``predict`` takes it: normalized, if the model has a ``VecNormalize``
    :param every: Timesteps between samples, at least 1
    :param n: Number of actions, at least 1
    :param sampler: Name of a sampler; None: that of the policy
    :raises ValueError: If a number is below 1.
    """

    def __init__(self, observation: Any, every: int = 1000, n: int = 1000, sampler: str | None = None) -> None:
        super().__init__()
        for name, value in (("every", every), ("n", n)):
            if value < 1:
                raise ValueError(f"`{name}` is {value}; it must be at least 1.")
        self.observation, self.every, self.n, self.sampler = observation, every, n, sampler
        #: Timesteps of the samples.
        self.timesteps: list[int] = []
        #: Sampled actions in [-1, 1], ``(n, action_dim)`` each.
        self.actions: list[np.ndarray] = []

    def _sample(self) -> None:
        policy = policy_of(self.model)
        was_training = policy.training
        self.actions.append(sample(policy, self.observation, self.n, self.sampler))
        policy.set_training_mode(was_training)
        self.timesteps.append(self.num_timesteps)

    def _on_training_start(self) -> None:
        self.num_timesteps = self.model.num_timesteps
        if not self.timesteps or self.timesteps[-1] < self.num_timesteps:
            self._sample()

    def _on_step(self) -> bool:
        if self.num_timesteps - self.timesteps[-1] >= self.every:
            self._sample()
        return True

    def _on_training_end(self) -> None:
        if self.timesteps[-1] < self.num_timesteps:
            self._sample()


def plot_action_history(
    history: ActionHistory,
    axes: Any = None,
    *,
    component: int = 0,
    projection: Literal["first", "pca"] | Sequence[int] = "first",
    title: str | None = None,
) -> Any:
    """
    Draw the density of one component of the actions over training, as shades of gray.

    :param history: The callback, after training
    :param axes: Matplotlib axes; None: new ones
    :param component: The component: 0 or 1, of the plane if actions have more than two dimensions
    :param projection: The plane, see ``make_plane``; it is fitted to the last samples
    :param title: Title
    :return: The axes
    :raises ValueError: If nothing was recorded, or there is no such component.
    :raises ImportError: If matplotlib is not installed.
    """
    if not history.timesteps:
        raise ValueError("The history is empty: pass it to `learn(callback=...)` first.")
    plane = make_plane(history.actions[-1], projection)
    if not 0 <= component < len(plane.directions):
        raise ValueError(f"`component` is {component}; it must be from 0 to {len(plane.directions) - 1}.")
    axes = new_axes(axes, (6, 3.6))
    points = np.stack([plane.project(actions)[:, component] for actions in history.actions])
    limit = max(1.0, float(np.abs(points).max()))
    edges = np.linspace(-limit, limit, BINS + 1)
    densities = np.stack([np.histogram(row, edges, density=True)[0] for row in points])
    # A narrow distribution, such as that of an untrained actor, must not make all others pale.
    darkest = float(np.median(densities.max(axis=1)))
    image = axes.pcolormesh(_edges(history.timesteps), edges, densities.T, cmap="Greys", vmin=0, vmax=darkest, rasterized=True)
    axes.figure.colorbar(image, ax=axes, label="density of actions", extend="max")
    name = ACTION if len(plane.directions) == 1 else plane.labels[component]
    axes.set(xlabel="timesteps (updates or steps)", ylabel=name)
    axes.locator_params(axis="x", nbins=5)
    axes.set_title(title if title is not None else f"{history.n} actions at one observation")
    return axes


def _edges(times: Sequence[int]) -> np.ndarray:
    """Edges of columns: each sample is shown until the next one, and the last one as long as the one before it."""
    width = times[-1] - times[-2] if len(times) > 1 else 1
    return np.array([*times, times[-1] + width])
