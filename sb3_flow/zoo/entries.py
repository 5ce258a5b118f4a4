"""
The entry of an environment in a configuration file.

Names may be patterns, and values may have placeholders and formulas::

    cube-single-singletask*-v0:                                # all five tasks, and the id without a number
      dataset: "ogbench:cube-single-play-singletask{*}-v0"     # {*}: the text that * matches, here "-task2" or nothing
      fm_coef: "= 10 / 5"                                      # a formula: numbers with * and / between them
"""

import re
import sys
from collections.abc import Mapping
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any

#: RL Zoo's names of entries for several environments, in its order.
SHARED = ("atari", "default")
#: Placeholder in values for the text that `*` in the name of the entry matches.
PLACEHOLDER = "{*}"
NUMBER = r"\d+\.?\d*(?:[eE][+-]?\d{1,3})?"


def find_entry(entries: Mapping[str, Any], env_id: str) -> str | None:
    """
    Find the entry of an environment: by its id, or else by a pattern (``*``, ``?``, ``[1-3]``).

    :param entries: Entries by name
    :param env_id: Environment id
    :return: The name of its entry; None if there is none
    :raises ValueError: If several patterns match.
    """
    if env_id in entries:
        return env_id
    matching = [name for name in entries if isinstance(name, str) and fnmatchcase(env_id, name)]
    if len(matching) > 1:
        names = " and ".join(f"`{name}`" for name in matching)
        raise ValueError(f"{names} match {env_id}; change one of them, or add an entry `{env_id}`, which has priority.")
    return matching[0] if matching else None


def resolve_entries(entries: Mapping[str, Any], env_id: str) -> dict[str, Any]:
    """
    The entries that RL Zoo may use for an environment, with placeholders and formulas evaluated.

    :param entries: Entries by name
    :param env_id: Environment id
    :return: Its entry under its id, if there is one, and the shared entries
    :raises ValueError: If several patterns match, or a placeholder or formula is invalid.
    """
    names = {env_id: find_entry(entries, env_id), **{name: name for name in SHARED}}
    return {key: _fill(entries[name], name, env_id) for key, name in names.items() if name is not None and name in entries}


def _fill(value: Any, name: str, env_id: str) -> Any:
    """Evaluate placeholders and formulas in a value, recursively."""
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
    """The text that ``*`` in a pattern matches."""
    if name.count("*") != 1 or "?" in name or "[" in name:
        raise ValueError(f"entry {name!r}: {PLACEHOLDER} in a value needs a name with one `*` and without `?` and `[`.")
    before, after = name.split("*")
    return env_id[len(before) : len(env_id) - len(after)]


def _formula(text: str, name: str) -> float:
    """A product or quotient, from left to right, rounded once."""
    if not re.fullmatch(rf"=\s*{NUMBER}(\s*[*/]\s*{NUMBER})*\s*", text):
        raise ValueError(
            f"entry {name!r}: {text!r} is not a formula; expected numbers with * or / between them: `= 2 * 0.3 / 21`."
        )
    result = Fraction(1)
    for operator, number in re.findall(rf"([=*/])\s*({NUMBER})", text):
        if operator == "/" and Fraction(number) == 0:
            raise ValueError(f"entry {name!r}: {text!r} divides by zero.")
        result = result / Fraction(number) if operator == "/" else result * Fraction(number)
    if result > sys.float_info.max:
        raise ValueError(f"entry {name!r}: {text!r} is too large.")
    return float(result)
