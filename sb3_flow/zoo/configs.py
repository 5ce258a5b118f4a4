"""The configurations that ship with the package, and what may stand in one."""

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import sb3_flow
from sb3_flow.common.arguments import checked_value, hints_of, unknown
from sb3_flow.common.optional import require

#: Keys of an entry that RL Zoo takes for itself; all others are arguments of the algorithm.
ZOO_KEYS = {
    *("callback", "env_kwargs", "env_wrapper", "frame_stack", "monitor_kwargs", "n_envs", "n_timesteps", "noise_std"),
    *("noise_type", "normalize", "policy", "vec_env_wrapper"),
}


#: Those that are numbers, with their types.
ZOO_NUMBERS: dict[str, Any] = {"n_timesteps": int, "n_envs": int, "frame_stack": int, "noise_std": float}


def config_path(name: str) -> Path:
    """
    Where a file of configurations lies.

    :param name: Its name without the ending: that of an algorithm, such as ``"fql"``, or another one, such as ``"fql_small"``
    :return: The YAML file, which need not exist
    """
    package = Path(sb3_flow.__file__).parent
    installed = package / "zoo_configs"
    # In a checkout they lie at the top, where people look for them.
    folder = installed if installed.is_dir() else package.parent / "zoo_configs"
    return folder / f"{name}.yml"


def find_config(config: str | None, algorithm: str) -> str | None:
    """
    Find the configurations of a run.

    :param config: What ``--conf-file`` says: a file of ours by its name, or else what RL Zoo understands
    :param algorithm: Name of the algorithm, whose own file is taken where ``config`` is None
    :return: What RL Zoo is to read; None: its own file
    """
    path = config_path(algorithm if config is None else config)
    return str(path) if path.is_file() else config


def no_such_config(config: str) -> ValueError:
    """
    :param config: What ``--conf-file`` said
    :return: The error to raise where nothing is found by it
    """
    ours = ", ".join(sorted(file.stem for file in config_path("").parent.glob("*.yml")))
    return ValueError(
        f"--conf-file {config} does not exist. It takes a YAML or Python file with an entry per environment, a Python module, "
        f"or one of ours: {ours}."
    )


def read_entries(path: str) -> dict[str, Any]:
    """
    Read a file of configurations.

    :param path: A YAML file
    :return: An entry per environment, and perhaps ``default``
    :raises ValueError: If it is missing, is not valid YAML, or does not have a dictionary per environment.
    """
    yaml = require("yaml", "zoo", "Reading a configuration")
    try:
        entries = yaml.safe_load(Path(path).read_text("utf-8"))
    except FileNotFoundError as error:
        raise no_such_config(path) from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(entries, dict):
        raise ValueError(f"{path} has no entries; expected a dictionary of settings per environment.")
    for name, entry in entries.items():
        if not isinstance(entry, dict):
            raise ValueError(f"{path}, entry {name!r}: expected a dictionary of settings, found {entry!r}.")
    return entries


def check_keys(given: Iterable[str], known: set[str], owner: str, place: str, prefix: str = "") -> None:
    """
    Refuse keys that nobody understands.

    :param given: The keys
    :param known: Those that are understood
    :param owner: Whose they are, for the message
    :param place: Where they were given, for the message
    :param prefix: What precedes a key, for the message
    :raises ValueError: It names the key, where it stands, and what may have been meant.
    """
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean `{prefix}{close[0]}`?" if close else f"it takes: {', '.join(sorted(known))}."
            raise ValueError(f"{place}: {owner} has no `{prefix}{key}`; {hint}")


def check_entry(entry: dict[str, Any], cls: type, place: Callable[[str], str]) -> dict[str, Any]:
    """
    Refuse an entry with keys that neither RL Zoo nor the algorithm knows, or without those that RL Zoo needs.

    :param entry: The hyperparameters
    :param cls: The algorithm
    :param place: From a key to where it was given, for the message
    :return: The same with its numbers converted: YAML reads ``5e-3`` as a text
    :raises ValueError: It names the key, where it stands, and what may have been meant.
    """
    hints = hints_of(cls)
    known = ZOO_KEYS | {name for name in hints if not name.startswith("_")}
    for key in entry:
        if key not in known:
            raise ValueError(f"{place(key)}: {unknown(cls.__name__, key, known)}")
    for key, example in (("policy", '"FlowPolicy"'), ("n_timesteps", "1000000")):
        if key not in entry:
            raise ValueError(f"{place(key)}: `{key}` is missing; write `{key}: {example}`.")
    checked = {}
    for key, value in entry.items():
        if isinstance(value, str) and (value.startswith("lin_") or key == "policy_kwargs"):
            checked[key] = value  # RL Zoo's forms of a schedule and of a dictionary
            continue
        try:
            checked[key] = checked_value(key, value, ZOO_NUMBERS.get(key) or hints.get(key, Any))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{place(key)}: {error}") from error
    return checked
