"""Loading a run of RL Zoo: the model, and the environment with the wrappers and statistics of the run."""

from __future__ import annotations

import pathlib
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_flow.common.environments import register_environment
from sb3_flow.common.optional import require
from sb3_flow.zoo.algorithms import ALGORITHMS
from sb3_flow.zoo.nested import check_environment_arguments, naming
from sb3_flow.zoo.options import check_environment
from sb3_flow.zoo.registration import register
from sb3_flow.zoo.trust import REMEDY, parsed_values, read_yaml, reading, replaced


class LoadedRun(NamedTuple):
    """
    A run.

    :param model: Its model, on the CPU
    :param env: Its environment
    :param path: The file of the model
    :param folder: The folder of the run
    """

    model: BaseAlgorithm
    env: VecEnv
    path: str
    folder: pathlib.Path


def runs_with_model(message: str) -> str:
    """
    The end of RL Zoo's message about a latest run that has no model, such as one that was killed: those that have one.

    :param message: The message
    :return: The text, or nothing for other messages
    """
    if not (found := re.search(r"No model found .* path: (.+)", message)):
        return ""
    file = pathlib.Path(found[1])
    folder, name = file.parent.parent, file.parent.name.rpartition("_")[0]
    runs = sorted(int(run.name[len(name) + 1 :]) for run in folder.glob(f"{name}_*") if (run / file.name).is_file())
    return f". Runs that have one: {', '.join(f'--exp-id {run}' for run in runs)}." if runs else ""


def load_run(
    algorithm: str, env_id: str, folder: str | pathlib.Path, exp_id: int = 0, load_best: bool = False, trusted: bool = False
) -> LoadedRun:
    """
    Load a run of one of our algorithms.

    :param algorithm: Its name for RL Zoo, such as ``"fql"``
    :param env_id: Id of the environment
    :param folder: Folder of the runs
    :param exp_id: Number of the run; 0: the last one
    :param load_best: Whether to load the best model instead of the last one
    :param trusted: Whether code in files of the run may run, such as pickles
    :raises ImportError: If RL Zoo is not installed.
    :raises ValueError: If there is no such environment or run, or it needs code that is not trusted.
    """
    utils: Any = require("rl_zoo3.utils", "zoo", "Reading a run of RL Zoo")
    register()
    register_environment(env_id)
    check_environment("export", env_id)
    name = utils.EnvironmentName(env_id)
    try:
        _, path, run_folder = utils.get_model_path(exp_id, str(folder), algorithm, name, load_best)
    except (AssertionError, ValueError) as error:  # RL Zoo's errors for a missing folder and a missing model
        raise ValueError(f"{error}{runs_with_model(str(error))}") from error
    with parsed_values(), reading(trusted):
        files = pathlib.Path(run_folder) / name
        settings, statistics = utils.get_saved_hyperparams(str(files), test_mode=True)
        env_kwargs = settings.pop("env_kwargs", None)
        if (files / "args.yml").is_file():  # the command line has priority, as in `enjoy`
            env_kwargs = read_yaml(files / "args.yml", trusted).get("env_kwargs") or env_kwargs
        env: VecEnv = utils.create_test_env(
            env_id,
            stats_path=statistics,
            log_dir=None,
            should_render=False,
            hyperparams=settings,
            env_kwargs=env_kwargs or {},
        )
        model = ALGORITHMS[algorithm].load(path, env=env, device="cpu")
    return LoadedRun(model, env, path, pathlib.Path(run_folder))


@contextmanager
def as_configured(script: str, trusted: bool) -> Iterator[None]:
    """
    Context in which a script of RL Zoo checks the files of a run, and makes the environment with the ``env_kwargs`` of the
    configuration.

    :param script: Name of its module
    :param trusted: Whether code in files of the run may run
    """
    utils: Any = require("rl_zoo3.utils", "zoo", "Reading a run of RL Zoo")
    make, read = utils.create_test_env, utils.get_saved_hyperparams

    def create_test_env(env_id: str, *, hyperparams: dict[str, Any], env_kwargs: dict[str, Any], **kwargs: Any) -> VecEnv:
        configured = hyperparams.pop("env_kwargs", None) or {}  # `enjoy` has removed them, the other scripts ignore them
        given = {**configured, **env_kwargs}
        check_environment_arguments(given, env_id, "--env-kwargs")
        with naming(f"--env-kwargs: `env_kwargs` is {given}", "make_env"):
            env: VecEnv = make(env_id, hyperparams=hyperparams, env_kwargs=given, **kwargs)
        return env

    def get_saved_hyperparams(stats_path: str, *args: Any, **kwargs: Any) -> Any:
        for name in ("config.yml", "args.yml"):
            file = pathlib.Path(stats_path, name)
            if file.is_file() and not read_yaml(file, trusted, f" {REMEDY}"):
                raise ValueError(f"{file} is empty, so that the settings of the run are not known.")
        return read(stats_path, *args, **kwargs)

    with ExitStack() as stack:
        for module in filter(None, (utils, sys.modules.get(script))):  # a loaded script has its own names of functions
            for function in (create_test_env, get_saved_hyperparams):
                stack.enter_context(replaced(module, function.__name__, function))
        yield
