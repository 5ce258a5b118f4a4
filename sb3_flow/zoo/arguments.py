"""Preparation of command lines for RL Zoo: quotes for text, and defaults of our algorithms."""

import argparse
import ast
import builtins
from collections.abc import Collection

#: Options of RL Zoo with NAME:VALUE, where VALUE is evaluated as Python.
EVALUATED = {"-params", "--hyperparams", "--env-kwargs", "--eval-env-kwargs"}
#: Scripts that run a saved agent.
ACTING = {"enjoy", "push-to-hub", "record-video"}
#: YAML's constants in Python.
YAML_WORDS = {"true": "True", "false": "False", "null": "None", "none": "None"}


def quote_values(arguments: list[str], known: Collection[str]) -> list[str]:
    """
    Quote text in the values that RL Zoo evaluates: ``dataset:cube-single-play-v0`` would be a subtraction.

    Numbers, lists, calls and quoted text are not changed.

    :param arguments: The command line
    :param known: Names that are defined when RL Zoo evaluates a value, such as ``nn``
    :return: The command line for RL Zoo
    :raises ValueError: If a value does not have the form NAME:VALUE.
    """
    quoted: list[str] = []
    option = ""
    for argument in arguments:
        if argument.startswith("-"):
            option = argument
        elif option in EVALUATED:
            name, _, value = argument.partition(":")
            if not (name and value.strip()):
                raise ValueError(f"{option} {argument}: expected NAME:VALUE, such as batch_size:128 or dataset:data.npz.")
            argument = f"{name}:{_as_python(value.strip(), known)}"
        quoted.append(argument)
    return quoted


def _as_python(value: str, known: Collection[str]) -> str:
    if value in YAML_WORDS:
        return YAML_WORDS[value]
    try:
        tree = ast.parse(value, mode="eval").body
    except SyntaxError:
        return repr(value)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    # A single word is text, even if Python has a function with this name, as in q_agg:min.
    usable = set(known) if isinstance(tree, ast.Name) else {*known, *vars(builtins)}
    return value if names <= usable else repr(value)


def add_defaults(name: str, arguments: list[str], sampling: Collection[str], ours: Collection[str]) -> list[str]:
    """
    Set other defaults than RL Zoo's for our algorithms: the folder of ``train``, and sampled actions as in its evaluations.

    :param name: The script
    :param arguments: Its command line
    :param sampling: Algorithms that are evaluated by sampled actions
    :param ours: All algorithms of this package
    :return: The command line for RL Zoo
    """
    if name not in ACTING:
        return arguments
    peek = argparse.ArgumentParser(prog=f"sb3-flow {name}", add_help=False)
    for option in ("--deterministic", "--stochastic"):
        peek.add_argument(option, action="store_true")
    peek.add_argument("--algo")
    peek.add_argument("-f", "--folder")
    given = peek.parse_known_args(arguments)[0]
    if given.algo in ours and given.folder is None:
        arguments = [*arguments, "--folder", "logs"]
    if given.algo in sampling and not (given.deterministic or given.stochastic):
        arguments = [*arguments, "--stochastic"]
    return arguments
