"""The network of a streaming flow policy, and how it streams."""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_action_dim, is_image_space
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_flow.common.encoders import subspaces
from sb3_flow.common.type_aliases import TensorObs
from sb3_flow.imitation.history import as_arrays, length, remember
from sb3_flow.imitation.history_policy import HistoryPolicy
from sb3_flow.streaming_flow.stream_state import StreamState

#: Where a plan starts from in an observation: numbers of its coordinates, under the key of a dictionary's part.
StartFrom = list[int] | dict[str, list[int]]


class StreamingFlowPolicy(HistoryPolicy):
    """
    One velocity field in the space of actions, whose integral is the sequence of actions.

    Heads: ``"average"`` (the moving average of the field's weights: what acts) and ``"latest"`` (the weights themselves).

    :param prediction_horizon: ``H``, number of actions that one unit of flow time stands for
    :param n_action_steps: How many of them are executed before the next plan, at most ``prediction_horizon``
    :param n_obs_steps: How many observations the history has
    :param stochastic: Whether a latent chooses between demonstrations
    :param sigma_0: Standard deviation of the noise that a sampled plan of the deterministic variant starts with
    :param start_from: Coordinates of the observation that hold the position which the first action moves away from, in the
        units of actions, one for each action coordinate: ``[0, 1]``, of a dictionary ``{"agent_pos": [0, 1]}``. None: an
        episode starts from the mean of the first actions in the data.
    :param encode_time_dim: Size of the embedding of the flow time; 0: the time itself (times 100)
    :param modulated: Whether the network is the published one, see ``networks``; ``net_arch`` are its widths on the way down,
        and ``activation`` is not used. If not, it is a plain perceptron.
    """

    #: The mean of the first actions in the data, in [-1, 1], ``(action_dim,)``
    start_action: th.Tensor

    def build(
        self,
        prediction_horizon: int = 16,
        n_action_steps: int = 8,
        n_obs_steps: int = 2,
        stochastic: bool = False,
        sigma_0: float = 0.2,
        start_from: StartFrom | None = None,
        encode_time_dim: int = 64,
        modulated: bool = False,
    ) -> None:
        super().build(prediction_horizon, n_action_steps, n_obs_steps)
        self.sigma_0 = sigma_0
        #: Size of the latent; 0 in the deterministic variant.
        self.latent_dim = self.action_dim if stochastic else 0
        self.start_key, self.start_indices = self._check_start(start_from)
        point_dim = self.action_dim + self.latent_dim
        self.make_networks(lambda n_features: self.make_field(n_features, point_dim, encode_time_dim, modulated))
        #: Size of what the network makes of a history.
        self.context_dim = n_obs_steps * self.flow.features_extractor.features_dim if modulated else self.net_arch[0]
        self.register_buffer("start_action", th.zeros(self.action_dim))

    def _check_start(self, start_from: StartFrom | None) -> tuple[str, list[int] | None]:
        """The key of the part of an observation, which is empty where there are no parts, and the coordinates."""
        if start_from is None:
            return "", None
        key, indices = next(iter(start_from.items())) if isinstance(start_from, dict) else ("", start_from)
        part = subspaces(self.observation_space).get(key)
        if not isinstance(part, spaces.Box) or is_image_space(part):
            raise ValueError(
                f"`start_from` is {start_from}, which names no vector of the observations {self.observation_space}. Give the "
                "numbers of its coordinates, in a dictionary under the key of the part."
            )
        size = int(np.prod(part.shape))
        if len(indices) != get_action_dim(self.action_space) or not all(0 <= i < size for i in indices):
            raise ValueError(
                f"`start_from` is {start_from}; expected {get_action_dim(self.action_space)} numbers from 0 to {size - 1}, "
                "one for each coordinate of an action."
            )
        return key, list(indices)

    def start(self, observations: TensorObs) -> th.Tensor:
        """
        Where an episode starts from: what counts as the action before the first one.

        :param observations: Its first observations, a raw batch
        :return: In [-1, 1], ``(B, action_dim)``
        """
        if self.start_indices is None:
            n = len(next(iter(observations.values())) if isinstance(observations, dict) else observations)
            return self.start_action.expand(n, -1)
        part = observations[self.start_key] if isinstance(observations, dict) else observations
        values = part.flatten(start_dim=1)[:, self.start_indices].double()
        low, high = (
            th.as_tensor(bound.astype(np.float64).reshape(-1), device=values.device)
            for bound in (self.action_space.low, self.action_space.high)
        )
        return (2.0 * (values - low) / (high - low) - 1.0).clamp(-1.0, 1.0).to(self.start_action.dtype)

    # Streaming.

    def begin(self, starts: th.Tensor, noise: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        Where plans begin: exactly at the last action with the noise as latent, or, without latents, beside it.

        :param starts: The last actions, ``(B, action_dim)``
        :param noise: Standard normal, or zero, ``(B, action_dim)``
        :return: Actions and latents
        """
        if self.latent_dim:
            return starts, noise
        return starts + self.sigma_0 * noise, noise[:, :0]

    def step(self, context: th.Tensor, points: th.Tensor, cursor: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        The next actions, by one step of Euler's method, which is one evaluation of the network.

        :param context: As made by ``context``
        :param points: Last actions, with latents behind them, ``(B, D)``
        :param cursor: How many actions of its plan each has executed, ``(B, 1)``
        :return: Actions, clipped to [-1, 1], and latents
        """
        t = cursor.to(points.dtype) / self.prediction_horizon
        points = points + self.field(self.acting, context)(points, t) / self.prediction_horizon
        return points[:, : self.action_dim].clamp(-1.0, 1.0), points[:, self.action_dim :]

    def act(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """
        The first action of an episode.

        :param observations: A raw batch
        :param noise: Of the start or the latent, ``(B, action_dim)``
        :return: Actions in [-1, 1], ``(B, action_dim)``
        """
        frames = self.first_frames(observations)
        points = th.cat(self.begin(self.start(observations), noise), dim=1)
        return self.step(self.context(self.acting, frames), points, th.zeros_like(points[:, :1]))[0]

    def decide(
        self,
        observations: TensorObs,
        state: tuple[np.ndarray, ...] | None,
        episode_start: np.ndarray | None,
        deterministic: bool,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        The next action, after one integration step. The state holds where each environment is in its plan. Every
        ``n_action_steps`` calls a new plan begins, at the last action and with the history as it is then. Without the state
        each call begins an episode.

        :param observations: A raw batch
        :param state: As returned by the call before, or None
        :param episode_start: Where an episode begins, ``(n_envs,)``
        :param deterministic: Whether plans begin exactly at the last action, and with the latent ``z = 0``. If not, they begin
            beside it, or with a random latent.
        :return: Actions in [-1, 1], and the new state
        """
        arrays = as_arrays(observations)
        n_envs = length(arrays)
        new = np.zeros(n_envs, bool) if episode_start is None else np.array(episode_start, bool)
        if state is None:
            new[:] = True
            frames = remember(None, arrays, new, self.n_obs_steps)
            stream = StreamState.blank(n_envs, self.action_dim, self.latent_dim, self.context_dim, frames)
        else:
            stream = StreamState(*state)
            stream = stream._replace(frames=remember(stream.frames, arrays, new, self.n_obs_steps))
        if new.any():
            stream = stream.replaced(new, actions=self.start(_rows(observations, new)).cpu().numpy())
        stream = self._plan(stream, new | (stream.cursor >= self.n_action_steps), deterministic)
        points, context, cursor = (
            th.as_tensor(part, device=self.device)
            for part in (np.hstack([stream.actions, stream.latents]), stream.context, stream.cursor[:, None])
        )
        actions, latents = (part.cpu().numpy() for part in self.step(context, points, cursor))
        stream = stream._replace(actions=actions, latents=latents, cursor=stream.cursor + 1)
        assert self.action_space.shape is not None
        return actions.reshape(n_envs, *self.action_space.shape), stream  # type: ignore[return-value]

    def _plan(self, stream: StreamState, rows: np.ndarray, deterministic: bool) -> StreamState:
        """Begin new plans where they are due: encode the history, draw the noise."""
        if not rows.any():
            return stream
        context = self.context(self.acting, self.frames_of(stream.frames, rows))
        starts = th.as_tensor(stream.actions[rows], device=self.device)
        actions, latents = self.begin(starts, self._noise(len(starts), deterministic)[:, 0])
        return stream.replaced(
            rows, actions=actions.cpu().numpy(), latents=latents.cpu().numpy(), cursor=0, context=context.cpu().numpy()
        )


def _rows(observations: PyTorchObs, rows: np.ndarray) -> Any:
    chosen = th.as_tensor(rows)
    if isinstance(observations, dict):
        return {key: part[chosen.to(part.device)] for key, part in observations.items()}
    return observations[chosen.to(observations.device)]
