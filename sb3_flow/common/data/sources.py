"""Sources of the argument ``dataset``; each kind of source has a reader."""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_flow.common.data.columns import DatasetError, short
from sb3_flow.common.data.dataset import OfflineDataset, one_of_a_list
from sb3_flow.common.data.episodes import ADVICE, UNCERTAIN
from sb3_flow.common.data.join import join
from sb3_flow.common.data.transforms import TRANSFORMS, transformed

#: A reader converts a source to a dataset, or returns None if it does not support the source.
Reader = Callable[[Any, str | None], OfflineDataset | None]
_readers: list[Reader] = []
#: Readers that are tried after all others, also after those that are registered later.
_last_readers: list[Reader] = []


def register_reader(reader: Reader, last: bool = False) -> Reader:
    """
    Register a reader for another kind of source of ``dataset=``.

    :param reader: Called with the source and the id of the environment (or None); it returns the dataset, or None
        if it does not support the source.
    :param last: Whether it is tried after all others
    :return: The reader, so that this function can be used as a decorator
    """
    (_last_readers if last else _readers).append(reader)
    return reader


def read_dataset(source: Any, env_id: str | None = None) -> OfflineDataset:
    """
    Read any source that ``dataset=`` accepts, except for replay buffers (these need an action space, too).

    :param source: An ``OfflineDataset``, a dictionary of arrays, a name, a path, a pattern of paths (``"logs/*.hdf5"``), any
        source of a registered reader, or a list of these, which are joined. A dictionary with ``source`` describes transforms:
        ``{"source": "log.npz", "weight": 2, "rewards": {"shift": -1}}``, with the names in
        ``sb3_flow.common.data.transforms``.
    :param env_id: Id of the environment of the data; some data is relabeled with its reward
    :return: The dataset
    :raises DatasetError: If no reader supports the source, or the data is damaged.
    """
    if isinstance(source, OfflineDataset):
        return source
    if isinstance(source, list | tuple):
        return _read_list(source, env_id)
    if isinstance(source, Mapping) and "source" in source:
        return _read_described(source, env_id)
    if isinstance(source, str | os.PathLike) and glob.has_magic(os.fspath(source)) and not os.path.exists(source):
        pattern, mark, keys = os.fspath(source).partition("#")
        files = sorted(glob.glob(os.path.expanduser(pattern)))
        if not files:
            raise DatasetError(f"{pattern}: there is no such file.")
        return _read_list([file + mark + keys for file in files], env_id)
    for reader in (*_readers, *_last_readers):
        dataset = reader(source, env_id)
        if dataset is not None:
            _check_lengths(dataset, env_id)
            return dataset
    if isinstance(source, Mapping):
        return OfflineDataset.from_dict(source)
    missing = ""
    if isinstance(source, str | os.PathLike) and os.fspath(source).endswith(".csv"):
        missing = " Read the table by `pandas.read_csv(PATH)`, and pass the frame."
    elif isinstance(source, str | os.PathLike) and not os.path.exists(os.fspath(source)):
        missing = f" There is no such file or folder; paths count from {os.getcwd()}."
    elif isinstance(source, str | os.PathLike) and os.fspath(source).endswith(".pkl"):
        missing = (
            " If it is a saved replay buffer, load it, and pass the buffer: `model.load_replay_buffer(path)` and "
            "`dataset=model.replay_buffer`, with a model of the class that saved it."
        )
    raise DatasetError(
        f"Cannot read {short(source)} as a dataset.{missing} Expected a name (see `sb3-flow datasets list`), the path of an "
        ".npz, .hdf5, .zarr or .parquet file, a minari.MinariDataset, a pandas.DataFrame, a dictionary of arrays, a list of "
        "these, or a replay buffer. Load other files yourself, for instance by pandas.read_csv."
    )


def has_steps(source: Any) -> bool:
    """Whether a source is an episode of RLDS, with ``steps``. A dictionary of arrays may have a counter of this name."""
    if not (isinstance(source, Mapping) and "steps" in source):
        return False
    steps = source["steps"]
    first = next(iter(steps), None) if isinstance(steps, list | tuple | np.ndarray) else None
    return not isinstance(first, Real)


def names_a_source(source: Any) -> bool:
    """Whether a source is or contains a name or a path. Its rewards may then depend on the environment."""
    if isinstance(source, Mapping):
        return "source" in source and names_a_source(source["source"])
    if isinstance(source, list | tuple):
        return any(names_a_source(part) for part in source)
    return isinstance(source, str | os.PathLike)


def _read_list(sources: Any, env_id: str | None) -> OfflineDataset:
    """Read a list of recordings. A recording without information about episodes is one episode."""
    token = one_of_a_list.set(True)
    try:
        datasets = [
            OfflineDataset.from_dict(source, f"dataset[{i}]")
            if isinstance(source, Mapping) and "source" not in source and not has_steps(source)
            else read_dataset(source, env_id)
            for i, source in enumerate(sources)
        ]
    finally:
        one_of_a_list.reset(token)
    given = [source.get("weight") if isinstance(source, Mapping) and "source" in source else None for source in sources]
    try:
        weights = [float(weight) for weight in given if weight is not None]
    except (TypeError, ValueError) as error:
        raise DatasetError(f"The weights of the datasets are {short(given)}; expected a number above 0 for each.") from error
    if weights and len(weights) < len(given):
        raise DatasetError(f"{datasets[given.index(None)].name}: `weight` is missing; give one to each dataset, or to none.")
    return join(datasets, weights or None)


def _read_described(description: Mapping[str, Any], env_id: str | None) -> OfflineDataset:
    unknown = set(description) - {"source", "weight", *TRANSFORMS}
    if unknown:
        raise DatasetError(
            f"The description of a dataset has {', '.join(sorted(map(repr, unknown)))}; known: source, weight, "
            f"{', '.join(TRANSFORMS)}."
        )
    weight = description.get("weight")  # in a list, all weights are checked together
    if not (weight is None or one_of_a_list.get() or (isinstance(weight, Real) and 0 < float(weight) < math.inf)):
        raise DatasetError(f"`weight` is {short(weight)}; expected a number above 0.")
    data = read_dataset(description["source"], env_id)
    for name in TRANSFORMS:
        if description.get(name) is not None:
            data = transformed(data, name, description[name])
    return data


def _check_lengths(data: OfflineDataset, env_id: str | None) -> None:
    """Check that no episode is longer than the environment's limit if ends may be missing."""
    limit = gym.registry[env_id].max_episode_steps if env_id in gym.registry else None
    longest = int(data.trajectory_lengths().max())
    if data.evidence in UNCERTAIN and limit is not None and longest > limit:
        raise DatasetError(
            f"{data.name}: an episode has {longest:,} steps, but {env_id} ends at {limit:,}. Only {data.evidence} tells where "
            f"episodes end, so the time limits are missing. {ADVICE}"
        )
