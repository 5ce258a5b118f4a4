"""
Files that RL Zoo's scripts read: nothing in them is run unless they are trusted (``--trusted``).

Models of this package are plain data. RL Zoo and Stable-Baselines3 also write pickles (their models, ``vecnormalize.pkl``),
YAML with Python objects (``config.yml``, ``args.yml``), and names of wrappers; their scripts read these without a check.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3.common import save_util
from stable_baselines3.common.vec_env import VecEnvWrapper, VecNormalize

from sb3_flow.common.checkpoints.plain import class_named
from sb3_flow.common.checkpoints.saving import PICKLE
from sb3_flow.common.offline_algorithm import OfflineAlgorithm
from sb3_flow.common.optional import require
from sb3_flow.zoo.configs import WithoutCycles
from sb3_flow.zoo.values import parse_value

#: What to do, at the end of messages.
REMEDY = "If you trust its source, add --trusted."
#: Packages whose wrappers are imported; those of ``--gym-packages`` have been imported before.
PACKAGES = {"gymnasium", "rl_zoo3", "sb3_contrib", "sb3_flow", "shimmy", "stable_baselines3"}
#: Functions that may wrap environments; all other wrappers are classes of wrappers.
WRAPPING = {"sb3_flow.common.environments.report_success", "rl_zoo3.utils.flatten_dict_observations"}
ORDERED = "tag:yaml.org,2002:python/object/apply:collections.OrderedDict"
TUPLE = "tag:yaml.org,2002:python/tuple"
CLASSES = "tag:yaml.org,2002:python/name:"
NAMES = "tag:yaml.org,2002:python/object/new:huggingface_sb3.naming_schemes."


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """
    Context in which an attribute has another value.

    :param owner: An object, a class or a module
    :param name: Name of the attribute
    :param value: Its value
    """
    missing = object()
    before = vars(owner).get(name, missing)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is missing:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


@contextmanager
def parsed_values() -> Iterator[None]:
    """Context in which RL Zoo parses text of configurations and of the command line, and does not evaluate it."""
    with ExitStack() as stack:
        for name in ("rl_zoo3.utils", "rl_zoo3.exp_manager"):
            stack.enter_context(replaced(require(name, "zoo", "The command line of RL Zoo"), "eval", parse_value))
        yield


@contextmanager
def reading(trusted: bool) -> Iterator[None]:
    """
    Context in which RL Zoo reads the files of a run.

    :param trusted: Whether code in them may run
    """
    utils: Any = require("rl_zoo3.utils", "zoo", "The command line of RL Zoo")
    with ExitStack() as stack:
        if trusted:
            loads = {cls: cls.load for cls in utils.ALGOS.values() if issubclass(cls, OfflineAlgorithm)}
            for cls, load in loads.items():
                stack.enter_context(replaced(cls, "load", partial(load, trusted=True)))
        else:
            stack.enter_context(replaced(save_util, "json_to_data", partial(_settings, save_util.json_to_data)))
            stack.enter_context(replaced(VecNormalize, "load", staticmethod(_statistics)))
            stack.enter_context(replaced(require("yaml", "zoo", "Reading a run"), "UnsafeLoader", _loader(f" {REMEDY}")))
            stack.enter_context(replaced(utils, "get_wrapper_class", partial(_wrapper, utils.get_wrapper_class)))
        yield


def read_yaml(path: Path, trusted: bool = False, remedy: str = "") -> dict[str, Any]:
    """
    Read a file that RL Zoo wrote for a run, such as ``config.yml``.

    :param path: The file
    :param trusted: Whether Python objects in it may be created
    :param remedy: End of the message about such objects
    :return: Its content by key; nothing if it is empty
    :raises ValueError: If it is not valid YAML, not a dictionary, or has Python objects other than RL Zoo's.
    """
    yaml: Any = require("yaml", "zoo", "Reading a run")
    try:
        with path.open(encoding="utf-8") as file:
            content = yaml.load(file, yaml.UnsafeLoader if trusted else _loader(remedy)) or {}
        if not isinstance(content, dict):
            raise ValueError(f"expected a dictionary, found {content!r}")
        return content
    except (yaml.YAMLError, LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a file of a run: {' '.join(str(error).split())}") from error


def _settings(read: Callable[..., Any], text: str, custom_objects: dict[str, Any] | None = None) -> Any:
    """As Stable-Baselines3's function, but without pickles."""
    pickled = [key for key, item in json.loads(text).items() if isinstance(item, dict) and PICKLE in item]
    refused = [key for key in pickled if key not in (custom_objects or {})]
    if refused:
        raise ValueError(
            f"The model has pickled objects ({', '.join(refused)}), as Stable-Baselines3 writes them. Reading a pickle "
            f"runs any code that it contains, so the file is refused. {REMEDY}"
        )
    return read(text, custom_objects)


def _statistics(path: Any, venv: Any) -> Any:
    """In the place of ``VecNormalize.load``."""
    raise ValueError(
        f"{path} is a pickle, as Stable-Baselines3 writes it. Reading a pickle runs any code that it contains, so it is "
        f"refused. {REMEDY}"
    )


def _loader(remedy: str = "") -> Any:
    """A loader of YAML that knows the objects and classes that RL Zoo writes, and no others."""
    yaml: Any = require("yaml", "zoo", "Reading a run")

    class Loader(WithoutCycles, yaml.SafeLoader):  # type: ignore[misc]
        pass

    def ordered(loader: Any, node: Any) -> Any:
        (pairs,) = loader.construct_sequence(node, deep=True)
        return OrderedDict(pairs)

    def name(loader: Any, suffix: str, node: Any) -> str:
        fields = loader.construct_mapping(node, deep=True)
        return str(fields.get("state", {}).get("_gym_id", fields["args"][0]))  # the id, not the name of its folder

    def known_class(loader: Any, suffix: str, node: Any) -> Any:
        try:
            return class_named(suffix)
        except ValueError:
            return unknown(loader, suffix, node)

    def unknown(loader: Any, suffix: str, node: Any) -> Any:
        raise ValueError(f"{node.start_mark.name} has a Python object ({suffix}), which is not created.{remedy}")

    Loader.add_constructor(ORDERED, ordered)
    Loader.add_constructor(TUPLE, lambda loader, node: tuple(loader.construct_sequence(node, deep=True)))
    Loader.add_multi_constructor(NAMES, name)
    Loader.add_multi_constructor(CLASSES, known_class)
    Loader.add_multi_constructor("tag:yaml.org,2002:python/", unknown)
    return Loader


def _wrapper(find: Callable[..., Any], hyperparams: dict[str, Any], key: str = "env_wrapper") -> Any:
    """As RL Zoo's function, but names in files must be those of wrappers: anything else would be called."""
    found = hyperparams.get(key)
    for item in found if isinstance(found, list) else [found]:
        name = next(iter(item)) if isinstance(item, dict) else item
        if name is None or name in WRAPPING:
            continue
        module, _, attribute = str(name).rpartition(".")
        known = module in sys.modules or module.split(".")[0] in PACKAGES  # a module in the run's folder is not imported
        cls = getattr(importlib.import_module(module), attribute, None) if known else None
        if not (isinstance(cls, type) and issubclass(cls, gym.Wrapper | VecEnvWrapper)):
            raise ValueError(f"The run's `{key}` {name} is not a class of wrappers, so it is not called. {REMEDY}")
    return find(hyperparams, key)
