"""Warnings about arguments that have no effect beside others."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from sb3_flow.common.warn import warn


def default_of(cls: type, name: str) -> Any:
    """
    The default of an argument of a constructor.

    :param cls: The class; its own constructor comes before those of its base classes
    :param name: Name of the argument
    :return: The default; ``inspect.Parameter.empty`` if there is none
    """
    for base in cls.__mro__:
        parameters = inspect.signature(vars(base)["__init__"]).parameters if "__init__" in vars(base) else {}
        if name in parameters:
            return parameters[name].default
    return inspect.Parameter.empty


def warn_without_effect(cls: type, values: Mapping[str, Any], reason: str) -> None:
    """
    Warn about arguments that are not at their default, but have no effect.

    :param cls: The class of the constructor
    :param values: Values by the names of the arguments
    :param reason: Why they have no effect, and what to do, as the end of a sentence
    """
    warn_unused((f"{name}={value!r}" for name, value in values.items() if value != default_of(cls, name)), cls, reason)


def warn_unused(given: Iterable[str], cls: type, reason: str) -> None:
    """
    Warn about arguments that have no effect.

    :param given: The arguments; without any, there is no warning
    :param cls: The class of the constructor
    :param reason: As for ``warn_without_effect``
    """
    listed = [f"`{argument}`" for argument in given]
    if listed:
        warn(f"{cls.__name__}: {', '.join(listed)} {'has' if len(listed) == 1 else 'have'} no effect: {reason}.")
