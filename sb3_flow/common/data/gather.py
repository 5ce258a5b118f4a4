"""Assign the arrays of a dictionary to observations, actions, rewards and columns about episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sb3_flow.common.data.columns import DatasetError, Observations, as_array, parts
from sb3_flow.common.data.fields import AMBIGUOUS, DIALECTS, Field, Meaning, is_ogbench, resolve
from sb3_flow.common.warn import warn

#: Groups of fields with further information from the environment.
INFORMATION_GROUPS = ("info", "infos", "metadata", "meta", "env_infos", "agent_infos", "algorithm")
#: Largest number of fields that a message lists.
LISTED = 20


@dataclass
class Gathered:
    """
    The arrays of a dictionary by their meaning.

    :param observations: ``(N, *shape)`` or a dictionary of these
    :param actions: ``(N, *shape)``
    :param rewards: ``(N,)``, or None
    :param next_observations: As ``observations``, or None
    :param columns: All columns about episodes and transitions
    :param final_states: Rows that have only the last observation of an episode, if the layout defines them
    :param understood: Meaning of each field
    :param ignored: Fields without a known meaning
    """

    observations: Observations
    actions: np.ndarray
    rewards: np.ndarray | None
    next_observations: Observations | None
    columns: list[tuple[Field, np.ndarray]]
    final_states: np.ndarray | None
    understood: dict[str, str]
    ignored: list[str]

    def has(self, *meanings: Meaning) -> bool:
        """Whether there is a column with one of some meanings."""
        return any(column.meaning in meanings for column, _ in self.columns)


def gather(data: Mapping[str, Any], name: str) -> Gathered:
    """
    Determine the meanings of the arrays of a dictionary.

    :param data: The arrays; names may have groups (``observations/camera``).
    :param name: Name of the data for messages
    :return: The arrays by their meaning
    :raises DatasetError: If observations or actions are missing, or a name is ambiguous.
    """
    names = [key for key in data if isinstance(key, str) and _is_there(data, key)]
    no_names = [repr(key) for key in data if not isinstance(key, str)]
    if set(DIALECTS["ExORL"].fields) <= set(names):
        data = _actions_before_observations(data)
        names = list(data)
    groups = {key: key.split("/")[0] for key in names}
    known = {column.name: column.meaning for column in resolve(list(dict.fromkeys(groups.values())))}
    meanings = {key: known[group] for key, group in groups.items() if group in known and _may_be(key, group, known[group])}
    observations = _observations(data, meanings, Meaning.OBSERVATION, name)
    actions = _one(data, meanings, Meaning.ACTION, name)
    if actions is not None and actions.ndim == 0:
        raise DatasetError(f"{name}: `actions` is a single value; expected an array with one row a transition.")
    if observations is None or actions is None:
        raise _missing(names, "observations" if observations is None else "actions", name)
    next_observations = _observations(data, meanings, Meaning.NEXT_OBSERVATION, name)
    rewards = _one(data, meanings, Meaning.REWARD, name)
    _refuse_ambiguous(names, meanings, name)
    _warn_about_discounts(data, meanings, name)
    if actions.ndim == 1:
        actions = actions[:, None]
    values = (Meaning.OBSERVATION, Meaning.NEXT_OBSERVATION, Meaning.ACTION, Meaning.REWARD, Meaning.INFORMATION)
    columns = [
        (Field(key, meaning), as_array(data[key], key, name)) for key, meaning in meanings.items() if meaning not in values
    ]
    if rewards is not None:
        rewards = _one_value(rewards, "rewards", name)
    final_states = None
    length = len(actions) if actions.ndim else 0
    if is_ogbench(names):
        final_states = as_array(data["terminals"], "terminals", name).reshape(-1) != 0
    elif next_observations is None and all(len(part) == length + 1 for part in parts(observations).values() if part.ndim):
        actions, rewards, columns = _with_last_row(actions, rewards, columns, name)
        final_states = np.arange(length + 1) == length
    ignored = [key for key in names if key not in meanings and groups[key] not in INFORMATION_GROUPS] + no_names
    understood = {key: meaning.value for key, meaning in meanings.items()} | dict.fromkeys(ignored, "not used")
    return Gathered(observations, actions, rewards, next_observations, columns, final_states, understood, ignored)


def _actions_before_observations(data: Mapping[str, Any]) -> dict[str, Any]:
    """Convert ExORL's episodes: the action of a row precedes its observation, so that the first row has none."""
    return {
        "observation": data["observation"],
        "action": np.asarray(data["action"])[1:],
        "reward": np.asarray(data["reward"])[1:],
        "masks": (np.asarray(data["discount"])[1:] != 0).reshape(-1),
    }


def _is_there(data: Mapping[str, Any], key: str) -> bool:
    """None counts as absent. Only dictionaries are checked: with files this would read the array."""
    return not (isinstance(data, dict) and data[key] is None)


def _may_be(key: str, group: str, meaning: Meaning) -> bool:
    """Only observations and information may be in groups."""
    return key == group or meaning in (Meaning.OBSERVATION, Meaning.NEXT_OBSERVATION, Meaning.INFORMATION)


def _names_of(meanings: Mapping[str, Meaning], meaning: Meaning) -> list[str]:
    return [key for key, found in meanings.items() if found is meaning]


def _one(data: Mapping[str, Any], meanings: Mapping[str, Meaning], meaning: Meaning, name: str) -> np.ndarray | None:
    found = _names_of(meanings, meaning)
    if len(found) > 1:
        raise _twice(found, name)
    return as_array(data[found[0]], found[0], name) if found else None


def _observations(
    data: Mapping[str, Any], meanings: Mapping[str, Meaning], meaning: Meaning, name: str
) -> Observations | None:
    """One array, or a dictionary of all arrays of a group, at any depth."""
    found = _names_of(meanings, meaning)
    if not found:
        return None
    groups = {key.split("/")[0] for key in found}
    if len(groups) > 1 or (len(found) > 1 and any("/" not in key for key in found)):
        raise _twice(found, name)
    if len(found) == 1 and "/" not in found[0]:
        value = data[found[0]]
        return _flat(value, found[0], name) if isinstance(value, Mapping) else as_array(value, found[0], name)
    return {key.partition("/")[2]: as_array(data[key], key, name) for key in found}


def _flat(value: Mapping[str, Any], field: str, name: str) -> dict[str, np.ndarray]:
    """Flatten nested dictionaries, with keys such as ``images/front``."""
    columns: dict[str, np.ndarray] = {}
    for key, column in value.items():
        if isinstance(column, Mapping):
            columns |= {f"{key}/{inner}": part for inner, part in _flat(column, f"{field}[{key}]", name).items()}
        else:
            columns[key] = as_array(column, f"{field}[{key}]", name)
    return columns


def _one_value(column: np.ndarray, field: str, name: str) -> np.ndarray:
    """A column with one value per row, of shape ``(N,)`` or with further axes of length 1."""
    if column.ndim > 1 and column.size != len(column):
        episodes = " If each row is an episode, pass a list with one dictionary for each episode." if column.ndim == 2 else ""
        raise DatasetError(f"{name}: `{field}` has the shape {column.shape[1:]} per row; expected one value.{episodes}")
    return column.reshape(-1)


def _with_last_row(
    actions: np.ndarray, rewards: np.ndarray | None, columns: list[tuple[Field, np.ndarray]], name: str
) -> tuple[np.ndarray, np.ndarray | None, list[tuple[Field, np.ndarray]]]:
    """Add a row without an action for the last observation of an episode."""
    length = len(actions)
    every_end = (Meaning.EPISODE, Meaning.EPISODE_ENDS, Meaning.EPISODE_LENGTHS, Meaning.START, Meaning.FINAL_STATE)
    if any(field.meaning in every_end and column.size != length + 1 for field, column in columns):
        raise DatasetError(f"{name}: `observations` has {length + 1} rows, but `actions` has {length}.")

    def longer(column: np.ndarray, value: Any) -> np.ndarray:
        return np.concatenate([column, np.full((1, *column.shape[1:]), value, dtype=column.dtype)])

    columns = [
        (field, column if len(column) == length + 1 else longer(column, 1 if field.meaning is Meaning.MASK else 0))
        for field, column in columns
        if field.meaning not in (Meaning.STEP, Meaning.TIME)
    ]
    return longer(actions, 0), None if rewards is None else longer(rewards, 0), columns


def _refuse_ambiguous(names: list[str], meanings: Mapping[str, Meaning], name: str) -> None:
    if "mask" in names and not {Meaning.MASK, Meaning.VALID} & set(meanings.values()):
        raise DatasetError(f"{name}: `mask` does not say {AMBIGUOUS['mask']}.")


def _warn_about_discounts(data: Mapping[str, Any], meanings: Mapping[str, Meaning], name: str) -> None:
    """Warn if RLDS's discounts would mark ends of the task, which no column has."""
    if "discount" not in meanings or {Meaning.TERMINATION, Meaning.MASK, Meaning.DONE} & set(meanings.values()):
        return
    ended = as_array(data["discount"], "discount", name).reshape(-1) == 0
    if ended.any():
        warn(
            f"{name}: `discount` is 0 in row {int(ended.argmax())}, but it is not used, and no other column says where the "
            "task ended. If it ended in these rows, name the column `masks`."
        )


def _missing(names: list[str], field: str, name: str) -> DatasetError:
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    listed = [key if len(key) <= 30 else f"{key[:27]}..." for key in sorted(names)[:LISTED]]
    found = f"Found: {', '.join(listed) or 'nothing'}{more}."
    if field == "observations" and {"state", "states"} & set(names):
        state = "state" if "state" in names else "states"
        return DatasetError(f"{name}: `observations` is missing; `{state}` does not say whether it is {AMBIGUOUS['state']}.")
    remedy = f" Rename what has them to `{field}`, or to `{field}/NAME` if there are several parts." if names else ""
    return DatasetError(f"{name}: `{field}` is missing. {found}{remedy}")


def _twice(found: list[str], name: str) -> DatasetError:
    listed = " and ".join(f"`{field}`" for field in found)
    return DatasetError(f"{name}: {listed} are names of the same thing; leave out all but one.")
