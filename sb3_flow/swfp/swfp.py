"""Stepwise flow policy: iterative refinement of flow policies in probability space (arXiv 2510.15388). Our reconstruction."""

import math
import pathlib
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_flow.common.critics import Aggregation, aggregate, check_aggregation
from sb3_flow.common.effects import warn_without_effect
from sb3_flow.common.flow import flow_matching_loss
from sb3_flow.common.flow_algorithm import total
from sb3_flow.common.offline_to_online_algorithm import OfflineToOnlineAlgorithm
from sb3_flow.common.policies import aliases
from sb3_flow.common.type_aliases import Batch, Metrics
from sb3_flow.swfp.blocks import Chain, log_det
from sb3_flow.swfp.policies import ETA_MAX, SWFPPolicy
from sb3_flow.swfp.pretrained import bc_flow_of, network_arguments, pretrained_policy

Stage = Literal["clone", "evaluate", "improve"]
SelfSWFP = TypeVar("SelfSWFP", bound="SWFP")

#: Estimate of the energy scale: number of actions around the policy's action, their standard deviation, and update rate.
N_AROUND, AROUND, ENERGY_RATE = 8, 0.2, 0.01
#: Step size of ``log_eta`` per update, times the logarithmic error of the trust region.
ETA_RATE = 0.02


class SWFPNoise(NamedTuple):
    """
    All random numbers of one update. ``chain_dim`` is ``action_dim``; with ``heat``, ``(1 + n_blocks) * action_dim``.

    :param x0: Start of the straight path in flow matching, standard normal, ``(B, action_dim)``
    :param t: Time on that path, uniform in [0, 1], ``(B, 1)``
    :param next_noise: Noise of the next actions in the target, standard normal, ``(B, chain_dim)``
    :param z: Noise of the actions that the blocks move, standard normal, ``(B, chain_dim)``
    :param around: Perturbations of actions for the energy scale, standard normal, ``(8, B, action_dim)``
    :param probe: Probe of the entropy estimate: random signs, -1 or 1, ``(B, action_dim)``
    """

    x0: th.Tensor
    t: th.Tensor
    next_noise: th.Tensor
    z: th.Tensor
    around: th.Tensor
    probe: th.Tensor


class SWFP(OfflineToOnlineAlgorithm):
    """
    Stepwise flow policy: a BC flow is improved online by a cascade of small blocks, each within a trust region.

    The action distribution of each state minimizes the free energy ``F(rho) = -E[Q] / c + beta E[ln rho]`` by small proximal
    steps in Wasserstein space (Jordan, Kinderlehrer and Otto)::

        rho_n = argmin F(rho) + W_2(rho, rho_{n-1})^2 / (2 h)

    Each step is a block, ``b = a + f_n(s, a)``, with its own loss. No gradient flows into its input::

        L_n = E[-Q(s, clip(b)) / c + eta_n |f_n|^2 - beta ln |det(I + df_n/da)| + lambda |b - clip(b)|^2]   block_loss
        L_Q = E[(Q(s, a) - r - gamma m Q'(s', a'))^2],  a' from the cascade                                 critic_loss
        L_BC = E[|v(s, x_t, t) - (a - x_0)|^2]                                                              bc_flow_loss

    ``eta_n = 1 / (2 h_n)`` is adapted so that a block moves actions by at most ``radius`` (root mean square of a coordinate)
    and ``h_n`` is at most ``h_max``. ``c`` is the standard deviation of the critics around the policy's actions.

    Training has three stages. ``clone``: the flow learns from the data by ``L_BC``. ``evaluate``: the critics evaluate the BC
    policy. ``improve``: critics and blocks learn together; every ``absorb_interval`` updates the base absorbs the blocks
    (``absorption_loss``) and the blocks are reset. With ``offline_steps=k`` the first two stages make up the offline phase,
    and improvement is online; without it, all stages train on the data. ``from_pretrained`` starts from the BC flow of another
    algorithm.

    ``deterministic=True`` acts from ``z = 0``. ``model.policy.with_sampler("base")`` acts without the blocks.

    Paper: https://arxiv.org/abs/2510.15388. We only had its abstract: everything else is our reconstruction, see
    ``docs/swfp.md``.

    :param policy: ``"FlowPolicy"`` (or a subclass of ``SWFPPolicy``)
    :param env: Environment, or its id. None: the spaces are those of the dataset
    :param learning_rate: Learning rate of all networks, or a function of the remaining progress (from 1 to 0)
    :param flow_steps: Euler steps of the base
    :param n_blocks: Number of blocks
    :param radius: The trust region: largest root mean square displacement of actions in [-1, 1] by a block
    :param h_max: Largest step size, in squared actions per energy
    :param entropy_coef: ``beta``, weight of the entropy
    :param box_coef: ``lambda``, penalty of actions outside of [-1, 1]
    :param heat: Whether to add noise after each block instead of the log-determinant in its loss
    :param q_agg: How the target aggregates the critics: ``"mean"`` or ``"min"``
    :param bc_steps: Updates of the stage ``clone``, which is part of the offline phase
    :param critic_steps: Smallest number of critic updates before the blocks are trained
    :param absorb_interval: Updates of the blocks between absorptions; 0: no absorption, the base stays the BC flow
    :param absorb_steps: Number of updates at the end of this interval in which the BC flow learns to act as base and blocks
    :param absorb_tolerance: Largest difference in value between the learned flow and the cascade, in units of ``c``. If it is
        exceeded, the flow learns for ``absorb_steps`` more updates.
    :param max_grad_norm: Largest norm of the gradient of all blocks together; None: no clipping
    :param balanced_sampling: As for ``OfflineToOnlineAlgorithm``
    :param kwargs: Arguments of ``OfflineToOnlineAlgorithm``, such as ``dataset``, ``offline_steps``, ``horizon_length``,
        ``learning_starts``, ``action_noise``, ``gamma``, ``seed`` and ``policy_kwargs``
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = aliases(SWFPPolicy)
    policy: SWFPPolicy
    one_graph: ClassVar[bool] = False  # the updates of the stages differ
    targets: ClassVar[dict[str, str]] = {"critic_target": "critic", "base": "bc_flow"}

    def __init__(
        self,
        policy: str | type[SWFPPolicy],
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 3e-4,
        *,
        flow_steps: int = 10,
        n_blocks: int = 4,
        radius: float = 0.05,
        h_max: float = 0.05,
        entropy_coef: float = 0.02,
        box_coef: float = 10.0,
        heat: bool = False,
        q_agg: Aggregation = "mean",
        bc_steps: int = 200_000,
        critic_steps: int = 10_000,
        absorb_interval: int = 25_000,
        absorb_steps: int = 5_000,
        absorb_tolerance: float = 0.1,
        max_grad_norm: float | None = 1.0,
        balanced_sampling: bool = True,
        **kwargs: Any,
    ) -> None:
        check_aggregation(q_agg)
        for name, value in (("radius", radius), ("h_max", h_max)):
            if not value > 0:
                raise ValueError(f"`{name}` is {value}; it must be above 0.")
        for name, weight in (("entropy_coef", entropy_coef), ("box_coef", box_coef), ("absorb_tolerance", absorb_tolerance)):
            if weight < 0:
                raise ValueError(f"`{name}` is {weight}; it must not be negative.")
        for name, count in (("bc_steps", bc_steps), ("critic_steps", critic_steps), ("absorb_interval", absorb_interval)):
            if count < 0:
                raise ValueError(f"`{name}` is {count}; it must not be negative.")
        if absorb_interval > 0 and not 1 <= absorb_steps <= absorb_interval:
            raise ValueError(f"`absorb_steps` is {absorb_steps}; it must be from 1 to `absorb_interval`, {absorb_interval}.")
        self.flow_steps = flow_steps
        self.n_blocks = n_blocks
        self.radius = radius
        self.h_max = h_max
        self.entropy_coef = entropy_coef
        self.box_coef = box_coef
        self.heat = heat
        self.q_agg = q_agg
        self.bc_steps = bc_steps
        self.critic_steps = critic_steps
        self.absorb_interval = absorb_interval
        self.absorb_steps = absorb_steps
        self.absorb_tolerance = absorb_tolerance
        #: Number of BC updates, of critic updates, and of block updates since the last absorption.
        self.n_clone_updates = 0
        self.n_critic_updates = 0
        self.n_block_updates = 0
        super().__init__(
            policy, env, learning_rate, max_grad_norm=max_grad_norm, balanced_sampling=balanced_sampling, **kwargs
        )
        if absorb_interval == 0:
            unused = {"absorb_steps": absorb_steps, "absorb_tolerance": absorb_tolerance}
            warn_without_effect(type(self), unused, "there is no absorption with `absorb_interval=0`")

    @classmethod
    def from_pretrained(
        cls: type[SelfSWFP], model: BaseAlgorithm | str | pathlib.Path, env: GymEnv | str | None = None, **kwargs: Any
    ) -> SelfSWFP:
        """
        Start from a trained BC flow. It becomes the base; critics and blocks are new.

        :param model: An FQL, GFP, QAM or SWFP model, or the path of a saved one
        :param env: Environment, or its id; by default that of the model
        :param kwargs: Arguments of the constructor. Networks, flow steps and ``horizon_length`` are those of the BC flow.
        :return: An SWFP model that acts exactly as the BC flow
        :raises FileNotFoundError: If there is no such file.
        :raises ValueError: If the model has no BC flow, or other spaces.
        """
        source, n_updates = pretrained_policy(model)
        if env is None and isinstance(model, BaseAlgorithm):
            env = model.get_env()
        if env is None:
            raise ValueError("There is no environment; pass one: `SWFP.from_pretrained(model, env)`.")
        kwargs = {"flow_steps": source.flow_steps, "horizon_length": source.horizon_length, "bc_steps": 0, **kwargs}
        kwargs["policy_kwargs"] = {**network_arguments(source), **(kwargs.get("policy_kwargs") or {})}
        new = cls("FlowPolicy", env, **kwargs)
        for what in ("observation_space", "action_space"):
            if getattr(source, what) != getattr(new, what):
                raise ValueError(
                    f"The `{what}` of the BC flow is {getattr(source, what)}, but that of the environment is "
                    f"{getattr(new, what)}. Wrap the environment as in the training of the BC flow."
                )
        flow = bc_flow_of(source).state_dict()
        try:
            for network in (new.policy.bc_flow, new.policy.base):
                network.load_state_dict(flow)
        except RuntimeError as error:
            raise ValueError(
                "The BC flow does not fit these `policy_kwargs` and `horizon_length`. Leave them out: they are taken from the "
                f"model. ({' '.join(str(error).split())})"
            ) from error
        new.policy.normalizer.load_state_dict(source.normalizer.state_dict())
        new._n_updates = n_updates  # so that it acts by its policy from the first step on
        return new

    def _policy_arguments(self) -> dict[str, Any]:
        return {
            "flow_steps": self.flow_steps,
            "n_blocks": self.n_blocks,
            "heat": self.heat,
            "entropy_coef": self.entropy_coef,
            **super()._policy_arguments(),
        }

    @property
    def stage(self) -> Stage:
        """The stage of the next update."""
        offline = self._in_offline_phase()
        if offline and self.n_clone_updates < self.bc_steps:
            return "clone"
        if self.n_critic_updates < self.critic_steps or (offline and self.offline_steps is not None):
            return "evaluate"
        return "improve"

    def draw_noise(self, n: int) -> SWFPNoise:
        """Draw all random numbers of an update with ``n`` transitions."""
        dim, shape = self.policy.chain_dim, (n, self.policy.action_dim)
        return SWFPNoise(
            x0=self.normal(n),
            t=self.uniform(n),
            next_noise=self.normal(n, dim=dim),
            z=self.normal(n, dim=dim),
            around=self.normal(N_AROUND, n),
            probe=2 * th.randint(2, shape, generator=self.generator, device=self.device) - 1,
        )

    def bc_flow_loss(self, batch: Batch, noise: SWFPNoise) -> tuple[th.Tensor, Metrics]:
        """``L_BC``: flow matching on the actions of the data. Gradient: BC flow only."""
        velocity = self.policy.velocity(self.policy.bc_flow, batch.observations)
        errors = flow_matching_loss(velocity, noise.x0, batch.actions, noise.t)
        loss = (batch.valids * errors).mean()
        return loss, {"bc_flow_loss": loss}

    def critic_loss(self, batch: Batch, noise: SWFPNoise) -> tuple[th.Tensor, Metrics]:
        """``L_Q``: the temporal difference error, with next actions from the cascade. Gradient: critics only."""
        policy = self.policy
        with th.no_grad():
            next_actions = policy.act_cascade(batch.next_observations, noise.next_noise)
            next_qs = policy.q_values(policy.critic_target, batch.next_observations, next_actions)
            next_q = aggregate(next_qs, self.q_agg)
            target = batch.rewards + batch.discounts * batch.masks * next_q
        qs = policy.q_values(policy.critic, batch.observations, batch.actions)
        loss = (batch.valids * (qs - target).square()).mean()
        return loss, {"critic_loss": loss, "q_mean": qs.mean(), "q_min": qs.amin(), "q_max": qs.amax()}

    def block_loss(self, batch: Batch, noise: SWFPNoise, chain: Chain) -> tuple[th.Tensor, Metrics]:
        """
        The sum of all ``L_n``. Gradient of each: its own block only.

        :param batch: A batch
        :param noise: As drawn by ``draw_noise``
        :param chain: As returned by ``policy.chain``, without gradient
        :return: The loss, and metrics to log
        """
        policy, starts = self.policy, chain.starts
        with th.no_grad():
            features = policy.features(policy.base, batch.observations)
        context = policy.blocks.context(features)
        moved = policy.blocks(context, starts)
        ends = starts + moved
        energy = -policy.energies(batch.observations, ends) / policy.energy_scale
        square = moved.square().sum(dim=-1)
        outside = (ends - ends.clamp(-1, 1)).square().sum(dim=-1)
        losses = energy + policy.log_eta.exp().unsqueeze(1) * square + self.box_coef * outside
        metrics = {"energy": energy[-1].mean(), "displacement": (square.detach().mean() / policy.action_dim).sqrt()}
        if self.entropy_coef > 0 and not self.heat:
            entropy = log_det(policy.blocks, context, starts, noise.probe.to(starts.dtype))
            losses = losses - self.entropy_coef * entropy
            metrics["log_det"] = entropy.mean()
        loss = losses.mean(dim=1).sum()
        return loss, {"block_loss": loss, **metrics}

    def absorption_loss(self, batch: Batch, noise: SWFPNoise, chain: Chain) -> tuple[th.Tensor, Metrics]:
        """
        Flow matching from noise to the action of the cascade from the same noise. These paths are nearly straight, so Euler's
        method is accurate. Gradient: BC flow only.

        :param batch: A batch
        :param noise: As drawn by ``draw_noise``
        :param chain: As returned by ``policy.chain``, without gradient
        :return: The loss, and metrics to log
        """
        velocity = self.policy.velocity(self.policy.bc_flow, batch.observations)
        start = noise.z[:, : self.policy.action_dim]
        loss = flow_matching_loss(velocity, start, chain.actions.clamp(-1, 1), noise.t).mean()
        return loss, {"absorption_loss": loss}

    def loss(self, batch: Batch, noise: SWFPNoise) -> tuple[th.Tensor, Metrics]:
        """The sum of all losses. ``update`` minimizes those of its stage, one after the other."""
        with th.no_grad():
            chain = self.policy.chain(batch.observations, noise.z)
        return total(
            self.bc_flow_loss(batch, noise),
            self.critic_loss(batch, noise),
            self.block_loss(batch, noise, chain),
            self.absorption_loss(batch, noise, chain),
        )

    def update(self, batch: Batch, noise: SWFPNoise) -> Metrics:
        """
        One update of the current stage.

        :param batch: A batch
        :param noise: As drawn by ``draw_noise``
        :return: Metrics to log
        """
        stage = self.stage
        if stage == "clone":
            return self._clone(batch, noise)
        metrics = self.descend(self.critic_loss, self.policy.optimizer, batch, noise, clip=False)
        self.update_targets("critic_target")
        self.n_critic_updates += 1
        return metrics if stage == "evaluate" else metrics | self._improve(batch, noise)

    def _clone(self, batch: Batch, noise: SWFPNoise) -> Metrics:
        metrics = self.descend(self.bc_flow_loss, self.policy.flow_optimizer, batch, noise, clip=False)
        self.update_targets("base")
        self.n_clone_updates += 1
        return metrics

    def _improve(self, batch: Batch, noise: SWFPNoise) -> Metrics:
        policy = self.policy
        with th.no_grad():
            chain = policy.chain(batch.observations, noise.z)
            self.measure_energy(batch, noise, chain.actions)
        metrics = self.descend(self.block_loss, policy.block_optimizer, batch, noise, chain)
        self.adapt_eta(chain.moved.square().mean(dim=(1, 2)))
        self.n_block_updates += 1
        if self.absorb_interval > 0 and self.n_block_updates > self.absorb_interval - self.absorb_steps:
            metrics |= self.descend(self.absorption_loss, policy.flow_optimizer, batch, noise, chain, clip=False)
            due = self.n_block_updates - self.absorb_interval
            if due >= 0 and due % self.absorb_steps == 0 and self.has_absorbed(batch, noise, chain):
                policy.absorb()
                self.n_block_updates = 0
        eta, scale = policy.log_eta.exp().mean(), policy.energy_scale
        return metrics | {"eta": eta, "energy_scale": scale}

    def measure_energy(self, batch: Batch, noise: SWFPNoise, actions: th.Tensor) -> None:
        """Update the running estimate of ``c``, the standard deviation of the critics around the policy's actions."""
        policy = self.policy
        around = actions.clamp(-1, 1) + AROUND * noise.around
        spread = policy.energies(batch.observations, around).std(dim=0).mean()
        policy.energy_statistics.lerp_(th.stack([spread, th.ones_like(spread)]), ENERGY_RATE)

    def adapt_eta(self, square: th.Tensor, reach: int = 1) -> None:
        """
        Increase ``eta`` of blocks that move actions by more than ``radius``, and decrease that of the others, down to
        ``1 / (2 h_max)``.

        :param square: Mean square displacement of a coordinate by each block, ``(N,)``
        :param reach: Factor of ``radius`` and ``h_max``
        """
        error = (square + 1e-12).log() - 2 * math.log(reach * self.radius)
        self.policy.log_eta.add_(ETA_RATE * error).clamp_(-math.log(2 * reach * self.h_max), math.log(ETA_MAX))

    def has_absorbed(self, batch: Batch, noise: SWFPNoise, chain: Chain) -> bool:
        """
        Whether the values of the BC flow and of the cascade agree, to ``absorb_tolerance``. The next updates depend on it, so
        the host waits for the device here, once in ``absorb_steps`` updates.
        """
        policy = self.policy
        with th.no_grad():
            learned = policy.flow_to(policy.bc_flow, batch.observations, noise.z[:, : policy.action_dim])
            before, after = policy.energies(batch.observations, th.stack([chain.actions, learned])).mean(dim=1)
            return bool((after - before).abs() <= self.absorb_tolerance * policy.energy_scale)
