"""The networks of SWFP, and its samplers."""

import math
from collections.abc import Sequence

import torch as th
from torch import nn

from sb3_flow.common.flow import euler
from sb3_flow.common.policies import FlowPolicy, Network
from sb3_flow.common.type_aliases import TensorObs
from sb3_flow.swfp.blocks import Blocks, Chain

#: Initial value of ``eta``, high so that displacements approach the radius from below, and its upper bound.
ETA_START, ETA_MAX = 100.0, 1e4


class SWFPPolicy(FlowPolicy):
    """
    A BC flow (the base), a cascade of small blocks after it, and critics with their targets.

    Samplers: ``"cascade"`` (the default: base and blocks) and ``"base"`` (the base only; before the first absorption, the BC
    policy).

    :param observation_space: Observation space
    :param action_space: Any finite ``Box``
    :param lr_schedule: Learning rate as a function of the remaining progress (from 1 to 0)
    :param flow_steps: Euler steps of the base
    :param encode_time_dim: Size of the embedding of the flow's time; 0: the time itself
    :param n_blocks: Number of blocks
    :param block_arch: Widths of the hidden layers of a block
    :param heat: Whether to add noise after each block, with variance ``entropy_coef / eta``
    :param entropy_coef: Weight of the entropy, used here by ``heat`` only
    :param kwargs: The other arguments of ``FlowPolicy``
    """

    #: Logarithm of the weight of each block's squared displacement, ``(N,)``.
    log_eta: th.Tensor
    #: Running sum of the energy scale, and of its weights, ``(2,)``.
    energy_statistics: th.Tensor

    def build(
        self,
        flow_steps: int = 10,
        encode_time_dim: int = 0,
        n_blocks: int = 4,
        block_arch: Sequence[int] = (256, 256),
        heat: bool = False,
        entropy_coef: float = 0.0,
    ) -> None:
        for name, value in (("flow_steps", flow_steps), ("n_blocks", n_blocks)):
            if value < 1:
                raise ValueError(f"`{name}` is {value}; it must be at least 1.")
        self.flow_steps, self.n_blocks, self.heat, self.entropy_coef = flow_steps, n_blocks, heat, entropy_coef
        self.samplers = {"cascade": "act_cascade", "base": "act_base"}
        self.bc_flow = self.make_velocity(encode_time_dim)
        self.base = self.make_target(self.bc_flow)
        # The blocks use the features of the base, without gradient.
        self.blocks = Blocks(n_blocks, self.base.features_extractor.features_dim, self.action_dim, block_arch)
        self.critic = self.make_critic()
        self.critic_target = self.make_target(self.critic)
        self.register_buffer("log_eta", th.full((n_blocks,), math.log(ETA_START)))
        self.register_buffer("energy_statistics", th.zeros(2))

    def make_optimizers(self, lr: float) -> None:
        """Separate optimizers for critics, BC flow and blocks, because the stages train different networks."""
        self.optimizer = self.make_optimizer(self.critic.parameters(), lr)
        self.flow_optimizer = self.make_optimizer(self.bc_flow.parameters(), lr)
        self.block_optimizer = self.make_optimizer(self.blocks.parameters(), lr)

    @property
    def optimizers(self) -> list[th.optim.Optimizer]:
        return [self.optimizer, self.flow_optimizer, self.block_optimizer]

    @property
    def noise_dim(self) -> int:
        return self.chain_dim if self.sampler == "cascade" else self.action_dim

    @property
    def chain_dim(self) -> int:
        """Size of the cascade's noise."""
        return (1 + self.n_blocks if self.heat else 1) * self.action_dim

    def flow_to(self, flow: Network, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """
        Integrate a flow by Euler's method.

        :param flow: ``base`` or ``bc_flow``
        :param observations: A raw batch
        :param noise: Standard normal, ``(B, action_dim)``
        :return: Actions, not clipped, ``(B, action_dim)``
        """
        return euler(self.velocity(flow, observations), noise, self.flow_steps)

    def act_base(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """The base, integrated from noise by Euler's method and clipped to [-1, 1]."""
        return self.flow_to(self.base, observations, noise).clamp(-1, 1)

    def act_cascade(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """The base followed by all blocks, clipped to [-1, 1]."""
        return self.chain(observations, noise).actions.clamp(-1, 1)

    def chain(self, observations: TensorObs, noise: th.Tensor) -> Chain:
        """
        Actions of the base, clipped to [-1, 1], and their displacements by the blocks.

        :param observations: A raw batch
        :param noise: Standard normal, ``(B, chain_dim)``
        :return: The actions before and after each block
        """
        start, *warmth = noise.split(self.action_dim, dim=1)  # type: ignore[no-untyped-call]
        added: list[th.Tensor | float] = [0.0] * self.n_blocks
        if warmth:
            spread = (self.entropy_coef / self.log_eta.exp()).sqrt()  # sqrt(2 beta h) with h = 1 / (2 eta)
            added = [spread[n] * one for n, one in enumerate(warmth)]
        actions = self.act_base(observations, start)
        return self.blocks.cascade(self.features(self.base, observations), actions, added)

    def energies(self, observations: TensorObs, actions: th.Tensor) -> th.Tensor:
        """
        Mean of the critics for clipped actions. Gradient: actions only.

        :param observations: A raw batch of ``B``
        :param actions: ``(..., B, action_dim)``, any number for each observation
        :return: ``(..., B)``
        """
        with th.no_grad():
            features = self.features(self.critic, observations)
        features = features.expand(*actions.shape[:-1], -1)
        inputs = th.cat([features, actions.clamp(-1, 1)], dim=-1).flatten(end_dim=-2)
        qs: th.Tensor = self.critic.net(inputs, frozen=True)
        return qs.mean(dim=0).view(actions.shape[:-1])

    @property
    def energy_scale(self) -> th.Tensor:
        """``c_Q``: standard deviation of the critics within 0.2 of the policy's actions, the unit of energies."""
        total, weight = self.energy_statistics
        return (total / weight.clamp(min=1e-8)).clamp(min=1e-3)  # type: ignore[no-any-return]

    def absorb(self) -> None:
        """Replace the base by the BC flow, which has learned to act as base and blocks, and reset the blocks."""
        self.base.load_state_dict(self.bc_flow.state_dict())
        self.blocks.make_identity()
        for parameter in self.blocks.parameters():
            for moment in self.block_optimizer.state.get(parameter, {}).values():
                nn.init.zeros_(moment)
        self.log_eta.fill_(math.log(ETA_START))
