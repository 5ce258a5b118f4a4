"""Concatenation of datasets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sb3_flow.common.data.columns import DatasetError, Observations, concatenate, parts, short, take
from sb3_flow.common.data.dataset import OfflineDataset


def join(
    datasets: Sequence[OfflineDataset], weights: Sequence[float] | None = None, name: str | None = None
) -> OfflineDataset:
    """
    Concatenate datasets. Each dataset ends its last trajectory.

    :param datasets: Datasets with the same shapes of observations and actions
    :param weights: Relative sampling weights of the datasets, above 0. None: all transitions are equally likely.
    :param name: Name of the result for messages
    :return: The joined data; without rewards if one of the datasets has none
    :raises DatasetError: If the list is empty, or shapes or weights do not match.
    """
    if not datasets:
        raise DatasetError("The list of datasets is empty; give at least one.")
    name = name or _joined_name([data.name for data in datasets])
    if weights is not None and (len(weights) != len(datasets) or not all(0 < weight < np.inf for weight in weights)):
        raise DatasetError(f"{name}: the weights are {short(list(weights))}; expected one number above 0 for each dataset.")
    if len(datasets) == 1:
        return datasets[0]
    _check_alike(datasets)
    explicit = any(data.next_observations is not None for data in datasets)
    if explicit:
        datasets = [_with_next_observations(data) for data in datasets]
    without = [data.name for data in datasets if data.rewards is None]
    remarks = [f"{data.name}: {remark}" for data in datasets for remark in data.remarks]
    if 0 < len(without) < len(datasets):
        remarks.append(f"{', '.join(without)}: no rewards, so the joined data has none")

    def column(field: str) -> Any:
        return _column([getattr(data, field) for data in datasets])

    return OfflineDataset(
        column("observations"),
        column("actions"),
        None if without else column("rewards"),
        column("terminations"),
        np.concatenate([_ended(data.ends) for data in datasets]),
        column("valids"),
        column("next_observations") if explicit else None,
        name,
        column("has_action"),
        column("final_states"),
        _row_weights(datasets, weights),
        ", ".join(dict.fromkeys(data.evidence for data in datasets)),
        {field: meaning for data in datasets for field, meaning in data.understood.items()},
        tuple(dict.fromkeys(remarks)),
    )


def _ended(ends: np.ndarray) -> np.ndarray:
    """Flags of ends, with the last row always an end."""
    ends = ends.copy()
    ends[-1:] = True
    return ends


def _joined_name(names: list[str]) -> str:
    first = names[0]
    return first if len(set(names)) == 1 else f"{first} and {len(names) - 1} more"


def _column(columns: list[Any]) -> Any:
    if isinstance(columns[0], dict):
        return {key: concatenate([column[key] for column in columns]) for key in columns[0]}
    return concatenate(columns)


def _shapes(data: OfflineDataset) -> dict[str, tuple[int, ...]]:
    observations = {f"observations{f'[{key}]' if key else ''}": part for key, part in parts(data.observations).items()}
    return {key: part.shape[1:] for key, part in {**observations, "actions": data.actions}.items()}


def _check_alike(datasets: Sequence[OfflineDataset]) -> None:
    first = _shapes(datasets[0])
    for data in datasets[1:]:
        shapes = _shapes(data)
        for field in [*first, *shapes]:
            if first.get(field) != shapes.get(field):
                raise DatasetError(
                    f"{datasets[0].name} and {data.name} cannot be joined: `{field}` has the shape {first.get(field, 'none')} "
                    f"per row in the first, and {shapes.get(field, 'none')} in the second."
                )


def _with_next_observations(data: OfflineDataset) -> OfflineDataset:
    """The same data with next observations in a separate column."""
    if data.next_observations is not None:
        return data
    followed = data.followed()
    rows = np.arange(len(followed)) + followed
    following: Observations
    if isinstance(data.observations, dict):
        following = {key: take(part, rows) for key, part in data.observations.items()}
    else:
        following = take(data.observations, rows)
    return replace(data, next_observations=following)


def _row_weights(datasets: Sequence[OfflineDataset], weights: Sequence[float] | None) -> np.ndarray | None:
    if weights is None and all(data.weights is None for data in datasets):
        return None
    columns = []
    for i, data in enumerate(datasets):
        rows = np.ones(len(data.actions)) if data.weights is None else data.weights
        total = float(rows[data.has_action].sum())
        columns.append(rows if weights is None else rows * (weights[i] / total))
    return np.concatenate(columns)
