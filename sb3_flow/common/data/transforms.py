"""Transforms of a dataset before training, by name, so that configurations can use them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sb3_flow.common.data.columns import DatasetError, short
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.statistics import ranges

Transform = Callable[[OfflineDataset, Any], OfflineDataset]


def transform_rewards(data: OfflineDataset, how: str | Mapping[str, Any]) -> OfflineDataset:
    """
    Change the rewards.

    :param data: Data with rewards
    :param how: Names of changes with their values, in the order of application: ``{"shift": -1, "scale": 10}`` adds -1
        and then multiplies by 10; ``{"clip": [-1, 1]}``; ``{"normalize_returns": 1000}`` (or its name alone) scales so that
        the best and the worst return of a trajectory differ by this value, as in IQL; ``{"at_least": 0.5}`` replaces rewards
        of at least 0.5 by 0 and all others by -1.
    :return: The same data with other rewards
    :raises DatasetError: If there are no rewards, or a name is unknown.
    """
    if data.rewards is None:
        raise DatasetError(f"{data.name}: it has no rewards to change; leave out `rewards` from the description.")
    rewards = data.rewards.astype(np.float64)
    for name, value in ({how: None} if isinstance(how, str) else how).items():
        if name not in REWARDS:
            raise DatasetError(f"{data.name}: there is no change of rewards {name!r}; known: {', '.join(REWARDS)}.")
        rewards = REWARDS[name](rewards, value, data)
    return replace(data, rewards=rewards.astype(np.float32))


def _bounds(value: Any, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """The bounds of ``clip``."""
    low, high = value
    low, high = np.asarray(low, dtype=dtype), np.asarray(high, dtype=dtype)
    if not (low <= high).all():
        raise ValueError("the first bound must not be above the second one")
    return low, high


def _normalize_returns(rewards: np.ndarray, spread: float | None, data: OfflineDataset) -> np.ndarray:
    if spread is not None and not float(spread) > 0:
        raise ValueError("the difference of returns must be above 0")
    ends = data.ends | ~data.has_action
    numbers = np.append(0, np.cumsum(ends)[:-1])
    returns = np.bincount(numbers, weights=np.where(data.has_action, rewards, 0.0))
    returns = returns[np.bincount(numbers, weights=data.has_action) > 0]
    width = returns.max() - returns.min()
    if width == 0:
        raise DatasetError(
            f"{data.name}: all trajectories have the return {returns[0]:g}, so returns cannot be normalized; use `scale`."
        )
    normalized: np.ndarray = rewards * ((1000.0 if spread is None else float(spread)) / width)
    return normalized


#: The changes of rewards: functions of the rewards, the value, and the data.
REWARDS: dict[str, Callable[[np.ndarray, Any, OfflineDataset], np.ndarray]] = {
    "shift": lambda rewards, value, data: rewards + float(value),
    "scale": lambda rewards, value, data: rewards * float(value),
    "clip": lambda rewards, value, data: np.clip(rewards, *_bounds(value, np.float64)),
    "at_least": lambda rewards, value, data: np.where(rewards >= float(value), 0.0, -1.0),
    "normalize_returns": _normalize_returns,
}


def choose_observations(data: OfflineDataset, keys: Sequence[str]) -> OfflineDataset:
    """
    Keep some parts of dictionary observations.

    :param data: Data with dictionary observations
    :param keys: Keys of the parts, in their order
    :return: The same data with these parts only
    :raises DatasetError: If there is no such part.
    """
    if isinstance(keys, str) or not len(keys):
        raise ValueError("a list of keys is expected")
    if not isinstance(data.observations, dict) or not set(keys) <= set(data.observations):
        there = ", ".join(data.observations) if isinstance(data.observations, dict) else "no dictionary"
        raise DatasetError(f"{data.name}: the observations have no parts {', '.join(keys)}; there: {there}.")
    following = data.next_observations
    return replace(
        data,
        observations={key: data.observations[key] for key in keys},
        next_observations={key: following[key] for key in keys} if isinstance(following, dict) else None,
    )


def flatten_observations(data: OfflineDataset, keys: Sequence[str] | None = None) -> OfflineDataset:
    """
    Concatenate the parts of dictionary observations to one vector.

    :param data: Data with a dictionary of vectors
    :param keys: Keys of the parts, in the order of concatenation; None: all, sorted by key as Gymnasium's
        ``FlattenObservation`` does
    :return: The same data with vectors
    :raises DatasetError: If there is no such part, or one is not a vector of floats.
    """
    if keys is None:
        if not isinstance(data.observations, dict):
            return data
        keys = sorted(data.observations)
    data = choose_observations(data, keys)

    def flat(parts: Any) -> np.ndarray:
        for key, part in parts.items():
            if part.dtype.kind != "f":
                raise DatasetError(
                    f"{data.name}: `observations[{key}]` has {part.dtype} values, which cannot be part of a vector without "
                    "encoding."
                )
        return np.concatenate([part.reshape(len(part), -1) for part in parts.values()], axis=1, dtype=np.float32)

    following = None if data.next_observations is None else flat(data.next_observations)
    return replace(data, observations=flat(data.observations), next_observations=following)


def skip_frames(data: OfflineDataset, how: int | Mapping[str, Any]) -> OfflineDataset:
    """
    Join several steps to one, as in an environment that repeats each action, such as ``MaxAndSkipEnv``.

    :param data: Data recorded at every step
    :param how: Number of steps, or ``{"steps": 4, "actions": "sum"}``: the action is the ``"same"`` in all joined steps, or
        their ``"sum"`` (displacements), or the ``"last"`` one (target positions)
    :return: The data with one row for each group of steps, and summed rewards. Incomplete groups at the ends of episodes are
        left out, unless the task ended there.
    :raises DatasetError: If actions must be the same but differ, or ``how`` is invalid.
    """
    given = short(how)
    how = {"steps": how} if isinstance(how, int) else dict(how)
    n, actions = how.pop("steps", 1), how.pop("actions", "same")
    if isinstance(n, bool) or not float(n).is_integer() or float(n) < 1 or how or actions not in ("same", "sum", "last"):
        raise DatasetError(
            f"{data.name}: `frame_skip` is {given}; expected a number of steps from 1, or {{'steps': 4, 'actions': 'sum'}} "
            "with the actions 'same', 'sum' or 'last'."
        )
    n = int(n)
    if n == 1:
        return data
    length = len(data.actions)
    inside = np.append(False, (data.has_action & ~data.ends)[:-1]) & data.has_action  # continues the previous row
    starts = np.flatnonzero(~inside)
    places = np.arange(length) - np.repeat(starts, np.diff(np.append(starts, length)))
    firsts = np.flatnonzero((places % n == 0) | ~data.has_action)
    sizes = np.diff(np.append(firsts, length))
    lasts = firsts + sizes - 1
    ended = np.logical_or.reduceat(data.terminations & data.has_action, firsts)
    whole = (sizes == n) | ended
    if actions == "same":
        same = (data.actions == np.repeat(data.actions[firsts], sizes, axis=0)).reshape(length, -1).all(axis=1)
        wrong = ~same & data.has_action
        if wrong.any():
            raise DatasetError(
                f"{data.name}: row {int(wrong.argmax())} has another action than the rows that it is joined with by "
                f"`frame_skip={n}`. Say what is to be done: {{'steps': {n}, 'actions': 'sum'}} or 'last'."
            )
    chosen = {"same": data.actions[firsts], "last": data.actions[lasts]}.get(actions)
    if chosen is None:
        chosen = np.add.reduceat(data.actions, firsts, axis=0)
    has_action = data.has_action[firsts]
    # Too few steps for one are left out. Their first observation is the last one of the trajectory, if it has other steps.
    final = data.final_states[firsts] | (has_action & ~whole & inside[firsts])
    following = data.next_observations
    return replace(
        data,
        observations=_rows(data.observations, firsts),
        actions=chosen,
        rewards=None if data.rewards is None else np.add.reduceat(data.rewards, firsts),
        terminations=ended,
        ends=data.ends[lasts] | ~whole | np.append(~whole[1:], True),
        valids=data.valids[lasts] & has_action & whole,
        next_observations=None if following is None else _rows(following, lasts),
        has_action=has_action & whole,
        final_states=final,
        weights=None if data.weights is None else data.weights[firsts],
    )


def _rows(observations: Any, rows: np.ndarray) -> Any:
    if isinstance(observations, dict):
        return {key: part[rows] for key, part in observations.items()}
    return observations[rows]


def transform_actions(data: OfflineDataset, how: Mapping[str, Any]) -> OfflineDataset:
    """
    Change the actions.

    :param data: The data
    :param how: ``{"clip": [low, high]}``, numbers or one for each element; ``{"clip_quantiles": 0.01}`` clips each element to
        the range between its 1 % and 99 % quantiles; ``{"relative_to": part}`` subtracts the observation (targets become
        displacements), ``{"absolute_from": part}`` adds it (displacements become targets). ``part`` is the key
        of a part of the observations, or ``[key, start, stop]`` for some of its elements, with the key None if observations
        are vectors. Several changes are applied in their order.
    :return: The same data with other actions
    :raises DatasetError: If a name is unknown, or the part has another size than the actions.
    """
    actions = data.actions.astype(np.float32)
    for name, value in how.items():
        if name == "clip":
            actions = np.clip(actions, *_bounds(value, np.float32))
        elif name == "clip_quantiles":
            actions = np.clip(actions, *ranges(actions, data.has_action, float(value))).astype(np.float32)
        elif name in ("relative_to", "absolute_from"):
            observed = _part(data, value)
            if observed.shape != actions.shape:
                raise DatasetError(
                    f"{data.name}: {short(value)} has the shape {observed.shape[1:]} per row, but actions have "
                    f"{actions.shape[1:]}."
                )
            actions = actions - observed if name == "relative_to" else actions + observed
        else:
            raise DatasetError(
                f"{data.name}: there is no change of actions {name!r}; known: clip, clip_quantiles, "
                "relative_to, absolute_from."
            )
    return replace(data, actions=actions)


def _part(data: OfflineDataset, part: Any) -> np.ndarray:
    key, start, stop = (part, None, None) if isinstance(part, str) else part
    columns: dict[Any, np.ndarray] = (
        dict(data.observations) if isinstance(data.observations, dict) else {None: data.observations}
    )
    if key not in columns:
        raise DatasetError(f"{data.name}: the observations have no part {key!r}; there: {', '.join(map(str, columns))}.")
    return np.asarray(columns[key][:, start:stop], dtype=np.float32)


def transformed(data: OfflineDataset, name: str, how: Any) -> OfflineDataset:
    """
    Apply a transform.

    :param data: The data
    :param name: A key of ``TRANSFORMS``
    :param how: Its value in the description
    :return: The changed data
    :raises DatasetError: If the value is not understood, or does not fit the data.
    """
    try:
        return TRANSFORMS[name](data, how)
    except (TypeError, ValueError, AttributeError, LookupError, OverflowError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(
            f"{data.name}: `{name}` is {short(how)}, which is not understood ({error}). Example: `{name}: {EXAMPLES[name]}`."
        ) from error


#: Transforms in a description of a dataset, in the order of application.
TRANSFORMS: dict[str, Transform] = {
    "frame_skip": skip_frames,
    "rewards": transform_rewards,
    "actions": transform_actions,
    "observations": choose_observations,
    "flatten": lambda data, keys: data if keys is False else flatten_observations(data, None if keys is True else keys),
}
#: A value of each, for messages.
EXAMPLES = {
    "frame_skip": "4",
    "rewards": "{shift: -1, scale: 10}",
    "actions": "{clip: [-1, 1]}",
    "observations": "[state, goal]",
    "flatten": "true",
}
