"""Q-learning with adjoint matching (Li and Levine, ICLR 2026, arXiv 2601.14234)."""

from typing import Any, ClassVar, Literal, NamedTuple

import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch.nn import functional as F

from sb3_flow.common.effects import warn_without_effect
from sb3_flow.common.flow import flow_matching_loss
from sb3_flow.common.flow_algorithm import total
from sb3_flow.common.offline_to_online_algorithm import OfflineToOnlineAlgorithm
from sb3_flow.common.policies import Network, aliases
from sb3_flow.common.type_aliases import Batch, Metrics, TensorObs
from sb3_flow.qam.adjoint import (
    adjoint_matching_loss,
    control,
    lean_adjoint,
    memoryless_path,
    path_and_control,
    path_divergence,
    vjp,
)
from sb3_flow.qam.policies import QAMPolicy

#: Trust region (TRQAM): factor of the coefficient in the temperature, step size of the coefficient, its bounds.
KL_SCALE, KL_COEF_RATE, KL_COEF_MIN, KL_COEF_MAX = 3.0, 0.01, 0.01, 100.0
#: Rate of the divergence's moving average; maximum of a single estimate, as a multiple of the budget.
KL_AVERAGE_RATE, KL_CLIP = 0.1, 2.0


class QAMNoise(NamedTuple):
    """
    The random numbers of one update; standard normal except for ``t``.

    :param next_noise: Noise of the next actions in the target, ``(B, best_of_n, noise_dim)``
    :param x0: Start of the straight path in the flow matching loss, ``(B, action_dim)``
    :param t: Time on that path, uniform in [0, 1], ``(B, 1)``
    :param path: Start and noise of the memoryless path, ``(flow_steps, B, action_dim)``
    :param z: Initial noise of the flow for the one-step actor or the edit, ``(B, action_dim)``
    :param edit: Noise of the edit, ``(B, action_dim)``
    """

    next_noise: th.Tensor
    x0: th.Tensor
    t: th.Tensor
    path: th.Tensor
    z: th.Tensor
    edit: th.Tensor


class QAM(OfflineToOnlineAlgorithm):
    """
    Q-learning with adjoint matching: a BC flow learns the behavior policy ``pi``; a second flow learns to sample from
    ``pi(a|s) exp(inv_temp Q(s, a))``, up to normalization.

    ``L = L_Q + L_BC + L_AM (+ L_FQL or L_EDIT)``, with::

        L_Q  = E[w (Q(s, a) - r - gamma^h m (mean - rho std)[Q'(s', a')])^2],  a' as the policy acts         critic_loss
        L_BC = E[w |f_beta(s, x_t, t) - (a - x_0)|^2]                                                       bc_flow_loss
        L_AM = E[sum_i |2 / sigma_i (f_theta - f_beta')(s, x_i, t_i) + sigma_i g_i|^2]              adjoint_matching_loss

    ``f_theta`` is the velocity of the policy's flow, ``f_beta`` that of the BC flow, and ``f_beta'`` its moving average, the
    base flow. ``x_0 .. x_T`` is a path of the memoryless stochastic differential equation of ``f_theta``. ``g_i`` is the lean
    adjoint: the gradient of ``-inv_temp Q'`` at the action ``x_T``, propagated back along the path by vector-Jacobian products
    of the base flow. Sampling an action is not differentiated. ``w`` is 0 for chunks that reach past the end of a trajectory.

    Two variants can leave the support of the BC policy: QAM-FQL (``fql_alpha > 0``) distills the flow into a one-step actor
    that maximizes Q, QAM-EDIT (``edit_scale > 0``) adds a small Gaussian edit to the flow's actions.

    The trust region of TRQAM (``kl_budget``) adapts the temperature: ``inv_temp`` is replaced by ``1 / (3 kl_coef)``.
    ``kl_coef`` increases while the divergence of the paths of ``f_theta`` from those of the base flow exceeds the budget, and
    decreases while it is below (``update_kl_coef``). ``L_AM`` is then also multiplied by ``3 kl_coef``.

    The published settings use chunks of five actions for manipulation (``horizon_length=5``), and ten critics. With the
    published ``flow_steps=10`` the tilted distribution is biased, see ``docs/qam.md``, which also lists deviations from the
    published code.

    ``deterministic=True`` uses ``z = 0`` and the mean of the edit; the paper reports sampled actions.

    Papers: https://arxiv.org/abs/2601.14234; the trust region: https://arxiv.org/abs/2605.27079.

    :param policy: ``"FlowPolicy"`` (or a subclass of ``QAMPolicy``)
    :param env: Environment, or its id. None: the spaces are those of the dataset
    :param learning_rate: Learning rate, or a function of the remaining progress (from 1 to 0)
    :param inv_temp: Inverse temperature, at least 0 (the paper's tau; here ``tau`` is the rate of the target networks, as in
        Stable-Baselines3). The main hyperparameter: the paper uses 0.1 to 30. Rewards that are ``c`` times as large need
        ``inv_temp / c``. None: 1, or adapted if ``kl_budget`` is set
    :param kl_budget: Target of the divergence of the paths from those of the base flow, per action of a chunk, above 0
        (TRQAM's epsilon, 1 by default there). ``inv_temp`` must then be None. None: ``inv_temp`` is fixed.
    :param rho: Pessimism of the target: number of standard deviations of the critics that are subtracted from their mean
    :param flow_steps: Steps of the flows and of the memoryless paths; results are much worse with fewer than 10
    :param fql_alpha: Weight of the distillation of QAM-FQL, 3 to 300 in the paper; 0: no one-step actor
    :param edit_scale: Maximum absolute change of an action in QAM-EDIT, in [0, 1], 0.1 to 0.9 in the paper; 0: no edit
    :param target_entropy: Target entropy of the edit; ``"auto"``: minus half of the dimension of an action (of a chunk)
    :param max_grad_norm: Maximum norm of the gradients of all networks together
    :param clip_adj: Whether to clip actions to [-1, 1] before the critics' gradient for the adjoint is computed. It is then 0
        in clipped dimensions.
    :param target_actor: Whether the base flow is the moving average of the BC flow; if False, the BC flow itself
    :param use_target_grad: Whether the adjoint uses the gradient of the target critics; if False, of the critics
    :param kwargs: All other arguments are those of ``OfflineToOnlineAlgorithm``, such as ``dataset``, ``offline_steps``,
        ``batch_size``, ``gamma``, ``horizon_length``, ``seed`` and ``policy_kwargs``.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = aliases(QAMPolicy)
    policy: QAMPolicy
    targets: ClassVar[dict[str, str]] = {"critic_target": "critic", "bc_flow_target": "bc_flow"}

    def __init__(
        self,
        policy: str | type[QAMPolicy],
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 3e-4,
        *,
        inv_temp: float | None = None,
        kl_budget: float | None = None,
        rho: float = 0.5,
        flow_steps: int = 10,
        fql_alpha: float = 0.0,
        edit_scale: float = 0.0,
        target_entropy: float | Literal["auto"] = "auto",
        max_grad_norm: float | None = 1.0,
        clip_adj: bool = True,
        target_actor: bool = True,
        use_target_grad: bool = True,
        **kwargs: Any,
    ) -> None:
        if kl_budget is not None and inv_temp is not None:
            raise ValueError(
                f"`inv_temp` is {inv_temp} and `kl_budget` is {kl_budget}: with a budget, the temperature is adapted. "
                "Set only one of them."
            )
        if kl_budget is not None and not kl_budget > 0:
            raise ValueError(f"`kl_budget` is {kl_budget}; it must be above 0, or None for a fixed `inv_temp`.")
        if kl_budget is None and inv_temp is None:
            inv_temp = 1.0
        for name, value in (("inv_temp", inv_temp or 0.0), ("rho", rho), ("fql_alpha", fql_alpha)):
            if value < 0:
                raise ValueError(f"`{name}` is {value}; it must not be negative.")
        if not 0 <= edit_scale <= 1:
            raise ValueError(f"`edit_scale` is {edit_scale}; it must be in [0, 1].")
        if fql_alpha > 0 and edit_scale > 0:
            raise ValueError("`fql_alpha` (QAM-FQL) and `edit_scale` (QAM-EDIT) are two variants: leave one at 0.")
        if target_entropy != "auto" and not isinstance(target_entropy, int | float):
            raise ValueError(f"`target_entropy` is {target_entropy!r}; it must be a number or 'auto'.")
        self.inv_temp = inv_temp
        self.kl_budget = kl_budget
        self.rho = rho
        self.flow_steps = flow_steps
        self.fql_alpha = fql_alpha
        self.edit_scale = edit_scale
        self.target_entropy = target_entropy
        self.clip_adj = clip_adj
        self.target_actor = target_actor
        self.use_target_grad = use_target_grad
        super().__init__(policy, env, learning_rate, max_grad_norm=max_grad_norm, **kwargs)
        if edit_scale == 0:
            warn_without_effect(type(self), {"target_entropy": target_entropy}, "there is no edit with `edit_scale=0`")

    def _policy_arguments(self) -> dict[str, Any]:
        variant = {"one_step": self.fql_alpha > 0, "edit_scale": self.edit_scale, "trust_region": self.kl_budget is not None}
        return {"flow_steps": self.flow_steps, **variant, **super()._policy_arguments()}

    def update(self, batch: Batch, noise: QAMNoise) -> Metrics:
        metrics = super().update(batch, noise)
        if self.kl_budget is not None:
            metrics |= self.update_kl_coef(metrics["kl"], self.kl_budget)
        return metrics

    def update_kl_coef(self, kl: th.Tensor, kl_budget: float) -> Metrics:
        """
        Projected dual descent (TRQAM): ``D <- 0.9 D + 0.1 min(kl, 2 kl_budget)``, then
        ``kl_coef <- clip(kl_coef + 0.01 (D - kl_budget), 0.01, 100)``.

        :param kl: Divergence of the update's paths from those of the base flow, per action of a chunk
        :param kl_budget: Its target
        :return: Metrics to log
        """
        coef, average = self.policy.kl_coef, self.policy.kl_average
        average.lerp_(kl.clamp(max=KL_CLIP * kl_budget), KL_AVERAGE_RATE)
        coef.add_(average - kl_budget, alpha=KL_COEF_RATE).clamp_(KL_COEF_MIN, KL_COEF_MAX)
        return {"kl_average": average.clone(), "kl_coef": coef.clone()}

    def draw_noise(self, n: int) -> QAMNoise:
        """Draw the random numbers of an update with ``n`` transitions."""
        policy = self.policy
        return QAMNoise(
            next_noise=self.normal(n, policy.best_of_n, dim=policy.noise_dim),
            x0=self.normal(n),
            t=self.uniform(n),
            path=self.normal(self.flow_steps, n),
            z=self.normal(n),
            edit=self.normal(n),
        )

    def loss(self, batch: Batch, noise: QAMNoise) -> tuple[th.Tensor, Metrics]:
        """``L``. The terms have gradients for different networks, so one optimizer step minimizes all of them."""
        terms = [self.critic_loss, self.bc_flow_loss, self.adjoint_matching_loss]
        if self.fql_alpha > 0:
            terms.append(self.one_step_loss)
        if self.edit_scale > 0:
            terms.append(self.edit_loss)
        return total(*[term(batch, noise) for term in terms])

    def critic_loss(self, batch: Batch, noise: QAMNoise) -> tuple[th.Tensor, Metrics]:
        """``L_Q``, with the next action of the policy and a pessimistic target. Gradient: critics only."""
        policy = self.policy
        with th.no_grad():
            next_actions = policy.act_best(batch.next_observations, noise.next_noise)
            next_qs = policy.q_values(policy.critic_target, batch.next_observations, next_actions)
            next_q = next_qs.mean(dim=0) - self.rho * next_qs.std(dim=0, correction=0)
            target = batch.rewards + batch.discounts * batch.masks * next_q
        qs = policy.q_values(policy.critic, batch.observations, batch.actions)
        loss = (batch.valids * (qs - target).square()).mean()
        return loss, {"critic_loss": loss, "q_mean": qs.mean(), "q_min": qs.amin(), "q_max": qs.amax()}

    def bc_flow_loss(self, batch: Batch, noise: QAMNoise) -> tuple[th.Tensor, Metrics]:
        """``L_BC``: flow matching on the actions of the dataset. Gradient: the BC flow only."""
        velocity = self.policy.velocity(self.policy.bc_flow, batch.observations)
        errors = flow_matching_loss(velocity, noise.x0, batch.actions, noise.t)
        loss = (batch.valids * errors).mean()
        return loss, {"bc_flow_loss": loss}

    def adjoint_matching_loss(self, batch: Batch, noise: QAMNoise) -> tuple[th.Tensor, Metrics]:
        """``L_AM``, at the observations of the batch; its actions are not used. Gradient: the policy's flow only."""
        policy, observations = self.policy, batch.observations
        inv_temp, temperature = (1.0, KL_SCALE * policy.kl_coef) if self.inv_temp is None else (self.inv_temp, 1.0)
        path, controls = self.path_and_control(observations, noise.path)
        with th.no_grad():
            terminal = -inv_temp * self.action_gradient(batch, path[-1])
            adjoints = lean_adjoint(policy.velocity(self.base_network, observations), path, terminal)
        loss = adjoint_matching_loss(controls, adjoints, temperature).mean()
        kl = path_divergence(controls.detach()).mean() / self.horizon_length
        return loss, {"adjoint_matching_loss": loss, "terminal_adjoint": terminal.norm(dim=1).mean(), "kl": kl}

    @property
    def base_network(self) -> Network:
        """The network of the base flow."""
        return self.policy.bc_flow_target if self.target_actor else self.policy.bc_flow

    def path_and_control(self, observations: TensorObs, noise: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        A memoryless path for each observation, and the difference of the policy's flow and the base flow along it.

        :param observations: Batch of observations, not preprocessed
        :param noise: Start and noise of the paths, ``(T, B, action_dim)``
        :return: ``(T + 1, B, action_dim)`` without a graph, and ``(T, B, action_dim)`` with gradients for the policy's flow
        """
        policy = self.policy
        velocity = policy.velocity(policy.flow, observations)
        with th.no_grad():
            base = policy.velocity(self.base_network, observations)
        if noise.device.type == "cpu":
            return path_and_control(velocity, base, noise)
        with th.no_grad():
            path = memoryless_path(velocity, base, noise)
            base_of_paths = policy.velocity(self.base_network, observations, copies=len(noise))
        return path, control(policy.velocity(policy.flow, observations, copies=len(noise)), base_of_paths, path)

    def action_gradient(self, batch: Batch, actions: th.Tensor) -> th.Tensor:
        """The gradient of the critics' mean with respect to actions, ``(B, action_dim)``, without the pessimism of ``rho``."""
        policy = self.policy
        critic = policy.critic_target if self.use_target_grad else policy.critic

        def value(actions: th.Tensor) -> th.Tensor:
            actions = actions.clamp(-1, 1) if self.clip_adj else actions
            return policy.q_values(critic, batch.observations, actions, frozen=True).mean(dim=0)

        return vjp(value, actions, actions.new_ones(len(actions)))

    def one_step_loss(self, batch: Batch, noise: QAMNoise) -> tuple[th.Tensor, Metrics]:
        """``L_FQL``: distill the flow and maximize Q. Gradient: the one-step actor only."""
        policy, observations = self.policy, batch.observations
        actions = policy.one_step(policy.actor, observations, noise.z)
        with th.no_grad():
            flow_actions = policy.act_flow(observations, noise.z)
        distill_loss = F.mse_loss(actions, flow_actions)  # not clipped: it also keeps actions in the bounds
        q_loss = -policy.q_values(policy.critic, observations, actions.clamp(-1, 1), frozen=True).mean(dim=0).mean()
        loss = self.fql_alpha * distill_loss + q_loss
        return loss, {"actor_loss": loss, "distill_loss": distill_loss, "q_loss": q_loss}

    def edit_loss(self, batch: Batch, noise: QAMNoise) -> tuple[th.Tensor, Metrics]:
        """``L_EDIT``: maximize Q and the entropy of the edit. Gradient: the edit and its entropy coefficient only."""
        policy = self.policy
        with th.no_grad():
            flow_actions = policy.act_flow(batch.observations, noise.z)
        actions, log_prob = policy.edited(batch.observations, flow_actions, noise.edit)
        q_loss = -policy.q_values(policy.critic, batch.observations, actions, frozen=True).mean()
        ent_coef = policy.log_ent_coef.exp()
        entropy = -log_prob.mean()
        target_entropy = -0.5 * policy.action_dim if self.target_entropy == "auto" else self.target_entropy
        ent_coef_loss = ent_coef * (entropy.detach() - target_entropy)
        loss = q_loss - ent_coef.detach() * entropy + ent_coef_loss
        return loss, {"actor_loss": loss, "q_loss": q_loss, "entropy": entropy, "ent_coef": ent_coef}
