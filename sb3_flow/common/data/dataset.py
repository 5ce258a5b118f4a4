"""Offline data: one container for all sources, with its checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_flow.common.data.columns import DatasetError, Observations, blocks, check_finite, listed, parts, short
from sb3_flow.common.data.episodes import ADVICE, UNCERTAIN, Recording, find_episodes, not_followed
from sb3_flow.common.data.gather import gather
from sb3_flow.common.data.jumps import jumps_inside
from sb3_flow.common.warn import warn

__all__ = ["DatasetError", "Observations", "OfflineDataset", "blocks"]

#: Whether the source that is read is one of several recordings in a list.
one_of_a_list: ContextVar[bool] = ContextVar("one_of_a_list", default=False)


@dataclass(frozen=True, repr=False)
class OfflineDataset:
    """
    Logged trajectories, one row per step, in chronological order.

    The next observation of a row is stored in one of two ways: in ``next_observations``, or as the observation of the next
    row. In the second case the last state of each trajectory has a separate row, which is not a transition and is ``False``
    in ``valids`` (so that no frame is stored twice).

    :param observations: ``(N, *shape)``, or a dictionary of such arrays
    :param actions: ``(N, action_dim)``, in the units of the environment (not scaled to [-1, 1])
    :param rewards: ``(N,)``, or None for imitation
    :param terminations: ``(N,)`` of bool: the task ended here, so that nothing is bootstrapped
    :param ends: ``(N,)`` of bool: the last step of a recorded trajectory, for any reason. A trajectory may continue
        after a termination (OGBench's play data does not stop at success).
    :param valids: ``(N,)`` of bool: whether the row is a transition: its next observation is known, or the task ended
    :param next_observations: As ``observations``, or None
    :param name: Name for messages, logs and saved files
    :param has_action: ``(N,)`` of bool: whether the action of the row was taken. By default ``valids``. More rows are
        set if the last steps of trajectories have no next observation, which imitation does not need.
    :param final_states: ``(N,)`` of bool: whether the row has only the last observation of a trajectory. By default the
        rows that are not transitions.
    :param weights: ``(N,)``, relative sampling weights of the rows, or None: all are equal
    :param evidence: Description of the fields that determine the ends of trajectories
    :param understood: Meaning of each field of the source
    :param remarks: Remarks about the data
    :raises DatasetError: If the columns are inconsistent, or have values that cannot be used for training.
    """

    observations: Observations
    actions: np.ndarray
    rewards: np.ndarray | None
    terminations: np.ndarray
    ends: np.ndarray
    valids: np.ndarray
    next_observations: Observations | None = None
    name: str = "dataset"
    has_action: np.ndarray = None  # type: ignore[assignment]
    final_states: np.ndarray = None  # type: ignore[assignment]
    weights: np.ndarray | None = None
    evidence: str = "given"
    understood: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.has_action is None:
            object.__setattr__(self, "has_action", self.valids)
        if self.final_states is None:
            object.__setattr__(self, "final_states", ~np.asarray(self.valids, dtype=bool))
        for name, column in self.columns():
            if column.dtype.kind not in "fiub":
                stack = "; stack its rows to one array, and each part of a dictionary to one" if column.dtype == object else ""
                raise DatasetError(f"{self.name}: `{name}` has {column.dtype} values; expected numbers{stack}.")
            if column.ndim == 0:
                raise DatasetError(f"{self.name}: `{name}` is a single value; expected an array with one row a transition.")
        for name in ("terminations", "ends", "valids", "has_action", "final_states"):
            if getattr(self, name).dtype != bool:
                raise DatasetError(f"{self.name}: `{name}` has {getattr(self, name).dtype} values; expected booleans.")
        length = len(self.actions)
        for name, column in self.columns():
            if len(column) != length:
                raise DatasetError(f"{self.name}: `{name}` has {len(column)} rows, but `actions` has {length}.")
        self._check_columns_of_numbers()
        there, following = parts(self.observations), self.next_observations
        if following is not None and set(parts(following)) != set(there):
            raise DatasetError(
                f"{self.name}: `next_observations` has {listed(parts(following))}, but `observations` {listed(there)}."
            )
        if not np.any(self.has_action):
            raise DatasetError(f"{self.name}: it has no transition (`actions` has {length} rows).")
        # Padding is not checked: it is never sampled.
        for key, column in self.columns():
            rows = {"actions": self.has_action, "rewards": self.has_action}.get(key, self.has_action | self.final_states)
            check_finite(column, key, self.name, self.valids if key.startswith("next_observations") else rows)

    def _check_columns_of_numbers(self) -> None:
        for name in ("rewards", "weights", "terminations", "ends", "valids", "has_action", "final_states"):
            column = getattr(self, name)
            if column is not None and column.ndim != 1:
                raise DatasetError(f"{self.name}: `{name}` has the shape {column.shape[1:]} per row; expected one number.")
        drawn = None if self.weights is None else self.weights[self.valids]
        if drawn is not None and ((drawn < 0).any() or (len(drawn) and drawn.sum() == 0)):
            raise DatasetError(
                f"{self.name}: `weights` goes from {drawn.min():g} to {drawn.max():g}; expected 0 or more, not only 0."
            )

    def __repr__(self) -> str:
        return f"<OfflineDataset {self.name!r}: {len(self):,} transitions, {self.n_trajectories:,} trajectories>"

    def __len__(self) -> int:
        """The number of transitions."""
        return int(np.count_nonzero(self.valids))

    @property
    def n_trajectories(self) -> int:
        """The number of recorded trajectories."""
        return len(self.trajectory_lengths())

    def trajectory_lengths(self, rows: np.ndarray | None = None) -> np.ndarray:
        """
        The lengths of the recorded trajectories, in order.

        :param rows: The rows to count, ``(N,)`` of bool; by default all steps
        :return: Lengths, at least 1
        """
        rows = self.has_action if rows is None else rows
        # A trajectory begins after an end, and after rows that are not counted.
        numbers = np.append(0, np.cumsum(self.ends | ~rows)[:-1])
        lengths = np.bincount(numbers, weights=rows)
        return lengths[lengths > 0].astype(np.int64)

    def columns(self) -> Iterator[tuple[str, np.ndarray]]:
        """Each array with its name; parts of dictionary observations have names such as ``observations[key]``."""
        for column in fields(self):
            value = getattr(self, column.name)
            if isinstance(value, np.ndarray):
                yield column.name, value
            elif isinstance(value, dict) and column.name != "understood":
                yield from ((f"{column.name}[{key}]", part) for key, part in value.items())

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], name: str = "dataset", single: bool | None = None) -> OfflineDataset:
        """
        Read a dictionary of arrays, with the names of any dialect of ``sb3_flow.common.data.fields``.

        The observations and the actions are required. The rule in ``sb3_flow.common.data.episodes`` determines transitions and
        ends of episodes, see docs/datasets.md. A warning names fields that are not used, except those that are known to be
        irrelevant. A field that is None is ignored.

        :param data: The arrays, each with one row per step; it is not changed. If it has one observation more than actions, it
            is one episode with its last observation.
        :param name: Name for messages
        :param single: Whether data without any information about ends of episodes is one episode. By default this is so for
            the elements of a list.
        :return: The dataset
        :raises DatasetError: If a field is missing or ambiguous, its length is wrong, a value is not finite, fields contradict
            each other, or no field determines where episodes end.
        """
        found = gather(data, name)
        if single is None:
            single = one_of_a_list.get()
        episodes = find_episodes(
            Recording(
                name,
                len(found.actions),
                found.columns,
                found.observations,
                found.next_observations,
                found.rewards,
                found.final_states,
                single,
            )
        )
        if found.ignored:
            listed = ", ".join(f"`{field}`" for field in found.ignored[:8])
            warn(f"{name}: not used: {listed}{' and others' if len(found.ignored) > 8 else ''}.")
        for doubt in episodes.doubts:
            warn(f"{name}: {doubt}.")
        dataset = cls(
            found.observations,
            found.actions,
            found.rewards,
            episodes.terminations,
            episodes.ends,
            episodes.valids,
            found.next_observations,
            name,
            episodes.has_action,
            episodes.final_states,
            evidence=episodes.evidence,
            understood=found.understood,
            remarks=tuple(episodes.remarks),
        )
        inside = dataset.has_action & ~dataset.ends
        if episodes.evidence in UNCERTAIN and (jumps := jumps_inside(dataset.observations, inside)) is not None:
            warn(f"{name}: {jumps}. Only {episodes.evidence} tells where episodes end. {ADVICE}")
        return dataset

    def followed(self) -> np.ndarray:
        """Whether the next row has the next observation of each row, ``(N,)`` of bool."""
        return np.append(~self.ends[:-1] | self.final_states[1:], False)

    @classmethod
    def from_replay_buffer(cls, buffer: ReplayBuffer, unscale_action: Callable[[np.ndarray], np.ndarray]) -> OfflineDataset:
        """
        Read a replay buffer of Stable-Baselines3 (``ReplayBuffer``, ``NStepReplayBuffer``, ``DictReplayBuffer`` or
        ``HerReplayBuffer``).

        :param buffer: The buffer. It stores actions scaled to [-1, 1].
        :param unscale_action: From [-1, 1] to the units of the environment, as ``BasePolicy.unscale_action``
        :return: The dataset, with the trajectories of each environment one after the other
        :raises DatasetError: If the buffer is empty, of another class, or has ``optimize_memory_usage=True``.
        """
        if type(buffer) not in (ReplayBuffer, NStepReplayBuffer, DictReplayBuffer, HerReplayBuffer):
            raise DatasetError(
                f"A {type(buffer).__name__} cannot be read as a dataset; pass a ReplayBuffer or DictReplayBuffer, "
                "or a dictionary of arrays."
            )
        if buffer.size() == 0:
            raise DatasetError("The replay buffer is empty: collect or add transitions first.")
        if buffer.optimize_memory_usage:
            raise DatasetError(
                "The replay buffer shares rows (optimize_memory_usage=True), so the last next_observations are lost. Collect "
                "without it."
            )
        start = buffer.pos if buffer.full else 0
        order = (start + np.arange(buffer.size())) % buffer.buffer_size

        def flat(column: Any) -> Any:
            if isinstance(column, dict):
                return {key: flat(value) for key, value in column.items()}
            rows = column[order].swapaxes(0, 1)  # environments first, so that each one is contiguous in time
            return rows.reshape(-1, *rows.shape[2:])

        dones, timeouts = flat(buffer.dones).astype(bool), flat(buffer.timeouts).astype(bool)
        if not buffer.handle_timeout_termination and dones.any():
            warn(
                "The replay buffer has handle_timeout_termination=False: time limits cannot be told from ends of the task. "
                "All ends of episodes are read as ends of the task, as by the algorithm that collected them."
            )
        observations, next_observations = flat(buffer.observations), flat(buffer.next_observations)
        # An episode that `learn` did not finish has no mark: the next call resets the environment.
        ends = dones | not_followed(observations, next_observations, len(dones))
        ends[buffer.size() - 1 :: buffer.size()] = True  # where one environment's rows end and the next one's begin
        return cls(
            observations=observations,
            actions=unscale_action(flat(buffer.actions).reshape(-1, *(buffer.action_space.shape or ()))),
            rewards=flat(buffer.rewards),
            terminations=dones & ~timeouts,
            ends=ends,
            valids=np.ones(len(dones), dtype=bool),
            next_observations=next_observations,
            name=type(buffer).__name__,
            evidence="`dones` of the replay buffer",
        )

    def check_actions(self, low: np.ndarray, high: np.ndarray, tolerance: float = 1e-3) -> None:
        """
        Check that the actions are inside the action space, up to rounding.

        :param low: Lower bounds of the action space, of its shape
        :param high: Upper bounds
        :param tolerance: Largest distance of an action from the space, as a share of its width
        :raises DatasetError: If the actions have another shape (which is not the flat one either), or one is farther outside;
            the message names row and value.
        """
        if self.actions.shape[1:] not in (low.shape, (low.size,)):
            raise DatasetError(
                f"{self.name}: `actions` has shape {self.actions.shape}, but the action space takes {low.shape} per row."
            )
        # In double precision, which represents every bound and width.
        low, high = low.reshape(-1).astype(np.float64), high.reshape(-1).astype(np.float64)
        slack = tolerance * (high - low)
        for start, block in blocks(self.actions):
            block = block.reshape(len(block), -1)
            outside = ((block < low - slack) | (block > high + slack)) & self.has_action[start : start + len(block), None]
            if outside.any():
                row, element = np.argwhere(outside)[0]
                raise DatasetError(
                    f"{self.name}: `actions` row {start + row} is {short(block[row])}, outside the action space: element "
                    f"{element} must be in [{low[element]:g}, {high[element]:g}]. Scale the actions to the space, widen the "
                    "space (gymnasium's RescaleAction), or clip the actions, if the environment did so too: "
                    "`dataset={'source': DATASET, 'actions': {'clip': [low, high]}}`."
                )

    def clip_actions(self, low: np.ndarray, high: np.ndarray) -> OfflineDataset:
        """
        Clip the actions, as an environment that clips executed them.

        :param low: Lower bounds, of the shape of an action
        :param high: Upper bounds
        :return: A new dataset, which shares all other arrays
        """
        return replace(self, actions=np.clip(self.actions, low, high).astype(self.actions.dtype, copy=False))

    def observation_rows(self) -> np.ndarray:
        """The rows that have an observation (all but padding), ``(N,)`` of bool."""
        rows: np.ndarray = self.has_action | self.final_states
        return rows
