"""The configurations that ship with the package, and what may stand in one."""

import difflib
import inspect
from pathlib import Path
from typing import Any

import sb3_flow

#: Keys of an entry that RL Zoo takes for itself; all others are arguments of the algorithm.
ZOO_KEYS = {
    *("callback", "env_kwargs", "env_wrapper", "frame_stack", "monitor_kwargs", "n_envs", "n_timesteps", "noise_std"),
    *("noise_type", "normalize", "policy", "vec_env_wrapper"),
}


def config_path(algorithm: str) -> Path:
    """
    Find the configurations of an algorithm.

    :param algorithm: Its name, such as ``"fql"``
    :return: The YAML file, which need not exist
    """
    package = Path(sb3_flow.__file__).parent
    installed = package / "zoo_configs"
    # In a checkout they lie at the top, where people look for them.
    folder = installed if installed.is_dir() else package.parent / "zoo_configs"
    return folder / f"{algorithm}.yml"


def arguments_of(cls: type) -> set[str]:
    """
    The names of all arguments of a constructor, those included that it passes on as ``**kwargs``.

    :param cls: A class
    :return: The names, without ``self``
    """
    names: set[str] = set()
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        names |= {parameter.name for parameter in parameters if parameter.kind not in (2, 4)} - {"self"}
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            break
    return names


def check_entry(entry: dict[str, Any], cls: type, entry_name: str, source: str, overridden: set[str]) -> None:
    """
    Refuse keys that neither RL Zoo nor the algorithm knows.

    :param entry: The hyperparameters
    :param cls: The algorithm
    :param entry_name: Name of the entry, for the message
    :param source: Where the entry was read, for the message
    :param overridden: Keys that came from the command line
    :raises ValueError: It names the key, where it stands, and what may have been meant.
    """
    known = ZOO_KEYS | {name for name in arguments_of(cls) if not name.startswith("_")}
    policy_kwargs = entry.get("policy_kwargs")
    groups = [(entry, known, "")]
    if isinstance(policy_kwargs, dict) and entry.get("policy") in getattr(cls, "policy_aliases", {}):
        policy = cls.policy_aliases[entry["policy"]]  # type: ignore[attr-defined]
        groups.append((policy_kwargs, arguments_of(policy), "policy_kwargs."))
    for values, names, prefix in groups:
        for key in values.keys() - names:
            place = "-params" if (prefix.rstrip(".") or key) in overridden else f"{source}, entry {entry_name!r}"
            close = difflib.get_close_matches(key, names, n=1)
            hint = f"did you mean `{prefix}{close[0]}`?" if close else f"it takes: {', '.join(sorted(names))}."
            raise ValueError(f"{place}: {cls.__name__} has no `{prefix}{key}`; {hint}")
    if "policy" not in entry:
        raise ValueError(f'{source}, entry {entry_name!r}: `policy` is missing; write `policy: "FlowPolicy"`.')
