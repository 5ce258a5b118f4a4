"""Records of runs, read from RL Zoo's folders."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
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
#: Options of the command on which results depend. RL Zoo writes them to ``args.yml``, not to the configuration.
OPTIONS = ("n_timesteps", "seed", "env_kwargs", "eval_env_kwargs")
#: Why a run has not finished.
UNFINISHED, INTERRUPTED = "its sweep has not finished it", "it was interrupted"


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
    :param config: The hyperparameters, and ``OPTIONS`` that were given, if they were recorded
    :param system: Versions, hardware and seconds, if they were recorded
    :param unfinished: Why the run has not finished, as the end of "because ..."; empty if it has, as far as it is known
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
    unfinished: str = ""
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

    @property
    def last_timestep(self) -> int:
        """Timestep of the last evaluation."""
        return int(self.arrays["timesteps"][-1])

    def __str__(self) -> str:
        return " ".join(filter(None, (self.setting, self.algorithm, self.env, f"run {self.run_id}")))


def read_tree(root: Path) -> list[RunRecord]:
    """
    Read all runs below a folder.

    :param root: A log folder of RL Zoo, or of a sweep, or the folder of an algorithm or of a run in it
    :return: The runs
    :raises FileNotFoundError: If there are no runs.
    :raises ValueError: If a file is damaged; the message names the file.
    """
    root = root.resolve() if ".." in root.parts else root.absolute()  # names of relative folders may be missing: "."
    records = [_read_run(root, file) for file in sorted(root.glob("**/evaluations.npz"))]
    if not records:
        raise FileNotFoundError(
            f"{root} has no run with evaluations; expected {root}/ALGORITHM/ENVIRONMENT_NUMBER/evaluations.npz."
        )
    return records


def why_unfinished(folder: Path) -> str:
    """
    Why the training of a run has not ended as planned, as far as it is known.

    :param folder: The folder of the run, or that of another sampler of it, ``ALGORITHM-SAMPLER/ENVIRONMENT_NUMBER``
    :return: The reason if a sweep has started the run and not finished it, or if it was interrupted and not resumed to its
        end; otherwise empty
    """
    algorithm, _, _ = folder.parent.name.partition("-")
    run = folder.parent.with_name(algorithm) / folder.name
    record = read_record(run)
    if record is not None and not record.get("finished"):
        return UNFINISHED
    # A resumed run writes the file again at its end. Other samplers have none.
    return interrupted(read_parameters(folder, "system.yml") or read_parameters(run, "system.yml"))


def interrupted(system: Mapping[str, Any]) -> str:
    """Why a run with these conditions has not finished; empty if nothing says so."""
    return INTERRUPTED if "interrupted" in system else ""


def read_parameters(run: Path, name: str) -> dict[str, Any]:
    """
    Read a file of the parameters of a run.

    :param run: The folder of the run, ``ENVIRONMENT_NUMBER``
    :param name: Name of the file, such as ``"args.yml"``, which has the arguments of the command
    :return: The parameters by name; empty if they were not recorded
    """
    env, _, _ = run.name.rpartition("_")
    file = run / env / name
    return read_yaml(file) if file.is_file() else {}


def _read_run(root: Path, file: Path) -> RunRecord:
    env, _, number = file.parent.name.rpartition("_")
    if not number.isdigit():
        raise ValueError(f"{file}: the name of its folder must be ENVIRONMENT_NUMBER, as in RL Zoo.")

    folder = file.parent.parent
    *setting, algorithm = folder.relative_to(root).parts if root in folder.parents else (folder.name,)
    config, arguments, system = (read_parameters(file.parent, name) for name in ("config.yml", "args.yml", "system.yml"))
    unfinished = why_unfinished(file.parent)
    try:
        with np.load(file) as arrays:
            kept = {name: arrays[name] for name in arrays.files if name in ARRAYS or name.startswith(MEASURE)}
        given = {name: value for name in OPTIONS if (value := arguments.get(name)) is not None and value != {}}
        if int(given.get("n_timesteps", 1)) <= 0:
            del given["n_timesteps"]  # that of the configuration is used
        names = "/".join(setting), algorithm, env, int(number)
        return RunRecord(*names, kept, config | given, system, unfinished, file.parent)
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} is damaged, or was not written by an evaluation: {error}") from error
