"""Flow Q-learning (Park, Li and Levine, ICML 2025, arXiv 2502.02538)."""

from typing import Any, ClassVar, NamedTuple

import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch.nn import functional as F

from sb3_flow.common.critics import Aggregation, aggregate, check_aggregation
from sb3_flow.common.flow import flow_matching_loss
from sb3_flow.common.flow_algorithm import total
from sb3_flow.common.offline_to_online_algorithm import OfflineToOnlineAlgorithm
from sb3_flow.common.policies import aliases
from sb3_flow.common.type_aliases import Batch, Metrics
from sb3_flow.fql.policies import FQLPolicy


class FQLNoise(NamedTuple):
    """
    All random numbers of one update.

    :param next_noise: ``z'`` of the next action in the target, standard normal, ``(B, action_dim)``
    :param x0: Start of the straight path in the flow matching loss, standard normal, ``(B, action_dim)``
    :param t: Time on that path, uniform in [0, 1], ``(B, 1)``
    :param z: Noise that the flow and the one-step actor both start from, standard normal, ``(B, action_dim)``
    """

    next_noise: th.Tensor
    x0: th.Tensor
    t: th.Tensor
    z: th.Tensor


class FQL(OfflineToOnlineAlgorithm):
    """
    Flow Q-learning: a BC flow imitates the data; a one-step actor is distilled from it and maximizes the value.

    ``L = L_Q + L_BC + alpha L_D + L_q``, with::

        L_Q  = E[(Q(s, a) - r - gamma m Q'(s', clip(mu_w(s', z'))))^2]    critic_loss
        L_BC = E[|v_theta(s, x_t, t) - (a - x_0)|^2]                      bc_flow_loss
        L_D  = E[|mu_w(s, z) - mu_theta(s, z)|^2]                         actor_loss
        L_q  = -E[Q(s, clip(mu_w(s, z)))]                                 actor_loss

    ``v_theta`` is the velocity field and ``mu_theta`` its flow (10 Euler steps), ``mu_w`` is the one-step actor, ``Q'`` are
    the target critics, and ``m`` is 0 at terminations. Squared errors are means over the action's dimensions, as in the
    published code, which ``alpha`` refers to. No gradient flows through the flow. With chunks of actions (``horizon_length >
    1``), ``a`` is a chunk; chunks that reach past the end of a trajectory are masked out of ``L_Q`` and ``L_BC``.

    ``deterministic=True`` acts from ``z = 0``; the paper's scores are taken with ``deterministic=False``.

    Paper: https://arxiv.org/abs/2502.02538. Deviations from the published code: see ``docs/fql.md``.

    :param policy: ``"FlowPolicy"`` (or a subclass of ``FQLPolicy``)
    :param env: Environment, or its id. None: the spaces are those of the dataset
    :param learning_rate: Learning rate, or a function of the remaining progress (from 1 to 0)
    :param alpha: Weight of the distillation, which keeps the policy close to the data. Tune it first: the paper uses 3 to
        1000, for rewards in [-1, 0]; with ``normalize_q_loss`` try 0.03 to 10.
    :param flow_steps: Euler steps of the flow
    :param q_agg: How the target aggregates the critics: ``"mean"`` or ``"min"``
    :param normalize_q_loss: Whether to divide ``L_q`` by the mean of ``|Q|``, which makes ``alpha`` independent of the scale
        of the rewards
    :param kwargs: Arguments of ``OfflineToOnlineAlgorithm``, such as ``dataset``, ``offline_steps``, ``batch_size``,
        ``gamma``, ``n_steps``, ``seed`` and ``policy_kwargs``
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = aliases(FQLPolicy)
    policy: FQLPolicy

    def __init__(
        self,
        policy: str | type[FQLPolicy],
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 3e-4,
        *,
        alpha: float = 10.0,
        flow_steps: int = 10,
        q_agg: Aggregation = "mean",
        normalize_q_loss: bool = False,
        **kwargs: Any,
    ) -> None:
        check_aggregation(q_agg)
        if alpha < 0:
            raise ValueError(f"`alpha` is {alpha}; it must not be negative.")
        self.alpha = alpha
        self.flow_steps = flow_steps
        self.q_agg = q_agg
        self.normalize_q_loss = normalize_q_loss
        super().__init__(policy, env, learning_rate, **kwargs)

    def _policy_arguments(self) -> dict[str, Any]:
        return {"flow_steps": self.flow_steps, **super()._policy_arguments()}

    def draw_noise(self, n: int) -> FQLNoise:
        """Draw all random numbers of an update with ``n`` transitions."""
        return FQLNoise(next_noise=self.normal(n), x0=self.normal(n), t=self.uniform(n), z=self.normal(n))

    def loss(self, batch: Batch, noise: FQLNoise) -> tuple[th.Tensor, Metrics]:
        """``L``. Each term has a gradient for its own networks only, so one optimizer step minimizes all of them."""
        return total(self.critic_loss(batch, noise), self.bc_flow_loss(batch, noise), self.actor_loss(batch, noise))

    def critic_loss(self, batch: Batch, noise: FQLNoise) -> tuple[th.Tensor, Metrics]:
        """``L_Q``: the temporal difference error, a mean over critics and batch. Gradient: critics only."""
        with th.no_grad():
            next_q = self.next_value(batch, noise)
            target = batch.rewards + batch.discounts * batch.masks * next_q
        qs = self.policy.q_values(self.policy.critic, batch.observations, batch.actions)
        loss = (batch.valids * (qs - target).square()).mean()
        return loss, {"critic_loss": loss, "q_mean": qs.mean(), "q_min": qs.amin(), "q_max": qs.amax()}

    def next_value(self, batch: Batch, noise: FQLNoise) -> th.Tensor:
        """``Q'(s', clip(mu_w(s', z')))``, aggregated over the critics: ``(B,)``."""
        next_actions = self.policy.act_one_step(batch.next_observations, noise.next_noise)
        next_qs = self.policy.q_values(self.policy.critic_target, batch.next_observations, next_actions)
        return aggregate(next_qs, self.q_agg)

    def bc_flow_loss(self, batch: Batch, noise: FQLNoise) -> tuple[th.Tensor, Metrics]:
        """``L_BC``: flow matching on the actions of the dataset. Gradient: velocity field only."""
        velocity = self.policy.velocity(self.policy.bc_flow, batch.observations)
        errors = flow_matching_loss(velocity, noise.x0, batch.actions, noise.t)
        loss = (batch.valids * errors).mean()
        return loss, {"bc_flow_loss": loss}

    def actor_loss(self, batch: Batch, noise: FQLNoise) -> tuple[th.Tensor, Metrics]:
        """``alpha L_D + L_q``: stay close to the flow, increase the value. Gradient: one-step actor only."""
        policy, observations = self.policy, batch.observations
        actions = policy.one_step(policy.actor, observations, noise.z)
        with th.no_grad():
            flow_actions = policy.act_bc_flow(observations, noise.z)
        distill_loss = F.mse_loss(actions, flow_actions)  # of unclipped actions, to keep them in [-1, 1]
        qs = policy.q_values(policy.critic, observations, actions.clamp(-1, 1), frozen=True)
        q = qs.mean(dim=0)  # the mean even if `q_agg="min"`
        scale = q.detach().abs().mean().clamp(min=1e-8) if self.normalize_q_loss else 1.0
        q_loss = -q.mean() / scale
        loss = self.alpha * distill_loss + q_loss
        return loss, {"actor_loss": loss, "distill_loss": distill_loss, "q_loss": q_loss}
