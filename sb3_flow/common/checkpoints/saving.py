"""Checks and error messages of loading saved models."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import json_to_data

from sb3_flow.common.checkpoints.old_files import moved_modules
from sb3_flow.common.files import name_of


def require_own_model(cls: type[BaseAlgorithm], path: Any, settings: dict[str, Any], custom_objects: dict[str, Any]) -> None:
    """
    Check that a file was saved by an algorithm.

    :param cls: The algorithm
    :param path: The file
    :param settings: As returned by ``read_settings``
    :param custom_objects: Replacements of saved objects
    :raises ValueError: If the file was saved by another algorithm.
    """
    packed = settings.get("policy_class", {})
    module = packed.get("__module__", "unknown") if isinstance(packed, dict) else "unknown"
    try:
        with moved_modules():
            policy_class = json_to_data(json.dumps({"policy_class": packed}), custom_objects).get("policy_class")
    except ImportError:
        return  # `load` reports what is missing
    if not isinstance(policy_class, type) or not issubclass(policy_class, tuple(cls.policy_aliases.values())):
        ours = "n_offline_updates" in settings
        other = "another algorithm, or another version" if ours else "an algorithm outside of sb3_flow"
        raise ValueError(
            f"{name_of(path)} was saved by {other} (policy in {module}). Load it with the class that saved it, not with "
            f"{cls.__name__}."
        )


@contextmanager
def load_errors(cls: type[BaseAlgorithm], path: Any) -> Iterator[None]:
    """
    Convert errors of loading a file to a ``ValueError`` that names the file and the remedy.

    :param cls: The algorithm
    :param path: The file
    """
    try:
        with moved_modules():
            yield
    except ImportError as error:
        raise ValueError(
            f"{name_of(path)} needs a module that cannot be imported ({error}). Install it, or replace the object by "
            "`custom_objects`."
        ) from error
    except (RuntimeError, KeyError, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(
            f"{name_of(path)} does not fit {cls.__name__}: parameters or settings are missing or have other shapes, "
            f"perhaps because another version saved it. {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error
    except ValueError as error:
        hint = " Pass the environment that it was trained on, with the same wrappers." if "spaces do" in str(error) else ""
        raise ValueError(f"{name_of(path)} cannot be loaded. {str(error).rstrip('.')}.{hint}") from error
