"""Reversal Q-learning (Oberai, Park and Levine, 2026, arXiv 2606.17551)."""

from typing import Any, ClassVar, NamedTuple

import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_flow.common.flow import interpolate
from sb3_flow.common.flow_algorithm import total
from sb3_flow.common.offline_to_online_algorithm import OfflineToOnlineAlgorithm
from sb3_flow.common.policies import aliases
from sb3_flow.common.type_aliases import Batch, Metrics, Velocity
from sb3_flow.rql.policies import RQLPolicy, Value
from sb3_flow.rql.reversal import reverse


class RQLNoise(NamedTuple):
    """
    The random numbers of one update.

    :param d: Length of the reversal: uniform in [0, 1] in every other row, uniform over ``0, 1/F, ..., 1`` in the other
        rows, ``(B, 1)``
    :param next_noise: ``z`` of the target, standard normal, ``(B, action_dim)``
    :param x0: Start of the straight path in the flow matching loss, standard normal, ``(B, action_dim)``
    :param t: Time on that path, uniform in [0, 1], ``(B, 1)``
    """

    d: th.Tensor
    next_noise: th.Tensor
    x0: th.Tensor
    t: th.Tensor


class RQL(OfflineToOnlineAlgorithm):
    """
    Reversal Q-learning: critics evaluate intermediate points of the flow, and each step of the flow maximizes them.

    ``L = L_V + alpha L_BC + L_A``, with::

        L_V  = E[w |kappa - 1[e_i < 0]| e_i^2],  e_i = y - V_i(s, x, f)                                      critic_loss
               y = sum_i gamma^i r_i + gamma^h m (mean - rho std)[V'(s', z, 0)]
        L_BC = E[w' |u(s, x_t, t) - (a - x_0)|^2]                                                            actor_loss
        L_A  = -E[w V(s, x_t + min(1/F, 1 - t) u(s, x_t, t), min(t + 1/F, 1))]                               actor_loss

    ``u`` is the velocity field, integrated with ``F`` Euler steps, ``V_i`` are the critics and ``V'`` their target networks.
    ``(x, f)`` is the action ``a`` of the data, integrated backward from ``f = 1`` to a random time (``reverse``). The flow
    maps ``(x, f)`` to ``a``, so that the return after ``a`` is a sample of the value of ``(x, f)``. The target is the value of
    noise ``z``, which is the value of the policy: no action is sampled for it. Gradients pass through one step of the flow
    only. ``m`` is 0 where the task ended. With chunks of actions (``horizon_length = h > 1``) ``w`` is 0 for chunks that
    extend beyond the end of a trajectory, and ``w'`` is 0 for the actions after it. Squared errors are means over the action's
    dimensions, as in the published code, whose scale ``alpha`` has.

    ``predict`` uses a moving average of the actor's weights; training rollouts use the current weights.
    ``deterministic=True`` uses ``z = 0``; the paper's scores are those of ``deterministic=False``.

    Paper: https://arxiv.org/abs/2606.17551. Deviations from the published code: see ``docs/rql.md``.

    :param policy: ``"FlowPolicy"`` (or a subclass of ``RQLPolicy``)
    :param env: Environment, or its id. None: the spaces are those of the dataset
    :param learning_rate: Learning rate, or a function of the remaining progress (from 1 to 0)
    :param alpha: Weight of the behavior cloning loss, at least 0. Larger values keep the policy closer to the data. Tune it
        first; the paper used 0.1 to 10. If rewards are ``c`` times as large, it must be ``c`` times as large, too.
    :param expectile: Expectile of the critics (the paper's kappa), in (0, 1). Above 0.5, underestimated values count more; 0.5
        is the mean. The paper used 0.5 to 0.9.
    :param rho: Pessimism of the target: number of standard deviations of the critics that are subtracted from their mean
    :param flow_steps: Euler steps of the flow and of its reversal (the paper's F)
    :param ema: Decay of the moving average of the actor's weights per update, in [0, 1)
    :param kwargs: All other arguments are those of ``OfflineToOnlineAlgorithm``, such as ``dataset``, ``offline_steps``,
        ``batch_size``, ``gamma``, ``horizon_length``, ``seed`` and ``policy_kwargs``.
    :raises ValueError: If an argument is out of its range.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = aliases(RQLPolicy)
    policy: RQLPolicy
    targets: ClassVar[dict[str, str]] = {"critic_target": "critic", "actor_average": "actor"}

    def __init__(
        self,
        policy: str | type[RQLPolicy],
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 3e-4,
        *,
        alpha: float = 1.0,
        expectile: float = 0.5,
        rho: float = 0.5,
        flow_steps: int = 10,
        ema: float = 0.999,
        **kwargs: Any,
    ) -> None:
        for name, value in (("alpha", alpha), ("rho", rho)):
            if value < 0:
                raise ValueError(f"`{name}` is {value}; it must not be negative.")
        if not 0 < expectile < 1:
            raise ValueError(f"`expectile` is {expectile}; it must be above 0 and below 1.")
        if not 0 <= ema < 1:
            raise ValueError(f"`ema` is {ema}; it must be at least 0 and below 1.")
        self.alpha = alpha
        self.expectile = expectile
        self.rho = rho
        self.flow_steps = flow_steps
        self.ema = ema
        super().__init__(policy, env, learning_rate, **kwargs)

    def _policy_arguments(self) -> dict[str, Any]:
        return {"flow_steps": self.flow_steps, **super()._policy_arguments()}

    def draw_noise(self, n: int) -> RQLNoise:
        """Sample the random numbers of an update with ``n`` transitions."""
        d = self.uniform(n)
        # Alternating rows, not halves: online, the first rows of a batch are those of the dataset.
        on_grid = th.randint(self.flow_steps + 1, (n // 2, 1), generator=self.generator, device=self.device)
        d[1::2] = on_grid / self.flow_steps
        return RQLNoise(d=d, next_noise=self.normal(n), x0=self.normal(n), t=self.uniform(n))

    def loss(self, batch: Batch, noise: RQLNoise) -> tuple[th.Tensor, Metrics]:
        """``L``. Each term has gradients for separate networks, so that one optimizer step minimizes all of them."""
        policy, s = self.policy, batch.observations
        u, v = policy.velocity(policy.actor, s), policy.value(policy.critic, s)  # features are shared by both terms
        return total(self.critic_loss(batch, noise, u, v), self.actor_loss(batch, noise, u, v))

    def critic_loss(self, batch: Batch, noise: RQLNoise, u: Velocity, v: Value) -> tuple[th.Tensor, Metrics]:
        """``L_V``, at the reversed actions, a mean over critics and batch. Gradient: critics only."""
        with th.no_grad():
            x, f = reverse(u, batch.actions, noise.d, self.flow_steps)
            target = batch.rewards + batch.discounts * batch.masks * self.next_value(batch, noise)
        values = v(x, f)
        errors = target - values
        squares = errors.square()
        expectile_losses = th.where(errors >= 0, self.expectile * squares, (1 - self.expectile) * squares)
        loss = (batch.valids * expectile_losses).mean()
        metrics = {"critic_loss": loss, "v_mean": values.mean(), "v_min": values.amin(), "v_max": values.amax()}
        return loss, metrics

    def next_value(self, batch: Batch, noise: RQLNoise) -> th.Tensor:
        """``(mean - rho std)[V'(s', z, 0)]``, over the critics: ``(B,)``."""
        values = self.policy.value(self.policy.critic_target, batch.next_observations)(
            noise.next_noise, th.zeros_like(noise.d)
        )
        return values.mean(dim=0) - self.rho * values.std(dim=0, correction=0)

    def actor_loss(self, batch: Batch, noise: RQLNoise, u: Velocity, v: Value) -> tuple[th.Tensor, Metrics]:
        """``alpha L_BC + L_A``: both use one evaluation of the velocity field. Gradient: the actor only."""
        x_t, t, step = interpolate(noise.x0, batch.actions, noise.t), noise.t, 1 / self.flow_steps
        velocity = u(x_t, t)
        valids = batch.valids[:, None] if batch.action_valids is None else batch.action_valids
        errors = (velocity - (batch.actions - noise.x0)).square().view(*valids.shape, -1)  # (B, h, size of one action)
        bc_loss = (valids[:, :, None] * errors).mean()
        values = v(x_t + (1 - t).clamp(max=step) * velocity, (t + step).clamp(max=1), frozen=True)
        v_loss = -(batch.valids * values.mean(dim=0)).mean()
        loss = self.alpha * bc_loss + v_loss
        return loss, {"actor_loss": loss, "bc_flow_loss": bc_loss, "v_loss": v_loss}

    def target_rate(self, target: str) -> float:
        """``tau`` for the critics' targets, ``1 - ema`` for the moving average of the actor."""
        return 1 - self.ema if target == "actor_average" else self.tau
