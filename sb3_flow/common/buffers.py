"""
Transitions in storage, and batches drawn from them.

Offline data lies contiguous in time in an ``OfflineBuffer``; what the agent collects goes round an ``OnlineBuffer``. Both
draw n-step returns and action chunks by the same arithmetic, which never crosses the end of a trajectory.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_flow.common.batches import normalize, to_device
from sb3_flow.common.dataset import DatasetError, Observations, OfflineDataset
from sb3_flow.common.frames import Frames, as_arrays, as_tensor, join
from sb3_flow.common.types import Batch


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

    def draw(self, rows: th.Tensor, n_steps: int, gamma: float, chunk_length: int) -> Steps:
        """
        The steps of an n-step return, or of a chunk of actions if its length is above 1.

        :param rows: Where to start, ``(B,)``
        :param n_steps: Number of steps of the return
        :param gamma: Discount factor
        :param chunk_length: Number of actions in a chunk
        :return: What was found
        """
        if chunk_length > 1:
            return self.steps(rows, chunk_length, gamma, stop_at_termination=False)
        # A return over fewer steps is a return all the same; a chunk of fewer actions is none.
        steps = self.steps(rows, n_steps, gamma)
        return steps._replace(valids=th.ones_like(steps.valids))


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
            as_tensor(rewards.astype(np.float32, copy=False)), as_tensor(dataset.terminations), as_tensor(ends)
        )
        self.observations = Frames(dataset.observations, "observations", dataset.name, observation_space, ends)
        self.next_observations = None
        if dataset.next_observations is not None:
            self.next_observations = Frames(
                dataset.next_observations, "next_observations", dataset.name, observation_space, ends
            )
            if self.next_observations.stacks:
                raise DatasetError(
                    f"{dataset.name}: frames cannot be stacked beside `next_observations`; leave these out, so that the "
                    "next row's observation is what follows."
                )
        self.valid_rows = as_tensor(np.flatnonzero(dataset.valids)) if not dataset.valids.all() else None
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
        steps = self.transitions.draw(rows, n_steps, gamma, chunk_length)
        last = steps.rows[-1]
        batch = Batch(
            self.observations.at(rows),
            self.actions[steps.rows[:chunk_length].t()].flatten(start_dim=1),
            steps.rewards,
            steps.masks,
            steps.discounts,
            self.observations.after(last) if self.next_observations is None else self.next_observations.at(last),
            steps.valids,
        )
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
            try:
                return th.from_numpy(np.zeros((n_rows, *part.shape[1:]), dtype=dtype))  # zero pages cost no memory yet
            except MemoryError as error:
                size = n_rows * part[0].size * np.dtype(dtype).itemsize / 2**30
                raise MemoryError(
                    f"The replay buffer holds {n_rows:,} transitions, whose observations need twice {size:,.1f} GiB. "
                    "Pass a smaller `buffer_size`."
                ) from error

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

    def to_dataset(self, unscale_action: Callable[[np.ndarray], np.ndarray]) -> OfflineDataset:
        """
        What was collected, as a data set for another model.

        :param unscale_action: From [-1, 1] to the units of the environment, as ``BasePolicy.unscale_action``
        :return: The data set, with the trajectories of each environment one after the other
        :raises DatasetError: If nothing was collected yet.
        """
        if not self.allocated:
            raise DatasetError("The replay buffer is empty: collect or add transitions first.")
        times = (self.pos * self.full + np.arange(self.size())) % self.buffer_size
        rows = th.from_numpy((times * self.n_envs + np.arange(self.n_envs)[:, None]).reshape(-1))
        observations, following = (
            join({key: column[rows] for key, column in columns.items()})
            for columns in (self.obs_columns, self.next_obs_columns)
        )
        return OfflineDataset(
            observations=as_arrays(observations),
            actions=unscale_action(self.action_column[rows].reshape(-1, *(self.action_space.shape or ())).numpy()),
            rewards=self.transitions.rewards[rows].numpy(),
            terminations=self.transitions.terminations[rows].numpy(),
            ends=self.transitions.ends[rows].numpy(),
            valids=np.ones(len(rows), dtype=bool),
            next_observations=as_arrays(following),
            name=type(self).__name__,
        )

    def cut(self) -> None:
        """End the newest trajectories here: the environments were reset without being done."""
        self.newest_done = th.ones_like(self.newest_done)

    def __len__(self) -> int:
        """The number of transitions, over all environments."""
        return self.size() * self.n_envs

    def draw(self, indices: th.Tensor, n_steps: int = 1, gamma: float = 0.99, chunk_length: int = 1) -> Batch:
        """As ``OfflineBuffer.draw``."""
        steps = self.transitions.draw(indices, n_steps, gamma, chunk_length)
        batch = Batch(
            join({key: column[indices] for key, column in self.obs_columns.items()}),
            self.action_column[steps.rows[:chunk_length].t()].flatten(start_dim=1),
            steps.rewards,
            steps.masks,
            steps.discounts,
            join({key: column[steps.rows[-1]] for key, column in self.next_obs_columns.items()}),
            steps.valids,
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
