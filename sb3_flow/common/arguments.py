"""
Checks of arguments by the type hints of constructors.

Python calls, configuration files and the command line use the same checks: text is converted to numbers (``5e-3`` in YAML) and
whole floats (``1e6``) to integers; other types raise an error.
"""

import difflib
import inspect
import math
import re
import types
import typing
import warnings
from abc import ABCMeta
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, get_args, get_origin

import numpy as np
import torch as th
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from torch import nn

from sb3_flow.common.renamed import with_new_names

#: Unsupported arguments of Stable-Baselines3's algorithms and policies, and other names of arguments, with a remedy. They are
#: accepted if their value (False or None) has no effect.
ELSEWHERE = {
    **dict.fromkeys(("action_chunk", "action_horizon", "chunk_length", "chunk_size"), "write `horizon_length`"),
    "activation_fn": "write the activation by name: policy_kwargs={'activation': 'relu'}",
    "actions_noise": "write `action_noise`",
    "clip_mean": "flow policies are not Gaussian; leave it out",
    "ent_coef": "flow policies have no entropy coefficient; leave it out, and tune the weights of this algorithm instead",
    **dict.fromkeys(("hidden_dims", "hidden_sizes"), "write policy_kwargs={'net_arch': [256, 256]}"),
    "log_std_init": "flow policies are not Gaussian; leave it out",
    "lr": "write `learning_rate`",
    "n_envs": "pass vectorized environments, make_vec_env(id, n_envs) of Stable-Baselines3",
    "n_epochs": "updates draw their batches at random; the number of updates is that of the timesteps, times `gradient_steps`",
    "net_arch": "it belongs to the policy: policy_kwargs={'net_arch': [256, 256]}",
    "optimize_memory_usage": "each observation is always stored once; leave it out",
    "policy_delay": "all networks are updated in each update; leave it out",
    "replay_buffer_class": "the replay buffer is chosen by the algorithm; pass logged data, or a replay buffer, as `dataset`, "
    "and `hindsight=4` for hindsight relabeling (HER)",
    "replay_buffer_kwargs": "the replay buffer is chosen by the algorithm; set `buffer_size`, `n_steps` and `hindsight`",
    "sde_sample_freq": "there is no gSDE; a flow policy explores by its input noise",
    "share_features_extractor": "each network has its own features extractor; leave it out",
    "target_entropy": "flow policies have no entropy coefficient; leave it out",
    "target_noise_clip": "there is no target policy smoothing; leave it out",
    "target_policy_noise": "there is no target policy smoothing; leave it out",
    "target_update_interval": "target networks are updated in each update, with `tau`; leave it out",
    "total_timesteps": "pass it to `learn`",
    "use_expln": "flow policies are not Gaussian; leave it out",
    "use_sde": "there is no gSDE; a flow policy explores by its input noise",
    "use_sde_at_warmup": "there is no gSDE; a flow policy explores by its input noise",
}
#: Arguments of algorithms with an online phase.
ONLINE = {
    *("action_noise", "balanced_sampling", "buffer_size", "gamma", "gradient_steps", "learning_starts", "n_steps"),
    *("hindsight", "offline_steps", "sparse_rewards", "train_freq"),
}
#: Types of several values, and their words in messages.
CONTAINERS: dict[Any, str] = {tuple: "a list", list: "a list", dict: "a dictionary"}
#: Smallest and largest values of numbers, in constructors and configurations alike. Algorithms check their own arguments.
RANGES: dict[str, tuple[float, float]] = {
    "batch_size": (1, math.inf),
    "buffer_size": (1, math.inf),
    "clip_obs": (1e-12, math.inf),
    "clip_reward": (1e-12, math.inf),
    "crop_probability": (0, 1),
    "epsilon": (1e-12, math.inf),
    "frame_stack": (1, math.inf),
    "gamma": (0, 1),
    "gradient_steps": (-1, math.inf),
    "hindsight": (0, math.inf),
    "learning_rate": (0, math.inf),
    "learning_starts": (0, math.inf),
    "max_episodes": (1, math.inf),
    "n_envs": (1, math.inf),
    "n_eval_episodes": (1, math.inf),
    "n_stack": (1, math.inf),
    "n_steps": (1, math.inf),
    "n_timesteps": (1, math.inf),
    "noise_std": (0, math.inf),
    "offline_log_interval": (1, math.inf),
    "offline_steps": (0, math.inf),
    "save_freq": (1, math.inf),
    "seed": (0, 2**32 - 1),
    "stats_window_size": (1, math.inf),
    "tau": (0, 1),
}


class CheckedArguments(ABCMeta):
    """Metaclass that checks the arguments of a constructor. Subclasses are checked by the hints of their own constructors."""

    #: Whether ``**kwargs`` of the constructor can be arguments of a base class of Stable-Baselines3.
    takes_sb3_arguments: bool = False

    @property
    def __signature__(cls) -> inspect.Signature:
        """The signature of the constructor, for ``help`` and editors."""
        signature = inspect.signature(cls.__init__)  # type: ignore[misc]
        return signature.replace(parameters=list(signature.parameters.values())[1:])

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        parameters = cls.__signature__.parameters.values()
        names = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
        named = checked(cls, dict(zip(names, args, strict=False)))
        return super().__call__(*named.values(), *args[len(named) :], **checked(cls, kwargs))


def checked(cls: type, arguments: Mapping[str, Any], owner: str | None = None) -> dict[str, Any]:
    """
    Check arguments of a class, and convert numbers.

    :param cls: The class
    :param arguments: Arguments by name
    :param owner: Name of the class in messages; None: its own name
    :return: The arguments, under their new names, without those of Stable-Baselines3 that change nothing
    :raises TypeError: If there is no such argument, or a value has another type. The message has a suggestion.
    """
    hints = hints_of(cls)
    result = {}
    for name, value in with_new_names(arguments, former_names_of(cls), stacklevel=3).items():
        if name in hints:
            result[name] = checked_value(name, value, hints[name])
        elif not is_ignored(name, value):
            raise TypeError(unknown(owner or cls.__name__, name, hints, cls))
    return result


def is_ignored(name: str, value: Any) -> bool:
    """Whether an argument is one of Stable-Baselines3 that is not supported, with a value that changes nothing."""
    return name in ELSEWHERE and (value is None or value is False)


def check_load_arguments(cls: type, arguments: Mapping[str, Any], saved: Iterable[str]) -> dict[str, Any]:
    """
    Check arguments of ``load``.

    :param cls: The algorithm
    :param arguments: Arguments by name
    :param saved: Names of the saved attributes, which can be replaced, too
    :return: The arguments, with converted numbers
    :raises TypeError: If there is no such argument, or it has another type.
    """
    own = set(inspect.signature(BaseAlgorithm.load).parameters)
    constructor = hints_of(cls).keys() | former_names_of(cls).keys() | ELSEWHERE.keys()
    known = own | constructor | set(saved)
    for name in arguments:
        if name not in known:
            raise TypeError(unknown(f"{cls.__name__}.load", name, own | hints_of(cls).keys(), cls))
    given = {name: value for name, value in arguments.items() if name in constructor}
    kept = {name: value for name, value in arguments.items() if name not in given}
    return {**kept, **checked(cls, given)}


#: Arguments that are not checked again when a model is loaded: they do not depend on others, or on this machine.
UNCHANGED = {"_init_setup_model", "compile", "dataset", "device", "env", "policy", "seed", "tensorboard_log", "verbose"}


def check_changes(cls: Any, saved: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """
    Check arguments of ``load`` as the constructor does, together with the saved ones. Nothing is set up.

    :param cls: The algorithm
    :param saved: The saved values, by the names of attributes
    :param given: Values that replace them, or are added to them
    :raises ValueError: If the constructor refuses one of them.
    """
    names = set(hints_of(cls)) - UNCHANGED
    if names.isdisjoint(given):
        return
    before = {name: value for name, value in saved.items() if name in names}
    arguments = {"policy": {**saved, **given}["policy_class"], "env": None, "device": "cpu", "_init_setup_model": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as when the model was made
        try:
            cls(**arguments, **before)
        except Exception:  # the attributes of this class are not its arguments
            return
        cls(**arguments, **{**before, **{name: value for name, value in given.items() if name in names}})


def check_policy(cls: type, policy: Any) -> None:
    """
    Check the policy of an algorithm.

    :param cls: The algorithm
    :param policy: Name or class of the policy
    :raises ValueError: If there is no policy of this name.
    :raises TypeError: If it is something else, or a class for other algorithms.
    """
    aliases: dict[str, type] = getattr(cls, "policy_aliases", {})
    base = next((each for each in next(iter(aliases.values()), object).__mro__ if each.__name__ == "FlowPolicy"), BasePolicy)
    if isinstance(policy, str):
        if policy not in aliases:
            close = closest(policy, aliases)
            hint = f"did you mean {close!r}?" if close else f"expected one of: {', '.join(aliases)}."
            raise ValueError(f"{cls.__name__} has no policy {policy!r}; {hint} The policy comes before the environment.")
    elif not (isinstance(policy, type) and issubclass(policy, base)):
        raise TypeError(
            f"`policy` is {policy!r}; it must be the name of a policy, such as {next(iter(aliases), 'MlpPolicy')!r}, or a "
            f"subclass of {base.__name__}. The policy comes before the environment."
        )


def closest(name: Any, names: Iterable[str]) -> str | None:
    """The most similar name, for suggestions."""
    return next(iter(difflib.get_close_matches(str(name), list(names), n=1)), None)


def unknown(owner: str, name: str, known: Iterable[str], cls: type | None = None) -> str:
    """
    The message about an unknown argument.

    :param owner: Name of the class
    :param name: Name of the argument
    :param known: Valid arguments
    :param cls: The class, if it is an algorithm: arguments of its policy are recognized
    """
    public = sorted(other for other in known if not other.startswith("_"))
    if name in ELSEWHERE:
        return f"{owner} has no argument `{name}`: {ELSEWHERE[name]}."
    if name in ONLINE:
        return f"{owner} has no argument `{name}`: it learns from data only. Leave it out."
    policies: dict[str, type] = getattr(cls, "policy_aliases", {})
    if any(name in hints_of(policy) for policy in policies.values()):
        return f"{owner} has no argument `{name}`: it belongs to the policy: policy_kwargs={{{name!r}: ...}}."
    if name in arguments_of_sb3():
        owners = ", ".join(arguments_of_sb3()[name])
        return f"{owner} has no argument `{name}`, which Stable-Baselines3 has for {owners}; leave it out."
    close = closest(name, public)
    hint = f"did you mean `{close}`?" if close else f"expected one of: {', '.join(public)}."
    return f"{owner} has no argument `{name}`; {hint}"


@cache
def arguments_of_sb3() -> dict[str, list[str]]:
    """The arguments of Stable-Baselines3's algorithms and of their policies, with the names of these algorithms."""
    names: dict[str, list[str]] = {}
    for algorithm in (A2C, DDPG, DQN, PPO, SAC, TD3):
        classes = {base for cls in (algorithm, *algorithm.policy_aliases.values()) for base in cls.__mro__}
        own = [cls for cls in classes if issubclass(cls, (BaseAlgorithm, BasePolicy))]
        for name in {name for cls in own for name in inspect.signature(cls.__init__).parameters}:
            names.setdefault(name, []).append(algorithm.__name__)
    return names


@cache
def hints_of(cls: type) -> dict[str, Any]:
    """
    The arguments of a constructor with their type hints, including those that it passes on as ``**kwargs``. For a policy, also
    those of ``build``.

    :param cls: A class
    :return: Hints by name, without ``self``
    """
    return {**_hints_of(cls, "build"), **_hints_of(cls, "__init__")}


def _hints_of(cls: type, method: str) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    for base in cls.__mro__:
        if base.__module__.startswith("stable_baselines3.") and not getattr(cls, "takes_sb3_arguments", True):
            break
        if method not in vars(base):
            continue
        function = vars(base)[method]
        try:
            parameters = inspect.signature(function, eval_str=True).parameters.values()
        except NameError:  # a hint that only type checkers can resolve
            parameters = inspect.signature(function).parameters.values()
        for parameter in parameters:
            if parameter.name != "self" and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                known = parameter.annotation is not parameter.empty and not isinstance(parameter.annotation, str)
                hints.setdefault(parameter.name, parameter.annotation if known else Any)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return hints


@cache
def former_names_of(cls: type) -> dict[str, str]:
    """
    Former names of the arguments of a constructor. For a policy, also of those of ``build``.

    :param cls: A class
    :return: New name of each former name, see ``renamed_arguments``
    """
    functions = [vars(base).get(method) for base in cls.__mro__ for method in ("__init__", "build")]
    return {old: new for function in functions for old, new in getattr(function, "former_names", {}).items()}


def checked_value(name: str, value: Any, hint: Any) -> Any:
    """
    Check a value by a type hint, and by ``RANGES``. Numbers, strings, booleans, None, functions and classes are checked.

    :param name: Name of the argument, for messages
    :param value: Its value
    :param hint: Its type hint
    :return: The value; numbers in another form are converted
    :raises TypeError: If the value has another type.
    :raises ValueError: If a number is outside of its range.
    """
    value = checked_type(name, value, hint)
    if isinstance(value, (int, float)) and name in RANGES:
        low, high = RANGES[name]
        if not low <= value <= high:
            expected = f"at least {low}" if high == math.inf else f"in [{low}, {high}]"
            raise ValueError(f"`{name}` is {value}; it must be {expected}.")
    if name == "train_freq":
        check_train_freq(value)
    if name == "learning_rate" and callable(value):
        check_schedule(value)
    return value


def check_train_freq(value: Any) -> None:
    """
    :param value: ``train_freq``: a number of steps, or a tuple of a number and its unit
    :raises ValueError: If it is another one.
    """
    frequency, unit, *more = value if isinstance(value, tuple) and len(value) > 1 else (value, "step")
    unit = getattr(unit, "value", unit)  # Stable-Baselines3's own type
    if more or not isinstance(frequency, int) or frequency < 1 or unit not in ("step", "episode"):
        raise ValueError(f"`train_freq` is {value!r}; it must be a number from 1, or a tuple such as (1, 'episode').")


def check_schedule(schedule: Callable[[float], Any]) -> None:
    """
    :param schedule: A learning rate as a function of the remaining progress
    :raises TypeError: If it cannot be called with the remaining progress, or does not return a number.
    :raises ValueError: If the first learning rate is not a finite number of at least 0.
    """
    try:
        first = float(schedule(1.0))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`learning_rate` is the function {schedule!r}, which fails at the beginning ({error}). It must take the "
            "remaining progress, from 1 to 0, and return a number."
        ) from error
    if not 0 <= first < math.inf:
        raise ValueError(
            f"`learning_rate` is a function that begins with {first}; it must return finite numbers of at least 0."
        )


def checked_type(name: str, value: Any, hint: Any) -> Any:
    """As ``checked_value``, without ranges."""
    kinds = _kinds(hint)
    if isinstance(value, list) and tuple in kinds:  # YAML has no tuples
        return tuple(value)
    if kinds - {type(None)} == {type} and not isinstance(value, type) and not (value is None and type(None) in kinds):
        raise TypeError(f"`{name}` is {value!r}; it must be a class.")
    if kinds & CONTAINERS.keys() and kinds <= {*CONTAINERS, type(None)} and isinstance(value, str | int | float):
        raise TypeError(f"`{name}` is {value!r}; it must be {_expected(kinds)}.")
    if Any in kinds or not kinds & {int, float, bool, str}:
        return value
    if isinstance(value, str) and str not in kinds:
        value = _number(value)
    if (value is None and type(None) in kinds) or (isinstance(value, str) and str in kinds):
        return value
    if isinstance(value, (bool, np.bool_)):
        if bool in kinds:
            return bool(value)
    elif isinstance(value, (int, np.integer)):
        if kinds & {int, float}:
            return int(value)
    elif isinstance(value, (float, np.floating)):
        if kinds & {int, float}:
            return _checked_float(name, float(value), kinds)
    elif not isinstance(value, str) and (value is not None or name == "env"):  # Stable-Baselines3's `load` passes env=None
        others = kinds - {int, float, bool, str, type(None)}
        if others and (callable(value) or others != {Callable}):
            return value  # for example an environment, which is checked elsewhere
    raise TypeError(f"`{name}` is {value!r}; it must be {_expected(kinds)}.")


def _checked_float(name: str, value: float, kinds: set[Any]) -> int | float:
    if not math.isfinite(value):
        raise ValueError(f"`{name}` is {value}; it must be a finite number.")
    if float in kinds:
        return value
    if not value.is_integer():
        raise TypeError(f"`{name}` is {value}; it must be a whole number.")
    return int(value)


def _kinds(hint: Any) -> set[Any]:
    """The types that a hint allows; ``str`` for the strings of a ``Literal``."""
    origin = get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return set().union(*(_kinds(part) for part in get_args(hint)))
    if origin is Literal:
        return {type(value) for value in get_args(hint)}
    return {origin or hint}


def _expected(kinds: set[Any]) -> str:
    words = {float: "a number", int: "a whole number", bool: "True or False", str: "a text", Callable: "a function"}
    words |= CONTAINERS
    words[type(None)] = "None"
    if float in kinds:
        kinds = kinds - {int}
    found = [word for kind, word in words.items() if kind in kinds]
    return " or ".join(dict.fromkeys(found))


def _number(text: str) -> int | float | str:
    """Convert text to a number; other text is returned unchanged."""
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text


def number_in_text(value: Any) -> str:
    """
    A hint for numbers that YAML reads as text.

    :param value: Any value
    :return: What to write instead of such a number; empty for another value
    """
    if isinstance(value, str) and re.fullmatch(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)", value):
        return f" YAML reads this as text: write {float(value)!r}, or !!float {value}."
    return ""


def policy_arguments(cls: type, policy: Any) -> set[str] | None:
    """
    Valid keys of ``policy_kwargs``, before ``as_policy_kwargs`` converts them.

    :param cls: The algorithm
    :param policy: Name of the policy in the configuration
    :return: The names; None for a policy that is not one of the algorithm's aliases
    """
    policy_class = getattr(cls, "policy_aliases", {}).get(policy)
    if policy_class is None:
        return None
    # Policies pass arguments of single algorithms to `build`. The algorithm passes its own arguments to the policy.
    names = set(_hints_of(policy_class, "__init__")) | set(_hints_of(policy_class, "build")) - set(hints_of(cls))
    names |= {"activation_fn"} if "activation" in names else set()
    return names - {"observation_space", "action_space", "lr_schedule"} | former_names_of(policy_class).keys()


def check_nested_kwargs(given: Mapping[str, Any], policy_class: type) -> None:
    """
    Check the arguments of the optimizer and of the features extractor.

    :param given: Arguments of the policy
    :param policy_class: The class of the policy, which has their default classes
    :raises TypeError: If they are not a dictionary, or the class has no such argument. The message has a suggestion.
    """
    constructors = [inspect.signature(base.__init__).parameters for base in policy_class.__mro__[:-1]]  # type: ignore[misc]
    for name, owner in (("optimizer_kwargs", "optimizer_class"), ("features_extractor_kwargs", "features_extractor_class")):
        if (nested := given.get(name)) is None:
            continue
        if not isinstance(nested, Mapping):
            raise TypeError(f"`{name}` is {nested!r}; it must be a dictionary.")
        cls = given.get(owner, _default(constructors, owner))
        parameters = inspect.signature(cls).parameters
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            continue
        names = parameters.keys() - {"params", "lr", "observation_space"}
        for key in nested.keys() - names:
            raise TypeError(f"`{name}`: {unknown(cls.__name__, key, names)}")
    if nested := given.get("optimizer_kwargs"):
        _check_optimizer(nested, given.get("optimizer_class", _default(constructors, "optimizer_class")))


def _default(constructors: Sequence[Mapping[str, inspect.Parameter]], name: str) -> Any:
    """The default value of an argument of one of several constructors."""
    return next(parameters[name].default for parameters in constructors if name in parameters)


def _check_optimizer(given: Mapping[str, Any], cls: Any) -> None:
    """Make an optimizer with the arguments, because optimizers check them."""
    for key, value in given.items():
        if advice := number_in_text(value):
            raise TypeError(f"`optimizer_kwargs`: `{key}` is {value!r}.{advice}")
    try:
        cls([nn.Parameter(th.zeros(1))], lr=1e-3, **given)
    except Exception as error:
        raise ValueError(f"`optimizer_kwargs` is {given}, which {cls.__name__} refuses: {error}.") from error


def as_policy_kwargs(given: Any) -> dict[str, Any]:
    """
    Convert ``policy_kwargs`` for Stable-Baselines3 to those of our policies.

    :param given: A dictionary, which is not changed, or None
    :return: A copy, with the name of an activation instead of ``activation_fn``
    :raises TypeError: If it is not a dictionary, the activation is unknown or given twice, or the optimizer has a rate of its
        own.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f"`policy_kwargs` is {given!r}; it must be a dictionary, such as {{'net_arch': [256, 256]}}.")
    policy_kwargs = dict(given)
    if (function := policy_kwargs.pop("activation_fn", None)) is not None:
        names = {nn.ReLU: "relu", nn.GELU: "gelu", nn.SiLU: "silu", nn.Mish: "mish", nn.Tanh: "tanh", nn.ELU: "elu"}
        if function not in names:
            raise TypeError(
                f"`activation_fn` in `policy_kwargs` is {function!r}; write `activation`, one of {', '.join(names.values())}."
            )
        if policy_kwargs.setdefault("activation", names[function]) != names[function]:
            raise TypeError("`policy_kwargs` has both `activation_fn` and another `activation`; pass only `activation`.")
    optimizer_kwargs = policy_kwargs.get("optimizer_kwargs")
    if isinstance(optimizer_kwargs, Mapping) and "lr" in optimizer_kwargs:
        raise TypeError("`optimizer_kwargs` has the learning rate `lr`; pass `learning_rate` to the algorithm instead.")
    return policy_kwargs
