"""Former names of arguments and attributes: they still work, with a ``DeprecationWarning``."""

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])


def with_new_names(arguments: Mapping[str, Any], names: Mapping[str, str], stacklevel: int = 2) -> dict[str, Any]:
    """
    Rename the keys of arguments.

    :param arguments: Arguments by name
    :param names: New name of each former name
    :param stacklevel: As for ``warnings.warn``; 1 is this function
    :return: A copy in which each former name is replaced
    :raises TypeError: If an argument is given under both names.
    """
    for old in arguments.keys() & names.keys():
        if names[old] in arguments:
            raise TypeError(f"`{old}` is the former name of `{names[old]}`; pass only `{names[old]}`.")
        warnings.warn(f"`{old}` is deprecated; use `{names[old]}`.", DeprecationWarning, stacklevel=stacklevel + 1)
    return {names.get(name, name): value for name, value in arguments.items()}


def renamed_arguments(**names: str) -> Callable[[Function], Function]:
    """
    Decorator of a function that accepts former names of its keyword arguments. ``former_names`` of the function lists them.

    :param names: New name of each former name
    """

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def renamed(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **with_new_names(kwargs, names, stacklevel=2))

        renamed.former_names = names  # type: ignore[attr-defined]
        return cast(Function, renamed)

    return decorate


class FormerName:
    """
    Former name of an attribute or method: ``old = FormerName("new")`` in the body of a class.

    :param new: The new name
    """

    def __init__(self, new: str) -> None:
        self.new = new

    def __set_name__(self, owner: type, name: str) -> None:
        self.old = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        self._warn()
        return getattr(instance, self.new)

    def __set__(self, instance: Any, value: Any) -> None:
        self._warn()
        setattr(instance, self.new, value)

    def _warn(self) -> None:
        warnings.warn(f"`{self.old}` is deprecated; use `{self.new}`.", DeprecationWarning, stacklevel=3)
