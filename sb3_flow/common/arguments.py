"""
Arguments, checked against the type hints of constructors.

Python calls, configuration files and the command line use the same checks: numbers that were written as text (``5e-3`` in
YAML) become numbers, whole numbers that were written as floats (``1e6``) become integers, and other types are refused.
"""

import difflib
import inspect
import math
import types
import typing
from abc import ABCMeta
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Literal, get_args, get_origin

import numpy as np
from torch import nn

from sb3_flow.common.renamed import with_new_names

#: Arguments of Stable-Baselines3's algorithms and policies that these do not have: what to write instead. Those whose value
#: changes nothing (False or None) are accepted.
ELSEWHERE = {
    "activation_fn": "write the activation by name: policy_kwargs={'activation': 'relu'}",
    "actions_noise": "write `action_noise`",
    "clip_mean": "flow policies are no Gaussians; leave it out",
    "ent_coef": "flow policies have no entropy coefficient; leave it out, and tune the weights of this algorithm instead",
    "log_std_init": "flow policies are no Gaussians; leave it out",
    "net_arch": "it belongs to the policy: policy_kwargs={'net_arch': [256, 256]}",
    "optimize_memory_usage": "each observation is stored once anyway; leave it out",
    "replay_buffer_class": "the replay buffer is chosen by the algorithm; pass logged data, or a replay buffer, as `dataset`",
    "replay_buffer_kwargs": "the replay buffer is chosen by the algorithm; set `buffer_size` and `n_steps`",
    "sde_sample_freq": "there is no gSDE; a flow policy explores by the noise that it starts from",
    "share_features_extractor": "each network has a features extractor of its own; leave it out",
    "target_entropy": "flow policies have no entropy coefficient; leave it out",
    "target_noise_clip": "there is no target policy smoothing; leave it out",
    "target_policy_noise": "there is no target policy smoothing; leave it out",
    "target_update_interval": "targets are updated at each update, by `tau`; leave it out",
    "use_expln": "flow policies are no Gaussians; leave it out",
    "use_sde": "there is no gSDE; a flow policy explores by the noise that it starts from",
    "use_sde_at_warmup": "there is no gSDE; a flow policy explores by the noise that it starts from",
}
#: Arguments that only algorithms with an online phase have.
ONLINE = {
    *("action_noise", "balanced_sampling", "buffer_size", "gamma", "gradient_steps", "learning_starts", "n_steps"),
    *("offline_steps", "sparse_rewards", "train_freq"),
}


class CheckedArguments(ABCMeta):
    """Checks the arguments of a constructor before it runs. Subclasses are checked by their own constructors' hints."""

    #: Whether what the constructor takes as ``**kwargs`` may be an argument of a base class of Stable-Baselines3.
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
    Check arguments of a class, and convert the numbers among them.

    :param cls: The class
    :param arguments: By name
    :param owner: What to call the class in messages; None: by its name
    :return: The arguments, under their new names, without those of Stable-Baselines3 that change nothing
    :raises TypeError: If there is no such argument, or a value is of another type. It names what may have been meant.
    """
    hints = hints_of(cls)
    result = {}
    for name, value in with_new_names(arguments, former_names_of(cls), stacklevel=3).items():
        if name in hints:
            result[name] = checked_value(name, value, hints[name])
        elif not (name in ELSEWHERE and (value is None or value is False)):
            raise TypeError(unknown(owner or cls.__name__, name, hints))
    return result


def unknown(owner: str, name: str, known: Iterable[str]) -> str:
    """
    The message about an argument that is not known.

    :param owner: Who has no such argument
    :param name: Its name
    :param known: The arguments that there are
    """
    public = sorted(other for other in known if not other.startswith("_"))
    if name in ELSEWHERE:
        return f"{owner} has no argument `{name}`: {ELSEWHERE[name]}."
    if name in ONLINE:
        return f"{owner} has no argument `{name}`: it learns from data only. Leave it out."
    close = difflib.get_close_matches(name, public, n=1)
    hint = f"did you mean `{close[0]}`?" if close else f"expected one of: {', '.join(public)}."
    return f"{owner} has no argument `{name}`; {hint}"


@cache
def hints_of(cls: type) -> dict[str, Any]:
    """
    The arguments of a constructor with their type hints, those included that it passes on as ``**kwargs``. Of a policy, also
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
    Former names of the arguments of a constructor. Of a policy, also of those of ``build``.

    :param cls: A class
    :return: New name of each former name, see ``renamed_arguments``
    """
    functions = [vars(base).get(method) for base in cls.__mro__ for method in ("__init__", "build")]
    return {old: new for function in functions for old, new in getattr(function, "former_names", {}).items()}


def checked_value(name: str, value: Any, hint: Any) -> Any:
    """
    Check a value against a type hint, as far as numbers, texts, truth values and None are concerned.

    :param name: The name of the argument, for messages
    :param value: Its value
    :param hint: Its type hint
    :return: The value, converted where it is a number in another form
    :raises TypeError: If it is of another type.
    """
    kinds = _kinds(hint)
    if isinstance(value, list) and tuple in kinds:  # YAML has no tuples
        return tuple(value)
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
    elif not isinstance(value, str) and kinds - {int, float, bool, str, type(None)}:
        return value  # something that its own code checks, such as a function
    raise TypeError(f"`{name}` is {value!r}; it must be {_expected(kinds)}.")


def _checked_float(name: str, value: float, kinds: set[Any]) -> int | float:
    if math.isnan(value):
        raise ValueError(f"`{name}` is nan; it must be a number.")
    if float in kinds:
        return value
    if not value.is_integer():
        raise TypeError(f"`{name}` is {value}; it must be a whole number.")
    return int(value)


def _kinds(hint: Any) -> set[Any]:
    """The types that a hint allows, texts of a ``Literal`` as ``str``."""
    origin = get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return set().union(*(_kinds(part) for part in get_args(hint)))
    if origin is Literal:
        return {type(value) for value in get_args(hint)}
    return {origin or hint}


def _expected(kinds: set[Any]) -> str:
    words = {float: "a number", int: "a whole number", bool: "True or False", str: "a text", type(None): "None"}
    if float in kinds:
        kinds = kinds - {int}
    found = [word for kind, word in words.items() if kind in kinds]
    return " or ".join(found)


def _number(text: str) -> int | float | str:
    """The number that a text stands for; the text itself where it stands for none."""
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text


def policy_arguments(cls: type, policy: Any) -> set[str] | None:
    """
    What ``policy_kwargs`` may have.

    :param cls: The algorithm
    :param policy: Its policy, as a configuration names it
    :return: The names; None for a policy that is not one of the algorithm's own
    """
    policy_class = getattr(cls, "policy_aliases", {}).get(policy)
    if policy_class is None:
        return None
    # What only one method has goes to `build`. The algorithm passes those that are arguments of its own.
    names = set(_hints_of(policy_class, "__init__")) | set(_hints_of(policy_class, "build")) - set(hints_of(cls))
    return names - {"observation_space", "action_space", "lr_schedule"} | former_names_of(policy_class).keys()


def as_policy_kwargs(given: Any) -> dict[str, Any]:
    """
    ``policy_kwargs`` as people write them for Stable-Baselines3, in the form that our policies take.

    :param given: A dictionary, which is not changed, or None
    :return: A copy, with the name of an activation in the place of ``activation_fn``
    :raises TypeError: If it is no dictionary, or the activation is not known.
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
        policy_kwargs.setdefault("activation", names[function])
    return policy_kwargs
