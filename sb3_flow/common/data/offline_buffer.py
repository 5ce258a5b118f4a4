"""Buffer of offline data, from which batches and windows are sampled."""

from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize

from sb3_flow.common.data.batches import to_device
from sb3_flow.common.data.columns import DatasetError
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.frames import Frames, as_tensor, readable, storable, trajectory_starts
from sb3_flow.common.data.hindsight import Hindsight
from sb3_flow.common.data.rewards import check_sparse, reward_normalizer
from sb3_flow.common.data.transitions import Transitions
from sb3_flow.common.type_aliases import Batch, TensorObs


class Window(NamedTuple):
    """
    Observations and actions around ``B`` transitions of a dataset, within their trajectories.

    :param observations: The latest ``h`` observations, the oldest first, ``(B * h, *shape)`` or a dictionary of these.
        Before the start of a trajectory its first one is repeated.
    :param actions: The next ``n`` actions, ``(B, n, action_dim)`` in [-1, 1]. After the end of a trajectory its last one is
        repeated.
    :param previous_actions: The previous action, ``(B, action_dim)`` in [-1, 1]; arbitrary if there is none
    :param has_previous: Whether there is a previous action, ``(B, 1)`` of bool
    """

    observations: TensorObs
    actions: th.Tensor
    previous_actions: th.Tensor
    has_previous: th.Tensor


class OfflineBuffer:
    """
    Buffer that samples batches from a dataset. Float32 and uint8 columns are not copied, so that memory-mapped files stay on
    disk.

    :param dataset: The data, with actions inside the action space
    :param observation_space: Observation space of the algorithm (images channels first, frames stacked)
    :param action_space: The action space
    :param device: Device of the batches
    :param sparse_rewards: Whether every reward below 0 is replaced by -1
    :param imitation: Whether all steps are sampled, also those without a next observation, which imitation does not need
    :raises DatasetError: If the data does not match the spaces, or ``sparse_rewards`` is set and a reward is above 0.
    """

    def __init__(
        self,
        dataset: OfflineDataset,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        device: th.device | str = "cpu",
        sparse_rewards: bool = False,
        imitation: bool = False,
    ) -> None:
        self.device = th.device(device)
        dataset.check_actions(action_space.low, action_space.high)
        drawn = dataset.has_action if imitation else dataset.valids
        if not drawn.any():
            raise DatasetError(f"{dataset.name}: no row is a transition. {' '.join(dataset.remarks)}")
        if sparse_rewards and dataset.rewards is not None:
            check_sparse(dataset.rewards, dataset.name, drawn)
        self.low, self.high = (
            th.from_numpy(bound.reshape(-1).astype(np.float64)) for bound in (action_space.low, action_space.high)
        )
        self.range = self.high - self.low
        self.actions = as_tensor(readable(dataset.actions.reshape(len(dataset.actions), -1)))
        # A trajectory ends before rows that are not sampled; each of these is a separate trajectory.
        ends = dataset.ends | ~drawn | np.append(~drawn[1:], True)
        #: The first row of each trajectory, in order, and the row after its last one; a row that is not sampled is a separate
        #: trajectory.
        self.starts = trajectory_starts(ends)
        self.stops = th.cat([self.starts[1:], th.tensor([len(ends)])])
        self._first_rows = self.starts[as_tensor(drawn)[self.starts]]
        self.has_rewards = dataset.rewards is not None
        rewards = th.zeros(1).expand(len(ends)) if dataset.rewards is None else as_tensor(storable(dataset.rewards))
        # Nothing is bootstrapped at steps without a next observation, which imitation samples.
        terminations = dataset.terminations | ~dataset.valids
        self.transitions = Transitions(rewards, as_tensor(terminations), as_tensor(ends), sparse_rewards=sparse_rewards)
        #: Whether the next row has the next observation.
        self.follows = as_tensor(dataset.followed())
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
        invalid = np.flatnonzero(~drawn)
        #: Number of transitions before each row that is not one. This list is short, because few rows are not transitions.
        self.gaps = as_tensor(invalid - np.arange(len(invalid)))
        #: Cumulative weights of the transitions, or None if all have the same probability.
        self.cumulative_weights = None
        if dataset.weights is not None:
            self.cumulative_weights = th.from_numpy(np.cumsum(dataset.weights[drawn], dtype=np.float64))
        self.name = dataset.name

    def move(self) -> None:
        """
        Move the data to the device of the batches, so that they are drawn there. Their numbers do not change.

        :raises ValueError: If the device has too little free memory.
        """
        owners: list[Any] = [self, self.transitions, self.observations]
        if self.next_observations is not None:
            owners.append(self.next_observations)
        # Weights stay: indices are drawn on the CPU.
        columns = [
            (vars(owner), name)
            for owner in owners
            for name, value in vars(owner).items()
            if isinstance(value, th.Tensor) and name != "cumulative_weights"
        ]
        columns += [(owner.columns, key) for owner in owners[2:] for key in owner.columns]
        size = sum(owner[name].nbytes for owner, name in columns)
        free = th.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else size
        if size > free:
            raise ValueError(
                f"{self.name} has {size / 2**30:.1f} GiB, but {self.device} has only {free / 2**30:.1f} GiB free: set "
                "`dataset_on_device=False`."
            )
        for owner, name in columns:
            owner[name] = owner[name].to(self.device)

    def __len__(self) -> int:
        """The number of transitions."""
        return len(self.actions) - len(self.gaps)

    def draw_indices(self, n: int, generator: th.Generator) -> th.Tensor:
        """
        Sample transitions, uniformly or by their weights.

        :param n: Number of transitions
        :param generator: Source of randomness
        :return: Their indices, ``(n,)`` in [0, len(self))
        """
        if self.cumulative_weights is None:
            return th.randint(len(self), (n,), generator=generator)
        draws = th.rand(n, generator=generator, dtype=th.float64) * self.cumulative_weights[-1]
        return th.searchsorted(self.cumulative_weights, draws, right=True).clamp(max=len(self) - 1)

    def _scaled(self, actions: th.Tensor) -> th.Tensor:
        """Actions in [-1, 1]; in double precision, which distinguishes the bounds of very narrow spaces."""
        return ((actions.double() - self.low) / self.range).mul_(2.0).sub_(1.0).clamp_(-1.0, 1.0).float()

    def _rows(self, indices: th.Tensor) -> th.Tensor:
        """The rows of transitions, given their indices among the transitions."""
        indices = indices.to(self.gaps.device, non_blocking=True)
        return indices + th.searchsorted(self.gaps, indices, right=True)

    def _trajectory(self, rows: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """The first and the last row of the trajectory of each row."""
        number = th.searchsorted(self.starts, rows, right=True) - 1
        return self.starts[number], self.stops[number] - 1

    def remaining(self, rows: th.Tensor) -> th.Tensor:
        """Number of later steps of the same trajectory for each row, ``(B,)``."""
        return self._trajectory(rows)[1] - rows

    def following(self, key: str, rows: th.Tensor) -> th.Tensor:
        """A part of the next observations of rows, ``(B, *shape)``."""
        if self.next_observations is not None:
            return self.next_observations.part(key, rows)
        return self.observations.part(key, rows + self.follows[rows].long())

    def check_hindsight(self) -> None:
        """
        Check that all steps have a next observation, from which hindsight takes goals.

        :raises DatasetError: If one has none.
        """
        if self.next_observations is not None:
            return
        known = self.follows.clone()
        known[self.gaps + th.arange(len(self.gaps))] = True  # rows that are not transitions
        if not known.all():
            raise DatasetError(
                f"{self.name}: `hindsight` needs the next observation of each step, which is missing for "
                f"{int((~known).sum()):,} steps that ended the task. Add `next_observations`."
            )

    def first_actions(self) -> th.Tensor:
        """The first action of each trajectory, ``(n_trajectories, action_dim)`` in [-1, 1]."""
        return self._scaled(self.actions[self._first_rows])

    def window(self, indices: th.Tensor, n_observations: int, n_actions: int) -> Window:
        """
        The observations and actions around transitions.

        :param indices: Indices of the transitions, ``(B,)`` in [0, len(self))
        :param n_observations: Number of observations, up to that of the transition
        :param n_actions: Number of actions, from that of the transition
        :return: The window, on ``device``
        """
        rows = self._rows(indices)[:, None]
        start, last = self._trajectory(rows)
        past = th.maximum(rows - th.arange(n_observations - 1, -1, -1, device=rows.device), start)
        coming = th.minimum(rows + th.arange(n_actions, device=rows.device), last)
        window = Window(
            self.observations.at(past.flatten()),
            self._scaled(self.actions[coming]),
            self._scaled(self.actions[th.maximum(rows - 1, start)[:, 0]]),
            rows > start,
        )
        return to_device(window, self.device)

    def draw(
        self,
        indices: th.Tensor,
        n_steps: int = 1,
        gamma: float = 0.99,
        chunk_length: int = 1,
        env: VecNormalize | None = None,
        hindsight: Hindsight | None = None,
    ) -> Batch:
        """
        The batch of n-step returns or chunks that start at given transitions.

        :param indices: Indices of the transitions, ``(B,)`` in [0, len(self))
        :param n_steps: Number of steps of the return
        :param gamma: Discount factor
        :param chunk_length: Number of actions in a chunk; above 1 it is also the number of steps of the return.
        :param env: Normalizer of the rewards, or None (see ``batches.normalize`` for the observations)
        :param hindsight: Relabels the goals of the first transitions of the batch, or None
        :return: The batch, on ``device``
        """
        rows = self._rows(indices)
        goals = None if hindsight is None else hindsight.relabel(self, rows)
        relabel = None if goals is None else goals.rewards
        steps = self.transitions.draw(rows, n_steps, gamma, chunk_length, reward_normalizer(env), relabel)
        last = steps.rows[-1]
        batch = Batch(
            self.observations.at(rows),
            self._scaled(self.actions.index_select(0, steps.rows[:chunk_length].t().flatten())).view(len(rows), -1),
            steps.rewards,
            steps.masks,
            steps.discounts,
            self.observations.after(last, self.follows.index_select(0, last))
            if self.next_observations is None
            else self.next_observations.at(last),
            steps.valids,
            steps.action_valids[:, :chunk_length],
        )
        return to_device(batch if goals is None else goals.with_goals(batch), self.device)
