"""N-step returns and action chunks: sampling of several steps within a trajectory."""

from collections.abc import Callable
from typing import NamedTuple

import torch as th

from sb3_flow.common.data.rewards import check_sparse
from sb3_flow.common.warn import warn

#: Number of consecutive batches without a valid chunk after which there is a warning.
EMPTY_DRAWS = 100
#: Normalizes each reward separately.
Normalize = Callable[[th.Tensor], th.Tensor]
#: New rewards, given the rows and their rewards.
Reward = Callable[[th.Tensor, th.Tensor], th.Tensor]


class Steps(NamedTuple):
    """
    Sampled sequences of ``n`` steps.

    :param rows: The row of each step, ``(n, B)``; after the end of a trajectory its last row is repeated.
    :param rewards: Discounted sum of rewards, ``(B,)``
    :param masks: 0 where the task ended within the steps, else 1, ``(B,)``
    :param discounts: gamma to the power of the number of steps summed, ``(B,)``
    :param valids: 1 where all steps lie in one trajectory, else 0, ``(B,)``
    :param action_valids: 1 for each step that was taken, else 0, ``(B, n)``
    """

    rows: th.Tensor
    rewards: th.Tensor
    masks: th.Tensor
    discounts: th.Tensor
    valids: th.Tensor
    action_valids: th.Tensor


class Transitions:
    """
    Columns of transitions, from which several steps are sampled at once.

    :param rewards: ``(N,)``, of any numeric type
    :param terminations: ``(N,)``, bool: the task ended here
    :param ends: ``(N,)``, bool: the last row of a trajectory
    :param stride: Number of rows from one step of a trajectory to the next
    :param sparse_rewards: Whether every reward below 0 is replaced by -1
    """

    def __init__(
        self,
        rewards: th.Tensor,
        terminations: th.Tensor,
        ends: th.Tensor,
        stride: int = 1,
        sparse_rewards: bool = False,
    ) -> None:
        self.rewards, self.terminations, self.ends, self.stride = rewards, terminations, ends, stride
        self.sparse_rewards = sparse_rewards
        self._empty_draws = 0

    def steps(
        self,
        rows: th.Tensor,
        n_steps: int,
        gamma: float,
        stop_at_termination: bool = True,
        normalize: Normalize | None = None,
        relabel: Reward | None = None,
    ) -> Steps:
        """
        Follow trajectories for several steps.

        :param rows: First rows, ``(B,)``
        :param n_steps: Number of steps, at least 1; fewer at the end of a trajectory
        :param gamma: Discount factor
        :param stop_at_termination: Whether the steps stop where the task ended. If not, they continue to the end of the
            trajectory (rewards after success count, as in Q-chunking), and only the bootstrap is masked.
        :param normalize: Applied to each reward before they are summed, as in SB3's ``NStepReplayBuffer``
        :param relabel: Computes rewards for other goals, before normalization
        :return: The steps
        """

        def rewards_at(rows: th.Tensor) -> th.Tensor:
            reward = self.rewards.index_select(0, rows).float()
            if relabel is not None:
                reward = relabel(rows, reward)
            if self.sparse_rewards:
                if relabel is not None:
                    check_sparse(reward.numpy(), "compute_reward")
                reward = -reward.lt(0).float()
            return reward if normalize is None else normalize(reward)

        alive, ended = th.ones_like(rows, dtype=th.bool), self.terminations.index_select(0, rows)
        rewards, masks = rewards_at(rows), (~ended).float()
        discounts = th.full_like(rewards, gamma)
        path, taken = [rows], [alive]
        for _ in range(1, n_steps):
            alive = alive & ~self.ends[rows]
            if stop_at_termination:
                alive = alive & ~self.terminations[rows]
            rows = th.where(alive, (rows + self.stride) % len(self.rewards), rows)
            path.append(rows)
            taken.append(alive)
            rewards = rewards + discounts * rewards_at(rows) * alive.float()
            masks = th.where(alive & self.terminations[rows], 0.0, masks)
            discounts = th.where(alive, discounts * gamma, discounts)
        return Steps(th.stack(path), rewards, masks, discounts, alive.float(), th.stack(taken, dim=1).float())

    def draw(
        self,
        rows: th.Tensor,
        n_steps: int,
        gamma: float,
        chunk_length: int,
        normalize: Normalize | None = None,
        relabel: Reward | None = None,
    ) -> Steps:
        """
        The steps of an n-step return, or of a chunk of actions if its length is above 1.

        :param rows: First rows, ``(B,)``
        :param n_steps: Number of steps of the return
        :param gamma: Discount factor
        :param chunk_length: Number of actions in a chunk
        :param normalize: As for ``steps``
        :param relabel: As for ``steps``
        :return: The steps
        """
        if chunk_length > 1:
            steps = self.steps(rows, chunk_length, gamma, stop_at_termination=False, normalize=normalize, relabel=relabel)
            self._notice_empty(steps.valids, chunk_length)
            return steps
        # A return over fewer steps is valid; a chunk of fewer actions is not.
        steps = self.steps(rows, n_steps, gamma, normalize=normalize, relabel=relabel)
        return steps._replace(valids=th.ones_like(steps.valids))

    def _notice_empty(self, valids: th.Tensor, chunk_length: int) -> None:
        """Warn after many consecutive batches without a valid chunk. Not on a GPU, which would wait in each batch."""
        if valids.device.type != "cpu":
            return
        self._empty_draws = 0 if valids.any() else self._empty_draws + 1
        if self._empty_draws == EMPTY_DRAWS:
            warn(
                f"In the last {EMPTY_DRAWS} batches no trajectory had {chunk_length} steps left: no chunk of actions is "
                "learned from them. Take a smaller `horizon_length`, or longer episodes."
            )
