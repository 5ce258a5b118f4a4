"""The networks of Decision Flow, and its samplers."""

from typing import ClassVar

import torch as th

from sb3_flow.common.flow import euler
from sb3_flow.common.networks import sinusoid
from sb3_flow.common.policies import FlowPolicy, Network
from sb3_flow.common.renamed import renamed_arguments
from sb3_flow.common.type_aliases import TensorObs


class DecisionFlowPolicy(FlowPolicy):
    """
    A flow, critics with their targets, and flow critics, which evaluate intermediate actions; optionally a BC flow, targets of
    the flow critics, and a state value.

    Samplers: ``"flow"`` (the default) and, if there is a BC flow, ``"bc_flow"``.

    :param flow_steps: Euler steps of the flows, which are the steps of the inner decision process
    :param with_bc_flow: Whether there is a BC flow
    :param flow_critic_target: Whether the flow critics have targets
    :param state_value: Whether there is a state value
    :param encode_time_dim: Size of the embedding of the inner time; 0: the time itself
    """

    guided_samplers: ClassVar[tuple[str, ...]] = ("flow", "bc_flow")

    #: Running mean of one over the mean of ``|Q|``; 0 before the first update.
    inverse_scale: th.Tensor

    @renamed_arguments(clone="with_bc_flow")
    def build(
        self,
        flow_steps: int = 10,
        with_bc_flow: bool = False,
        flow_critic_target: bool = False,
        state_value: bool = False,
        encode_time_dim: int = 64,
    ) -> None:
        if flow_steps < 1:
            raise ValueError(f"`flow_steps` is {flow_steps}; it must be at least 1.")
        self.flow_steps, self.encode_time_dim = flow_steps, encode_time_dim
        self.samplers = {"flow": "act_flow"}
        self.flow = self.make_velocity(encode_time_dim)
        if with_bc_flow:
            self.bc_flow = self.make_velocity(encode_time_dim)
            self.samplers["bc_flow"] = "act_bc_flow"
        self.critic = self.make_critic()
        self.critic_target = self.make_target(self.critic)
        self.flow_critic = self.make_values(self.action_dim + (encode_time_dim or 1), self.n_critics)
        if flow_critic_target:
            self.flow_critic_target = self.make_target(self.flow_critic)
        if state_value:
            self.state_value = self.make_values(0, 1)
        self.register_buffer("inverse_scale", th.zeros(()))

    def flow_values(
        self, network: Network, observations: TensorObs, x: th.Tensor, t: th.Tensor, frozen: bool = False
    ) -> th.Tensor:
        """
        ``V(s, x, t)``, the value of intermediate actions. Not defined for ``t = 1``, where the critics are used.

        :param network: The flow critics, or their targets
        :param observations: A raw batch
        :param x: Intermediate actions, ``(B, action_dim)``
        :param t: Times in [0, 1), ``(B, 1)``
        :param frozen: Whether gradients flow to ``x`` only, not to the flow critics
        :return: ``(n_critics, B)``
        """
        if self.encode_time_dim:
            t = sinusoid(t, self.encode_time_dim, intervals=self.encode_time_dim // 2 - 1)
        return self.q_values(network, observations, th.cat([x, t], dim=1), frozen)

    def state_values(self, observations: TensorObs) -> th.Tensor:
        """``V(s)``, ``(B,)``."""
        return self.state_value.net(self.features(self.state_value, observations))[0]  # type: ignore[no-any-return]

    def act_flow(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """The flow, integrated from noise by Euler's method and clipped to [-1, 1]."""
        return euler(self.velocity(self.flow, observations), noise, self.flow_steps).clamp(-1, 1)

    def act_bc_flow(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """The BC flow, integrated from noise by Euler's method and clipped to [-1, 1]."""
        return euler(self.velocity(self.bc_flow, observations), noise, self.flow_steps).clamp(-1, 1)
