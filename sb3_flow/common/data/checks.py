"""Checks of a dataset before training."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_flow.common.data.columns import DatasetError, blocks, parts
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.statistics import ranges, too_coarse
from sb3_flow.common.encoders import choices, subspaces
from sb3_flow.common.warn import warn

#: Largest distance of observations from their space, as a share of its width.
OUTSIDE = 0.5
#: Actions that fill a smaller share of their space, in each element, are probably in another unit.
FILLED = 0.02
#: A smaller share of steps that begin a whole chunk gives a warning.
FEW = 0.5


def check_chunks(data: OfflineDataset, length: int) -> None:
    """
    Check that the trajectories are long enough for chunks of actions.

    :param data: The data
    :param length: Number of actions in a chunk
    :raises DatasetError: If all trajectories are shorter, so that no chunk can be learned.
    """
    if length == 1:
        return
    lengths = data.trajectory_lengths(data.valids)
    starts = int(np.maximum(lengths - length + 1, 0).sum())
    longest = f"its {len(lengths):,} trajectories have at most {lengths.max(initial=0)} steps (their ends: {data.evidence})"
    if starts == 0:
        raise DatasetError(
            f"{data.name}: nothing can be learned with `horizon_length={length}`: {longest}. Take a smaller `horizon_length`."
        )
    share = starts / len(data)
    if share < FEW:
        warn(
            f"{data.name}: only {100 * share:.2g} % of the transitions begin a chunk of {length} actions, and only these are "
            f"learned from ({longest}). Consider a smaller `horizon_length`."
        )


def warn_about_short_trajectories(data: OfflineDataset, length: int, argument: str) -> None:
    """
    Warn if all trajectories are shorter than the number of steps that is learned at once.

    :param data: The data
    :param length: Number of steps
    :param argument: The argument that sets ``length``, for the message
    """
    longest = int(data.trajectory_lengths().max())
    if longest < length:
        warn(
            f"{data.name}: no trajectory has {length} steps, which `{argument}` asks for; the longest has {longest} (their "
            f"ends: {data.evidence})."
        )


def check_choices(data: OfflineDataset, space: spaces.Space[Any]) -> None:
    """
    Check discrete observations.

    :param data: The data, in the format of the model
    :param space: Observation space
    :raises DatasetError: If a number is not one of the choices of the space; the message names field, row and value.
    """
    following = {} if data.next_observations is None else parts(data.next_observations)
    for name, columns, rows in (
        ("observations", parts(data.observations), data.observation_rows()),
        ("next_observations", following, data.valids),
    ):
        for key, part in subspaces(space).items():
            if key in columns and (values := choices(part)) is not None:
                _check_choices(columns[key], rows, f"{data.name}: `{name}{f'[{key}]' if key else ''}`", part, *values)


def _check_choices(column: np.ndarray, rows: np.ndarray, field: str, space: spaces.Space[Any], start: Any, count: Any) -> None:
    if np.size(start) not in (1, np.prod(column.shape[1:])):
        return  # is refused later, with a better message
    for first, block in blocks(column):
        flat = block.reshape(len(block), -1)
        outside = (flat < np.reshape(start, -1)) | (flat >= np.reshape(start + count, -1)) | (flat != np.floor(flat))
        wrong = outside.any(axis=1) & rows[first : first + len(block)]
        if wrong.any():
            row = int(wrong.argmax())
            value = flat[row][outside[row]][0]
            raise DatasetError(
                f"{field} row {first + row} has the value {value}; expected whole numbers of the space {space}."
            )


def warn_about_scale(data: OfflineDataset, space: spaces.Space[Any]) -> None:
    """
    Warn where observations lie far outside the bounds of the observation space, such as values up to 255 instead of 1.

    :param data: The data, in the format of the model
    :param space: Observation space
    """
    columns, rows = parts(data.observations), data.observation_rows()
    for key, part in subspaces(space).items():
        if not isinstance(part, spaces.Box) or not np.isfinite([part.low, part.high]).all():
            continue
        column = columns[key]
        if column.dtype == part.dtype == np.uint8:
            continue
        low, high = ranges(column, rows)
        # As numbers of Python: bytes, bits and integers of 64 bits have no differences of their own type.
        lowest, highest, least, largest = (float(x) for x in (low.min(), high.max(), part.low.min(), part.high.max()))
        slack = OUTSIDE * (largest - least)
        if lowest < least - slack or highest > largest + slack:
            field = f"observations[{key}]" if key else "observations"
            warn(
                f"{data.name}: `{field}` goes from {lowest:g} to {highest:g}, but the observation space from {least:g} to "
                f"{largest:g}. Are these on another scale, or in another order?"
            )


def warn_about_narrow_actions(data: OfflineDataset, space: spaces.Box) -> None:
    """
    Warn if actions fill a tiny part of the action space, such as radians where the space is in degrees.

    :param data: The data, with actions inside the space
    :param space: Action space
    """
    low, high = (bound.reshape(-1).astype(np.float64) for bound in ranges(data.actions, data.has_action))
    width = space.high.reshape(-1).astype(np.float64) - space.low.reshape(-1)
    if 0 < ((high - low) / np.maximum(width, np.finfo(float).tiny)).max() < FILLED:
        warn(
            f"{data.name}: `actions` go from {low.min():g} to {high.max():g}, less than {100 * FILLED:g} % of the action "
            f"space, from {space.low.min():g} to {space.high.max():g}. Are these in another unit? If not, give the "
            "environment a smaller action space: the noise of a flow is as wide as the space."
        )


def warn_about_precision(data: OfflineDataset) -> None:
    """
    Warn where single precision, which training uses, cannot tell observations or rewards apart, such as times since 1970.

    :param data: The data
    """
    rows = {"observations": data.observation_rows(), "rewards": data.has_action}
    for name, column in data.columns():
        if (field := name.partition("[")[0]) in rows and (found := too_coarse(column, rows[field])):
            warn(f"{data.name}: {found.format(f'`{name}`')} Subtract an offset from it, or leave it out.")


def warn_about_lost_rewards(data: OfflineDataset) -> None:
    """
    Warn if steps that are not transitions have the highest or the lowest rewards of the data, such as those of success.

    :param data: The data, with rewards
    """
    lost = data.has_action & ~data.valids
    if data.rewards is None or not lost.any():
        return
    there, missing = data.rewards[data.valids], data.rewards[lost]
    if len(there) and (missing.max() > there.max() or missing.min() < there.min() or _mostly_lost(there, missing)):
        warn(
            f"{data.name}: {lost.sum():,} last steps of episodes are no transitions, because the next observation was not "
            f"recorded and the task did not end there; rewards from {missing.min():g} to {missing.max():g} are lost with "
            "them. Add `next_observations`, or `terminations` where the task ended."
        )


def _mostly_lost(there: np.ndarray, missing: np.ndarray) -> bool:
    """Whether most of the rewards that differ from the median are lost."""
    usual = np.median(np.concatenate([there, missing]))
    unusual = np.count_nonzero(missing != usual)
    return bool(unusual > np.count_nonzero(there != usual))
