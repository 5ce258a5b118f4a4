"""Checks of the options of RL Zoo's scripts, before the scripts run: their own errors come late, or not at all."""

import argparse
from collections.abc import Collection, Iterable

import gymnasium as gym

from sb3_flow.common.arguments import checked_value, closest
from sb3_flow.common.guards import check_device
from sb3_flow.common.warn import warn

#: Scripts with an argument parser that knows ``--gym-packages``.
IMPORTING = {"train", "optimize", "enjoy"}
#: Scripts that make an environment.
WITH_ENVIRONMENT = {"train", "optimize", "enjoy", "record-video", "export"}
#: Whole numbers and their smallest values. -1 is RL Zoo's value for "not given" where it is allowed.
NUMBERS: dict[str, dict[str, int]] = {
    "train": {
        "--n-jobs": 1,
        **{"--n-timesteps": 1, "--num-threads": 1, "--eval-episodes": 1, "--n-eval-envs": 1, "--n-trials": 1},
        **{"--max-total-trials": 1, "--n-startup-trials": 0, "--n-evaluations": 1},
    },
    "enjoy": {"--n-timesteps": 1, "--num-threads": 1, "--n-envs": 1},
    "record-video": {"--n-timesteps": 1, "--n-envs": 1},
    "push-to-hub": {"--n-timesteps": 1, "--n-envs": 1, "--n-eval-episodes": 1},
}
NUMBERS["optimize"] = NUMBERS["train"]
#: Options where -1 means the default.
OPTIONAL = {
    *((name, option) for name in ("train", "optimize") for option in ("--n-timesteps", "--n-jobs")),
    *((name, "--num-threads") for name in IMPORTING),
}


def check_numbers(name: str, arguments: list[str]) -> list[str]:
    """
    Check whole numbers, and write them as RL Zoo's parser needs them: ``-n 1e6`` becomes ``-n 1000000``.

    :param name: The script
    :param arguments: Its command line
    :return: The command line for RL Zoo
    :raises ValueError: If a number is too small, or not a whole number.
    """
    least = NUMBERS.get(name, {})
    # A parser that knows `-n`, but not `-name` of the scripts for the hub, reads it as `-n ame`.
    arguments = ["--repo-name" if argument == "-name" else argument for argument in arguments]
    peek = argparse.ArgumentParser(prog=f"sb3-flow {name}", add_help=False, argument_default=argparse.SUPPRESS)
    for option in least:
        peek.add_argument(*(["-n"] if option == "--n-timesteps" else []), option, dest=option)
    given, rest = peek.parse_known_args(arguments)
    for option, text in vars(given).items():
        try:
            number = checked_value(option, text, int)
        except TypeError as error:
            raise ValueError(f"{option} is {text!r}; it must be a whole number.") from error
        unset = (name, option) in OPTIONAL
        if number < least[option] and not (unset and number == -1):
            default = ", or -1 for the default" if unset else ""
            raise ValueError(f"{option} is {text}; it must be at least {least[option]}{default}.")
        rest += [option, str(number)]
    return rest


def check_texts(name: str, arguments: list[str], algorithms: Collection[str]) -> None:
    """
    Check the algorithm, the device and the storage of a study.

    :param name: The script
    :param arguments: Its command line
    :param algorithms: Names of all algorithms
    :raises ValueError: If one of them does not exist, or is not valid.
    """
    if name.startswith("plot"):
        return
    peek = argparse.ArgumentParser(add_help=False)
    for option in ("--algo", "--device", "--storage"):
        peek.add_argument(option)
    given = peek.parse_known_args(arguments)[0]
    if given.algo is not None and given.algo not in algorithms:
        raise ValueError(f"There is no algorithm {given.algo!r}{nearest(given.algo, algorithms)}")
    if given.device is not None:
        check_device(given.device, "--device")
    if given.storage is not None and "://" not in given.storage and not given.storage.endswith(".log"):
        raise ValueError(
            f"--storage is {given.storage!r}; it must be a journal file that ends with .log, or the URL of a database, such "
            "as postgresql://USER:PASSWORD@HOST/DATABASE."
        )


def check_seeds(seeds: Collection[int], run_id: int | None, arguments: Collection[str]) -> None:
    """
    Check ``--seeds`` of ``train``.

    :param seeds: The seeds
    :param run_id: ``--run-id``
    :param arguments: The other arguments
    :raises ValueError: If a seed is negative or given twice, or another option does not go with several seeds.
    """
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds is {' '.join(map(str, seeds))}; it must be different numbers from 0.")
    given = {argument.partition("=")[0] for argument in arguments} | ({"--run-id"} if run_id is not None else set())
    others = given & {"--seed", "--run-id", "-i", "--trained-agent", "--track", "-optimize", "--optimize-hyperparameters"}
    if others:
        raise ValueError(f"--seeds does not go with {', '.join(sorted(others))}. Run `train` for each seed.")


def check_study(name: str, arguments: list[str]) -> None:
    """
    Check the options of ``train`` and ``optimize`` for studies of Optuna.

    :param name: The script
    :param arguments: Its command line
    :raises ValueError: If an option has no effect with others. There is a warning if a study is not stored.
    """
    if name not in ("train", "optimize"):
        return
    peek = argparse.ArgumentParser(add_help=False)
    for option in ("--study-name", "--storage", "--trial-id"):
        peek.add_argument(option)
    peek.add_argument("-i", "--trained-agent", dest="agent")
    peek.add_argument("-optimize", "--optimize-hyperparameters", dest="optimize", action="store_true")
    given = peek.parse_known_args(arguments)[0]
    if not (given.optimize or name == "optimize"):
        if given.trial_id is None and (given.study_name or given.storage):
            raise ValueError("--study-name and --storage need --trial-id, the number of a trial; or pass them to `optimize`.")
        return
    if given.agent:
        raise ValueError("-i does not go with -optimize: trials begin with new models.")
    if given.study_name and not given.storage:
        warn(
            f"The study {given.study_name!r} is not stored, so that it cannot be continued, and its trials cannot be trained "
            f"again: pass --storage, such as logs/{given.study_name}.log."
        )


def check_environment(name: str, env_id: str) -> None:
    """
    Check that an environment is registered.

    :param name: The script
    :param env_id: The environment
    :raises ValueError: If it is not; the message has the nearest name.
    """
    if name in WITH_ENVIRONMENT and env_id not in gym.registry:
        raise ValueError(
            f"There is no environment {env_id!r}{nearest(env_id, gym.registry)} Environments of other packages need the "
            "module that registers them: --gym-packages MODULE."
        )


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest name, or all of a few."""
    known = [*known]
    if close := closest(name, known):
        return f"; did you mean {close!r}?"
    return f". Known: {', '.join(sorted(known))}." if len(known) < 50 else "."
