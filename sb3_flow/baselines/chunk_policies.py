"""What policies share that predict a chunk of actions at once, given a history, and execute a part of it."""

from typing import NamedTuple

import numpy as np
import torch as th

from sb3_flow.common.chunks import ChunkState
from sb3_flow.common.type_aliases import TensorObs
from sb3_flow.imitation.history import Arrays, as_arrays, length, remember
from sb3_flow.imitation.history_policy import HistoryPolicy


class PlanState(NamedTuple):
    """
    Where each environment is in its plan. It is never changed in place; the first axis of every array is the environment.

    :param actions: What is executed of the plan, in [-1, 1], ``(n_envs, n_action_steps, *action_shape)``
    :param cursor: How many of these actions were executed, ``(n_envs,)``
    :param frames: The newest observations, the oldest first, ``(n_envs, n_obs_steps, *shape)`` or a dictionary of these
    """

    actions: np.ndarray
    cursor: np.ndarray
    frames: Arrays


class ChunkPolicy(HistoryPolicy):
    """
    Base class of policies that make a whole chunk before its first action. A subclass gives ``plan``.

    :param prediction_horizon: ``H``, how many actions are predicted
    :param n_action_steps: How many of them are executed before the next plan, at most ``prediction_horizon``
    :param n_obs_steps: How many observations the history has
    :param encode_time_dim: Size of the embedding of the time; 0: the time itself (times 100)
    :param modulated: Whether the network is the one with residual blocks, see ``networks``; ``net_arch`` are its widths on the
        way down, and ``activation`` is not used. If not, it is a plain perceptron.
    """

    def build(
        self,
        prediction_horizon: int = 16,
        n_action_steps: int = 8,
        n_obs_steps: int = 2,
        encode_time_dim: int = 64,
        modulated: bool = False,
    ) -> None:
        super().build(prediction_horizon, n_action_steps, n_obs_steps)
        self.make_networks(lambda n_features: self.make_field(n_features, self.chunk_dim, encode_time_dim, modulated))

    @property
    def chunk_dim(self) -> int:
        """Size of a whole chunk, its actions one after the other."""
        return self.prediction_horizon * self.action_dim

    @property
    def noise_dim(self) -> int:
        return self.chunk_dim

    def plan(self, context: th.Tensor, noise: th.Tensor) -> th.Tensor:
        """
        Plan with the current head.

        :param context: What the acting network made of histories
        :param noise: Standard normal, or zero, ``(B, noise_dim)``
        :return: Chunks of actions in [-1, 1], ``(B, chunk_dim)``
        """
        raise NotImplementedError

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
        The next action of the plan. The state holds the plan of each environment. Where ``n_action_steps`` actions are
        executed, or an episode begins, a new plan is made, given the history as it is then. Without the state each call
        begins an episode.

        :param observations: A raw batch
        :param state: As returned by the call before, or None
        :param episode_start: Where an episode begins, ``(n_envs,)``
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
            before = PlanState(*state)
            chunks, frames = ChunkState(before.actions, before.cursor), before.frames
        frames = remember(frames, arrays, new, self.n_obs_steps)
        rows = chunks.used_up(new)
        if rows.any():
            context = self.context(self.acting, self.frames_of(frames, rows))
            plans = self.plan(context, self._noise(len(context), deterministic)[:, 0])
            executed = plans[:, : self.n_action_steps * self.action_dim]
            chunks = chunks.planned(rows, executed.cpu().numpy())
        actions, chunks = chunks.take()
        return actions, PlanState(*chunks, frames)  # type: ignore[return-value]
