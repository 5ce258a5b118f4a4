"""Reader of episodes in the RLDS layout of TensorFlow Datasets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sb3_flow.common.data.columns import BLOCK_BYTES, ColumnBuilder, DatasetError, short
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.sources import has_steps
from sb3_flow.common.optional import require
from sb3_flow.common.warn import warn
from sb3_flow.datasets.parts import split_parts, user_path, with_parts

#: Files in the folder of a dataset of TensorFlow Datasets.
_FILES = ("dataset_info.json", "features.json")


def read_rlds(source: Any, env_id: str | None = None) -> OfflineDataset | None:
    """
    Read episodes in the RLDS layout: each has ``steps``, and each step ``observation, action, reward, is_first, is_last,
    is_terminal``. The last step has only the last observation.

    Texts, such as instructions, cannot be encoded and are left out with a warning.

    :param source: The folder of a dataset of TensorFlow Datasets (with ``dataset_info.json``), a ``tf.data.Dataset`` of
        episodes, or a dictionary with ``steps``. ``PATH#KEY,KEY`` reads these parts of the observations only.
    :param env_id: Not used
    :return: The dataset, or None if the source is something else
    :raises DatasetError: If a field is missing, or the episodes differ in shape.
    """
    keys: list[str] = []
    episodes: Iterable[Any]
    if has_steps(source):
        episodes, name = [source], "episode"
    elif type(source).__module__.split(".")[0] in ("tensorflow", "tensorflow_datasets") and isinstance(source, Iterable):
        episodes, name = source, "tf.data.Dataset"
    elif isinstance(source, str | os.PathLike):
        text, keys = split_parts(os.fspath(source))
        path, name = user_path(text), os.fspath(source)
        if not all((path / file).is_file() for file in _FILES):
            return None
        episodes = _open(path)
    else:
        return None
    columns = _columns(episodes, name)
    return OfflineDataset.from_dict(with_parts(columns, keys, name), name)


def _open(path: Path) -> Iterable[Any]:
    tfds = require("tensorflow_datasets", "rlds", f"Reading {path}")
    try:
        builder = tfds.builder_from_directory(str(path))
        splits = list(builder.info.splits)
        return builder.as_dataset(split="+".join(splits), shuffle_files=False)  # type: ignore[no-any-return]
    except (OSError, ValueError, KeyError, AssertionError) as error:
        raise DatasetError(f"{path}: this is no dataset of TensorFlow Datasets, or it is damaged ({error}).") from error


def _columns(episodes: Iterable[Any], name: str) -> dict[str, np.ndarray]:
    """Concatenate the steps of all episodes."""
    columns: dict[str, ColumnBuilder] = {}
    left_out: set[str] = set()
    for number, episode in enumerate(episodes):
        if not isinstance(episode, Mapping) or "steps" not in episode:
            raise DatasetError(f"{name}: an episode is {short(episode)}; expected a dictionary with `steps`.")
        for block in _blocks(episode["steps"]):
            if not block:
                raise DatasetError(f"{name}, episode {number}: its steps have no fields; expected `observation` and `action`.")
            length = len(next(iter(block.values())))
            block["episode_index"] = np.full(length, number)
            for field, values in block.items():
                if values.dtype.kind not in "fiub":
                    left_out.add(field)
                    continue
                try:
                    columns.setdefault(field, ColumnBuilder()).append(values)
                except ValueError as error:
                    raise DatasetError(f"{name}, episode {number}: `{field}` has {error}.") from error
    if not columns:
        raise DatasetError(f"{name}: it has no transition.")
    if left_out:
        warn(f"{name}: not used: {', '.join(f'`{field}`' for field in sorted(left_out))}.")
    return {field: builder.finish() for field, builder in columns.items()}


def _blocks(steps: Any) -> Iterator[dict[str, np.ndarray]]:
    """The steps of an episode in blocks, as arrays by name."""
    if isinstance(steps, Mapping):  # already arrays
        yield {field: np.asarray(values) for field, values in _flat(steps)}
        return
    if hasattr(steps, "as_numpy_iterator"):
        steps = steps.as_numpy_iterator()
    rows: list[dict[str, np.ndarray]] = []
    size = 0
    for step in steps:
        rows.append({field: np.asarray(value) for field, value in _flat(step)})
        size += sum(value.nbytes for value in rows[-1].values())
        if size > BLOCK_BYTES:
            yield _stacked(rows)
            rows, size = [], 0
    if rows:
        yield _stacked(rows)


def _stacked(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    kinds = [{field: value.shape for field, value in row.items()} for row in rows]
    other = next((kind for kind in kinds if kind != kinds[0]), None)
    if other is not None:
        raise DatasetError(
            f"The steps of an episode have different fields or shapes: {short(kinds[0])}, and later {short(other)}. Give all "
            "steps the same fields."
        )
    return {field: np.stack([row[field] for row in rows]) for field in rows[0]}


def _flat(step: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(step, Mapping):
        raise DatasetError(f"A step of an episode is {short(step)}; expected a dictionary with `observation` and `action`.")
    for field, value in step.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{field}/")
        else:
            yield f"{prefix}{field}", value
