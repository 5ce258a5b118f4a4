"""
Which entry of a file of configurations an environment has, and what it says.

A name may be a pattern, and a value may be filled in::

    cube-single-singletask*-v0:                                # all five tasks, and the id without a number
      dataset: "ogbench:cube-single-play-singletask{*}-v0"     # {*}: what * stands for, here "-task2" or nothing
      fm_coef: "= 10 / 5"                                      # a formula: numbers, with * and / between them
"""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any

#: Names of RL Zoo for entries that several environments share, in its order.
SHARED = ("atari", "default")
#: What `*` in the name of an entry stands for, in its values.
PLACEHOLDER = "{*}"
NUMBER = r"\d+\.?\d*(?:[eE][+-]?\d+)?"


def find_entry(entries: Mapping[str, Any], env_id: str) -> str | None:
    """
    Find the entry of an environment: that of its id, or else that of a pattern (``*``, ``?``, ``[1-3]``).

    :param entries: Entries by name
    :param env_id: Environment id
    :return: The name of its entry; None: it has none of its own
    :raises ValueError: If several patterns match.
    """
    if env_id in entries:
        return env_id
    matching = [name for name in entries if isinstance(name, str) and fnmatchcase(env_id, name)]
    if len(matching) > 1:
        names = " and ".join(f"`{name}`" for name in matching)
        raise ValueError(f"{names} match {env_id}; narrow one of them, or add an entry `{env_id}`, which goes before both.")
    return matching[0] if matching else None


def resolve_entries(entries: Mapping[str, Any], env_id: str) -> dict[str, Any]:
    """
    What RL Zoo may take for an environment, filled in.

    :param entries: Entries by name
    :param env_id: Environment id
    :return: Its own entry, if there is one, by its id, and the shared ones
    :raises ValueError: If several patterns match, or a value cannot be filled in.
    """
    names = {env_id: find_entry(entries, env_id), **{name: name for name in SHARED}}
    return {key: _fill(entries[name], name, env_id) for key, name in names.items() if name is not None and name in entries}


def _fill(value: Any, name: str, env_id: str) -> Any:
    """A value of an entry, with everything that it holds."""
    if isinstance(value, dict):
        return {key: _fill(item, name, env_id) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, name, env_id) for item in value]
    if not isinstance(value, str):
        return value
    if value.startswith("="):
        return _formula(value, name)
    return value.replace(PLACEHOLDER, _stands_for(name, env_id)) if PLACEHOLDER in value else value


def _stands_for(name: str, env_id: str) -> str:
    """What ``*`` in a pattern stands for."""
    if name.count("*") != 1 or "?" in name or "[" in name:
        raise ValueError(f"entry {name!r}: {PLACEHOLDER} needs a name with one `*`, and no `?` or `[`, for which it stands.")
    before, after = name.split("*")
    return env_id[len(before) : len(env_id) - len(after)]


def _formula(text: str, name: str) -> float:
    """A product or quotient, from left to right, rounded once."""
    if not re.fullmatch(rf"=\s*{NUMBER}(\s*[*/]\s*{NUMBER})*\s*", text):
        raise ValueError(
            f"entry {name!r}: {text!r} is no formula; after `=` there are numbers with * or / between them: `= 2 * 0.3 / 21`."
        )
    result = Fraction(1)
    for operator, number in re.findall(rf"([=*/])\s*({NUMBER})", text):
        if operator == "/" and Fraction(number) == 0:
            raise ValueError(f"entry {name!r}: {text!r} divides by zero.")
        result = result / Fraction(number) if operator == "/" else result * Fraction(number)
    return float(result)
