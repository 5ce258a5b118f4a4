"""Fine-tuning of a whole BC flow by backpropagation of the critics through all flow steps. A baseline for SWFP."""

from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.policies import BasePolicy

from sb3_flow.common.flow_algorithm import total
from sb3_flow.common.policies import aliases
from sb3_flow.common.type_aliases import Batch, Metrics, TensorObs
from sb3_flow.swfp.policies import SWFPPolicy
from sb3_flow.swfp.swfp import SWFP, SWFPNoise


class WholeFlowPolicy(SWFPPolicy):
    """
    A BC flow that is fine-tuned, its reference flow (the base), and critics. Samplers: ``"flow"`` and ``"base"``.

    :param kwargs: As for ``SWFPPolicy``; the policy has one block, which is never trained
    """

    def build(self, flow_steps: int = 10, encode_time_dim: int = 0, **kwargs: Any) -> None:  # type: ignore[override]
        super().build(flow_steps, encode_time_dim, n_blocks=1, block_arch=[1])
        self.samplers = {"flow": "act_cascade", "base": "act_base"}

    def act_cascade(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """The flow, integrated from noise by Euler's method and clipped to [-1, 1]."""
        return self.flow_to(self.bc_flow, observations, noise).clamp(-1, 1)


class WholeFlow(SWFP):
    """
    Fine-tuning of the BC flow by gradients through all of its Euler steps, within a trust region as wide as that of all blocks
    of an SWFP together::

        L = E[-Q(s, clip(b)) / c + eta |b - a|^2 + lambda |b - clip(b)|^2]

    ``a`` is the action of the base and ``b`` that of the flow, from the same noise. There is no entropy term: it would need
    the determinant of the whole flow. Every ``absorb_interval`` updates the flow is copied to the base. Everything else is as
    in SWFP.

    :param args: As for ``SWFP``
    :param kwargs: As for ``SWFP``
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = aliases(WholeFlowPolicy)
    policy: WholeFlowPolicy

    def whole_loss(self, batch: Batch, noise: SWFPNoise, start: th.Tensor) -> tuple[th.Tensor, Metrics]:
        """
        ``L``, see above. Gradient: flow only.

        :param batch: A batch
        :param noise: As drawn by ``draw_noise``
        :param start: ``a``, ``(B, action_dim)``, without gradient
        :return: The loss, and metrics to log
        """
        policy = self.policy
        end = policy.flow_to(policy.bc_flow, batch.observations, noise.z)
        square = (end - start).square().sum(dim=-1)
        outside = (end - end.clamp(-1, 1)).square().sum(dim=-1)
        energy = -policy.energies(batch.observations, end) / policy.energy_scale
        loss = (energy + policy.log_eta.exp() * square + self.box_coef * outside).mean()
        displacement = (square.detach().mean() / policy.action_dim).sqrt()
        return loss, {"whole_loss": loss, "energy": energy.mean(), "displacement": displacement}

    def loss(self, batch: Batch, noise: SWFPNoise) -> tuple[th.Tensor, Metrics]:
        """The sum of all losses. ``update`` minimizes those of its stage, one after the other."""
        with th.no_grad():
            start = self.policy.flow_to(self.policy.base, batch.observations, noise.z)
        return total(self.bc_flow_loss(batch, noise), self.critic_loss(batch, noise), self.whole_loss(batch, noise, start))

    def _improve(self, batch: Batch, noise: SWFPNoise) -> Metrics:
        policy = self.policy
        with th.no_grad():
            start = policy.flow_to(policy.base, batch.observations, noise.z)
            self.measure_energy(batch, noise, start)
        metrics = self.descend(self.whole_loss, policy.flow_optimizer, batch, noise, start)
        self.adapt_eta(metrics["displacement"].square().unsqueeze(0), reach=self.n_blocks)
        self.n_block_updates += 1
        if self.n_block_updates == self.absorb_interval:
            policy.absorb()
            self.n_block_updates = 0
        return metrics | {"eta": policy.log_eta.exp().mean(), "energy_scale": policy.energy_scale}
