"""Chunks of actions by regression. The simplest baseline for StreamingFlow."""

from typing import ClassVar, NamedTuple

import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch.nn import functional as F

from sb3_flow.baselines.chunk_policies import ChunkPolicy
from sb3_flow.common.networks import MLP
from sb3_flow.common.policies import aliases
from sb3_flow.common.type_aliases import Batch, Metrics
from sb3_flow.imitation.history_policy import HistoryPolicy
from sb3_flow.imitation.imitation import Imitation


class ChunkRegressionPolicy(ChunkPolicy):
    """
    An MLP from a history to a chunk. There is no noise: ``deterministic`` has no effect.

    Samplers: ``"average"`` (the default: the moving average of the weights) and ``"latest"`` (the current weights).

    :param prediction_horizon: As for ``ChunkPolicy``
    :param n_obs_steps: As for ``ChunkPolicy``
    """

    def build(self, prediction_horizon: int = 16, n_obs_steps: int = 2) -> None:  # type: ignore[override]
        HistoryPolicy.build(self, prediction_horizon, n_obs_steps)
        self.make_networks(lambda n_features: MLP(n_features, 0, self.chunk_dim, self.net_arch, self.activation))

    @property
    def noise_dim(self) -> int:
        return 0

    def plan(self, context: th.Tensor, noise: th.Tensor) -> th.Tensor:
        """The network's output, clipped to [-1, 1]."""
        return self.acting.net(context, noise).clamp(-1.0, 1.0)  # type: ignore[no-any-return]


class ChunkRegressionNoise(NamedTuple):
    """
    Regression needs no random numbers.

    :param nothing: An empty tensor, ``(B, 0)``
    """

    nothing: th.Tensor


class ChunkRegression(Imitation):
    """
    Imitation by regression of chunks of actions on histories::

        L = E[|f(h) - x|^2]

    ``x`` are the next ``horizon_length`` actions; squared errors are means over dimensions. If demonstrations are multimodal,
    the network learns their mean, which may differ from all of them.

    :param args: As for ``Imitation``, with ``policy`` a subclass of ``ChunkRegressionPolicy``
    :param kwargs: As for ``Imitation``
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = aliases(ChunkRegressionPolicy)
    policy: ChunkRegressionPolicy

    def draw_noise(self, n: int) -> ChunkRegressionNoise:
        """An empty tensor for ``n`` chunks."""
        return ChunkRegressionNoise(self.normal(n, dim=0))

    def loss(self, batch: Batch, noise: ChunkRegressionNoise) -> tuple[th.Tensor, Metrics]:
        """``L``, see above."""
        policy = self.policy
        chunks = policy.flow.net(policy.context(policy.flow, batch.observations), noise.nothing)
        loss = F.mse_loss(chunks, batch.actions)
        return loss, {"regression_loss": loss}
