"""N-step returns and action chunks: drawing several steps of a trajectory at once, never across its end."""

from collections.abc import Callable
from typing import NamedTuple

import torch as th

from sb3_flow.common.data.rewards import check_sparse
from sb3_flow.common.warn import warn

#: After how many draws in a row without a single valid chunk there is a warning.
EMPTY_DRAWS = 100
#: Normalizes rewards, each by itself.
Normalize = Callable[[th.Tensor], th.Tensor]
#: Other rewards of rows, given the rows and the rewards that they have.
Reward = Callable[[th.Tensor, th.Tensor], th.Tensor]


class Steps(NamedTuple):
    """
    What a draw of ``n`` steps found.

    :param rows: The row of each step, ``(n, B)``; past the end of a trajectory its last row is repeated.
    :param rewards: Discounted sum, ``(B,)``
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
    Rows of transitions on the CPU, with the arithmetic of drawing several steps at once.

    :param rewards: ``(N,)``, of any numeric type
    :param terminations: ``(N,)``, bool: the task ended here
    :param ends: ``(N,)``, bool: the last row of a trajectory
    :param stride: How many rows lie between one step of a trajectory and the next
    :param sparse_rewards: Whether every reward below 0 is drawn as -1
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

        :param rows: Where to start, ``(B,)``
        :param n_steps: How many steps, at least 1. At the end of a trajectory fewer are taken.
        :param gamma: Discount factor
        :param stop_at_termination: Whether the steps stop where the task ended. If not, they go on to the end of the
            trajectory (rewards after success count, as in Q-chunking), and only the bootstrap is cut.
        :param normalize: Applied to each reward before they are summed, as in SB3's ``NStepReplayBuffer``
        :param relabel: Applied before that, if the rewards are for other goals
        :return: What was found
        """
        alive = th.ones(len(rows), dtype=th.bool)
        rewards, masks, discounts = th.zeros(len(rows)), th.ones(len(rows)), th.ones(len(rows))
        path, taken = [rows], [alive]
        for i in range(n_steps):
            if i > 0:
                alive = alive & ~self.ends[rows]
                if stop_at_termination:
                    alive = alive & ~self.terminations[rows]
                rows = th.where(alive, (rows + self.stride) % len(self.rewards), rows)
                path.append(rows)
                taken.append(alive)
            reward = self.rewards[rows].float()
            if relabel is not None:
                reward = relabel(rows, reward)
            if self.sparse_rewards:
                if relabel is not None:
                    check_sparse(reward.numpy(), "compute_reward")
                reward = -reward.lt(0).float()
            if normalize is not None:
                reward = normalize(reward)
            rewards += discounts * reward * alive.float()
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

        :param rows: Where to start, ``(B,)``
        :param n_steps: Number of steps of the return
        :param gamma: Discount factor
        :param chunk_length: Number of actions in a chunk
        :param normalize: As for ``steps``, like ``relabel``
        :param relabel: As for ``steps``
        :return: What was found
        """
        if chunk_length > 1:
            steps = self.steps(rows, chunk_length, gamma, stop_at_termination=False, normalize=normalize, relabel=relabel)
            self._notice_empty(steps.valids, chunk_length)
            return steps
        # A return over fewer steps is a return all the same; a chunk of fewer actions is none.
        steps = self.steps(rows, n_steps, gamma, normalize=normalize, relabel=relabel)
        return steps._replace(valids=th.ones_like(steps.valids))

    def _notice_empty(self, valids: th.Tensor, chunk_length: int) -> None:
        """Warn where many batches in a row had nothing to learn from."""
        self._empty_draws = 0 if valids.any() else self._empty_draws + 1
        if self._empty_draws == EMPTY_DRAWS:
            warn(
                f"In the last {EMPTY_DRAWS} batches no trajectory had {chunk_length} steps left: no chunk of actions is "
                "learned from them. Take a smaller `horizon_length`, or longer episodes."
            )
