"""The configurations of the package, and checks of configurations."""

import importlib.util
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import sb3_flow
from sb3_flow.common.arguments import (
    CheckedArguments,
    as_policy_kwargs,
    check_nested_kwargs,
    checked_value,
    former_names_of,
    hints_of,
    is_ignored,
    policy_arguments,
    unknown,
)
from sb3_flow.common.optional import require
from sb3_flow.zoo.nested import check_keys, check_nested

#: Keys of an entry that RL Zoo uses; all others are arguments of the algorithm.
ZOO_KEYS = {
    *("callback", "env_kwargs", "env_wrapper", "frame_stack", "monitor_kwargs", "n_envs", "n_timesteps", "noise_std"),
    *("noise_type", "normalize", "policy", "vec_env_wrapper"),
}
#: Arguments of algorithms that RL Zoo takes from options of the command, and these options.
WITH_OPTIONS = {
    **{"device": "--device", "env": "--env", "seed": "--seed", "tensorboard_log": "--tensorboard-log"},
    "verbose": "--verbose",
}
#: Keys whose values are numbers, and their types.
ZOO_NUMBERS: dict[str, Any] = {"n_timesteps": int, "n_envs": int, "frame_stack": int | None, "noise_std": float | None}
#: Keys whose values may be text that RL Zoo evaluates.
AS_TEXT = {"policy_kwargs", "replay_buffer_class", "replay_buffer_kwargs"}
#: Keys whose values may be schedules.
SCHEDULES = {"learning_rate", "clip_range", "clip_range_vf", "delta_std"}


def config_path(name: str) -> Path:
    """
    Path of a configuration file.

    :param name: Its name without suffix: that of an algorithm, such as ``"fql"``, or another one, such as ``"fql_small"``
    :return: The path of the YAML file, which may not exist
    """
    package = Path(sb3_flow.__file__).parent
    installed = package / "zoo_configs"
    # In a checkout of the repository they are at the top level.
    folder = installed if installed.is_dir() else package.parent / "zoo_configs"
    return folder / f"{name}.yml"


def find_config(config: str | None, algorithm: str) -> str | None:
    """
    Find the configuration file of a run.

    :param config: Value of ``--conf-file``: the name of a file of this package, or any value that RL Zoo accepts
    :param algorithm: Name of the algorithm, whose file is used if ``config`` is None
    :return: The configuration for RL Zoo; None: RL Zoo's own file
    """
    path = config_path(algorithm if config is None else config)
    return str(path) if path.is_file() else config


def is_config(name: str) -> bool:
    """Whether a name is that of a configuration of this package, or of a Python module."""
    try:
        return config_path(name).is_file() or importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def no_such_config(config: str) -> ValueError:
    """
    Error for a missing configuration.

    :param config: Value of ``--conf-file``
    :return: The error to raise
    """
    ours = ", ".join(sorted(file.stem for file in config_path("").parent.glob("*.yml")))
    return ValueError(
        f"--conf-file {config} does not exist. Pass a YAML or Python file with an entry per environment, a Python module, or "
        f"one of: {ours}."
    )


class WithoutCycles:
    """Base class of loaders of YAML that refuse a value that contains itself: `&name` with `*name` inside."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """As in PyYAML, where a node that is not complete has no end."""
        node = super().compose_node(parent, index)  # type: ignore[misc]
        if node.end_mark is None:
            place = f"line {node.start_mark.line + 1}"
            raise ValueError(f"{place}: the value contains itself, by an alias (`*name`). Write it out, or remove the alias.")
        return node


def load_yaml(file: str | Path, extra: str, purpose: str) -> Any:
    """
    Read a YAML file without duplicate keys, of which YAML would silently use the last.

    :param file: The file
    :param extra: As for ``require``
    :param purpose: As for ``require``
    :return: Its content
    :raises ValueError: If it is not valid YAML, or has duplicate keys.
    :raises OSError: If it cannot be read.
    """
    yaml = require("yaml", extra, purpose)
    duplicate: list[tuple[int, Any]] = []

    class Loader(WithoutCycles, yaml.SafeLoader):  # type: ignore[misc, name-defined]
        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            keys: list[Any] = []
            for key, _ in node.value:
                if key.value in keys:
                    duplicate.append((key.start_mark.line + 1, key.value))
                keys.append(key.value)
            return node

    try:
        content = yaml.load(Path(file).read_text("utf-8"), Loader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # of PyYAML, or for text that is not UTF-8
        raise ValueError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    for line, key in duplicate:
        raise ValueError(f"{file}, line {line}: the key `{key}` is duplicate; keep one.")
    return content


def read_entries(path: str) -> dict[str, Any]:
    """
    Read a file of configurations.

    :param path: A YAML file
    :return: An entry per environment, and optionally ``default``
    :raises ValueError: If it does not exist, is not valid YAML, has duplicate keys, or does not have a dictionary per
        environment.
    """
    try:
        entries = load_yaml(path, "zoo", "Reading a configuration")
    except FileNotFoundError as error:
        raise no_such_config(path) from error
    if not isinstance(entries, dict):
        raise ValueError(f"{path} has no entries; expected a dictionary of settings per environment.")
    for name, entry in entries.items():
        if not isinstance(entry, dict):
            raise ValueError(f"{path}, entry {name!r}: expected a dictionary of settings, found {entry!r}.")
    return entries


def check_no_options(entry: Iterable[str], place: Callable[[str], str]) -> None:
    """
    Reject keys that RL Zoo takes from options of the command.

    :param entry: The hyperparameters
    :param place: Maps a key to its place, for the message
    :raises ValueError: If there is one. The message names the option.
    """
    for key in entry:
        if key in WITH_OPTIONS:
            raise ValueError(f"{place(key)}: `{key}` is an option of the command: remove it, and pass {WITH_OPTIONS[key]}.")


def check_entry(entry: dict[str, Any], cls: type, place: Callable[[str], str]) -> dict[str, Any]:
    """
    Reject an entry with unknown keys, or without keys that RL Zoo needs.

    :param entry: The hyperparameters
    :param cls: The algorithm
    :param place: Maps a key to its place, for the message
    :return: The entry with converted numbers (YAML reads ``5e-3`` as text), without arguments of Stable-Baselines3 that
        change nothing
    :raises ValueError: The message names the key, its place, and a suggestion.
    """
    hints, former = hints_of(cls), former_names_of(cls)
    known = ZOO_KEYS | {name for name in hints if not name.startswith("_")} - WITH_OPTIONS.keys()
    entry = {key: value for key, value in entry.items() if key in known or not is_ignored(key, value)}
    for key in entry:
        if former.get(key, key) not in known:
            raise ValueError(f"{place(key)}: {unknown(cls.__name__, key, known, cls)}")
    return _checked(entry, hints, former, place, '"FlowPolicy"')


def check_other_entry(entry: dict[str, Any], cls: type, place: Callable[[str], str]) -> dict[str, Any]:
    """
    As ``check_entry``, for an algorithm of Stable-Baselines3 or sb3-contrib.

    :param entry: The hyperparameters
    :param cls: The algorithm
    :param place: Maps a key to its place, for the message
    :return: The entry with converted numbers
    :raises ValueError: The message names the key, its place, and a suggestion.
    """
    hints = hints_of(cls)
    for key in entry:
        check_keys([key], ZOO_KEYS | hints.keys() - WITH_OPTIONS.keys(), cls.__name__, place(key))
    return _checked(entry, hints, {}, place, '"MlpPolicy"')


def _checked(
    entry: dict[str, Any], hints: Mapping[str, Any], former: Mapping[str, str], place: Callable[[str], str], policy: str
) -> dict[str, Any]:
    """The checked values of an entry, which must have the keys that RL Zoo needs."""
    for key, example in (("policy", policy), ("n_timesteps", "1000000")):
        if key not in entry:
            raise ValueError(f"{place(key)}: `{key}` is missing; write `{key}: {example}`.")
    return {key: read_value(former.get(key, key), value, hints, place) for key, value in entry.items()}


def check_policy_kwargs(given: Mapping[str, Any], cls: type, policy: Any, place: str) -> None:
    """
    Check ``policy_kwargs`` as the constructor of the algorithm does.

    :param given: The arguments of the policy
    :param cls: The algorithm
    :param policy: Name of the policy, or a class, whose arguments are not checked
    :param place: Place of the arguments, for the message
    :raises ValueError: The message names the key, its place, and a suggestion.
    """
    known = policy_arguments(cls, policy)
    if known is None:
        return
    policy_class = cls.policy_aliases[policy]  # type: ignore[attr-defined]
    if not isinstance(policy_class, CheckedArguments):  # of Stable-Baselines3
        return check_keys(given, known, policy_class.__name__, place, "policy_kwargs.")
    given = {key: value for key, value in given.items() if not is_ignored(key, value)}
    for key in given.keys() & hints_of(cls).keys():
        raise ValueError(
            f"{place}: `policy_kwargs.{key}` is an argument of {cls.__name__}: write `{key}` without `policy_kwargs`."
        )
    check_keys(given, known - hints_of(cls).keys(), f"{policy} of {cls.__name__}", place, "policy_kwargs.")
    hints, former = hints_of(policy_class), former_names_of(policy_class)
    try:
        for key, value in as_policy_kwargs(given).items():
            checked_value(key, value, hints[former.get(key, key)])
        check_nested_kwargs(given, policy_class)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: {error}") from error


def read_value(key: str, value: Any, hints: Mapping[str, Any], place: Callable[[str], str]) -> Any:
    """
    Check a value of an entry.

    :param key: Its key
    :param value: The value
    :param hints: Type hints of the arguments of the algorithm
    :param place: Maps a key to its place, for the message
    :return: The value; numbers in another form are converted
    :raises ValueError: If it has another type, or is outside of its range.
    """
    if isinstance(value, str) and (key in AS_TEXT or (key in SCHEDULES and is_schedule(value))):
        return value  # RL Zoo's forms of a dictionary and of a schedule
    if key in ZOO_KEYS and key not in ZOO_NUMBERS:
        value = check_nested(key, value, place(key))
    return read_number(key, value, ZOO_NUMBERS.get(key) or hints.get(key, Any), place)


def is_schedule(text: str) -> bool:
    """Whether a text is RL Zoo's form of a learning rate that decreases linearly to 0: ``lin_3e-4``."""
    name, _, number = text.partition("_")
    try:
        return name == "lin" and "_" not in number and 0 <= float(number) < math.inf
    except ValueError:
        return False


def read_number(key: str, value: Any, hint: Any, place: Callable[[str], str]) -> Any:
    """
    Check a value of an entry by a type hint.

    :param key: Its key
    :param value: The value
    :param hint: The type hint
    :param place: Maps a key to its place, for the message
    :return: The value; numbers in another form are converted
    :raises ValueError: If it has another type, or is outside of its range.
    """
    try:
        return checked_value(key, value, hint)
    except (TypeError, ValueError) as error:
        schedule = " A schedule that decreases to 0 is lin_NUMBER, such as lin_3e-4." if key in SCHEDULES else ""
        raise ValueError(f"{place(key)}: {error}{schedule}") from error


def check_noise(entry: dict[str, Any], place: Callable[[str], str]) -> None:
    """
    Check the keys for action noise, which RL Zoo reads only partly.

    :param entry: The hyperparameters
    :param place: Maps a key to its place, for the message
    :raises ValueError: If a key is missing.
    """
    for key, other in (("noise_type", "noise_std"), ("noise_std", "noise_type")):
        if entry.get(key) is not None and entry.get(other) is None:
            raise ValueError(f"{place(key)}: `{other}` is missing, which `{key}` needs.")
