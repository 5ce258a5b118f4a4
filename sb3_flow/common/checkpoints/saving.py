"""Models as files: an archive as Stable-Baselines3 writes it, whose settings are plain data; and error messages of loading."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import data_to_json, json_to_data, recursive_getattr, save_to_zip_file

from sb3_flow.common.checkpoints.old_files import moved_modules
from sb3_flow.common.checkpoints.plain import NotPlain, from_plain, to_plain
from sb3_flow.common.files import deferred_interrupts, is_path, name_of, reason
from sb3_flow.common.warn import warn

#: Key of a pickle in the settings, as in Stable-Baselines3.
PICKLE = ":serialized:"
#: Names in ``custom_objects`` that scripts for all algorithms of Stable-Baselines3 pass, and that our files do not have.
OF_OTHERS = {"clip_range", "clip_range_vf", "lr_schedule", "policy_class"}
#: End of messages about files of policies.
WRITTEN = "Pass a file that `policy.save` wrote."


def save_model(model: BaseAlgorithm, file: IO[bytes], exclude: Iterable[str], include: Iterable[str]) -> None:
    """
    Write a model as ``BaseAlgorithm.save`` does, with settings as plain data.

    :param model: The model
    :param file: An open file
    :param exclude: Names of attributes to leave out
    :param include: Names of attributes not to leave out
    """
    state_dicts, variables = model._get_torch_save_params()
    left_out = {*exclude, *model._excluded_save_params()} - set(include)
    left_out |= {name.split(".")[0] for name in (*state_dicts, *variables)}
    settings = {name: value for name, value in vars(model).items() if name not in left_out}
    data = pack_settings(settings, policy_classes(type(model)), f"{type(model).__name__}.load(..., trusted=True)")
    tensors = {name: recursive_getattr(model, name) for name in variables}
    with deferred_interrupts():
        save_to_zip_file(file, data, model.get_parameters(), tensors)  # type: ignore[arg-type]


def policy_classes(cls: type[BaseAlgorithm]) -> list[type]:
    """The policies of an algorithm, which its files may name wherever they are defined."""
    return list(cls.policy_aliases.values())


def pack_settings(settings: Mapping[str, Any], known: Iterable[type], call: str) -> dict[str, Any]:
    """
    Convert settings to plain data. What is not plain is pickled as in Stable-Baselines3, with a warning.

    :param settings: Values by name
    :param known: As for ``to_plain``
    :param call: How the file is loaded then, for the warning
    :return: Data for JSON
    """
    packed, pickled = {}, []
    for name, value in settings.items():
        try:
            packed[name] = to_plain(value, known, name=name)
        except NotPlain as error:
            pickled.append(str(error))
            packed[name] = json.loads(data_to_json({name: value}))[name]
    if pickled:
        warn(
            f"The file has pickled objects, because they are not plain data: {', '.join(pickled)}. It can be loaded by "
            f"`{call}`, which runs the code of the pickles, or with a replacement in `custom_objects`."
        )
    return packed


def unpack_settings(
    path: Any,
    settings: Mapping[str, Any],
    known: Iterable[type],
    custom_objects: Mapping[str, Any] | None,
    trusted: bool,
    replaced: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """
    Convert the settings of a file back to values.

    :param path: The file, for messages
    :param settings: As returned by ``read_settings``
    :param known: As for ``from_plain``
    :param custom_objects: Replacements of saved values, by name
    :param trusted: Whether pickles are read, which runs any code that they contain
    :param replaced: Values that replace those of pickles
    :return: Values by name
    :raises ValueError: If the settings have pickles that are neither trusted nor replaced, or are malformed.
    """
    custom_objects = custom_objects or {}
    if not isinstance(custom_objects, Mapping):
        raise TypeError(f"`custom_objects` is {custom_objects!r}; it must be a dictionary of replacements by name.")
    if unknown := custom_objects.keys() - settings.keys() - OF_OTHERS:
        listed = ", ".join(sorted(map(repr, unknown)))
        warn(f"`custom_objects` has {listed}, which {name_of(path)} does not have: nothing is replaced.")
    unpacked, pickled = {}, {}
    for name, item in settings.items():
        if name in custom_objects:
            unpacked[name] = custom_objects[name]
        elif isinstance(item, dict) and PICKLE in item:
            if replaced and name in replaced:
                unpacked[name] = replaced[name]
            else:
                pickled[name] = item
        else:
            try:
                unpacked[name] = from_plain(item, known)
            except ValueError as error:
                raise ValueError(
                    f"{name_of(path)} does not have a valid `{name}`: {reason(error)}. Use an earlier copy."
                ) from error
    if pickled and not trusted:
        raise ValueError(
            f"{name_of(path)} has pickled objects ({', '.join(pickled)}): functions or classes of your own, or all objects in "
            "files of version 0.1 and Stable-Baselines3. Reading a pickle runs any code that it contains, so the file is "
            "refused. If you trust its source, pass `trusted=True` (`--trusted` on the command line), and save the model "
            f"again. Or pass replacements: custom_objects={{{next(iter(pickled))!r}: ...}}."
        )
    return {**unpacked, **_unpickle(path, pickled)}


def _unpickle(path: Any, pickled: dict[str, Any]) -> dict[str, Any]:
    """The objects of pickles in settings, by name."""
    try:
        with moved_modules():
            return json_to_data(json.dumps(pickled))
    except ImportError as error:
        raise ValueError(
            f"{name_of(path)} needs a module that cannot be imported ({error}). Install it, or replace the object by "
            "`custom_objects`."
        ) from error
    except Exception as error:  # damaged pickles can raise anything
        raise ValueError(f"{name_of(path)} has a damaged pickle ({error}). Use an earlier copy.") from error


def read_policy(path: Any, device: th.device, trusted: bool) -> tuple[dict[str, th.Tensor], dict[str, Any]]:
    """
    Read the file of a policy.

    :param path: The file
    :param device: Device of the parameters
    :param trusted: Whether pickles are read, which runs any code that they contain
    :return: Parameters, and arguments of the policy
    :raises ValueError: If it has pickles that are not trusted, is damaged, or is something else.
    """
    try:
        saved = th.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        if not trusted:
            raise ValueError(
                f"{name_of(path)} is not a policy as plain data. Version 0.1 and Stable-Baselines3 write pickles. Reading a "
                "pickle runs any code that it contains, so it is refused. If you trust its source, pass `trusted=True`."
            ) from error
        if not is_path(path):
            path.seek(0)
        with moved_modules():
            saved = th.load(path, map_location=device, weights_only=False)
    except Exception as error:  # damaged archives can raise anything
        if isinstance(error, OSError) and error.filename is not None:  # such as a missing file
            raise
        raise ValueError(f"{name_of(path)} is damaged, or not a policy ({reason(error)}). {WRITTEN}") from error
    parts = saved if isinstance(saved, dict) else {}
    data, state_dict = parts.get("data"), parts.get("state_dict")
    try:
        settings = json.loads(data) if isinstance(data, str) else data
    except ValueError as error:
        raise ValueError(f"{name_of(path)} is damaged: its settings are not JSON ({error}). {WRITTEN}") from error
    if not (isinstance(settings, dict) and isinstance(state_dict, dict)):
        raise ValueError(f"{name_of(path)} is not a policy: it has no settings or no parameters. {WRITTEN}")
    return state_dict, unpack_settings(path, settings, (), None, trusted) if isinstance(data, str) else settings


def require_own_model(cls: type[BaseAlgorithm], path: Any, settings: Mapping[str, Any]) -> None:
    """
    Check that a file was saved by an algorithm of this package. Nothing is unpickled.

    :param cls: The algorithm, for the message
    :param path: The file
    :param settings: As returned by ``read_settings``
    :raises ValueError: If it was saved by an algorithm outside of this package.
    """
    packed = settings.get("policy_class", {})
    module = packed.get("__module__", "unknown") if isinstance(packed, dict) else "unknown"
    if "n_offline_updates" not in settings:
        raise ValueError(
            f"{name_of(path)} was saved by an algorithm outside of sb3_flow (policy in {module}). Load it with the class that "
            f"saved it, not with {cls.__name__}."
        )


def require_own_policy(cls: type[BaseAlgorithm], path: Any, policy_class: Any) -> None:
    """
    Check that a file was saved by this algorithm.

    :param cls: The algorithm
    :param path: The file
    :param policy_class: Its policy
    :raises ValueError: If the file was saved by another algorithm.
    """
    if not isinstance(policy_class, type) or not issubclass(policy_class, tuple(policy_classes(cls))):
        module = getattr(policy_class, "__module__", "unknown")
        raise ValueError(
            f"{name_of(path)} was saved by another algorithm, or another version (policy in {module}). Load it with the class "
            f"that saved it, not with {cls.__name__}."
        )


def check_optimizer(optimizer: th.optim.Optimizer, name: str) -> None:
    """
    Check the state of a loaded optimizer, whose errors would be found only by the next update.

    :param optimizer: The optimizer
    :param name: Its name, for the message
    :raises ValueError: If a part of the state does not fit its parameter, or a setting has another type.
    """
    needed = {"step", "exp_avg", "exp_avg_sq"} if isinstance(optimizer, th.optim.Adam | th.optim.AdamW) else set[str]()
    for parameter, state in optimizer.state.items():
        for key in needed | set(state):
            part = state.get(key)
            fits = isinstance(part, th.Tensor) and (part.ndim == 0 or part.shape == parameter.shape)
            if not (fits and part.is_floating_point()) and (key in needed or isinstance(part, th.Tensor)):
                raise ValueError(f"The state of {name} has no `{key}` of the shape {tuple(parameter.shape)}.")
    for group in optimizer.param_groups:
        for key, default in optimizer.defaults.items():
            kinds = int | float | th.Tensor if type(default) in (int, float) else type(default)
            if default is not None and not isinstance(group.get(key, default), kinds):
                raise ValueError(f"`{key}` of {name} is {group.get(key)!r}.")


@contextmanager
def load_errors(cls: type, path: Any) -> Iterator[None]:
    """
    Convert errors of loading a file to a ``ValueError`` that names the file and the remedy.

    :param cls: The algorithm or the policy
    :param path: The file
    """
    try:
        yield
    except ValueError as error:
        hint = " Pass the environment that it was trained on, with the same wrappers." if "spaces do" in str(error) else ""
        raise ValueError(f"{name_of(path)} cannot be loaded. {reason(error).rstrip('.')}.{hint}") from error
    except (ImportError, OSError):
        raise
    except Exception as error:  # damaged parts can raise anything
        raise ValueError(
            f"{name_of(path)} does not fit {cls.__name__}: parameters or settings are missing or have other shapes, "
            f"perhaps because another version saved it. {type(error).__name__}: {reason(error)}"
        ) from error
