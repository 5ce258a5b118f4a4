"""Offline data: one container for every source, and the checks that it passes before anything trains on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer

Observations = np.ndarray | dict[str, np.ndarray]

#: Bytes read at once by the checks, so that memory-mapped data never enters memory as a whole.
BLOCK_BYTES = 2**24

#: Names that mean a field to other libraries, by what they are here. They are refused where none of those is there: data
#: without its terminations trains, but learns something else.
MISNAMED = {
    "obs, observation, state, states": ("observations",),
    "action, acts": ("actions",),
    "reward, rews": ("rewards",),
    "done, dones, terminal, terminated, termination": ("terminations", "terminals", "masks"),
    "timeout, truncated, truncation": ("truncations", "timeouts"),
    "mask": ("masks", "terminations", "terminals"),
    "valid": ("valids",),
    "next_obs, next_observation, next_state, next_states": ("next_observations",),
}


class DatasetError(ValueError):
    """The data cannot be used as it is; the message names the field, the row and the value."""


@dataclass(frozen=True)
class OfflineDataset:
    """
    Logged trajectories, one row per transition, in the order of time.

    Two ways to know what follows a row. With ``next_observations`` the row says so itself. Without it, the next row's
    observation is what follows; the last state of each trajectory then has a row of its own, which starts no
    transition and is marked ``False`` in ``valids`` (so that no frame is stored twice).

    :param observations: ``(N, *shape)``, or a dictionary of such arrays
    :param actions: ``(N, action_dim)``, in the units of the environment (not scaled to [-1, 1])
    :param rewards: ``(N,)``, or None for imitation
    :param terminations: ``(N,)`` of bool: the task ended here, there is nothing to bootstrap from
    :param ends: ``(N,)`` of bool: the last transition of a recorded trajectory, whatever ended it. A trajectory may go on
        after a termination (OGBench's play data does not stop at success).
    :param next_observations: as ``observations``, or None
    :param valids: ``(N,)`` of bool: whether the row is a transition
    :param name: What to call it in messages, logs and saved files
    """

    observations: Observations
    actions: np.ndarray
    rewards: np.ndarray | None
    terminations: np.ndarray
    ends: np.ndarray
    valids: np.ndarray
    next_observations: Observations | None = None
    name: str = "dataset"

    def __post_init__(self) -> None:
        for field, column in self.columns():
            if column.dtype.kind not in "fiub":
                raise DatasetError(f"{self.name}: `{field}` holds {column.dtype} values; expected numbers.")
            if column.ndim == 0:
                raise DatasetError(f"{self.name}: `{field}` is a single value; expected an array with one row a transition.")
        for field in ("terminations", "ends", "valids"):
            if getattr(self, field).dtype != bool:
                raise DatasetError(f"{self.name}: `{field}` holds {getattr(self, field).dtype} values; expected booleans.")
        length = len(self.actions)
        for field, column in self.columns():
            if len(column) != length:
                raise DatasetError(f"{self.name}: `{field}` has {len(column)} rows, but `actions` has {length}.")
        if not np.any(self.valids):
            raise DatasetError(f"{self.name}: it has no transition (`actions` has {length} rows).")
        for field, column in self.columns():
            _check_finite(column, field, self.name)

    def __len__(self) -> int:
        """The number of transitions."""
        return int(np.count_nonzero(self.valids))

    @property
    def n_trajectories(self) -> int:
        """The number of recorded trajectories."""
        return int(np.count_nonzero(self.ends & self.valids))

    def columns(self) -> Iterator[tuple[str, np.ndarray]]:
        """Each array with its name; those of dictionary observations are called ``observations[key]``."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, dict):
                yield from ((f"{field.name}[{key}]", column) for key, column in value.items())
            elif isinstance(value, np.ndarray):
                yield field.name, value

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], name: str = "dataset") -> OfflineDataset:
        """
        Read a dictionary of arrays under Gymnasium's, OGBench's or D4RL's names.

        ``observations`` and ``actions`` are required. The end of the task is ``terminations`` (Gymnasium), ``masks``
        (OGBench; 0 where the task ended) or ``terminals`` (D4RL). The end of a trajectory is any of these (not
        ``masks``), ``truncations`` (Gymnasium) or ``timeouts`` (D4RL); beside ``masks``, ``terminals`` marks
        trajectory ends only, as in OGBench. ``valids`` marks the rows that are transitions. Where neither ``valids``
        nor ``next_observations`` is given, a trajectory that did not terminate loses its last row, whose successor
        nobody recorded.

        Other fields are ignored, and a field that is None counts as absent. A field that seems to be one of these under
        another library's name, such as ``dones``, is refused.

        :param data: The arrays, each with one row per transition; it is not changed.
        :param name: What to call it in messages
        :return: The data set
        :raises DatasetError: If a field is missing or misnamed, its length is wrong, or a value is not finite.
        """
        _check_names(data, name)

        def column(field: str) -> np.ndarray | None:
            value = data[field] if field in data else None
            return None if value is None else _array(value, field, name)

        observations = _observations(data["observations"], "observations", name)
        next_observations = None
        if "next_observations" in data and data["next_observations"] is not None:
            next_observations = _observations(data["next_observations"], "next_observations", name)
        actions = _array(data["actions"], "actions", name)
        if actions.ndim == 1:
            actions = actions[:, None]
        length = len(actions) if actions.ndim else 0

        def flags(field: str) -> np.ndarray:
            values = column(field)
            return np.zeros(length, dtype=bool) if values is None else _flags(_flat(values, field, name), field, length, name)

        has_masks = column("masks") is not None
        if has_masks:
            terminations, ends = ~flags("masks"), flags("terminals")
        else:
            terminations = flags("terminations") | flags("terminals")
            ends = terminations.copy()
        ends = ends | flags("truncations") | flags("timeouts")
        if length:
            ends[-1] = True

        if column("valids") is not None:
            valids = flags("valids")
        elif next_observations is None:
            valids = ~ends if has_masks else ~(ends & ~terminations)
        else:
            valids = np.ones(length, dtype=bool)
        ends[:-1] |= ~valids[1:]

        rewards = column("rewards")
        if rewards is not None:
            rewards = _flat(rewards, "rewards", name)
        return cls(observations, actions, rewards, terminations, ends, valids, next_observations, name)

    @classmethod
    def from_replay_buffer(cls, buffer: ReplayBuffer, unscale_action: Callable[[np.ndarray], np.ndarray]) -> OfflineDataset:
        """
        Read a replay buffer of Stable-Baselines3 (``ReplayBuffer``, ``NStepReplayBuffer`` or ``DictReplayBuffer``).

        :param buffer: The buffer. It stores actions scaled to [-1, 1].
        :param unscale_action: From [-1, 1] to the units of the environment, as ``BasePolicy.unscale_action``
        :return: The data set, with the trajectories of each environment one after the other
        :raises DatasetError: If the buffer is empty, of another kind, or saves memory by sharing rows.
        """
        if type(buffer) not in (ReplayBuffer, NStepReplayBuffer, DictReplayBuffer):
            raise DatasetError(
                f"A {type(buffer).__name__} cannot be read as a dataset; pass a ReplayBuffer or DictReplayBuffer, "
                "or a dictionary of arrays."
            )
        if buffer.size() == 0:
            raise DatasetError("The replay buffer is empty: collect or add transitions first.")
        if buffer.optimize_memory_usage:
            raise DatasetError(
                "The replay buffer shares rows (optimize_memory_usage=True), so the last next_observations are lost."
            )
        start = buffer.pos if buffer.full else 0
        order = (start + np.arange(buffer.size())) % buffer.buffer_size

        def flat(column: Any) -> Any:
            if isinstance(column, dict):
                return {key: flat(value) for key, value in column.items()}
            rows = column[order].swapaxes(0, 1)  # environments first, so that each one's time is contiguous
            return rows.reshape(-1, *rows.shape[2:])

        dones, timeouts = flat(buffer.dones).astype(bool), flat(buffer.timeouts).astype(bool)
        ends = dones.copy()
        ends[buffer.size() - 1 :: buffer.size()] = True  # where one environment's rows end and the next one's begin
        return cls(
            observations=flat(buffer.observations),
            actions=unscale_action(flat(buffer.actions).reshape(-1, *(buffer.action_space.shape or ()))),
            rewards=flat(buffer.rewards),
            terminations=dones & ~timeouts,
            ends=ends,
            valids=np.ones(len(dones), dtype=bool),
            next_observations=flat(buffer.next_observations),
            name=type(buffer).__name__,
        )

    def check_actions(self, low: np.ndarray, high: np.ndarray, tolerance: float = 1e-3) -> None:
        """
        Check that the actions are inside the action space, but for rounding.

        :param low: Lower bounds of the action space, of its shape
        :param high: Upper bounds
        :param tolerance: How far an action may lie outside, as a share of the space's width
        :raises DatasetError: If an action has another shape (and is not the flat one either), or lies farther outside; it
            names row and value.
        """
        if self.actions.shape[1:] not in (low.shape, (low.size,)):
            raise DatasetError(
                f"{self.name}: `actions` has shape {self.actions.shape}, but the action space takes {low.shape} per row."
            )
        # In double precision, which holds every bound and width.
        low, high = low.reshape(-1).astype(np.float64), high.reshape(-1).astype(np.float64)
        slack = tolerance * (high - low)
        for start, block in blocks(self.actions):
            block = block.reshape(len(block), -1)
            outside = ((block < low - slack) | (block > high + slack)).any(axis=1)
            outside &= self.valids[start : start + len(block)]
            if outside.any():
                row = int(outside.argmax())
                raise DatasetError(
                    f"{self.name}: `actions` row {start + row} is {block[row]}, outside the action space "
                    f"[{low}, {high}]. Scale the actions to the space, or widen it (gymnasium's RescaleAction)."
                )


#: A reader turns a source into a data set, or returns None where the source is not of its kind.
Reader = Callable[[Any, str | None], OfflineDataset | None]
_readers: list[Reader] = []


def register_reader(reader: Reader) -> Reader:
    """
    Let ``dataset=`` understand one more kind of source.

    :param reader: Called with the source and the id of the environment (or None); it returns the data set, or None
        where the source is not of its kind.
    :return: The reader, so that this can be used as a decorator
    """
    _readers.append(reader)
    return reader


def read_dataset(source: Any, env_id: str | None = None) -> OfflineDataset:
    """
    Read any source that ``dataset=`` takes, but for replay buffers (these need an action space as well).

    :param source: An ``OfflineDataset``, a dictionary of arrays, a name, a path, or what a registered reader knows
    :param env_id: The environment that the data is for; some data is relabelled with its reward
    :return: The data set
    :raises DatasetError: If nobody can read the source, or what it holds is damaged.
    """
    if isinstance(source, OfflineDataset):
        return source
    if isinstance(source, Mapping):
        return OfflineDataset.from_dict(source)
    for reader in _readers:
        dataset = reader(source, env_id)
        if dataset is not None:
            return dataset
    raise DatasetError(
        f"Cannot read {source!r} as a dataset. Expected a name (see `sb3-flow datasets list`), the path of a .npz, .hdf5, "
        ".zarr or .parquet file, a minari.MinariDataset, a dictionary of arrays, or a replay buffer."
    )


def blocks(column: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Rows of a column, as many at once as ``BLOCK_BYTES`` hold, with the number of the first one."""
    size = max(1, BLOCK_BYTES * len(column) // max(column.nbytes, 1))
    for start in range(0, len(column), size):
        yield start, column[start : start + size]


def _check_names(data: Mapping[str, Any], name: str) -> None:
    for names, fields_meant in MISNAMED.items():
        found = [other for other in names.split(", ") if other in data]
        if found and not any(field in data for field in fields_meant):
            raise DatasetError(
                f"{name}: `{found[0]}` is not the name of a field; expected `{'` or `'.join(fields_meant)}`. Rename it, or "
                "leave it out."
            )
    for field in ("observations", "actions"):
        if field not in data or data[field] is None:
            raise DatasetError(f"{name}: `{field}` is missing. Found: {', '.join(sorted(map(str, data))) or 'nothing'}.")


def _array(value: Any, field: str, name: str) -> np.ndarray:
    if isinstance(value, Mapping):
        raise DatasetError(f"{name}: `{field}` is a dictionary with the keys {sorted(map(str, value))}; expected an array.")
    try:
        array: np.ndarray = np.asanyarray(value)
    except (TypeError, ValueError) as error:  # for instance rows of different lengths
        raise DatasetError(f"{name}: `{field}` is no array of numbers ({error}).") from error
    return array


def _observations(value: Any, field: str, name: str) -> Observations:
    if not isinstance(value, Mapping):
        return _array(value, field, name)
    return {key: _array(column, f"{field}[{key}]", name) for key, column in value.items()}


def _flat(column: np.ndarray, field: str, name: str) -> np.ndarray:
    """A column with one value a row, which may have come in an axis of its own."""
    if column.ndim > 1 and column.size != len(column):
        raise DatasetError(f"{name}: `{field}` has the shape {column.shape[1:]} per row; expected one value.")
    return column.reshape(-1)


def _flags(column: np.ndarray, field: str, length: int, name: str) -> np.ndarray:
    if column.dtype.kind not in "fiub":
        raise DatasetError(f"{name}: `{field}` holds {column.dtype} values; expected 0 or 1.")
    if len(column) != length:
        raise DatasetError(f"{name}: `{field}` has {len(column)} rows, but `actions` has {length}.")
    if column.dtype == bool:
        return np.array(column)
    wrong = (column != 0) & (column != 1)
    if wrong.any():
        row = int(wrong.argmax())
        raise DatasetError(f"{name}: `{field}` row {row} is {column[row]}; expected 0 or 1.")
    return np.array(column, dtype=bool)


def _check_finite(column: np.ndarray, field: str, name: str) -> None:
    """Every number must be finite in single precision, which is what is trained with."""
    if column.dtype.kind != "f":
        return
    for start, block in blocks(column):
        with np.errstate(over="ignore"):
            finite = np.isfinite(block.astype(np.float32, copy=False))
        if not finite.all():
            finite = finite.reshape(len(block), -1)
            row = int((~finite.all(axis=1)).argmax())
            element = int((~finite[row]).argmax())
            value = block[row].reshape(-1)[element]
            reason = ", which is too large for single precision" if np.isfinite(value) else ""
            raise DatasetError(f"{name}: `{field}` row {start + row} has the value {value} (element {element}){reason}.")
