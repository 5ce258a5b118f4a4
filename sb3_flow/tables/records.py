"""Records of runs, read from RL Zoo's folders."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sb3_flow.tables.supervisor import read_record
from sb3_flow.zoo.trust import read_yaml

#: Arrays of an evaluation file, besides measures.
ARRAYS = ("timesteps", "seconds", "results", "ep_lengths", "successes")
#: Prefix of the names of measures.
MEASURE = "measure_"


@dataclass(frozen=True)
class RunRecord:
    """
    The evaluations of one run, with its hyperparameters and conditions.

    :param setting: Name of the sweep's setting, a folder; empty if there is none
    :param algorithm: The folder's name, such as ``"fql"``
    :param env: Environment id
    :param run_id: Number of the run
    :param arrays: ``timesteps`` and optionally ``seconds``, ``(n_evaluations,)``; ``results`` and optionally ``ep_lengths``,
        ``successes`` and measures (``measure_NAME``), ``(n_evaluations, n_episodes)``
    :param config: The hyperparameters, if they were recorded
    :param system: Versions, hardware and seconds, if they were recorded
    :param finished: False if a sweep has not finished the run
    :param folder: The folder of the run; None if it was read from a table
    :raises ValueError: If an array is missing or has another shape, or if the timesteps do not increase.
    """

    setting: str
    algorithm: str
    env: str
    run_id: int
    arrays: dict[str, np.ndarray]
    config: dict[str, Any]
    system: dict[str, Any]
    finished: bool = True
    folder: Path | None = None

    def __post_init__(self) -> None:
        for name in ("timesteps", "results"):
            if name not in self.arrays:
                raise ValueError(f"{self} has no `{name}`; expected `timesteps` and `results`.")
        results = self.arrays["results"]
        if results.ndim != 2 or results.size == 0:
            raise ValueError(f"{self}: `results` has the shape {results.shape}; expected (evaluations, episodes).")
        for name, array in self.arrays.items():
            expected = results.shape[:1] if name in ("timesteps", "seconds") else results.shape
            if array.shape != expected:
                raise ValueError(f"{self}: `{name}` has the shape {array.shape}; expected {expected}, as `results`.")
        if (np.diff(self.arrays["timesteps"]) <= 0).any():
            raise ValueError(f"{self}: `timesteps` is {self.arrays['timesteps'].tolist()}; it must increase.")

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What identifies the run: setting, algorithm, environment and number."""
        return self.setting, self.algorithm, self.env, self.run_id

    def __str__(self) -> str:
        return " ".join(filter(None, (self.setting, self.algorithm, self.env, f"run {self.run_id}")))


def read_tree(root: Path) -> list[RunRecord]:
    """
    Read all runs below a folder.

    :param root: A log folder of RL Zoo, or of a sweep
    :return: The runs
    :raises FileNotFoundError: If there are no runs.
    :raises ValueError: If a file is damaged; the message names the file.
    """
    records = [_read_run(root, file) for file in sorted(root.glob("**/evaluations.npz"))]
    if not records:
        raise FileNotFoundError(
            f"{root} has no run with evaluations; expected {root}/ALGORITHM/ENVIRONMENT_NUMBER/evaluations.npz."
        )
    return records


def is_finished(folder: Path) -> bool:
    """
    Whether the training of a run has ended, as far as it is known.

    :param folder: The folder of the run, or that of another sampler of it, ``ALGORITHM-SAMPLER/ENVIRONMENT_NUMBER``
    :return: False if a sweep has started the run and not finished it
    """
    algorithm, _, _ = folder.parent.name.partition("-")
    record = read_record(folder.parent.with_name(algorithm) / folder.name)
    return record is None or bool(record.get("finished"))


def read_arguments(folder: Path) -> dict[str, Any]:
    """
    Read the command-line arguments of a run.

    :param folder: The folder of its parameters, ``ENVIRONMENT_NUMBER/ENVIRONMENT``
    :return: The arguments by name; empty if they were not recorded
    """
    file = folder / "args.yml"
    return dict(read_yaml(file)) if file.is_file() else {}


def _read_run(root: Path, file: Path) -> RunRecord:
    env, _, number = file.parent.name.rpartition("_")
    if not number.isdigit():
        raise ValueError(f"{file}: the name of its folder must be ENVIRONMENT_NUMBER, as in RL Zoo.")

    def read(name: str) -> dict[str, Any]:
        path = file.parent / env / name
        return dict(read_yaml(path)) if path.is_file() else {}

    *setting, algorithm = file.parent.parent.relative_to(root).parts or (root.name,)
    try:
        with np.load(file) as arrays:
            kept = {name: arrays[name] for name in arrays.files if name in ARRAYS or name.startswith(MEASURE)}
        config = read("config.yml")
        if (timesteps := int(read_arguments(file.parent / env).get("n_timesteps", -1))) > 0:
            config["n_timesteps"] = timesteps  # an option of the command, which RL Zoo does not write to the configuration
        names = "/".join(setting), algorithm, env, int(number)
        return RunRecord(*names, kept, config, read("system.yml"), is_finished(file.parent), file.parent)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} is damaged, or was not written by an evaluation: {error}") from error
