"""Q-learning with adjoint matching (Li and Levine, ICLR 2026, arXiv 2601.14234)."""

from typing import Any, ClassVar, Literal, NamedTuple

import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch.nn import functional as F

from sb3_flow.common.flow import flow_matching_loss
from sb3_flow.common.flow_algorithm import total
from sb3_flow.common.offline_to_online_algorithm import OfflineToOnlineAlgorithm
from sb3_flow.common.policies import aliases
from sb3_flow.common.type_aliases import Batch, Metrics
from sb3_flow.qam.adjoint import adjoint_matching_loss, control, lean_adjoint, memoryless_path, path_divergence, vjp
from sb3_flow.qam.policies import QAMPolicy

#: Of the trust region (TRQAM): what the coefficient is multiplied by, its rate, and its bounds.
KL_SCALE, KL_COEF_RATE, KL_COEF_MIN, KL_COEF_MAX = 3.0, 0.01, 0.01, 100.0
#: The rate of the divergence's moving average, and how many budgets an estimate of the divergence counts at most.
KL_AVERAGE_RATE, KL_CLIP = 0.1, 2.0


class QAMNoise(NamedTuple):
    """
    Every random number of one update; all standard normal but for ``t``.

    :param next_noise: What the next action of the target is acted from, ``(B, best_of_n, noise_dim)``
    :param x0: Start of the straight path in the flow matching loss, ``(B, action_dim)``
    :param t: Time on that path, uniform in [0, 1], ``(B, 1)``
    :param path: Start and noise of the memoryless path, ``(flow_steps, B, action_dim)``
    :param z: What the flow starts from for the one-step actor, or the edit, ``(B, action_dim)``
    :param edit: What the edit is sampled from, ``(B, action_dim)``
    """

    next_noise: th.Tensor
    x0: th.Tensor
    t: th.Tensor
    path: th.Tensor
    z: th.Tensor
    edit: th.Tensor


class QAM(OfflineToOnlineAlgorithm):
    """
    Q-learning with adjoint matching: a flow clones the behaviour, a second one learns to sample
    ``pi(a|s) exp(inv_temp Q(s, a))`` where ``pi`` is what the first one samples.

    ``L = L_Q + L_BC + L_AM (+ L_FQL or L_EDIT)``, with::

        L_Q  = E[w (Q(s, a) - r - gamma^h m (mean - rho std)[Q'(s', a')])^2],  a' as the policy acts         critic_loss
        L_BC = E[w |f_beta(s, x_t, t) - (a - x_0)|^2]                                                       bc_flow_loss
        L_AM = E[sum_i |2 / sigma_i (f_theta - f_beta')(s, x_i, t_i) + sigma_i g_i|^2]              adjoint_matching_loss

    ``f_theta`` is the flow that acts, ``f_beta`` the clone and ``f_beta'`` its moving average, the base. ``x_0 .. x_T`` is a
    path of the memoryless stochastic differential equation of ``f_theta``, ``g_i`` the lean adjoint: the gradient of
    ``-inv_temp Q'`` at the action ``x_T``, carried back along the path by vector-Jacobian products of the base. No gradient
    goes through the sampling of an action. ``w`` is 0 for chunks that reach past the end of a trajectory.

    Two variants leave the support of the clone: QAM-FQL (``fql_alpha > 0``) distils the flow into a one-step actor that climbs
    the critics, QAM-EDIT (``edit_scale > 0``) adds a small Gaussian edit to the flow's actions.

    The trust region of TRQAM (``kl_budget``) finds the temperature by itself: instead of ``inv_temp`` there is
    ``1 / (3 kl_coef)``, and ``kl_coef`` grows while the paths of ``f_theta`` are farther from those of the base than the
    budget, and falls while they are nearer (``update_kl_coef``). ``L_AM`` is then also multiplied by ``3 kl_coef``.

    The published settings act in chunks of five actions on manipulation (``horizon_length=5``), with ten critics. At the
    published ``flow_steps=10`` the tilt is biased, see ``docs/qam.md``, which also has the deviations from the published code.

    ``deterministic=True`` acts from ``z = 0``, and with the mean of the edit; the paper's scores are sampled.

    Papers: https://arxiv.org/abs/2601.14234; the trust region: https://arxiv.org/abs/2605.27079.

    :param policy: ``"FlowPolicy"`` (or a subclass of ``QAMPolicy``)
    :param env: Environment, or its id. None: the spaces are those of the dataset
    :param learning_rate: Learning rate, or a function of the remaining progress (from 1 to 0)
    :param inv_temp: Inverse temperature of the tilt, at least 0 (the paper's tau; here ``tau`` is the targets' rate, as in
        Stable-Baselines3). The one to tune: the paper took 0.1 to 30. Rewards ``c`` times as large want it ``c`` times
        smaller. None: 1, or with ``kl_budget`` what the trust region finds
    :param kl_budget: Divergence of the paths from those of the base, per action of a chunk, that the trust region keeps to,
        above 0 (TRQAM's epsilon, 1 by default there); ``inv_temp`` is then not given. None: ``inv_temp`` counts.
    :param rho: Pessimism of the target: how many standard deviations of the critics are subtracted from their mean
    :param flow_steps: Steps of the flows and of the memoryless paths; fewer than 10 lose much
    :param fql_alpha: Weight of the distillation of QAM-FQL, 3 to 300 in the paper; 0: no one-step actor
    :param edit_scale: How far QAM-EDIT moves an action at most, in [0, 1], 0.1 to 0.9 in the paper; 0: no edit
    :param target_entropy: Entropy that the edit is held to; ``"auto"``: minus half the size of an action (a chunk)
    :param max_grad_norm: What the norm of the gradients of all networks together is clipped to
    :param clip_adj: Whether actions are clipped to [-1, 1] before the critics give the adjoint its gradient, which is then 0
        in the dimensions that were clipped
    :param target_actor: Whether the base is the moving average of the clone; if not, the clone itself
    :param use_target_grad: Whether the target critics give the adjoint its gradient; if not, the critics
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
                f"`inv_temp` is {inv_temp} and `kl_budget` is {kl_budget}: with a budget, the trust region finds the "
                "temperature. Leave one of them out."
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

        :param kl: The divergence of the update's paths from those of the base, per action of a chunk
        :param kl_budget: What it is to be
        :return: What to log
        """
        coef, average = self.policy.kl_coef, self.policy.kl_average
        average.lerp_(kl.clamp(max=KL_CLIP * kl_budget), KL_AVERAGE_RATE)
        coef.add_(average - kl_budget, alpha=KL_COEF_RATE).clamp_(KL_COEF_MIN, KL_COEF_MAX)
        return {"kl_average": average.clone(), "kl_coef": coef.clone()}

    def draw_noise(self, n: int) -> QAMNoise:
        """Every random number of an update with ``n`` transitions."""
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
        """``L``. Each term reaches networks of its own, so that one optimizer step descends all of them."""
        terms = [self.critic_loss, self.bc_flow_loss, self.adjoint_matching_loss]
        if self.fql_alpha > 0:
            terms.append(self.one_step_loss)
        if self.edit_scale > 0:
            terms.append(self.edit_loss)
        return total(*[term(batch, noise) for term in terms])

    def critic_loss(self, batch: Batch, noise: QAMNoise) -> tuple[th.Tensor, Metrics]:
        """``L_Q``, with the next action as the policy acts, and a pessimistic target. Gradient: critics only."""
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
        """``L_AM``, for the states of the batch; its actions do not matter. Gradient: the flow that acts only."""
        policy, observations = self.policy, batch.observations
        inv_temp, temperature = (1.0, KL_SCALE * policy.kl_coef) if self.inv_temp is None else (self.inv_temp, 1.0)
        base_network = policy.bc_flow_target if self.target_actor else policy.bc_flow
        with th.no_grad():
            base = policy.velocity(base_network, observations)
            path = memoryless_path(policy.velocity(policy.flow, observations), base, noise.path)
            terminal = -inv_temp * self.action_gradient(batch, path[-1])
            adjoints = lean_adjoint(base, path, terminal)
            base_of_paths = policy.velocity(base_network, observations, copies=self.flow_steps)
        velocity = policy.velocity(policy.flow, observations, copies=self.flow_steps)
        controls = control(velocity, base_of_paths, path)
        loss = adjoint_matching_loss(controls, adjoints, temperature).mean()
        kl = path_divergence(controls.detach()).mean() / self.horizon_length
        return loss, {"adjoint_matching_loss": loss, "terminal_adjoint": terminal.norm(dim=1).mean(), "kl": kl}

    def action_gradient(self, batch: Batch, actions: th.Tensor) -> th.Tensor:
        """The gradient of the critics' mean with respect to actions, ``(B, action_dim)``; plain, whatever ``rho`` is."""
        policy = self.policy
        critic = policy.critic_target if self.use_target_grad else policy.critic

        def value(actions: th.Tensor) -> th.Tensor:
            actions = actions.clamp(-1, 1) if self.clip_adj else actions
            return policy.q_values(critic, batch.observations, actions, frozen=True).mean(dim=0)

        return vjp(value, actions, actions.new_ones(len(actions)))

    def one_step_loss(self, batch: Batch, noise: QAMNoise) -> tuple[th.Tensor, Metrics]:
        """``L_FQL``: stay close to the flow, increase the value. Gradient: the one-step actor only."""
        policy, observations = self.policy, batch.observations
        actions = policy.one_step(policy.actor, observations, noise.z)
        with th.no_grad():
            flow_actions = policy.act_flow(observations, noise.z)
        distill_loss = F.mse_loss(actions, flow_actions)  # not clipped, so that it brings actions back into the box
        q_loss = -policy.q_values(policy.critic, observations, actions.clamp(-1, 1), frozen=True).mean(dim=0).mean()
        loss = self.fql_alpha * distill_loss + q_loss
        return loss, {"actor_loss": loss, "distill_loss": distill_loss, "q_loss": q_loss}

    def edit_loss(self, batch: Batch, noise: QAMNoise) -> tuple[th.Tensor, Metrics]:
        """``L_EDIT``: edits that increase the value and keep their entropy. Gradient: the edit and its temperature only."""
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
