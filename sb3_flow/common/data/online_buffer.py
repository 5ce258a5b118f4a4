"""Replay buffer of collected transitions, with each observation stored once."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_flow.common.data.batches import as_replay_samples, normalize, to_device
from sb3_flow.common.data.columns import DatasetError, Observations, listed, parts
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.frames import as_arrays, join
from sb3_flow.common.data.hindsight import Hindsight
from sb3_flow.common.data.observation_store import ObservationStore, zeros
from sb3_flow.common.data.rewards import check_sparse, reward_normalizer
from sb3_flow.common.data.transitions import Transitions
from sb3_flow.common.encoders import image_keys, subspaces
from sb3_flow.common.guards import not_finite
from sb3_flow.common.type_aliases import Batch, TensorObs


class OnlineBuffer(ReplayBuffer):
    """
    Ring buffer of collected transitions, in float32 or uint8. Memory is allocated when the first transition is added.
    Observations and frames of a stack are stored once, see ``ObservationStore``.

    It has the interface of Stable-Baselines3's replay buffers (``add``, ``sample``, ``size``, ``save_replay_buffer``), for any
    observation space.

    :param buffer_size: Maximum number of transitions
    :param observation_space: Observation space
    :param action_space: Action space
    :param device: Device of the batches
    :param n_envs: Number of environments
    :param sparse_rewards: Whether every reward below 0 is replaced by -1
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: th.device | str = "auto",
        n_envs: int = 1,
        sparse_rewards: bool = False,
    ) -> None:
        # Not the constructor of ReplayBuffer: it allocates all memory at once, even if a model is only loaded.
        BaseBuffer.__init__(self, max(buffer_size // n_envs, 1), observation_space, action_space, device, n_envs)
        self.optimize_memory_usage, self.handle_timeout_termination = False, True
        self.sparse_rewards = sparse_rewards
        self.allocated = False
        #: Whether the newest transition of each environment ended its episode.
        self.newest_done = th.ones(n_envs, dtype=th.bool)

    def _rows_of(self, observations: Any) -> dict[str, np.ndarray]:
        """The parts of observations, ``(n_envs, *shape)``. A single environment's may lack the first axis, as in SB3."""
        shapes = {key: part.shape or () for key, part in subspaces(self.observation_space).items()}
        found = {key: np.asarray(part) for key, part in parts(observations).items()}
        if found.keys() != shapes.keys():
            raise ValueError(f"The observations to store have {listed(found)}; expected {listed(shapes)}.")
        for key, shape in shapes.items():
            if found[key].shape == shape and self.n_envs == 1:
                found[key] = found[key][None]
            if found[key].shape != (self.n_envs, *shape):
                name = f"The part {key!r} of the observations" if key else "The array of observations"
                raise ValueError(f"{name} to store has the shape {found[key].shape}; expected {(self.n_envs, *shape)}.")
        return found

    def _allocate(self, observations: dict[str, np.ndarray]) -> None:
        n_rows = self.buffer_size * self.n_envs
        images = image_keys(self.observation_space)
        self.stores = {}
        for key, part in observations.items():
            dtype = np.uint8 if part.dtype == np.uint8 else np.float32
            shape = part.shape[1:]
            self.stores[key] = ObservationStore(n_rows, shape, dtype, shape[0] if key in images else 1)
        self._allocate_columns()

    def _allocate_columns(self) -> None:
        n_rows = self.buffer_size * self.n_envs
        self.action_column = th.from_numpy(zeros((n_rows, self.action_dim), np.float32))
        flag = th.zeros(n_rows, dtype=th.bool)
        self.transitions = Transitions(th.zeros(n_rows), flag, flag.clone(), self.n_envs, self.sparse_rewards)
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

        :param obs: Observations, ``(n_envs, *shape)``, or a dictionary of these; of one environment also ``shape``
        :param next_obs: Next observations (at the end of an episode its last one, not the first one of the next episode)
        :param action: Actions in [-1, 1], ``(n_envs, action_dim)``
        :param reward: ``(n_envs,)``
        :param done: Whether the episode ended, ``(n_envs,)``
        :param infos: ``TimeLimit.truncated`` marks ends by a time limit.
        """
        if self.sparse_rewards:
            check_sparse(np.asarray(reward), "The environment")
        now, following = self._rows_of(obs), self._rows_of(next_obs)
        if not self.allocated:
            self._allocate(now)
        rows = slice(self.pos * self.n_envs, (self.pos + 1) * self.n_envs)
        for key, part in now.items():
            self.stores[key].add(rows, part, following[key])
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

    def not_finite(self) -> float | None:
        """The first number of the stored transitions that is not finite; None if there is none."""
        if not self.allocated:
            return None
        columns = [self.action_column, self.transitions.rewards]
        blocks = [block for store in self.stores.values() for block in store.used_blocks()]
        return not_finite([*(column[: len(self)] for column in columns), *blocks])

    def state(self) -> dict[str, Any]:
        """The settings and all written rows, for ``from_state``. Arrays are not copied."""
        n_rows, columns, stores = len(self), {}, {}
        if self.allocated:
            steps = self.transitions
            parts = {"actions": self.action_column, "rewards": steps.rewards, "terminations": steps.terminations}
            columns = {name: part[:n_rows].numpy() for name, part in {**parts, "ends": steps.ends}.items()}
            stores = {key: store.state(n_rows) for key, store in self.stores.items()}
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "buffer_size": self.buffer_size,
            "n_envs": self.n_envs,
            "sparse_rewards": self.sparse_rewards,
            "pos": self.pos,
            "full": self.full,
            "newest_done": self.newest_done.numpy(),
            "columns": columns,
            "stores": stores,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "OnlineBuffer":
        """
        :param state: As returned by ``state``
        :return: The replay buffer
        :raises ValueError: If the parts are inconsistent.
        """
        for key, kind in {"n_envs": int, "buffer_size": int, "pos": int, "full": bool, "sparse_rewards": bool}.items():
            if type(state[key]) is not kind:
                raise ValueError(f"its `{key}` is {state[key]!r}")
        n_envs, spaces_ = state["n_envs"], (state["observation_space"], state["action_space"])
        buffer = cls(state["buffer_size"] * n_envs, *spaces_, "cpu", n_envs, state["sparse_rewards"])
        buffer.pos, buffer.full = state["pos"], state["full"]
        buffer.newest_done = th.from_numpy(state["newest_done"])
        done = buffer.newest_done
        if not (0 <= buffer.pos < buffer.buffer_size and done.shape == (n_envs,) and done.dtype == th.bool):
            raise ValueError("its counters do not fit its size")
        if state["columns"]:
            n_rows = buffer.buffer_size * n_envs
            buffer.stores = {key: ObservationStore.from_state(n_rows, part) for key, part in state["stores"].items()}
            buffer._allocate_columns()
            steps = buffer.transitions
            parts = {"actions": buffer.action_column, "rewards": steps.rewards, "terminations": steps.terminations}
            for name, part in {**parts, "ends": steps.ends}.items():
                column = th.from_numpy(state["columns"][name])
                if column.shape != part[: len(buffer)].shape or column.dtype != part.dtype:
                    raise ValueError(f"its {name} have the shape {tuple(column.shape)} and the type {column.dtype}")
                part[: len(buffer)] = column
            shapes = {key: (space.shape, len(buffer)) for key, space in subspaces(buffer.observation_space).items()}
            if shapes != {key: (part.shape, state["stores"][key]["slots"].shape[1]) for key, part in buffer.stores.items()}:
                raise ValueError("its observations do not fit its space")
        elif len(buffer) > 0:
            raise ValueError("its transitions are missing")
        return buffer

    def to_dataset(self, unscale_action: Callable[[np.ndarray], np.ndarray]) -> OfflineDataset:
        """
        The collected transitions as a dataset, for another model.

        :param unscale_action: From [-1, 1] to the units of the environment, as ``BasePolicy.unscale_action``
        :return: The dataset, with the trajectories of the environments one after the other
        :raises DatasetError: If the buffer is empty.
        """
        if not self.allocated:
            raise DatasetError("The replay buffer is empty: collect or add transitions first.")
        times = (self.pos * self.full + np.arange(self.size())) % self.buffer_size
        rows = th.from_numpy((times * self.n_envs + np.arange(self.n_envs)[:, None]).reshape(-1))
        return OfflineDataset(
            observations=as_arrays(self._observations(rows)),
            actions=unscale_action(self.action_column[rows].reshape(-1, *(self.action_space.shape or ())).numpy()),
            rewards=self.transitions.rewards[rows].numpy(),
            terminations=self.transitions.terminations[rows].numpy(),
            ends=self.transitions.ends[rows].numpy(),
            valids=np.ones(len(rows), dtype=bool),
            next_observations=as_arrays(self._observations(rows, after=True)),
            name=type(self).__name__,
        )

    def _observations(self, rows: th.Tensor, after: bool = False) -> TensorObs:
        """The observations of rows, ``(B,)``, or the next observations."""
        return join({key: store.after(rows) if after else store.at(rows) for key, store in self.stores.items()})

    # The written rows of the columns, with the names of Stable-Baselines3's replay buffers.

    @property
    def observations(self) -> Observations:  # type: ignore[override]
        """A copy of all observations, ``(size, n_envs, *shape)`` or a dictionary of these."""
        return self._column(self._observations(self._written()))

    @property
    def next_observations(self) -> Observations:  # type: ignore[override]
        """A copy of all next observations, ``(size, n_envs, *shape)`` or a dictionary of these."""
        return self._column(self._observations(self._written(), after=True))

    @property
    def actions(self) -> np.ndarray:  # type: ignore[override]
        """Actions in [-1, 1], ``(size, n_envs, action_dim)``."""
        rows = self._written()
        return np.asarray(self._column(self.action_column[rows]))

    @property
    def rewards(self) -> np.ndarray:  # type: ignore[override]
        """Rewards as collected, ``(size, n_envs)``."""
        rows = self._written()
        return np.asarray(self._column(self.transitions.rewards[rows]))

    @property
    def dones(self) -> np.ndarray:  # type: ignore[override]
        """1 where an episode ended, for any reason, else 0, ``(size, n_envs)``."""
        rows = self._written()
        ends = self.transitions.ends[rows].view(-1, self.n_envs).clone()
        ends[(self.pos - 1) % self.buffer_size] = self.newest_done
        return ends.float().numpy()

    @property
    def timeouts(self) -> np.ndarray:  # type: ignore[override]
        """1 where a time limit, or a reset, ended an episode, else 0, ``(size, n_envs)``."""
        rows = self._written()
        terminations = self.transitions.terminations[rows].view(-1, self.n_envs)
        timeouts: np.ndarray = self.dones * (1.0 - terminations.float().numpy())
        return timeouts

    def _written(self) -> th.Tensor:
        """The written rows, in the order of storage."""
        if not self.allocated:
            raise ValueError("The replay buffer is empty: collect or add transitions first.")
        return th.arange(len(self))

    def _column(self, column: TensorObs) -> Observations:
        if isinstance(column, dict):
            return {key: np.asarray(self._column(part)) for key, part in column.items()}
        return column.view(-1, self.n_envs, *column.shape[1:]).numpy()

    def cut(self) -> None:
        """End the newest trajectories here: the environments were reset without being done."""
        self.newest_done = th.ones_like(self.newest_done)

    def __len__(self) -> int:
        """The number of transitions, over all environments."""
        return self.size() * self.n_envs

    def remaining(self, rows: th.Tensor) -> th.Tensor:
        """As ``OfflineBuffer.remaining``; the newest trajectory of an environment ends at its newest row."""
        size, oldest = self.size(), self.pos * self.full
        # One environment after the other, each in chronological order.
        ends = self.transitions.ends[: len(self)].view(size, self.n_envs).roll(-oldest, 0).t().reshape(-1)
        places = rows % self.n_envs * size + (rows // self.n_envs - oldest) % size
        last = ends.nonzero().flatten()
        return last[th.searchsorted(last, places)] - places

    def following(self, key: str, rows: th.Tensor) -> th.Tensor:
        """As ``OfflineBuffer.following``."""
        return self.stores[key].after(rows)

    def draw_indices(self, n: int, generator: th.Generator) -> th.Tensor:
        """As ``OfflineBuffer.draw_indices``."""
        return th.randint(len(self), (n,), generator=generator)

    def draw(
        self,
        indices: th.Tensor,
        n_steps: int = 1,
        gamma: float = 0.99,
        chunk_length: int = 1,
        env: VecNormalize | None = None,
        hindsight: Hindsight | None = None,
    ) -> Batch:
        """As ``OfflineBuffer.draw``."""
        goals = None if hindsight is None else hindsight.relabel(self, indices)
        relabel = None if goals is None else goals.rewards
        steps = self.transitions.draw(indices, n_steps, gamma, chunk_length, reward_normalizer(env), relabel)
        batch = Batch(
            self._observations(indices),
            self.action_column[steps.rows[:chunk_length].t()].flatten(start_dim=1),
            steps.rewards,
            steps.masks,
            steps.discounts,
            self._observations(steps.rows[-1], after=True),
            steps.valids,
            steps.action_valids[:, :chunk_length],
        )
        return to_device(batch if goals is None else goals.with_goals(batch), self.device)

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """
        Sample single transitions as Stable-Baselines3's replay buffers do.

        :param batch_size: Number of transitions
        :param env: Normalizer of observations and rewards, or None
        :return: The transitions
        """
        batch = normalize(self.draw(th.randint(len(self), (batch_size,)), env=env), env)
        # Without discounts, so that the caller uses its discount factor.
        return as_replay_samples(batch)._replace(discounts=None)
