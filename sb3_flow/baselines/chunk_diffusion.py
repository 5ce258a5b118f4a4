"""Diffusion policy: chunks of actions by denoising diffusion. A baseline for StreamingFlow."""

from typing import Any, ClassVar, NamedTuple

import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch.nn import functional as F

from sb3_flow.baselines.chunk_policies import ChunkPolicy
from sb3_flow.baselines.diffusion import cosine_schedule, ddim, ddpm, noisy
from sb3_flow.common.policies import Network, aliases
from sb3_flow.common.type_aliases import Batch, Metrics
from sb3_flow.imitation.imitation import Imitation


class ChunkDiffusionPolicy(ChunkPolicy):
    """
    A network that predicts the noise in chunks.

    Samplers, both with the moving average of the weights: ``"ddpm"`` (ancestral sampling on all noise levels) and ``"ddim"``
    (deterministic sampling on some of the levels).

    :param diffusion_steps: ``T``, number of noise levels
    :param ddim_steps: Number of levels that ``"ddim"`` uses
    :param encode_time_dim: As for ``ChunkPolicy``
    :param modulated: As for ``ChunkPolicy``
    :param kwargs: As for ``ChunkPolicy``
    """

    #: The schedule, ``(diffusion_steps,)``
    shares: th.Tensor

    def build(  # type: ignore[override]
        self,
        diffusion_steps: int = 100,
        ddim_steps: int = 10,
        encode_time_dim: int = 64,
        modulated: bool = False,
        **kwargs: Any,
    ) -> None:
        if diffusion_steps < 1:
            raise ValueError(f"`diffusion_steps` is {diffusion_steps}; it must be at least 1.")
        if not 1 <= ddim_steps <= diffusion_steps:
            raise ValueError(f"`ddim_steps` is {ddim_steps}; it must be from 1 to `diffusion_steps`, {diffusion_steps}.")
        super().build(encode_time_dim=encode_time_dim, modulated=modulated, **kwargs)
        self.diffusion_steps, self.ddim_steps = diffusion_steps, ddim_steps
        self.samplers = {"ddpm": "plan_ddpm", "ddim": "plan_ddim"}
        self.register_buffer("shares", th.tensor(cosine_schedule(diffusion_steps)), persistent=False)

    @property
    def acting(self) -> Network:
        """The moving average, for both samplers."""
        return self.average

    @property
    def noise_dim(self) -> int:
        """DDPM draws noise at each level."""
        return self.chunk_dim * (self.diffusion_steps if self.sampler == "ddpm" else 1)

    def noise_in(self, network: Network, context: th.Tensor, chunks: th.Tensor, levels: th.Tensor) -> th.Tensor:
        """
        Predict the noise in chunks.

        :param network: ``flow`` or ``average``
        :param context: As returned by ``context``
        :param chunks: Noisy chunks, ``(B, chunk_dim)``
        :param levels: ``(B, 1)``, from 0 to ``diffusion_steps - 1``
        :return: ``(B, chunk_dim)``
        """
        return self.field(network, context)(chunks, levels / self.diffusion_steps)

    def plan(self, context: th.Tensor, noise: th.Tensor) -> th.Tensor:
        def denoise(x: th.Tensor, level: int) -> th.Tensor:
            return self.noise_in(self.acting, context, x, x.new_full((x.shape[0], 1), level))

        return getattr(self, self.samplers[self.sampler])(denoise, noise)  # type: ignore[no-any-return]

    def plan_ddpm(self, denoise: Any, noise: th.Tensor) -> th.Tensor:
        """Sample on all levels; ``noise`` has the noise of all levels."""
        return ddpm(denoise, th.split(noise, self.chunk_dim, dim=1), cosine_schedule(self.diffusion_steps))

    def plan_ddim(self, denoise: Any, noise: th.Tensor) -> th.Tensor:
        """Sample on ``ddim_steps`` of the levels."""
        return ddim(denoise, noise, cosine_schedule(self.diffusion_steps), self.ddim_steps)


class ChunkDiffusionNoise(NamedTuple):
    """
    All random numbers of one update.

    :param levels: Integers from 0 to ``diffusion_steps - 1``, ``(B, 1)``
    :param epsilon: Standard normal, ``(B, horizon_length * action_dim)``
    """

    levels: th.Tensor
    epsilon: th.Tensor


class ChunkDiffusion(Imitation):
    """
    Diffusion policy (Chi et al., 2023): imitation by a denoising diffusion model of chunks of actions::

        x_i = sqrt(c_i) x + sqrt(1 - c_i) epsilon
        L = E[|epsilon(x_i, i | h) - epsilon|^2]

    ``x`` are the next ``horizon_length`` actions, ``h`` is the history of observations, ``c`` the cosine schedule of
    ``diffusion``, and levels are uniform; squared errors are means over dimensions. To act, one of two samplers generates a
    chunk, and its first ``n_action_steps`` actions are executed. At each level the predicted data is clipped to [-1, 1].

    Paper: https://arxiv.org/abs/2303.04137. Deviations from it: see ``docs/streaming_flow.md``.

    :param policy: ``"FlowPolicy"`` (or a subclass of ``ChunkDiffusionPolicy``)
    :param env: As for ``Imitation``
    :param learning_rate: Learning rate, or a function of the remaining progress (from 1 to 0)
    :param diffusion_steps: Number of noise levels; the sampler ``"ddpm"`` uses all of them
    :param ddim_steps: Number of levels that the sampler ``"ddim"`` uses
    :param kwargs: As for ``Imitation``
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = aliases(ChunkDiffusionPolicy)
    policy: ChunkDiffusionPolicy

    def __init__(
        self,
        policy: str | type[ChunkDiffusionPolicy],
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 1e-4,
        *,
        diffusion_steps: int = 100,
        ddim_steps: int = 10,
        **kwargs: Any,
    ) -> None:
        self.diffusion_steps = diffusion_steps
        self.ddim_steps = ddim_steps
        super().__init__(policy, env, learning_rate, **kwargs)

    def _policy_arguments(self) -> dict[str, Any]:
        own = {"diffusion_steps": self.diffusion_steps, "ddim_steps": self.ddim_steps}
        return {**super()._policy_arguments(), **own}

    def draw_noise(self, n: int) -> ChunkDiffusionNoise:
        """Draw all random numbers of an update with ``n`` chunks."""
        levels = (self.uniform(n) * self.diffusion_steps).floor()
        return ChunkDiffusionNoise(levels, self.normal(n, dim=self.policy.chunk_dim))

    def loss(self, batch: Batch, noise: ChunkDiffusionNoise) -> tuple[th.Tensor, Metrics]:
        """``L``, see above."""
        policy, (levels, epsilon) = self.policy, noise
        chunks = noisy(batch.actions, epsilon, policy.shares[levels.long()])
        context = policy.context(policy.flow, batch.observations)
        loss = F.mse_loss(policy.noise_in(policy.flow, context, chunks, levels), epsilon)
        return loss, {"denoising_loss": loss}
