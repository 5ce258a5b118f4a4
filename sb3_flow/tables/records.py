"""What runs left behind, read from RL Zoo's tree of folders."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

#: Arrays of an evaluation file that are kept, beside the measures.
ARRAYS = ("timesteps", "seconds", "results", "ep_lengths", "successes")
#: How the names of arrays begin that hold measures.
MEASURE = "measure_"


@dataclass(frozen=True)
class RunRecord:
    """
    The evaluations of one run as they were written, with the settings and conditions of the run.

    :param setting: Name of the sweep's setting, a folder; empty where there is none
    :param algorithm: The folder's name, such as ``"fql"``
    :param env: Environment id
    :param run_id: Number of the run
    :param arrays: ``timesteps`` and perhaps ``seconds``, ``(n_evaluations,)``; ``results`` and perhaps ``ep_lengths``,
        ``successes`` and measures (``measure_NAME``), ``(n_evaluations, n_episodes)``
    :param config: The hyperparameters, if they were kept
    :param system: Versions, hardware and seconds, if they were kept
    :raises ValueError: If an array is missing, does not fit the others, or the timesteps do not increase.
    """

    setting: str
    algorithm: str
    env: str
    run_id: int
    arrays: dict[str, np.ndarray]
    config: dict[str, Any]
    system: dict[str, Any]

    def __post_init__(self) -> None:
        for name in ("timesteps", "results"):
            if name not in self.arrays:
                raise ValueError(f"{self} has no `{name}`.")
        results = self.arrays["results"]
        if results.ndim != 2 or results.size == 0:
            raise ValueError(f"{self}: `results` has the shape {results.shape}; expected (evaluations, episodes).")
        for name, array in self.arrays.items():
            expected = results.shape[:1] if name in ("timesteps", "seconds") else results.shape
            if array.shape != expected:
                raise ValueError(f"{self}: `{name}` has the shape {array.shape}; `results` has {results.shape}.")
        if (np.diff(self.arrays["timesteps"]) <= 0).any():
            raise ValueError(f"{self}: its timesteps do not increase: {self.arrays['timesteps'].tolist()}.")

    def __str__(self) -> str:
        return " ".join(filter(None, (self.setting, self.algorithm, self.env, f"run {self.run_id}")))


def read_tree(root: Path) -> list[RunRecord]:
    """
    Read every run below a folder.

    :param root: A log folder of RL Zoo, or of a sweep
    :return: The runs
    :raises FileNotFoundError: If there is none.
    :raises ValueError: If a file is damaged; it names the file.
    """
    records = [_read_run(root, file) for file in sorted(root.glob("**/evaluations.npz"))]
    if not records:
        raise FileNotFoundError(
            f"{root} has no run with evaluations: expected {root}/ALGORITHM/ENVIRONMENT_NUMBER/evaluations.npz."
        )
    return records


def _read_run(root: Path, file: Path) -> RunRecord:
    import yaml

    env, _, number = file.parent.name.rpartition("_")
    if not number.isdigit():
        raise ValueError(f"{file}: its folder should be named ENVIRONMENT_NUMBER, as RL Zoo does.")

    def read(name: str) -> dict[str, Any]:
        path = file.parent / env / name
        # RL Zoo writes an OrderedDict, which only the loader for trusted files reads; these are the user's own.
        return dict(yaml.load(path.read_text("utf-8"), yaml.UnsafeLoader)) if path.is_file() else {}

    *setting, algorithm = file.parent.parent.relative_to(root).parts or (root.name,)
    try:
        with np.load(file) as arrays:
            kept = {name: arrays[name] for name in arrays.files if name in ARRAYS or name.startswith(MEASURE)}
        return RunRecord("/".join(setting), algorithm, env, int(number), kept, read("config.yml"), read("system.yml"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} is damaged, or was not written by an evaluation: {error}") from error
