"""Chunks of actions by flow matching. A baseline for StreamingFlow."""

from typing import Any, ClassVar, NamedTuple

import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_flow.baselines.chunk_policies import ChunkPolicy
from sb3_flow.common.flow import euler, flow_matching_loss
from sb3_flow.common.policies import aliases
from sb3_flow.common.type_aliases import Batch, Metrics
from sb3_flow.imitation.imitation import Imitation


class ChunkFlowPolicy(ChunkPolicy):
    """
    A velocity field in the space of chunks.

    Samplers: ``"average"`` (the default: the moving average of the weights) and ``"latest"`` (the current weights).

    :param flow_steps: Euler steps from noise to a chunk
    :param encode_time_dim: As for ``ChunkPolicy``
    :param modulated: As for ``ChunkPolicy``
    :param kwargs: As for ``ChunkPolicy``
    """

    guided_samplers: ClassVar[tuple[str, ...]] = ("average", "latest")

    def build(  # type: ignore[override]
        self, flow_steps: int = 10, encode_time_dim: int = 64, modulated: bool = False, **kwargs: Any
    ) -> None:
        if flow_steps < 1:
            raise ValueError(f"`flow_steps` is {flow_steps}; it must be at least 1.")
        super().build(encode_time_dim=encode_time_dim, modulated=modulated, **kwargs)
        self.flow_steps = flow_steps

    def plan(self, context: th.Tensor, noise: th.Tensor) -> th.Tensor:
        """The field integrated from noise, then clipped to [-1, 1]."""
        return euler(self.guide(self.field(self.acting, context)), noise, self.flow_steps).clamp(-1.0, 1.0)


class ChunkFlowNoise(NamedTuple):
    """
    All random numbers of one update.

    :param t: Flow time, uniform in [0, 1], ``(B, 1)``
    :param x_0: Start of the paths, standard normal, ``(B, horizon_length * action_dim)``
    """

    t: th.Tensor
    x_0: th.Tensor


class ChunkFlow(Imitation):
    """
    Imitation by flow matching on straight paths from noise to chunks of actions::

        x_t = (1 - t) x_0 + t x_1
        L = E[|v(x_t, t | h) - (x_1 - x_0)|^2]

    ``x_1`` are the next ``horizon_length`` actions, ``h`` is the history of observations; squared errors are means over
    dimensions. To act, the flow generates a whole chunk, and its first ``n_action_steps`` actions are executed.

    :param policy: ``"FlowPolicy"`` (or a subclass of ``ChunkFlowPolicy``)
    :param env: As for ``Imitation``
    :param learning_rate: Learning rate, or a function of the remaining progress (from 1 to 0)
    :param flow_steps: Euler steps from noise to a chunk
    :param kwargs: As for ``Imitation``
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = aliases(ChunkFlowPolicy)
    policy: ChunkFlowPolicy

    def __init__(
        self,
        policy: str | type[ChunkFlowPolicy],
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 1e-4,
        *,
        flow_steps: int = 10,
        **kwargs: Any,
    ) -> None:
        self.flow_steps = flow_steps
        super().__init__(policy, env, learning_rate, **kwargs)

    def _policy_arguments(self) -> dict[str, Any]:
        return {**super()._policy_arguments(), "flow_steps": self.flow_steps}

    def draw_noise(self, n: int) -> ChunkFlowNoise:
        """Draw all random numbers of an update with ``n`` chunks."""
        return ChunkFlowNoise(self.uniform(n), self.normal(n, dim=self.policy.chunk_dim))

    def loss(self, batch: Batch, noise: ChunkFlowNoise) -> tuple[th.Tensor, Metrics]:
        """``L``, see above."""
        policy = self.policy
        field = policy.field(policy.flow, policy.context(policy.flow, batch.observations))
        loss = flow_matching_loss(field, noise.x_0, batch.actions, noise.t).mean()
        return loss, {"flow_matching_loss": loss}
