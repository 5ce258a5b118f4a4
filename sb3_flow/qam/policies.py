"""The networks and samplers of QAM and its variants."""

import math
from typing import Any, ClassVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import nn
from torch.nn import functional as F

from sb3_flow.common.flow import euler
from sb3_flow.common.networks import MLP
from sb3_flow.common.policies import FlowPolicy, Network
from sb3_flow.common.type_aliases import TensorObs

#: Bounds of the logarithm of the edit's standard deviation.
LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


class QAMPolicy(FlowPolicy):
    """
    A BC flow, its moving average (the base flow), a flow trained by adjoint matching, critics, and the network of a variant:
    a one-step actor distilled from the flow, or a Gaussian edit of its actions.

    Samplers: the default of the variant, ``"edit"``, ``"one_step"`` or ``"flow"``; ``"flow"``; ``"bc_flow"``, the BC policy.

    :param observation_space: Observation space
    :param action_space: Any finite ``Box``
    :param lr_schedule: Learning rate as a function of the remaining progress (from 1 to 0)
    :param n_critics: Number of critics
    :param flow_steps: Euler steps of the flows
    :param one_step: Whether to create a one-step actor
    :param edit_scale: Maximum absolute change of an action by the edit, in [0, 1]; 0: no edit
    :param trust_region: Whether to create the coefficient of the divergence and the divergence's moving average, ``kl_coef``
        and ``kl_average``
    :param kwargs: The other arguments of ``FlowPolicy``
    """

    guided_samplers: ClassVar[tuple[str, ...]] = ("flow", "bc_flow")

    kl_coef: th.Tensor
    kl_average: th.Tensor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        n_critics: int = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, n_critics=n_critics, **kwargs)

    def build(self, flow_steps: int = 10, one_step: bool = False, edit_scale: float = 0.0, trust_region: bool = False) -> None:
        if flow_steps < 1:
            raise ValueError(f"`flow_steps` is {flow_steps}; it must be at least 1.")
        self.flow_steps, self.edit_scale = flow_steps, edit_scale
        self.samplers = {"flow": "act_flow", "bc_flow": "act_bc_flow"}
        self.bc_flow = self.make_velocity()
        self.bc_flow_target = self.make_target(self.bc_flow)
        self.flow = self.make_velocity()
        self.critic = self.make_critic()
        self.critic_target = self.make_target(self.critic)
        if one_step:
            self.actor = self.make_one_step_actor()
            self.samplers = {"one_step": "act_one_step", **self.samplers}
        if edit_scale > 0:
            self.edit = self.make_edit()
            self.log_ent_coef = nn.Parameter(th.zeros(()))
            self.samplers = {"edit": "act_edit", **self.samplers}
        if trust_region:
            self.register_buffer("kl_coef", th.ones(()))
            self.register_buffer("kl_average", th.zeros(()))

    def make_edit(self) -> Network:
        """A Gaussian edit. Its network maps features and an action to means and log standard deviations."""
        dim = self.action_dim

        def make_net(n_features: int) -> nn.Module:
            net = MLP(n_features, dim, 2 * dim, self.net_arch, self.activation)
            for half in net.layers[-1].weight.split(dim):  # type: ignore[operator]
                nn.init.xavier_uniform_(half)  # as two layers, not as one layer of twice the width
            return net

        return self.make_network(make_net)

    @property
    def noise_dim(self) -> int:
        return 2 * self.action_dim if self.sampler == "edit" else self.action_dim

    def act_flow(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """The flow trained by adjoint matching, integrated by Euler's method, then clipped to [-1, 1]."""
        return euler(self.velocity(self.flow, observations), noise, self.flow_steps).clamp(-1, 1)

    def act_bc_flow(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """The BC flow, integrated by Euler's method, then clipped to [-1, 1]."""
        return euler(self.velocity(self.bc_flow, observations), noise, self.flow_steps).clamp(-1, 1)

    def act_one_step(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """``clip(mu(s, z))``, ``(B, action_dim)`` in [-1, 1]."""
        return self.one_step(self.actor, observations, noise).clamp(-1, 1)

    def act_edit(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """
        Sample actions of the flow and edit them.

        :param observations: Batch of observations, not preprocessed
        :param noise: Initial noise of the flow, then noise of the edit, standard normal, ``(B, 2 action_dim)``
        :return: ``(B, action_dim)`` in [-1, 1]
        """
        flow_noise, edit_noise = noise.chunk(2, dim=1)
        return self.edited(observations, self.act_flow(observations, flow_noise), edit_noise)[0]

    def edited(self, observations: TensorObs, actions: th.Tensor, noise: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        Edit actions: ``clip(a + edit_scale e)`` with ``e = tanh(u)``, ``u`` Gaussian given the observation and the action.

        :param observations: Batch of observations, not preprocessed
        :param actions: ``a``, ``(B, action_dim)``
        :param noise: Standard normal noise of ``u``, ``(B, action_dim)``
        :return: The edited actions, and the log density of ``e``, ``(B,)``
        """
        mean, log_std = self.one_step(self.edit, observations, actions).chunk(2, dim=1)
        log_std = log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
        u = mean + log_std.exp() * noise
        # log N(u) - log(1 - tanh(u)^2); the second term in a form without overflow for large u
        log_normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        log_prob = (log_normal - 2 * (math.log(2.0) - u - F.softplus(-2 * u))).sum(dim=1)
        return (actions + self.edit_scale * u.tanh()).clamp(-1, 1), log_prob
