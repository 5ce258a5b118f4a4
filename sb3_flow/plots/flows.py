"""Velocity fields and flow lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch as th

from sb3_flow.common.type_aliases import Velocity
from sb3_flow.plots.plane import Plane, make_plane
from sb3_flow.plots.style import ACTION, BLUE, GRAY, ORANGE, legend, new_axes, pyplot
from sb3_flow.plots.trace import policy_of, trace_flow

#: Number of arrows along each axis.
ARROWS = 21
TIME = "flow time (0: noise, 1: action)"


def plot_velocity(
    velocity: Velocity,
    axes: Any = None,
    *,
    plane: Plane | None = None,
    time: float = 0.5,
    limit: float = 2.0,
    color: str = GRAY,
    label: str | None = None,
    dtype: th.dtype = th.float32,
    device: th.device | str = "cpu",
) -> Any:
    """
    Draw the arrows of a velocity field. In one dimension, the x axis is the time, the arrows have equal lengths, and their
    slopes are the velocities. In two dimensions, or on a plane, the arrows are the velocities at one time, at a common scale
    that the legend gives.

    :param velocity: ``(x, t) -> v``, of shapes ``(B, D), (B, 1) -> (B, D)``
    :param axes: Matplotlib axes; None: new ones
    :param plane: The plane on which the field is drawn, which also gives the dimension; None: one dimension
    :param time: Time of the field in two dimensions, in [0, 1]
    :param limit: Largest coordinate of the arrows
    :param color: Color of the arrows
    :param label: Entry of the legend; None: "velocity field" and the scale or the time
    :param dtype: Data type of the field's inputs
    :param device: Device of the field's inputs
    :return: The axes
    :raises ValueError: If ``time`` is not in [0, 1].
    """
    if not 0 <= time <= 1:
        raise ValueError(f"`time` is {time}; it must be in [0, 1].")
    plane = plane or Plane(np.zeros(1), np.eye(1), ("action",))
    one = len(plane.directions) == 1
    axes = new_axes(axes, (5, 4) if one else (5, 5))
    ticks = np.linspace(-limit, limit, ARROWS)
    if one:
        t, x = (part.ravel() for part in np.meshgrid(np.linspace(0, 0.975, ARROWS), ticks))
        places = x[:, None]
    else:
        places = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
        t = np.full(len(places), time)
    inputs = (th.as_tensor(part, dtype=dtype, device=device) for part in (plane.lift(places), t[:, None]))
    with th.no_grad():
        v = velocity(*inputs).double().cpu().numpy() @ plane.directions.T
    options = {"angles": "xy", "color": color, "width": 0.003, "zorder": 1}
    if one:
        length = np.hypot(1, v[:, 0])
        # Equal lengths on paper are not equal lengths in the units of the axes; only the slopes carry meaning.
        axes.quiver(t, x, 1 / length, v[:, 0] / length, scale=32, label=label or "velocity field (slopes)", **options)
        axes.set(xlabel=TIME, ylabel=ACTION)
        return axes
    longest = max(float(np.linalg.norm(v, axis=1).max()), 1e-12)
    unit = 1.6 * limit / ARROWS / longest  # the longest arrow nearly reaches the next one
    shown = label or f"velocity at time {time:g} (longest: {longest:.2g})"
    axes.quiver(*places.T, *v.T, scale_units="xy", scale=1 / unit, label=shown, **options)
    axes.set(xlabel=plane.labels[0], ylabel=plane.labels[1], aspect="equal")
    return axes


def plot_flow(
    model: Any,
    observation: Any,
    axes: Any = None,
    *,
    n: int = 100,
    sampler: str | None = None,
    time: float = 0.5,
    projection: Literal["first", "pca"] | Sequence[int] = "first",
    arrows: bool = True,
    seed: int = 0,
    title: str | None = None,
) -> Any:
    """
    Draw the flow of a policy at an observation: its velocity field, and paths from noise to actions. The paths are those of
    the policy itself, with its number of steps.

    :param model: A model of this package, or its policy
    :param observation: One observation, as ``predict`` takes it: normalized, if the model has a ``VecNormalize``
    :param axes: Matplotlib axes; None: new ones
    :param n: Number of paths
    :param sampler: Name of a sampler that integrates a flow; None: see ``trace_flow``
    :param time: Time of the velocity field, if actions have two dimensions or more
    :param projection: The plane, if actions have more than two dimensions, see ``make_plane``. The field is that on the plane,
        without its components across it; the paths are projected.
    :param arrows: Whether to draw the velocity field
    :param seed: Seed of the noise
    :param title: Title; None: names of the algorithm and of the sampler
    :return: The axes
    :raises TypeError: If it is not a model of this package.
    :raises ValueError: If the sampler has no flow that can be drawn.
    :raises ImportError: If matplotlib is not installed.
    """
    trace = trace_flow(model, observation, n, sampler, seed)
    policy = policy_of(model)
    plane = make_plane(trace.points[-1], projection)
    lines = plane.project(trace.points)
    one = lines.shape[2] == 1
    axes = new_axes(axes, (5.5, 4.2) if one else (5.5, 5.8))
    limit = max(1.15, float(np.abs(lines).max()) * 1.05)
    if arrows:
        dtype = next(policy.parameters()).dtype
        plot_velocity(trace.velocity, axes, plane=plane, time=time, limit=limit, dtype=dtype, device=policy.device)
    if one:
        axes.plot(trace.times, lines[:, :, 0], color=BLUE, linewidth=0.8, alpha=0.6, zorder=2)
        axes.lines[-1].set_label("paths of the policy")
        axes.scatter(np.zeros(n), lines[0, :, 0], s=10, facecolor="white", edgecolor=ORANGE, zorder=3, label="noise")
        axes.scatter(np.ones(n), lines[-1, :, 0], s=10, color=BLUE, zorder=3, label="actions")
        for bound in (-1, 1):
            axes.axhline(bound, color="black", linestyle=":", linewidth=0.8, label="bounds of actions" if bound == 1 else None)
        axes.set(xlabel=TIME, ylabel=ACTION, xlim=(-0.03, 1.03), ylim=(-limit, limit))
    else:
        axes.plot(lines[..., 0], lines[..., 1], color=BLUE, linewidth=0.6, alpha=0.4, zorder=2)
        axes.lines[-1].set_label("paths of the policy")
        axes.scatter(*lines[0].T, s=12, facecolor="white", edgecolor=ORANGE, linewidth=0.8, zorder=3, label="noise")
        axes.scatter(*lines[-1].T, s=10, color=BLUE, zorder=4, label="actions")
        if not (plane.is_slice and projection == "pca"):
            box = pyplot().Rectangle((-1, -1), 2, 2, fill=False, linestyle=":", label="bounds of actions")
            axes.add_patch(box)
        axes.set(xlabel=plane.labels[0], ylabel=plane.labels[1], xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    axes.set_title(title if title is not None else f"{type(model).__name__}, sampler {trace.sampler}")
    legend(axes, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    return axes
