"""One-step flow policy mirror descent (Chen et al., 2025, arXiv 2507.23675)."""

import math
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_flow.common.data.batches import shift_images
from sb3_flow.common.effects import warn_without_effect
from sb3_flow.common.encoders import image_keys
from sb3_flow.common.flow import flow_matching_loss
from sb3_flow.common.offline_to_online_algorithm import OfflineToOnlineAlgorithm
from sb3_flow.common.policies import aliases
from sb3_flow.common.type_aliases import Batch, Metrics
from sb3_flow.fpmd.mean_flow import mean_flow_loss
from sb3_flow.fpmd.policies import FPMDPolicy
from sb3_flow.fpmd.weights import WEIGHT_MODES, WeightMode, update_statistics, weights

Flow = Literal["rectified", "mean"]
#: Largest shift of images by random crops, in pixels.
CROP_PAD = 4


class FPMDNoise(NamedTuple):
    """
    All random numbers of one update.

    :param particles: Noise of the sampled actions in the next states, standard normal, ``(B, particles * action_dim)``
    :param added: Noise that is added to the best of them, standard normal, ``(B, action_dim)``; with ``noisy_particles`` noise
        for all of them, ``(B, particles * action_dim)``
    :param x: Noise end of the path in the regression, standard normal, ``(B, action_dim)``
    :param t: Times on that path, uniform in [0, 1], ``(B, 1)``
    :param r: Second times, for the mean flow, uniform in [0, 1], ``(B, 1)``
    :param same: If this is below ``equal_time_probability``, both times are equal; uniform in [0, 1], ``(B, 1)``
    """

    particles: th.Tensor
    added: th.Tensor
    x: th.Tensor
    t: th.Tensor
    r: th.Tensor
    same: th.Tensor


class Improved(NamedTuple):
    """
    Improved actions in the next states of a batch, the targets of the flow.

    :param actions: The best of several samples, with noise, ``(B, action_dim)`` in [-1, 1]
    :param baseline: Mean value of all samples in these states, ``(B,)``
    """

    actions: th.Tensor
    baseline: th.Tensor


class FPMD(OfflineToOnlineAlgorithm):
    """
    Flow policy mirror descent: an online algorithm whose flow learns to sample the better of its own actions. It acts with one
    flow step.

    The target of mirror descent is ``pi_new(a|s) = pi_old(a|s) exp(Q(s, a) / lambda) / Z(s)``. Flow matching on this target is
    flow matching on samples of the old policy with the weights ``exp(Q / lambda)``::

        L_Q    = sum_j E[(Q_j(s, a) - k r - gamma m min_i Q'_i(s', a'))^2]                         critic_loss
        L_FPMD = E[w(s', a') |v_theta(s', x_t, t) - (a' - eps)|^2],   x_t = t a' + (1 - t) eps          flow_loss

    ``a'`` is the best of ``particles`` samples of the current flow by the minimum of the critics, plus noise. It is used in
    the target of the critics and in the regression. ``w`` is one of several variants of ``exp(Q / lambda)``, see
    ``weights.py``.

    With ``flow="rectified"`` (FPMD-R), ``v_theta`` is the velocity of straight paths. As the policy becomes nearly
    deterministic, a single Euler step becomes exact: the flow is trained with 20 steps and acts with one. With ``flow="mean"``
    (FPMD-M), the network predicts average velocities, for which one step is exact.

    ``predict`` acts with one step, from noise, or from zero with ``deterministic=True``. The sampler ``"particles"``
    (``model.policy.with_sampler("particles")``) acts with the best of several samples, ``"flow"`` with all steps.

    For images (alone or in a dictionary) it is the published variant for pixels: one convolutional encoder shared by all
    networks and trained only by ``L_Q`` through ``s``, a separate trunk for each network, independent random shifts of ``s``
    and ``s'``, and other defaults of the arguments that are None.

    Paper: https://arxiv.org/abs/2507.23675. Deviations from the published code: see ``docs/fpmd.md``.

    :param policy: ``"FlowPolicy"`` (or a subclass of ``FPMDPolicy``)
    :param env: Environment, or its id. None: the spaces are those of the dataset
    :param learning_rate: Learning rate of the critics, or a function of the remaining progress (from 1 to 0)
    :param learning_starts: Environment steps, with random actions, before the first update
    :param flow: ``"rectified"`` (FPMD-R) or ``"mean"`` (FPMD-M)
    :param flow_steps: Euler steps of the rectified flow while learning
    :param particles: Number of samples from which the best is chosen
    :param init_noise_scale: Standard deviation of the noise from which actions are sampled, in [0, 1]
    :param noisy_particles: Whether updates add noise to all samples before the best is chosen, instead of to the best only;
        None: only for images
    :param weight_mode: ``"release"``, ``"temp"`` or ``"advantage"``, see ``weights.py``; None: ``"temp"`` for images, else
        ``"release"``
    :param temperature: ``lambda`` of ``"temp"``; the other modes use alpha
    :param reward_scale: ``k``, factor of the rewards; None: 1 for images, else 0.2
    :param policy_learning_rate: Learning rate of the flow until ``decay_from``
    :param final_policy_learning_rate: Learning rate of the flow from ``decay_until`` on; in between it decays linearly
    :param decay_from: Fraction of training at which the decay starts
    :param decay_until: Fraction of training at which the decay ends
    :param policy_delay: Number of critic updates per update of the flow and of all targets
    :param alpha: Initial scale of the noise: a tenth of it is added to actions in [-1, 1]
    :param alpha_lr: Learning rate of the logarithm of alpha
    :param alpha_interval: Number of critic updates per update of alpha
    :param target_entropy_scale: The target entropy of the noise is minus this for each action dimension
    :param equal_time_probability: Fraction of the mean flow's samples with ``r = t``
    :param critic_double_step: Whether the critics (not the encoder) make two optimizer steps with the same gradient, as in the
        published code
    :param clip_final: Whether the best sample is clipped to [-1, 1] again after noise was added. The published code for MuJoCo
        does not clip: unclipped actions are stored, evaluated and imitated, and the simulator clips them.
    :param crop_probability: Probability that a batch of images is randomly shifted, by up to 4 pixels
    :param kwargs: Arguments of ``OfflineToOnlineAlgorithm``, such as ``buffer_size``, ``batch_size``, ``gamma``,
        ``train_freq``, ``seed`` and ``policy_kwargs``
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = aliases(FPMDPolicy)
    policy: FPMDPolicy
    one_graph: ClassVar[bool] = False  # the flow is updated less often than the critics
    targets: ClassVar[dict[str, str]] = {"critic_target": "critic", "flow_target": "flow"}

    def __init__(
        self,
        policy: str | type[FPMDPolicy],
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 3e-4,
        *,
        learning_starts: int = 30_000,
        flow: Flow = "rectified",
        flow_steps: int = 20,
        particles: int = 32,
        init_noise_scale: float = 0.5,
        noisy_particles: bool | None = None,
        weight_mode: WeightMode | None = None,
        temperature: float = 1.0,
        reward_scale: float | None = None,
        policy_learning_rate: float = 3e-4,
        final_policy_learning_rate: float = 3e-5,
        decay_from: float = 0.25,
        decay_until: float = 0.75,
        policy_delay: int = 2,
        alpha: float = 5.0,
        alpha_lr: float = 7e-3,
        alpha_interval: int = 250,
        target_entropy_scale: float = 1.5,
        equal_time_probability: float = 0.0,
        critic_double_step: bool = False,
        clip_final: bool = True,
        crop_probability: float = 1.0,
        **kwargs: Any,
    ) -> None:
        if flow not in get_args(Flow):
            raise ValueError(f"Unknown `flow` {flow!r}; choose 'rectified' (FPMD-R) or 'mean' (FPMD-M).")
        if weight_mode not in (None, *WEIGHT_MODES):
            raise ValueError(f"Unknown `weight_mode` {weight_mode!r}; choose one of {', '.join(map(repr, WEIGHT_MODES))}.")
        for name, value in (("temperature", temperature), ("alpha", alpha)):
            if not value > 0:
                raise ValueError(f"`{name}` is {value}; it must be above 0.")
        if reward_scale is not None and not reward_scale > 0:
            raise ValueError(f"`reward_scale` is {reward_scale}; it must be above 0, or None.")
        rates = {"policy_learning_rate": policy_learning_rate, "final_policy_learning_rate": final_policy_learning_rate}
        for name, rate in {**rates, "alpha_lr": alpha_lr}.items():
            if rate < 0:
                raise ValueError(f"`{name}` is {rate}; it must not be negative.")
        for name, count in (("policy_delay", policy_delay), ("alpha_interval", alpha_interval)):
            if count < 1:
                raise ValueError(f"`{name}` is {count}; it must be at least 1.")
        for name, share in (("equal_time_probability", equal_time_probability), ("init_noise_scale", init_noise_scale)):
            if not 0 <= share <= 1:
                raise ValueError(f"`{name}` is {share}; it must be in [0, 1].")
        if not 0 <= decay_from < decay_until:
            raise ValueError(
                f"`decay_from` is {decay_from} and `decay_until` is {decay_until}; expected 0 <= `decay_from` < `decay_until`."
            )
        self.flow = flow
        self.flow_steps = flow_steps
        self.particles = particles
        self.init_noise_scale = init_noise_scale
        self.noisy_particles = noisy_particles
        self.weight_mode = weight_mode
        self.temperature = temperature
        self.reward_scale = reward_scale
        self.policy_learning_rate = policy_learning_rate
        self.final_policy_learning_rate = final_policy_learning_rate
        self.decay_from = decay_from
        self.decay_until = decay_until
        self.policy_delay = policy_delay
        self.alpha = alpha
        self.alpha_lr = alpha_lr
        self.alpha_interval = alpha_interval
        self.target_entropy_scale = target_entropy_scale
        self.equal_time_probability = equal_time_probability
        self.critic_double_step = critic_double_step
        self.clip_final = clip_final
        #: Number of critic updates, which schedules the other updates.
        self.n_critic_updates = 0
        super().__init__(
            policy, env, learning_rate, learning_starts=learning_starts, crop_probability=crop_probability, **kwargs
        )
        if self.weight_mode not in (None, "temp"):
            reason = f"with `weight_mode={self.weight_mode!r}`, the temperature follows `alpha`"
            warn_without_effect(type(self), {"temperature": temperature}, reason)
        if flow == "rectified":
            times = {"equal_time_probability": equal_time_probability}
            warn_without_effect(type(self), times, "only `flow='mean'` has two times")

    def _setup_model(self) -> None:
        # The published defaults for pixels and for vectors.
        pixels = bool(image_keys(self.observation_space))
        self.noisy_particles = pixels if self.noisy_particles is None else self.noisy_particles
        self.weight_mode = self.weight_mode or ("temp" if pixels else "release")
        if self.reward_scale is None:
            self.reward_scale = 1.0 if pixels else 0.2
        super()._setup_model()

    def _policy_arguments(self) -> dict[str, Any]:
        return {
            "flow": self.flow,
            "flow_steps": self.flow_steps,
            "particles": self.particles,
            "init_noise_scale": self.init_noise_scale,
            "alpha": self.alpha,
            "clip_final": self.clip_final,
            **super()._policy_arguments(),
        }

    def stored_action(self, actions: np.ndarray) -> np.ndarray:
        return super().stored_action(actions) if self.clip_final else actions

    def augment_images(self, batch: Batch) -> Batch:
        """Randomly shift the images of a batch, with independent shifts for observations and next observations."""
        if th.rand((), generator=self.host_generator) >= self.crop_probability:
            return batch
        before, after = (self.crop_offsets(len(batch.actions), CROP_PAD) for _ in range(2))
        return shift_images(batch, self.observation_space, before, after, CROP_PAD)

    def draw_noise(self, n: int) -> FPMDNoise:
        """Draw all random numbers of an update with ``n`` transitions."""
        particles = self.particles * self.policy.action_dim
        return FPMDNoise(
            particles=self.normal(n, dim=particles),
            added=self.normal(n, dim=particles if self.noisy_particles else None),
            x=self.normal(n),
            t=self.uniform(n),
            r=self.uniform(n),
            same=self.uniform(n),
        )

    def encoded(self, batch: Batch) -> Batch:
        """The batch with encoded next states, if there is a shared encoder. No gradient."""
        with th.no_grad():
            return batch._replace(next_observations=self.policy.encode(batch.next_observations))  # type: ignore[arg-type]

    def improve(self, batch: Batch, noise: FPMDNoise) -> Improved:
        """The improved actions in the next states of a batch: the best of several samples, with noise. No gradient."""
        policy = self.policy
        with th.no_grad():
            added = policy.noise_std * noise.added
            if self.noisy_particles:
                return Improved(*policy.best(policy.flow, batch.next_observations, noise.particles, added))
            best, baseline = policy.best(policy.flow, batch.next_observations, noise.particles)
            return Improved((best + added).clamp(-1, 1) if self.clip_final else best + added, baseline)

    def critic_loss(self, batch: Batch, improved: Improved) -> tuple[th.Tensor, Metrics]:
        """``L_Q``, the sum over the critics. Gradient: critics and encoder only."""
        policy = self.policy
        assert self.reward_scale is not None
        with th.no_grad():
            next_q = policy.q_values(policy.critic_target, batch.next_observations, improved.actions).amin(dim=0)
            target = self.reward_scale * batch.rewards + batch.discounts * batch.masks * next_q
        qs = policy.q_values(policy.critic, batch.observations, batch.actions)
        loss = (batch.valids * (qs - target).square()).mean()
        metrics = {"critic_loss": loss, "q_mean": qs.mean(), "q_min": qs.amin(), "q_max": qs.amax()}
        return policy.n_critics * loss, metrics

    def flow_loss(self, batch: Batch, noise: FPMDNoise, improved: Improved, weight: th.Tensor) -> tuple[th.Tensor, Metrics]:
        """``L_FPMD``: weighted flow matching on the improved actions. Gradient: flow only."""
        field: Any = self.policy.velocity(self.policy.flow, self.encoded(batch).next_observations)
        if self.flow == "mean":
            low, high = th.minimum(noise.r, noise.t), th.maximum(noise.r, noise.t)
            low = th.where(noise.same < self.equal_time_probability, high, low)
            errors = mean_flow_loss(field, improved.actions, noise.x, low, high)
        else:
            errors = flow_matching_loss(field, noise.x, improved.actions, noise.t)
        loss = (weight * errors).mean()
        return loss, {"flow_loss": loss}

    def weigh(self, batch: Batch, improved: Improved) -> tuple[th.Tensor, th.Tensor]:
        """The weight of each improved action, and its value by the current critics: ``(B,)`` each. No gradient."""
        policy = self.policy
        assert self.weight_mode is not None
        with th.no_grad():
            q = policy.score(batch.next_observations, improved.actions)
            temperature = self.temperature if self.weight_mode == "temp" else policy.log_alpha.exp()
            return weights(self.weight_mode, q, policy.value_statistics, temperature, improved.baseline), q

    def loss(self, batch: Batch, noise: FPMDNoise) -> tuple[th.Tensor, Metrics]:
        """Both losses at the same parameters. ``update`` instead computes the weights after the critics' step."""
        batch = self.encoded(batch)
        improved = self.improve(batch, noise)
        critic_loss, critic_metrics = self.critic_loss(batch, improved)
        flow_loss, flow_metrics = self.flow_loss(batch, noise, improved, self.weigh(batch, improved)[0])
        return critic_loss + flow_loss, critic_metrics | flow_metrics

    def update(self, batch: Batch, noise: FPMDNoise) -> Metrics:
        """
        One update, in the published order: the critics, the weights by the updated critics, every ``policy_delay`` times the
        flow and the targets, and every ``alpha_interval`` times alpha.

        :param batch: A batch
        :param noise: As drawn by ``draw_noise``
        :return: Metrics to log
        """
        policy = self.policy
        batch = self.encoded(batch)  # once, with the encoder before the critics' step
        improved = self.improve(batch, noise)
        metrics = self.descend(self.critic_loss, policy.optimizer, batch, improved)
        weight, q = self.weigh(batch, improved)
        if self.critic_double_step:  # after the weights, as in the published code
            if policy.encoder is not None:
                policy.encoder.zero_grad()  # the encoder makes one step only: the optimizer skips it without gradients
            policy.optimizer.step()
        metrics |= {"weight_max": weight.amax(), "weight_std": weight.std(), "noise_std": policy.noise_std.detach().clone()}
        if self.n_critic_updates % self.policy_delay == 0:
            self._set_policy_learning_rate()
            metrics = self.descend(self.flow_loss, policy.flow_optimizer, batch, noise, improved, weight) | metrics
        if self.n_critic_updates % self.alpha_interval == 0:
            self.update_alpha()
        if self.n_critic_updates % self.policy_delay == 0:
            self.update_targets()
        update_statistics(policy.value_statistics, q)
        self.n_critic_updates += 1
        return metrics

    def update_alpha(self) -> None:
        """
        Move alpha one step toward the target entropy of the noise. This does not depend on data: alpha follows a schedule,
        from ``alpha`` to ``10 exp(-target_entropy_scale) / sqrt(2 pi e)``.
        """
        policy = self.policy
        entropy = 0.5 * math.log(2 * math.pi * math.e) + math.log(0.1) + policy.log_alpha  # of one dimension
        policy.log_alpha.grad = policy.action_dim * (entropy + self.target_entropy_scale)
        policy.alpha_optimizer.param_groups[0]["lr"] = self.alpha_lr
        policy.alpha_optimizer.step()

    def _set_policy_learning_rate(self) -> None:
        done = 1.0 - self._current_progress_remaining
        fallen = min(max((done - self.decay_from) / (self.decay_until - self.decay_from), 0.0), 1.0)
        rate = self.policy_learning_rate + fallen * (self.final_policy_learning_rate - self.policy_learning_rate)
        for group in self.policy.flow_optimizer.param_groups:
            group["lr"] = rate
