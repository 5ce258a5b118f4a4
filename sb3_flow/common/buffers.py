"""
Transitions in storage, and batches drawn from them.

Offline data lies contiguous in time in an ``OfflineBuffer``; what the agent collects goes round an ``OnlineBuffer``. Both
draw n-step returns and action chunks by the same arithmetic, which never crosses the end of a trajectory.
"""

import warnings
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_flow.common.dataset import DatasetError, Observations, OfflineDataset
from sb3_flow.common.encoders import subspaces
from sb3_flow.common.types import Batch, TensorObs


class Steps(NamedTuple):
    """
    What a draw of ``n`` steps found.

    :param rows: The row of each step, ``(n, B)``; past the end of a trajectory its last row is repeated.
    :param rewards: Discounted sum, ``(B,)``
    :param masks: 0 where the task ended within the steps, else 1, ``(B,)``
    :param discounts: gamma to the power of the number of steps summed, ``(B,)``
    :param valids: 1 where all steps lie in one trajectory, else 0, ``(B,)``
    """

    rows: th.Tensor
    rewards: th.Tensor
    masks: th.Tensor
    discounts: th.Tensor
    valids: th.Tensor


class Transitions:
    """
    Rows of transitions on the CPU, with the arithmetic of drawing several steps at once.

    :param rewards: ``(N,)``, float32
    :param terminations: ``(N,)``, bool: the task ended here
    :param ends: ``(N,)``, bool: the last row of a trajectory
    :param stride: How many rows lie between one step of a trajectory and the next
    """

    def __init__(self, rewards: th.Tensor, terminations: th.Tensor, ends: th.Tensor, stride: int = 1) -> None:
        self.rewards, self.terminations, self.ends, self.stride = rewards, terminations, ends, stride

    def steps(self, rows: th.Tensor, n_steps: int, gamma: float, stop_at_termination: bool = True) -> Steps:
        """
        Follow trajectories for several steps.

        :param rows: Where to start, ``(B,)``
        :param n_steps: How many steps, at least 1. At the end of a trajectory fewer are taken.
        :param gamma: Discount factor
        :param stop_at_termination: Whether the steps stop where the task ended. If not, they go on to the end of the
            trajectory (rewards after success count, as in Q-chunking), and only the bootstrap is cut.
        :return: What was found
        """
        alive = th.ones(len(rows), dtype=th.bool)
        rewards, masks, discounts = th.zeros(len(rows)), th.ones(len(rows)), th.ones(len(rows))
        path = [rows]
        for i in range(n_steps):
            if i > 0:
                alive = alive & ~self.ends[rows]
                if stop_at_termination:
                    alive = alive & ~self.terminations[rows]
                rows = th.where(alive, (rows + self.stride) % len(self.rewards), rows)
                path.append(rows)
            taken = alive.float()
            rewards += discounts * self.rewards[rows] * taken
            masks = th.where(alive & self.terminations[rows], 0.0, masks)
            discounts = th.where(alive, discounts * gamma, discounts)
        return Steps(th.stack(path), rewards, masks, discounts, alive.float())


class OfflineBuffer:
    """
    A data set made ready for drawing batches. It copies nothing that can be used as it is: float32 and uint8 columns
    stay where they are, also where that is a memory-mapped file.

    :param dataset: The data, its actions inside the action space
    :param observation_space: The space of the algorithm (images channels first, frames stacked)
    :param action_space: The action space
    :param device: Where batches go
    :raises DatasetError: If the data does not fit the spaces.
    """

    def __init__(
        self,
        dataset: OfflineDataset,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        device: th.device | str = "cpu",
    ) -> None:
        self.device = th.device(device)
        low, high = action_space.low.reshape(-1), action_space.high.reshape(-1)
        actions = dataset.actions.reshape(len(dataset.actions), -1)
        dataset = replace(dataset, actions=actions).within(low, high)
        scaled = 2.0 * (dataset.actions - low) / (high - low) - 1.0
        self.actions = th.from_numpy(np.clip(scaled, -1.0, 1.0).astype(np.float32))
        rewards = np.zeros(len(actions)) if dataset.rewards is None else dataset.rewards
        ends = dataset.ends | ~dataset.valids
        self.transitions = Transitions(
            _tensor(rewards.astype(np.float32, copy=False)), _tensor(dataset.terminations), _tensor(ends)
        )
        self.observations = _Frames(dataset.observations, "observations", dataset.name, observation_space, ends)
        self.next_observations = None
        if dataset.next_observations is not None:
            self.next_observations = _Frames(
                dataset.next_observations, "next_observations", dataset.name, observation_space, ends
            )
            if self.next_observations.stacks:
                raise DatasetError(
                    f"{dataset.name}: frames cannot be stacked beside `next_observations`; leave these out, so that the "
                    "next row's observation is what follows."
                )
        self.valid_rows = _tensor(np.flatnonzero(dataset.valids)) if not dataset.valids.all() else None
        self.name = dataset.name
        self.has_rewards = dataset.rewards is not None

    def __len__(self) -> int:
        """The number of transitions."""
        return len(self.actions) if self.valid_rows is None else len(self.valid_rows)

    def draw(self, indices: th.Tensor, n_steps: int = 1, gamma: float = 0.99, chunk_length: int = 1) -> Batch:
        """
        The batch that starts at given transitions.

        :param indices: Which transitions, ``(B,)`` in [0, len(self))
        :param n_steps: Number of steps of the return
        :param gamma: Discount factor
        :param chunk_length: Number of actions in a chunk; above 1 it is also the number of steps of the return.
        :return: The batch, on ``device``
        """
        rows = indices if self.valid_rows is None else self.valid_rows[indices]
        chunked = chunk_length > 1
        steps = self.transitions.steps(rows, chunk_length if chunked else n_steps, gamma, stop_at_termination=not chunked)
        last = steps.rows[-1]
        if self.next_observations is None:
            following = self.observations.after(last)
        else:
            following = self.next_observations.at(last)
        taken = steps.rows if chunked else steps.rows[:1]
        actions = self.actions[taken.t()].flatten(start_dim=1)
        # Returns over fewer steps are returns all the same; a chunk of fewer actions is none.
        valids = steps.valids if chunked else th.ones_like(steps.valids)
        batch = Batch(self.observations.at(rows), actions, steps.rewards, steps.masks, steps.discounts, following, valids)
        return to_device(batch, self.device)


class OnlineBuffer(ReplayBuffer):
    """
    The ring of transitions that the agent collects: float32 or uint8, allocated when the first one arrives.

    It is used as Stable-Baselines3's own (``add``, ``sample``, ``size``, saved by ``save_replay_buffer``), for any
    observation space.

    :param buffer_size: How many transitions it holds
    :param observation_space: Observation space
    :param action_space: Action space
    :param device: Where batches go
    :param n_envs: Number of environments
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: th.device | str = "auto",
        n_envs: int = 1,
    ) -> None:
        # Not the constructor of ReplayBuffer: it allocates everything at once, also when a model is only loaded.
        BaseBuffer.__init__(self, max(buffer_size // n_envs, 1), observation_space, action_space, device, n_envs)
        self.optimize_memory_usage, self.handle_timeout_termination = False, True
        self.allocated = False
        #: Whether the newest transition of each environment ended its episode.
        self.newest_done = th.ones(n_envs, dtype=th.bool)

    def _allocate(self, obs: Observations) -> None:
        n_rows = self.buffer_size * self.n_envs

        def storage(part: np.ndarray) -> th.Tensor:
            dtype = np.uint8 if part.dtype == np.uint8 else np.float32
            return th.from_numpy(np.zeros((n_rows, *part.shape[1:]), dtype=dtype))  # zero pages cost no memory yet

        parts = obs if isinstance(obs, dict) else {"": obs}
        self.obs_columns = {key: storage(part) for key, part in parts.items()}
        self.next_obs_columns = {key: storage(part) for key, part in parts.items()}
        self.action_column = storage(np.zeros((1, self.action_dim), dtype=np.float32))
        flag = th.zeros(n_rows, dtype=th.bool)
        self.transitions = Transitions(th.zeros(n_rows), flag, flag.clone(), stride=self.n_envs)
        self.allocated = True

    def add(
        self,
        obs: Any,
        next_obs: Any,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """
        Add one step of every environment.

        :param obs: Observations, ``(n_envs, *shape)`` or a dictionary of these
        :param next_obs: What followed (of a finished episode its last observation, not the new one's first)
        :param action: Actions in [-1, 1], ``(n_envs, action_dim)``
        :param reward: ``(n_envs,)``
        :param done: Whether the episode ended, ``(n_envs,)``
        :param infos: ``TimeLimit.truncated`` in them tells a time limit from a termination.
        """
        if not self.allocated:
            self._allocate(obs)
        rows = slice(self.pos * self.n_envs, (self.pos + 1) * self.n_envs)
        for columns, value in ((self.obs_columns, obs), (self.next_obs_columns, next_obs)):
            parts = value if isinstance(value, dict) else {"": value}
            for key, part in parts.items():
                columns[key][rows] = th.from_numpy(np.asarray(part)).reshape(columns[key][rows].shape)
        self.action_column[rows] = th.from_numpy(np.asarray(action).reshape(self.n_envs, self.action_dim)).float()
        done = np.asarray(done, dtype=bool)
        timeout = np.array([info.get("TimeLimit.truncated", False) for info in infos], dtype=bool)
        transitions = self.transitions
        transitions.rewards[rows] = th.from_numpy(np.asarray(reward, dtype=np.float32).reshape(-1))
        transitions.terminations[rows] = th.from_numpy(done & ~timeout)
        # Nothing follows the newest row yet, so a trajectory ends there as long as it is the newest.
        if self.full or self.pos > 0:
            before = (self.pos - 1) % self.buffer_size
            previous = slice(before * self.n_envs, (before + 1) * self.n_envs)
            transitions.ends[previous] = self.newest_done
        self.newest_done = th.from_numpy(done)
        transitions.ends[rows] = True
        self.pos += 1
        if self.pos == self.buffer_size:
            self.full, self.pos = True, 0

    def cut(self) -> None:
        """End the newest trajectories here: the environments were reset without being done."""
        self.newest_done = th.ones_like(self.newest_done)

    def __len__(self) -> int:
        """The number of transitions, over all environments."""
        return self.size() * self.n_envs

    def draw(self, indices: th.Tensor, n_steps: int = 1, gamma: float = 0.99, chunk_length: int = 1) -> Batch:
        """As ``OfflineBuffer.draw``."""
        chunked = chunk_length > 1
        steps = self.transitions.steps(indices, chunk_length if chunked else n_steps, gamma, stop_at_termination=not chunked)
        taken = steps.rows if chunked else steps.rows[:1]
        batch = Batch(
            _join({key: column[indices] for key, column in self.obs_columns.items()}),
            self.action_column[taken.t()].flatten(start_dim=1),
            steps.rewards,
            steps.masks,
            steps.discounts,
            _join({key: column[steps.rows[-1]] for key, column in self.next_obs_columns.items()}),
            steps.valids if chunked else th.ones_like(steps.valids),
        )
        return to_device(batch, self.device)

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """
        Draw single transitions in the form of Stable-Baselines3, for code that expects its buffers.

        :param batch_size: Number of transitions
        :param env: Normalises observations and rewards, if given
        :return: The transitions
        """
        batch = normalize(self.draw(th.randint(len(self), (batch_size,))), env)
        dones = 1.0 - batch.masks
        return ReplayBufferSamples(
            batch.observations,  # type: ignore[arg-type]
            batch.actions,
            batch.next_observations,  # type: ignore[arg-type]
            dones[:, None],
            batch.rewards[:, None],
        )


class _Frames:
    """
    A column of observations: dictionaries, images with channels last, and the stacking of single frames.

    Where the space has a multiple of the data's channels, that many frames are stacked, the oldest first; before the
    start of a trajectory its first frame is repeated.
    """

    def __init__(self, observations: Observations, field: str, name: str, space: spaces.Space[Any], ends: np.ndarray) -> None:
        parts = observations if isinstance(observations, dict) else {"": observations}
        wanted = subspaces(space)
        if set(parts) != set(wanted):
            raise DatasetError(
                f"{name}: `{field}` has the keys {sorted(parts)}, but the observation space has {sorted(wanted)}."
            )
        self.columns = {key: _tensor(_storable(part)) for key, part in parts.items()}
        self.channels_last: set[str] = set()
        self.stacks: dict[str, int] = {}
        for key, part in parts.items():
            target = wanted[key].shape
            assert target is not None
            shape = part.shape[1:]
            if len(target) == 3 and shape != target and shape[:2] == target[1:]:
                self.channels_last.add(key)
                shape = (shape[2], *shape[:2])
            if len(target) == 3 and shape != target and shape[1:] == target[1:] and target[0] % shape[0] == 0:
                self.stacks[key] = target[0] // shape[0]
                shape = target
            if shape != target:
                raise DatasetError(
                    f"{name}: `{field}{f'[{key}]' if key else ''}` has the shape {part.shape[1:]} per row, "
                    f"but the observation space has {target}."
                )
        if self.stacks:
            starts = np.concatenate([[0], np.flatnonzero(ends[:-1]) + 1])
            lengths = np.diff(np.append(starts, len(ends)))
            self.starts = _tensor(np.repeat(starts, lengths))

    def _frame(self, key: str, rows: th.Tensor) -> th.Tensor:
        frames = self.columns[key].index_select(0, rows)
        if key in self.channels_last:
            frames = frames.permute(0, 3, 1, 2)
        return frames if frames.dtype == th.uint8 else frames.float()

    def at(self, rows: th.Tensor) -> TensorObs:
        """The observations of rows, ``(B,)``."""
        return self._history(rows, rows)

    def after(self, rows: th.Tensor) -> TensorObs:
        """The observations that follow rows, where each state is stored once."""
        following = (rows + 1).clamp(max=len(next(iter(self.columns.values()))) - 1)
        return self._history(following, rows)

    def _history(self, newest: th.Tensor, rows: th.Tensor) -> TensorObs:
        parts = {}
        for key in self.columns:
            n_frames = self.stacks.get(key, 1)
            if n_frames == 1:
                parts[key] = self._frame(key, newest)
            else:
                start = self.starts[rows]
                frames = [self._frame(key, th.maximum(newest - age, start)) for age in reversed(range(n_frames))]
                parts[key] = th.cat(frames, dim=1)
        return _join(parts)


def normalize(batch: Batch, env: VecNormalize | None) -> Batch:
    """
    Apply the statistics of a ``VecNormalize`` to a batch.

    :param batch: A raw batch
    :param env: The wrapper, or None to change nothing
    :return: The batch with normalised observations and rewards
    """
    if env is None:
        return batch

    def observations(obs: TensorObs) -> TensorObs:
        if isinstance(obs, dict):
            arrays: Any = env.normalize_obs({key: part.cpu().numpy() for key, part in obs.items()})
            return {key: th.as_tensor(part, device=obs[key].device) for key, part in arrays.items()}
        return th.as_tensor(env.normalize_obs(obs.cpu().numpy()), device=obs.device)

    rewards = th.as_tensor(env.normalize_reward(batch.rewards.cpu().numpy()), device=batch.rewards.device)
    return batch._replace(
        observations=observations(batch.observations),
        next_observations=observations(batch.next_observations),
        rewards=rewards.to(batch.rewards.dtype),
    )


def concatenate(first: Batch, second: Batch) -> Batch:
    """One batch out of two."""

    def join(a: Any, b: Any) -> Any:
        return {key: th.cat([a[key], b[key]]) for key in a} if isinstance(a, dict) else th.cat([a, b])

    return Batch(*(join(a, b) for a, b in zip(first, second, strict=True)))


def to_device(batch: Batch, device: th.device) -> Batch:
    """The batch on a device."""

    def move(part: Any) -> Any:
        return {key: move(value) for key, value in part.items()} if isinstance(part, dict) else part.to(device)

    return Batch(*map(move, batch))


def _join(parts: dict[str, th.Tensor]) -> TensorObs:
    return parts[""] if set(parts) == {""} else parts


def _storable(part: np.ndarray) -> np.ndarray:
    if part.dtype in (np.uint8, np.float32) or isinstance(part, np.memmap):
        return part
    return part.astype(np.float32)


def _tensor(array: np.ndarray) -> th.Tensor:
    with warnings.catch_warnings():
        # Data that may not be written to is just right: nobody writes into a data set.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return th.from_numpy(np.ascontiguousarray(array) if not isinstance(array, np.memmap) else array)
