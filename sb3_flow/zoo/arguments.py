"""Preparation of command lines for RL Zoo: quotes for text, and defaults of our algorithms."""

import argparse
import re
from collections.abc import Collection

from sb3_flow.zoo.nested import CLASSES
from sb3_flow.zoo.values import NotAValue, parse_value

#: Options of RL Zoo with NAME:VALUE, where VALUE is what `parse_value` parses, or text.
WITH_VALUES = {"-params", "--hyperparams", "--env-kwargs", "--eval-env-kwargs"}
#: Scripts that run a saved agent.
ACTING = {"enjoy", "push-to-hub", "record-video"}
#: Brackets around a value; other text may begin with one, such as a pattern of files.
BRACKETS = {"[]", "()", "{}"}
#: YAML's constants in Python.
YAML_WORDS = {"true": "True", "false": "False", "null": "None", "none": "None"}


def quote_values(arguments: list[str]) -> list[str]:
    """
    Quote text in the values of options, such as ``dataset:cube-single-play-v0``, for ``parse_value``.

    Numbers, lists, dictionaries, classes and quoted text are not changed.

    :param arguments: The command line
    :return: The command line for RL Zoo
    :raises ValueError: If a value does not have the form NAME:VALUE, is a list or dictionary with an error, or a name is given
        twice.
    """
    quoted: list[str] = []
    option, names = "", set[tuple[str, str]]()
    for argument in arguments:
        if argument.startswith("-"):
            option = argument
        elif option in WITH_VALUES:
            name, _, value = argument.partition(":")
            if not (name and value.strip()):
                raise ValueError(f"{option} {argument}: expected NAME:VALUE, such as batch_size:128 or dataset:data.npz.")
            if (option, name) in names:
                raise ValueError(f"{option} has `{name}` twice; keep one.")
            names.add((option, name))
            value = value.strip()
            named = name in CLASSES and re.fullmatch(r"\w+(\.\w+)+", value)  # RL Zoo imports it
            try:
                argument = f"{name}:{repr(value) if named else _quoted(value)}"
            except NotAValue as error:
                raise ValueError(f"{option} {name}: {error} Text in brackets needs quotes: \"[1, 'episode']\".") from error
        quoted.append(argument)
    return quoted


def _quoted(value: str) -> str:
    if value in YAML_WORDS:
        return YAML_WORDS[value]
    try:
        parse_value(value)
    except NotAValue:
        if f"{value[0]}{value[-1]}" in BRACKETS:
            raise
        return repr(value)
    return value


def add_defaults(name: str, arguments: list[str], sampling: Collection[str], ours: Collection[str]) -> list[str]:
    """
    Set other defaults than RL Zoo's for our algorithms: the folder of ``train``, and sampled actions as in its evaluations.

    :param name: The script
    :param arguments: Its command line
    :param sampling: Algorithms that are evaluated by sampled actions
    :param ours: All algorithms of this package
    :return: The command line for RL Zoo
    :raises ValueError: If both ``--deterministic`` and ``--stochastic`` are given, of which RL Zoo ignores the first.
    """
    if name not in ACTING:
        return arguments
    peek = argparse.ArgumentParser(prog=f"sb3-flow {name}", add_help=False)
    for option in ("--deterministic", "--stochastic"):
        peek.add_argument(option, action="store_true")
    peek.add_argument("--algo")
    peek.add_argument("-f", "--folder")
    given = peek.parse_known_args(arguments)[0]
    if given.deterministic and given.stochastic:
        raise ValueError(f"{name}: --deterministic and --stochastic exclude each other; leave one out.")
    if given.algo in ours and given.folder is None:
        arguments = [*arguments, "--folder", "logs"]
    if given.algo in sampling and not (given.deterministic or given.stochastic):
        arguments = [*arguments, "--stochastic"]
    return arguments
