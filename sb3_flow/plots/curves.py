"""Learning curves with intervals over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sb3_flow.plots.style import legend, new_axes
from sb3_flow.tables.curves import style
from sb3_flow.tables.report import FEWEST, interval

#: Files of ``EvalCallback``, one for each seed; or timesteps ``(n_evaluations,)`` and scores ``(n_seeds, n_evaluations)``.
Runs = Sequence[str | Path] | tuple[Any, Any]


def read_evaluations(files: Sequence[str | Path]) -> tuple[np.ndarray, np.ndarray, str]:
    """
    Read files that Stable-Baselines3's ``EvalCallback`` writes.

    :param files: ``evaluations.npz`` of each seed, or the folders that contain them
    :return: Timesteps ``(n_evaluations,)``, mean scores ``(n_seeds, n_evaluations)`` as far as all seeds have them, and the
        name of the score: ``"success rate"`` or ``"return"``
    :raises ValueError: If there are no files, the seeds were evaluated at different timesteps, or only some have success
        rates.
    """
    if isinstance(files, str | Path) or not len(files):
        raise ValueError(f"The runs are {files!r}; expected a list with one file, or folder, for each seed.")
    found = []
    for path in map(Path, files):
        with np.load(path / "evaluations.npz" if path.is_dir() else path) as arrays:
            found.append({key: arrays[key] for key in arrays.files})
    successes = [file for file, arrays in zip(files, found, strict=True) if "successes" in arrays]
    if 0 < len(successes) < len(found):
        raise ValueError(f"{successes[0]} has success rates, and other runs have not; they cannot be compared.")
    name = "successes" if successes else "results"
    n = min(len(arrays["timesteps"]) for arrays in found)
    times = found[0]["timesteps"][:n]
    for file, arrays in zip(files, found, strict=True):
        if not np.array_equal(arrays["timesteps"][:n], times):
            raise ValueError(f"{file} was evaluated at other timesteps than {files[0]}; their means cannot be compared.")
    scores = np.stack([arrays[name][:n].mean(axis=1) for arrays in found])
    return times, scores, "success rate" if name == "successes" else "return"


def plot_learning_curves(runs: Mapping[str, Runs], axes: Any = None, *, metric: str | None = None, title: str = "") -> Any:
    """
    Draw learning curves: the interquartile mean over seeds, and a band with its 95 % bootstrap interval (Agarwal et al.,
    2021). With fewer than three seeds there is no interval, and the curve of each seed is drawn as a thin line.

    :param runs: The runs of each algorithm by its name, as files or arrays, see ``Runs``
    :param axes: Matplotlib axes; None: new ones
    :param metric: Name of the y axis; None: that of the files, or "score"
    :param title: Title
    :return: The axes
    :raises ValueError: If shapes do not fit, or files have different timesteps.
    :raises ImportError: If matplotlib is not installed.
    """
    axes = new_axes(axes, (6, 4))
    notes = set()
    for number, (name, source) in enumerate(runs.items()):
        if isinstance(source, tuple):
            times, scores, found = np.asarray(source[0]), np.atleast_2d(source[1]), "score"
        else:
            times, scores, found = read_evaluations(source)
        if scores.shape[1:] != times.shape:
            raise ValueError(
                f"{name!r} has {times.shape} timesteps and {scores.shape} scores; expected (n_evaluations,) and "
                "(n_seeds, n_evaluations)."
            )
        metric = metric or found
        look = style(number, len(runs))
        intervals = [interval(column[:, None]) for column in scores.T]
        axes.plot(times, [values[0] for values in intervals], label=f"{name} ({len(scores)} seeds)", **look)
        if len(scores) >= FEWEST:
            low, high = (np.array([values[i] for values in intervals]) for i in (1, 2))
            axes.fill_between(times, low, high, color=look["color"], alpha=0.15, linewidth=0)
            notes.add("band: 95 % bootstrap interval")
        elif len(scores) > 1:
            axes.plot(times, scores.T, color=look["color"], linewidth=0.6, alpha=0.6)
            notes.add("thin lines: single seeds")
    axes.set(xlabel="timesteps (updates or steps)", ylabel=metric or "score", title=title)
    if axes.get_ylabel() == "success rate":
        axes.set_ylim(-0.03, 1.03)
    axes.locator_params(axis="x", nbins=6)
    axes.grid(alpha=0.3)
    explanation = "; ".join(["line: interquartile mean", *sorted(notes)])
    legend(axes, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, handlelength=4, title=explanation)
    return axes
