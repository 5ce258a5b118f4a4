"""Checks of the options of RL Zoo's scripts, before the scripts run: their own errors come late, or not at all."""

import argparse
from collections.abc import Collection, Iterable
from pathlib import Path

import gymnasium as gym

from sb3_flow.common.arguments import checked_value, closest
from sb3_flow.common.guards import check_device

#: Scripts with an argument parser that knows ``--gym-packages``.
IMPORTING = {"train", "optimize", "enjoy"}
#: Scripts that make an environment.
WITH_ENVIRONMENT = {"train", "optimize", "enjoy", "record-video", "export"}
#: Whole numbers and their smallest values. -1 is RL Zoo's value for "not given" where it is allowed.
NUMBERS: dict[str, dict[str, int]] = {
    "train": {
        **{"--n-timesteps": 1, "--num-threads": 1, "--eval-episodes": 1, "--n-eval-envs": 1, "--n-trials": 1},
        **{"--max-total-trials": 1, "--n-startup-trials": 0, "--n-evaluations": 1},
    },
    "enjoy": {"--n-timesteps": 1, "--num-threads": 1, "--n-envs": 1},
    "record-video": {"--n-timesteps": 1, "--n-envs": 1},
    "push-to-hub": {"--n-timesteps": 1, "--n-envs": 1, "--n-eval-episodes": 1},
}
NUMBERS["optimize"] = NUMBERS["train"]
#: Options where -1 means the default.
OPTIONAL = {("train", "--n-timesteps"), ("optimize", "--n-timesteps"), *((name, "--num-threads") for name in IMPORTING)}


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


def check_plot(name: str, arguments: list[str]) -> None:
    """
    Check the options that RL Zoo's plots need. Without results, they would show zeros.

    :param name: The script
    :param arguments: Its command line
    :raises ValueError: If an option is missing, or a folder does not exist.
    """
    if name != "plot":
        return
    peek = argparse.ArgumentParser(add_help=False)
    for options in (("-a", "--algos"), ("-e", "--env"), ("-f", "--exp-folders")):
        peek.add_argument(*options, nargs="+", dest=options[1])
    for option, values in vars(peek.parse_known_args(arguments)[0]).items():
        if not values:
            raise ValueError(f"plot needs {option}, as in: sb3-flow plot -a fql -e Pendulum-v1 -f logs.")
        for value in values if option == "--exp-folders" else ():
            if not Path(value).is_dir():
                raise ValueError(f"There is no folder {value}; -f takes the folders of logs.")


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
