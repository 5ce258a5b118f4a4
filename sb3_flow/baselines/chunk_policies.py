"""Base class of policies that predict a chunk of actions at once, given a history, and execute a part of it."""

from typing import NamedTuple

import numpy as np
import torch as th

from sb3_flow.common.chunks import ChunkState, read_state
from sb3_flow.common.type_aliases import TensorObs
from sb3_flow.imitation.history import Arrays, as_arrays, length, update_history
from sb3_flow.imitation.history_policy import HistoryPolicy


class PlanState(NamedTuple):
    """
    The plan of each environment. It is never changed in place; the first axis of every array is the environment.

    :param actions: The actions to execute, in [-1, 1], ``(n_envs, n_action_steps, *action_shape)``
    :param cursor: Number of executed actions, ``(n_envs,)``
    :param frames: The latest observations, oldest first, ``(n_envs, n_obs_steps, *shape)`` or a dictionary of these
    """

    actions: np.ndarray
    cursor: np.ndarray
    frames: Arrays


class ChunkPolicy(HistoryPolicy):
    """
    Base class of policies that generate a whole chunk before its first action is executed. A subclass defines ``plan``.

    :param prediction_horizon: ``H``, number of predicted actions
    :param n_obs_steps: Number of observations in the history
    :param encode_time_dim: Size of the embedding of the time; 0: the time itself (times 100)
    :param modulated: Whether to use the network with residual blocks, see ``networks``; then ``net_arch`` has the widths of
        its downward path, and ``activation`` is not used. If False, the network is an MLP.
    """

    def build(
        self,
        prediction_horizon: int = 16,
        n_obs_steps: int = 2,
        encode_time_dim: int = 64,
        modulated: bool = False,
    ) -> None:
        super().build(prediction_horizon, n_obs_steps)
        self.make_networks(lambda n_features: self.make_field(n_features, self.chunk_dim, encode_time_dim, modulated))

    @property
    def chunk_dim(self) -> int:
        """Size of a flattened chunk."""
        return self.prediction_horizon * self.action_dim

    @property
    def noise_dim(self) -> int:
        return self.chunk_dim

    def plan(self, context: th.Tensor, noise: th.Tensor) -> th.Tensor:
        """
        Plan with the current sampler.

        :param context: Histories, encoded by the acting network
        :param noise: Standard normal, or zero, ``(B, noise_dim)``
        :return: Chunks of actions in [-1, 1], ``(B, chunk_dim)``
        """
        raise NotImplementedError

    def plan_actions(
        self, observations: TensorObs, noise: th.Tensor, last_actions: th.Tensor, episode_start: th.Tensor
    ) -> th.Tensor:
        return self.executed(self.plan(self.context(self.acting, observations), noise[:, 0]))

    def act(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """
        The first action of an episode.

        :param observations: A raw batch
        :param noise: ``(B, noise_dim)``
        :return: Actions in [-1, 1], ``(B, action_dim)``
        """
        return self.plan(self.context(self.acting, self.first_frames(observations)), noise)[:, : self.action_dim]

    def decide(
        self,
        observations: TensorObs,
        state: tuple[np.ndarray, ...] | None,
        episode_start: np.ndarray | None,
        deterministic: bool,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        The next action of the plan. The state holds the plan of each environment. After ``n_action_steps`` actions, or when an
        episode starts, a new plan is made from the current history. Without the state each call starts an episode.

        :param observations: A raw batch
        :param state: State of the previous call, or None
        :param episode_start: Whether an episode starts, ``(n_envs,)``
        :param deterministic: Whether to plan from zero noise, at every step of the sampler
        :return: Actions in [-1, 1], and the new state
        """
        arrays = as_arrays(observations)
        n_envs = length(arrays)
        new = np.zeros(n_envs, bool) if episode_start is None else np.array(episode_start, bool)
        assert self.action_space.shape is not None
        if state is None:
            new[:] = True
            chunks, frames = ChunkState.start(n_envs, self.n_action_steps, self.action_space.shape), None
        else:
            before = read_state(PlanState, state, (self.n_action_steps, *self.action_space.shape))
            chunks, frames = ChunkState(before.actions, before.cursor), before.frames
        frames = update_history(frames, arrays, new, self.n_obs_steps)
        rows = chunks.used_up(new)
        if rows.any():
            context = self.context(self.acting, self.frames_of(frames, rows))
            plans = self.plan(context, self._noise(len(context), deterministic)[:, 0])
            chunks = chunks.planned(rows, self.executed(plans).cpu().numpy())
        actions, chunks = chunks.take()
        return actions, PlanState(*chunks, frames)  # type: ignore[return-value]
