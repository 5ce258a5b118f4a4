"""The policy of streaming flow: its network and its samplers."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_action_dim, is_image_space
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_flow.common.chunks import read_state
from sb3_flow.common.encoders import subspaces
from sb3_flow.common.observation_wrappers import Step
from sb3_flow.common.policies import batch_size
from sb3_flow.common.real_time import RealTimePlanner, condition
from sb3_flow.common.type_aliases import TensorObs
from sb3_flow.imitation.history import as_arrays, length, update_history
from sb3_flow.imitation.history_policy import HistoryPolicy
from sb3_flow.streaming_flow.stream_state import StreamState

#: Coordinates of an observation, in dictionaries by the key of the part.
StartFrom = list[int] | dict[str, list[int]]


class StreamingFlowPolicy(HistoryPolicy):
    """
    A velocity field in the space of actions, whose integral is the sequence of actions.

    Samplers: ``"average"`` (the default: the moving average of the weights) and ``"latest"`` (the current weights).

    :param prediction_horizon: ``H``, number of actions per unit of flow time
    :param n_obs_steps: Number of observations in the history
    :param stochastic: Whether a latent variable chooses between demonstrations
    :param sigma_0: Standard deviation of the initial noise of a sampled plan in the deterministic variant
    :param start_from: Coordinates of the observation that hold the initial position, in the units of actions, one for each
        action dimension: ``[0, 1]``, or for dictionaries ``{"agent_pos": [0, 1]}``. None: an episode starts from the mean of
        the first actions in the data.
    :param encode_time_dim: Size of the embedding of the flow time; 0: the time itself (times 100)
    :param modulated: Whether to use the published network, see ``networks``; then ``net_arch`` has the widths of its downward
        path, and ``activation`` is not used. If False, the network is an MLP.
    """

    guided_samplers: ClassVar[tuple[str, ...]] = ("average", "latest")
    conditions_plans: ClassVar[bool] = False
    #: The mean of the first actions in the data, in [-1, 1], ``(action_dim,)``
    start_action: th.Tensor

    def build(
        self,
        prediction_horizon: int = 16,
        n_obs_steps: int = 2,
        stochastic: bool = False,
        sigma_0: float = 0.2,
        start_from: StartFrom | None = None,
        encode_time_dim: int = 64,
        modulated: bool = False,
    ) -> None:
        super().build(prediction_horizon, n_obs_steps)
        self.sigma_0 = sigma_0
        #: Size of the latent; 0 in the deterministic variant.
        self.latent_dim = self.action_dim if stochastic else 0
        self.start_key, self.start_indices = self._check_start(start_from)
        point_dim = self.action_dim + self.latent_dim
        self.make_networks(lambda n_features: self.make_field(n_features, point_dim, encode_time_dim, modulated))
        #: Size of an encoded history.
        self.context_dim = n_obs_steps * self.flow.features_extractor.features_dim if modulated else self.net_arch[0]
        self.register_buffer("start_action", th.zeros(self.action_dim))

    def _check_start(self, start_from: StartFrom | None) -> tuple[str, list[int] | None]:
        """The key of the part of an observation (empty if it is not a dictionary) and the coordinates."""
        if start_from is None:
            return "", None
        entries = list(start_from.items() if isinstance(start_from, dict) else [("", start_from)])
        key, indices = entries[0] if len(entries) == 1 else ("", [])
        part = subspaces(self.observation_space).get(key)
        if len(entries) != 1 or not isinstance(part, spaces.Box) or is_image_space(part):
            raise ValueError(
                f"`start_from` is {start_from}; it must name coordinates of one vector in {self.observation_space}: a list of "
                "indices, or for dictionaries of observations {key: indices}."
            )
        size = int(np.prod(part.shape))
        whole = isinstance(indices, list | tuple) and all(isinstance(i, int | np.integer) and 0 <= i < size for i in indices)
        if not whole or len(indices) != get_action_dim(self.action_space):
            raise ValueError(
                f"`start_from` is {start_from}; expected {get_action_dim(self.action_space)} indices from 0 to {size - 1}, "
                "one for each action dimension."
            )
        return key, list(indices)

    def start(self, observations: TensorObs) -> th.Tensor:
        """
        Initial points of episodes, in place of a previous action.

        :param observations: First observations, a raw batch
        :return: Actions in [-1, 1], ``(B, action_dim)``
        """
        if self.start_indices is None:
            return self.start_action.expand(batch_size(observations), -1)
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
        Initial points of plans. In the stochastic variant: the last actions, with the noise as latents. In the deterministic
        variant: the last actions plus noise.

        :param starts: The last actions, ``(B, action_dim)``
        :param noise: Standard normal, or zero, ``(B, action_dim)``
        :return: Actions and latents
        """
        if self.latent_dim:
            return starts, noise
        return starts + self.sigma_0 * noise, noise[:, :0]

    def step(self, context: th.Tensor, points: th.Tensor, cursor: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        The next actions, by one Euler step, which is one evaluation of the network.

        :param context: As returned by ``context``
        :param points: Last actions, followed by latents, ``(B, D)``
        :param cursor: Number of executed actions of the plan, ``(B, 1)``
        :return: Actions, clipped to [-1, 1], and latents
        """
        t = cursor.to(points.dtype) / self.prediction_horizon
        points = points + self.field(self.acting, context)(points, t) / self.prediction_horizon
        return points[:, : self.action_dim].clamp(-1.0, 1.0), points[:, self.action_dim :]

    def act(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """
        The first action of an episode.

        :param observations: A raw batch
        :param noise: Noise of the start or the latent, ``(B, action_dim)``
        :return: Actions in [-1, 1], ``(B, action_dim)``
        """
        frames = self.first_frames(observations)
        points = th.cat(self.begin(self.start(observations), noise), dim=1)
        return self.step(self.context(self.acting, frames), points, th.zeros_like(points[:, :1]))[0]

    def plan_actions(
        self, observations: TensorObs, noise: th.Tensor, last_actions: th.Tensor, episode_start: th.Tensor
    ) -> th.Tensor:
        """All actions of a plan. ``predict`` computes them one by one; the results are equal."""
        context = self.context(self.acting, observations)
        starts = th.where(episode_start[:, None], self.start(self.latest_frames(observations)), last_actions)
        return th.stack(list(self.stream(context, *self.begin(starts, noise[:, 0]))), dim=1)

    def stream(self, context: th.Tensor, actions: th.Tensor, latents: th.Tensor, first: int = 0) -> Iterator[th.Tensor]:
        """
        The actions of a plan, one after the other. Those of ``known_actions`` whose weight is 1 replace the computed ones.

        :param context: As returned by ``context``
        :param actions: The last actions, ``(B, action_dim)``
        :param latents: The latents, ``(B, latent_dim)``
        :param first: Number of actions of the plan that have been executed
        :return: ``n_action_steps - first`` times ``(B, action_dim)``
        """
        for cursor in range(first, self.n_action_steps):
            points = th.cat([actions, latents], dim=1)
            actions, latents = self.step(context, points, actions.new_full((actions.shape[0], 1), cursor))
            if self.known_actions is not None:
                known, weights = (part.view(1, -1, self.action_dim)[:, cursor] for part in self.known_actions)
                actions = th.where(weights == 1, known, actions)
            yield actions

    def decide(
        self,
        observations: TensorObs,
        state: tuple[np.ndarray, ...] | None,
        episode_start: np.ndarray | None,
        deterministic: bool,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        The next action, after one integration step. The state holds the plan of each environment. Every ``n_action_steps``
        calls a new plan starts at the last action, with the current history. Without the state each call starts an episode.

        :param observations: A raw batch
        :param state: State of the previous call, or None
        :param episode_start: Whether an episode starts, ``(n_envs,)``
        :param deterministic: Whether plans start exactly at the last action, with the latent ``z = 0``. If False, they start
            with noise, or with a random latent.
        :return: Actions in [-1, 1], and the new state
        """
        arrays = as_arrays(observations)
        n_envs = length(arrays)
        new = np.zeros(n_envs, bool) if episode_start is None else np.array(episode_start, bool)
        if state is None:
            new[:] = True
            frames = update_history(None, arrays, new, self.n_obs_steps)
            stream = StreamState.blank(n_envs, self.action_dim, self.latent_dim, self.context_dim, frames)
        else:
            stream = read_state(StreamState, state, (self.action_dim,))
            stream = stream._replace(frames=update_history(stream.frames, arrays, new, self.n_obs_steps))
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
        """Start new plans for some environments: encode the history and draw the noise."""
        if not rows.any():
            return stream
        context = self.context(self.acting, self.frames_of(stream.frames, rows))
        starts = th.as_tensor(stream.actions[rows], device=self.device)
        actions, latents = self.begin(starts, self._noise(len(starts), deterministic)[:, 0])
        return stream.replaced(
            rows, actions=actions.cpu().numpy(), latents=latents.cpu().numpy(), cursor=0, context=context.cpu().numpy()
        )

    def planner(self, space: spaces.Space[Any] | None = None, steps: Sequence[Step] = ()) -> RealTimePlanner:
        return StreamingPlanner(self, space, steps)


class StreamingPlanner(RealTimePlanner):
    """A streaming policy as the planner of a ``ControlLoop``: each action can be executed after its integration step."""

    @th.no_grad()
    def plan(
        self, history: list[Any], previous: np.ndarray | None, known: np.ndarray, weights: np.ndarray, deterministic: bool
    ) -> Iterator[np.ndarray]:
        """
        As for ``ControlLoop``. Actions of weight 1 are returned as they are. Without latents, the integration starts at the
        last one of these; with latents, it starts at the last executed action, to integrate the latents.
        """
        policy, frames = self.policy, self.inputs(history)
        context = policy.context(policy.acting, frames)
        start = policy.start(policy.latest_frames(frames)) if previous is None else self.scaled(previous[None])[0]
        actions, latents = policy.begin(start, policy._noise(1, deterministic)[:, 0])
        policy.known_actions, first = None, 0
        if weights.any():
            condition(policy, self.scaled(known), th.as_tensor(weights[None], device=policy.device))
            first = 0 if policy.latent_dim else int((weights == 1).sum())
        for action in known[:first]:
            actions = self.scaled(action[None])[0]
            yield action
        for computed in policy.stream(context, actions, latents, first):
            yield self.unscaled(computed)[0]


def _rows(observations: PyTorchObs, rows: np.ndarray) -> Any:
    chosen = th.as_tensor(rows)
    if isinstance(observations, dict):
        return {key: part[chosen.to(part.device)] for key, part in observations.items()}
    return observations[chosen.to(observations.device)]
