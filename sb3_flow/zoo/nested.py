"""Checks of what RL Zoo passes on: names of classes, and arguments of environments, wrappers, callbacks and normalization."""

import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from traceback import extract_tb, walk_tb
from typing import Any, get_origin

import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_flow.common.arguments import checked_type, checked_value, closest, number_in_text
from sb3_flow.zoo.values import NotAValue, parse_value

#: Keys whose values name classes, and the number of arguments that RL Zoo passes to them.
CLASSES = {"env_wrapper": 1, "vec_env_wrapper": 1, "callback": 0, "policy": None}
#: Base classes of these classes, and how the errors call them.
BASES: dict[str, tuple[type, str]] = {
    "env_wrapper": (gym.Env, "a wrapper of Gymnasium"),
    "vec_env_wrapper": (VecEnv, "a wrapper of vectorized environments of Stable-Baselines3"),
    "callback": (BaseCallback, "a callback of Stable-Baselines3"),
}
#: Keys whose values are the arguments of a class, and those of its arguments that RL Zoo sets.
ARGUMENTS: dict[str, tuple[type, set[str]]] = {
    "monitor_kwargs": (Monitor, {"env", "filename"}),
    "normalize": (VecNormalize, {"venv"}),
}
#: RL Zoo's names of action noise.
NOISES = ("normal", "ornstein-uhlenbeck")
#: Packages whose errors are about the values that they are given.
PACKAGES = {"gymnasium", "rl_zoo3", "sb3_contrib", "sb3_flow", "stable_baselines3", "torch"}


def check_nested(key: str, value: Any, place: str) -> Any:
    """
    Check a value that RL Zoo passes on.

    :param key: Its key in the hyperparameters
    :param value: The value
    :param place: Place of the key, for messages
    :return: The value; numbers in another form are converted
    :raises ValueError: The message names the key, the value, and what is expected.
    """
    if key in CLASSES:
        if isinstance(value, list):
            return [_check_class(key, item, place) for item in value]
        return value if value is None else _check_class(key, value, place)
    if key == "noise_type" and value is not None and str(value).strip() not in NOISES:
        raise ValueError(f"{place}: `noise_type` is {value!r}; expected one of: {', '.join(NOISES)}.")
    if key == "env_kwargs" and value is not None:
        return check_names(key, value, place)
    if key not in ARGUMENTS or (key == "normalize" and isinstance(value, bool | None)):
        return value
    if isinstance(value, str):  # RL Zoo's form of a dictionary
        try:
            check_nested(key, parse_value(value), place)
        except NotAValue as error:
            raise ValueError(f"{place}: `{key}`: {error} Or write dictionaries in YAML.") from error
        return value
    cls, own = ARGUMENTS[key]
    kinds = "True, False or a dictionary" if key == "normalize" else "a dictionary"
    return check_arguments(check_names(key, value, place, kinds), cls, own, place, f"{key}.")


def check_names(key: str, value: Any, place: str, kinds: str = "a dictionary") -> dict[str, Any]:
    """
    :param key: The key
    :param value: Its value
    :param place: Place of the key, for messages
    :param kinds: What the value must be, for messages
    :return: The value
    :raises ValueError: If it is not a dictionary, or has names that are not text.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{place}: `{key}` is {value!r}; it must be {kinds}.")
    for name in value:
        if not isinstance(name, str):
            raise ValueError(f"{place}: `{key}` has the name {name!r}; names must be text.")
    return value


def check_keys(given: Iterable[str], known: set[str], owner: str, place: str, prefix: str = "") -> None:
    """
    Reject unknown keys.

    :param given: The keys
    :param known: Valid keys
    :param owner: Owner of the keys, for the message
    :param place: Place of the keys, for the message
    :param prefix: Prefix of keys, for the message
    :raises ValueError: The message names the key, its place, and a suggestion.
    """
    for key in given:
        if key not in known:
            close = closest(key, known)
            hint = f"did you mean `{prefix}{close}`?" if close else f"expected one of: {', '.join(sorted(known))}."
            raise ValueError(f"{place}: {owner} has no `{prefix}{key}`; {hint}")


def check_arguments(
    given: Mapping[str, Any], function: Callable[..., Any], own: set[str], place: str, prefix: str = ""
) -> dict[str, Any]:
    """
    Check arguments by the type hints of a function, or else by its default values.

    :param given: Arguments by name
    :param function: A function or class
    :param own: Names of arguments that are not the user's
    :param place: Place of the arguments, for messages
    :param prefix: Prefix of names, for messages
    :return: The arguments; numbers in another form are converted
    :raises ValueError: If there is no such argument, or it has another type.
    """
    try:
        try:
            parameters = inspect.signature(function, eval_str=True).parameters
        except NameError:  # a hint that only type checkers can resolve
            parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # not a function of Python
        return dict(given)
    known = {name for name, parameter in parameters.items() if parameter.kind in (parameter.KEYWORD_ONLY, NAMED)} - own
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        check_keys(given, known, getattr(function, "__name__", str(function)), place, prefix)
    # The ranges of numbers are those of Stable-Baselines3's names: `gamma` of another class need not be a discount factor.
    ours = _top(function.__module__) in PACKAGES
    check = checked_value if ours else checked_type
    checked = {}
    for name, value in given.items():
        hint = _hint_of(parameters[name], may_be_none=not ours) if name in known else Any
        try:
            converted = check(name, value, hint)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{place}: {str(error).replace(f'`{name}`', f'`{prefix}{name}`', 1)}") from error
        checked[name] = value if isinstance(value, list) else converted  # YAML has no tuples
        if hint is Any and (advice := number_in_text(value)):
            raise ValueError(f"{place}: `{prefix}{name}` is {value!r}.{advice}")
    return checked


NAMED = inspect.Parameter.POSITIONAL_OR_KEYWORD


def _hint_of(parameter: inspect.Parameter, may_be_none: bool) -> Any:
    """
    The type hint of an argument. Without one, text is refused where the default value is a number, True or False, and None
    as well where it is known to have no meaning.
    """
    hint = parameter.annotation
    if hint is not parameter.empty:
        known = isinstance(hint, type) or get_origin(hint) is not None
        return (hint | None if parameter.default is None else hint) if known else Any
    if type(parameter.default) not in (bool, int, float):
        return Any
    return float | bool | list | None if may_be_none else float | bool | list


def _check_class(key: str, item: Any, place: str) -> Any:
    """Check one class of a list, with its arguments; returns the item."""
    if isinstance(item, dict) and len(item) != 1:
        raise ValueError(
            f"{place}: `{key}` has {item!r}; expected one class with its arguments: {{MODULE.CLASS: {{ARGUMENT: VALUE}}}}. "
            "Write several classes as a list, and indent their arguments."
        )
    name = next(iter(item)) if isinstance(item, dict) else item
    if (key == "policy" and "." not in str(name)) or isinstance(item, BaseCallback):
        return item
    found = name if isinstance(name, type) else _find(key, name, place)
    passed = CLASSES[key]
    if passed is None:
        return item
    base, kind = BASES[key]
    where = f"{place}: `{key}` has {name!r}"
    if not callable(found) or (isinstance(found, type) and not issubclass(found, base)):
        raise ValueError(f"{where}, which is not {kind}. Write MODULE.CLASS.")
    if inspect.isabstract(found):
        raise ValueError(f"{where}, which is a base class; name one of its subclasses.")
    kwargs = item[name] if isinstance(item, dict) else {}
    if not isinstance(kwargs, dict):
        raise ValueError(f"{where} with {kwargs!r}; its arguments must be a dictionary.")
    check_names(f"{key}` with `{name}", kwargs, place)
    try:
        signature = inspect.signature(found)
        signature.bind(*[None] * passed, **kwargs)
        own = {*list(signature.parameters)[:passed]}
    except ValueError:  # not a function of Python
        return item
    except TypeError as error:
        raise ValueError(f"{where}: {error}. Write {{{name!r}: {{ARGUMENT: VALUE}}}}.") from error
    kwargs = check_arguments(kwargs, found, own, where)
    return {name: kwargs} if isinstance(item, dict) else item


def _find(key: str, name: Any, place: str) -> Any:
    """The class of a name."""
    module, _, attribute = str(name).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except (ModuleNotFoundError, ValueError) as error:
        if isinstance(error, ModuleNotFoundError) and not module.startswith(error.name or "\0"):
            raise  # the module exists, but one of its dependencies does not
        found = None
    if found is None:
        raise ValueError(f"{place}: `{key}` has {name!r}; there is no such class. Write MODULE.CLASS.")
    return found


class NamedError(ValueError):
    """An error that names the value that causes it."""


@contextmanager
def naming(what: str, function: str = "") -> Iterator[None]:
    """
    Context in which errors name the value that causes them. Errors in the code of users keep their traceback.

    :param what: Place and name of the value, and the value
    :param function: Name of a function of RL Zoo; other errors than those in its calls are not changed
    """
    try:
        yield
    except Exception as error:
        frames = [(_top(frame.f_globals.get("__name__")), frame.f_code.co_name) for frame, _ in walk_tb(error.__traceback__)]
        called = not function or ("rl_zoo3", function) in frames
        # In one of the packages, or called there, such as a function in C:
        if isinstance(error, NamedError) or not called or frames[-1][0] not in PACKAGES:
            raise
        message = str(error).split(" was raised from the environment creator")[0]  # Gymnasium adds all arguments
        raise NamedError(f"{what}: {message or type(error).__name__}") from error


def is_refusal(error: Exception) -> bool:
    """Whether a statement ``raise`` in one of the packages raised an error: it has a message for users."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    line = extract_tb(error.__traceback__)[-1].line or ""
    return _top(frame.f_globals.get("__name__")) in PACKAGES and line.startswith("raise ")


def _top(module: str | None) -> str:
    """The package of a module."""
    return (module or "").partition(".")[0]


def wrap(wrapper: Callable[[Any], Any], base: type, what: str, env: Any) -> Any:
    """
    Wrap an environment.

    :param wrapper: A function of the environment
    :param base: Class of the result
    :param what: Place and name of the wrapper, for messages
    :param env: The environment
    :return: The wrapped environment
    :raises ValueError: If the wrapper refuses the environment, or returns something else.
    """
    with naming(what):
        wrapped = wrapper(env)
    if not isinstance(wrapped, base):
        raise NamedError(f"{what}: it returns {wrapped!r}, which is not an environment.")
    return wrapped


def check_environment_arguments(given: Mapping[str, Any], env_id: str, place: str) -> None:
    """
    Check arguments of an environment, as far as its constructor says.

    :param given: Arguments by name
    :param env_id: Id of the environment
    :param place: Place of the arguments, for messages
    :raises ValueError: If one has another type.
    """
    make: Any = gym.spec(env_id).entry_point
    if not given or make is None:
        return
    if isinstance(make, str):
        make = gym.envs.registration.load_env_creator(make)
    for name, value in given.items():  # not converted, because the saved configuration has the text
        if advice := number_in_text(value):
            raise ValueError(f"{place}: `env_kwargs.{name}` is {value!r}.{advice}")
    parameters = inspect.signature(make).parameters
    check_arguments({name: value for name, value in given.items() if name in parameters}, make, set(), place, "env_kwargs.")
