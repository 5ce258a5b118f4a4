"""Networks and samplers of RQL."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule

from sb3_flow.common.flow import euler
from sb3_flow.common.policies import FlowPolicy, Network
from sb3_flow.common.type_aliases import TensorObs

#: Critics for given observations: ``(x, f, frozen=False) -> V``, see ``RQLPolicy.value``.
Value = Callable[..., th.Tensor]


class RQLPolicy(FlowPolicy):
    """
    A flow policy with a moving average of its weights, and critics ``V(s, x, f)`` with target networks. ``x`` is a point of
    the flow between noise (``f = 0``) and the executed action (``f = 1``).

    Samplers: ``"average"`` (the moving average of the actor's weights, the default) and ``"latest"`` (the current weights,
    which training rollouts use).

    :param observation_space: Observation space
    :param action_space: Any finite ``Box``
    :param lr_schedule: Learning rate as a function of the remaining progress (from 1 to 0)
    :param n_critics: Number of critics
    :param flow_steps: Euler steps of the flow
    :param kwargs: The other arguments of ``FlowPolicy``
    """

    guided_samplers: ClassVar[tuple[str, ...]] = ("average", "latest")

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        n_critics: int = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, n_critics=n_critics, **kwargs)

    def build(self, flow_steps: int = 10) -> None:
        if flow_steps < 1:
            raise ValueError(f"`flow_steps` is {flow_steps}; it must be at least 1.")
        self.flow_steps = flow_steps
        self.samplers = {"average": "act_average", "latest": "act_latest"}
        self.actor = self.make_velocity()
        self.actor_average = self.make_target(self.actor)
        self.critic = self.make_values(self.action_dim + 1, self.n_critics)
        self.critic_target = self.make_target(self.critic)

    def value(self, network: Network, observations: TensorObs) -> Value:
        """
        The function ``V_i(s, ...)`` for given observations, whose features are computed once.

        :param network: ``critic`` or ``critic_target``
        :param observations: A batch of raw observations
        :return: ``(x, f) -> V``, of shapes ``(B, action_dim), (B, 1) -> (n_critics, B)``, with ``f`` from 0 (noise) to 1
            (actions). With ``frozen=True`` gradients reach ``x`` only, not the critics.
        """
        features = self.features(network, observations)

        def value(x: th.Tensor, f: th.Tensor, frozen: bool = False) -> th.Tensor:
            inputs = th.cat([features.detach() if frozen else features, x, f], dim=1)
            return network.net(inputs, frozen=frozen)  # type: ignore[no-any-return]

        return value

    def score(self, observations: TensorObs, actions: th.Tensor) -> th.Tensor:
        return self.value(self.critic, observations)(actions, th.ones_like(actions[:, :1])).mean(dim=0)

    def act_average(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """Integrate the flow with the averaged weights from noise, and clip: ``(B, action_dim)`` in [-1, 1]."""
        return euler(self.velocity(self.actor_average, observations), noise, self.flow_steps).clamp(-1, 1)

    def act_latest(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """Integrate the flow with the current weights from noise, and clip: ``(B, action_dim)`` in [-1, 1]."""
        return euler(self.velocity(self.actor, observations), noise, self.flow_steps).clamp(-1, 1)

    def exploring(self, generator: th.Generator) -> "RQLPolicy":
        return super().exploring(generator).with_sampler("latest", self.best_of_n)
