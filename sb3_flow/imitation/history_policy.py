"""Base class of policies that act on a history of observations, with a moving average of their weights."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch as th
from torch import nn

from sb3_flow.common.networks import VelocityMLP
from sb3_flow.common.policies import FlowPolicy, Network
from sb3_flow.common.type_aliases import TensorObs, Velocity
from sb3_flow.imitation.history import Arrays
from sb3_flow.imitation.networks import ModulatedMLP

#: Factor of the flow time before its embedding, so that the sines and cosines of times in [0, 1] differ.
TIME_SCALE = 100.0


class HistoryPolicy(FlowPolicy):
    """
    Base class of imitation policies: a network on a history of observations, and a copy with the moving average of its
    weights, which acts.

    Samplers: ``"average"`` (the default) and ``"latest"`` (the current weights). A subclass creates the networks by
    ``make_networks``.

    :param prediction_horizon: ``H``, number of predicted actions
    :param n_obs_steps: Number of observations in the history
    """

    #: Number of updates in the moving average so far, a scalar
    n_averaged: th.Tensor
    flow: Network
    average: Network
    without_effect: ClassVar[tuple[str, ...]] = ("critic_layer_norm", "n_critics")

    def build(self, prediction_horizon: int = 16, n_obs_steps: int = 2) -> None:
        for name, value in (("horizon_length", prediction_horizon), ("n_obs_steps", n_obs_steps)):
            if value < 1:
                raise ValueError(f"`{name}` is {value}; it must be at least 1.")
        for name, value in (("horizon_length", self.horizon_length), ("best_of_n", self.best_of_n)):
            if value != 1:
                raise ValueError(
                    f"`{name}` in `policy_kwargs` is {value}; imitation policies do not have it. Set the number of predicted "
                    "actions by the algorithm's argument `horizon_length`."
                )
        self.prediction_horizon, self.n_obs_steps = prediction_horizon, n_obs_steps
        self.samplers = {"average": "average", "latest": "flow"}

    def make_networks(self, make_net: Callable[[int], nn.Module]) -> None:
        """
        Create the network and its moving average.

        :param make_net: From the number of features of a history to the network
        """
        self.flow = self.make_network(lambda n_features: make_net(n_features * self.n_obs_steps))
        self.average = self.make_target(self.flow)
        self.register_buffer("n_averaged", th.zeros(()))

    def make_field(self, n_features: int, dim: int, encode_time_dim: int, modulated: bool) -> nn.Module:
        """
        Create a velocity field, or another network with the same interface.

        :param n_features: Number of features of a history
        :param dim: Size of the points
        :param encode_time_dim: Size of the embedding of the time; 0: the time itself (times 100)
        :param modulated: Whether to use the published network, see ``networks``
        :return: The network
        """
        if modulated:
            return ModulatedMLP(n_features, dim, self.net_arch, encode_time_dim)
        return VelocityMLP(n_features, dim, self.net_arch, self.activation, encode_time_dim)

    @property
    def acting(self) -> Network:
        """The network of the current sampler."""
        return getattr(self, self.samplers[self.sampler])  # type: ignore[no-any-return]

    def context(self, network: Network, frames: TensorObs) -> th.Tensor:
        """
        Encode histories; the result serves for all integration steps.

        :param network: ``flow`` or ``average``
        :param frames: Observations, ``(B * n_obs_steps, *shape)``; rows of one history are adjacent, oldest first
        :return: ``(B, width)``
        """
        features = self.features(network, frames)
        return network.net.context(features.reshape(-1, self.n_obs_steps * features.shape[-1]))  # type: ignore[operator,no-any-return]

    def field(self, network: Network, context: th.Tensor) -> Velocity:
        """
        The velocity field conditioned on histories.

        :param network: ``flow`` or ``average``
        :param context: As returned by ``context``
        :return: ``(points, t) -> velocities``, of shapes ``(B, D), (B, 1) -> (B, D)``
        """
        return lambda points, t: network.net(context, points, TIME_SCALE * t)

    # Histories.

    def first_frames(self, observations: TensorObs) -> TensorObs:
        """Histories at the start of episodes: copies of each observation, ``(B * n_obs_steps, *shape)``."""
        repeat = partial(th.repeat_interleave, repeats=self.n_obs_steps, dim=0)
        if isinstance(observations, dict):
            return {key: repeat(part) for key, part in observations.items()}
        return repeat(observations)

    def latest_frames(self, frames: TensorObs) -> TensorObs:
        """The latest observation of each history, ``(B * n_obs_steps, *shape) -> (B, *shape)``."""
        if isinstance(frames, dict):
            return {key: part[self.n_obs_steps - 1 :: self.n_obs_steps] for key, part in frames.items()}
        return frames[self.n_obs_steps - 1 :: self.n_obs_steps]

    def frames_of(self, histories: Arrays, rows: Any) -> TensorObs:
        """
        Convert histories to the format of ``context``.

        :param histories: ``(n_envs, n_obs_steps, *shape)`` or a dictionary of these
        :param rows: Which environments
        :return: ``(B * n_obs_steps, *shape)``
        """
        if isinstance(histories, dict):
            return {key: self._flat(part[rows]) for key, part in histories.items()}
        return self._flat(histories[rows])

    def _flat(self, histories: Any) -> th.Tensor:
        return th.as_tensor(histories, device=self.device).flatten(end_dim=1)
