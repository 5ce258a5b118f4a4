"""Stepwise flow policy: iterative refinement of flow policies in probability space (arXiv 2510.15388). A reconstruction."""

import math
import pathlib
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_flow.common.critics import Aggregation, aggregate, check_aggregation
from sb3_flow.common.flow import flow_matching_loss
from sb3_flow.common.flow_algorithm import total
from sb3_flow.common.offline_to_online_algorithm import OfflineToOnlineAlgorithm
from sb3_flow.common.policies import aliases
from sb3_flow.common.type_aliases import Batch, Metrics
from sb3_flow.swfp.blocks import Chain, log_det
from sb3_flow.swfp.policies import ETA_MAX, SWFPPolicy
from sb3_flow.swfp.pretrained import deployed_flow, network_arguments, pretrained_policy

Stage = Literal["clone", "evaluate", "improve"]
SelfSWFP = TypeVar("SelfSWFP", bound="SWFP")

#: The scale of the energy: so many actions, so far around the policy's own, and the share of the newest estimate.
N_AROUND, AROUND, ENERGY_RATE = 8, 0.2, 0.01
#: Share of the error of the trust region, in logarithms, that ``eta`` answers at each update.
ETA_RATE = 0.02


class SWFPNoise(NamedTuple):
    """
    Every random number of one update. ``chain_dim`` is ``action_dim``; with ``heat``, ``(1 + n_blocks) * action_dim``.

    :param x0: Start of the straight path when the flow clones, standard normal, ``(B, action_dim)``
    :param t: Time on that path, uniform in [0, 1], ``(B, 1)``
    :param next_noise: What the next actions in the target come from, standard normal, ``(B, chain_dim)``
    :param z: What the actions come from that the blocks move, standard normal, ``(B, chain_dim)``
    :param around: Where the critics are looked at for the scale of the energy, standard normal, ``(8, B, action_dim)``
    :param probe: Of the estimate of the entropy: signs, -1 or 1, ``(B, action_dim)``
    """

    x0: th.Tensor
    t: th.Tensor
    next_noise: th.Tensor
    z: th.Tensor
    around: th.Tensor
    probe: th.Tensor


class SWFP(OfflineToOnlineAlgorithm):
    """
    Stepwise flow policy: a cloned flow is improved online by a cascade of small blocks, each within a trust region.

    The policy, as a cloud of actions for each state, goes downhill in the free energy ``F(rho) = -E[Q] / c + beta E[ln rho]``
    by short implicit steps in Wasserstein space (Jordan, Kinderlehrer and Otto)::

        rho_n = argmin F(rho) + W_2(rho, rho_{n-1})^2 / (2 h)

    Each step is a block, ``b = a + f_n(s, a)``, moved by a loss of its own, whose input no gradient passes::

        L_n = E[-Q(s, clip(b)) / c + eta_n |f_n|^2 - beta ln |det(I + df_n/da)| + lambda |b - clip(b)|^2]   block_loss
        L_Q = E[(Q(s, a) - r - gamma m Q'(s', a'))^2],  a' of the cascade                                   critic_loss
        L_BC = E[|v(s, x_t, t) - (a - x_0)|^2]                                                              bc_flow_loss

    ``eta_n = 1 / (2 h_n)`` is led so that a block moves actions by at most ``radius`` (root of the mean square of a
    coordinate) and ``h_n`` is at most ``h_max``. ``c`` is how much the critics vary around the policy's actions.

    Training has three stages. ``clone``: the flow learns the data by ``L_BC``. ``evaluate``: the critics learn what the
    clone is worth. ``improve``: critics and blocks learn together, and every ``absorb_interval`` updates the base takes over
    what the blocks do (``absorption_loss``), and they start anew. With ``offline_steps=k`` the first two make up the offline
    phase, and improvement is online; without, all three train on the data. ``from_pretrained`` starts from a flow that
    another algorithm has cloned.

    ``deterministic=True`` acts from ``z = 0``. ``model.policy.with_head("base")`` acts without the blocks.

    Paper: https://arxiv.org/abs/2510.15388. Its body was not at hand: what the abstract does not say is our reconstruction,
    see ``docs/swfp.md``.

    :param policy: ``"FlowPolicy"`` (or a subclass of ``SWFPPolicy``)
    :param env: Environment, or its id. None: the spaces are those of the dataset
    :param learning_rate: Learning rate of all networks, or a function of the remaining progress (from 1 to 0)
    :param flow_steps: Euler steps of the base
    :param n_blocks: Number of blocks
    :param radius: The trust region: how far each block moves actions in [-1, 1], at most
    :param h_max: The longest step, in squared action by energy
    :param entropy_coef: ``beta``, weight of the entropy
    :param box_coef: ``lambda``, weight of what reaches out of [-1, 1]
    :param heat: Whether the entropy comes as noise behind each block, in place of the determinant in its loss
    :param q_agg: How the target aggregates the critics: ``"mean"`` or ``"min"``
    :param bc_steps: Updates of the stage ``clone``, which is part of the offline phase
    :param critic_steps: Updates of the critics, at least, before the blocks move
    :param absorb_interval: Updates of the blocks from one absorption to the next; 0: the base stays the clone.
    :param absorb_steps: In how many of them, the last ones, the base learns what the blocks do
    :param absorb_tolerance: By how much, in units of ``c``, the values of what the base has learned may differ from those of
        what the blocks do; where they differ more, it learns for ``absorb_steps`` more updates.
    :param max_grad_norm: What the norm of the gradients of all blocks together is clipped to; None: they are not clipped.
    :param balanced_sampling: As for ``OfflineToOnlineAlgorithm``
    :param kwargs: All other arguments are those of ``OfflineToOnlineAlgorithm``, such as ``dataset``, ``offline_steps``,
        ``horizon_length``, ``learning_starts``, ``action_noise``, ``gamma``, ``seed`` and ``policy_kwargs``.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = aliases(SWFPPolicy)
    policy: SWFPPolicy
    one_graph: ClassVar[bool] = False  # the stages differ
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
        #: Number of updates of the flow by the data, of the critics, and of the blocks since the last absorption.
        self.n_clone_updates = 0
        self.n_critic_updates = 0
        self.n_block_updates = 0
        super().__init__(
            policy, env, learning_rate, max_grad_norm=max_grad_norm, balanced_sampling=balanced_sampling, **kwargs
        )

    @classmethod
    def from_pretrained(
        cls: type[SelfSWFP], model: BaseAlgorithm | str | pathlib.Path, env: GymEnv | str | None = None, **kwargs: Any
    ) -> SelfSWFP:
        """
        Start from a flow that has been cloned already. It becomes the base; critics and blocks are new.

        :param model: An FQL, GFP, QAM or SWFP, or the path that it was saved to
        :param env: Environment, or its id; by default that of the model
        :param kwargs: Arguments of the constructor. Networks, flow steps and chunks are those of the cloned flow.
        :return: An SWFP whose cascade does exactly what the cloned flow does
        :raises FileNotFoundError: If there is no such file.
        :raises ValueError: If it has no cloned flow, or was made for other spaces.
        """
        source, n_updates = pretrained_policy(model)
        if env is None and isinstance(model, BaseAlgorithm):
            env = model.get_env()
        if env is None:
            raise ValueError("There is no environment: pass the one to learn in, `SWFP.from_pretrained(model, env)`.")
        kwargs = {"flow_steps": source.flow_steps, "horizon_length": source.horizon_length, "bc_steps": 0, **kwargs}
        kwargs["policy_kwargs"] = {**network_arguments(source), **(kwargs.get("policy_kwargs") or {})}
        new = cls("FlowPolicy", env, **kwargs)
        for what in ("observation_space", "action_space"):
            if getattr(source, what) != getattr(new, what):
                raise ValueError(
                    f"The flow was cloned with another `{what}`: {getattr(source, what)}, and the environment has "
                    f"{getattr(new, what)}. Wrap the environment as it was then."
                )
        flow = deployed_flow(source).state_dict()
        try:
            for network in (new.policy.bc_flow, new.policy.base):
                network.load_state_dict(flow)
        except RuntimeError as error:
            raise ValueError(
                "The cloned flow has other shapes than these `policy_kwargs` and `horizon_length` ask for. Leave them out: "
                f"they come from the model. ({' '.join(str(error).split())})"
            ) from error
        new.policy.normalizer.load_state_dict(source.normalizer.state_dict())
        new._n_updates = n_updates  # so that it acts by what it knows from the first step on
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
        """What the next update trains."""
        offline = self._in_offline_phase()
        if offline and self.n_clone_updates < self.bc_steps:
            return "clone"
        if self.n_critic_updates < self.critic_steps or (offline and self.offline_steps is not None):
            return "evaluate"
        return "improve"

    def draw_noise(self, n: int) -> SWFPNoise:
        """Every random number of an update with ``n`` transitions."""
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
        """``L_BC``: flow matching towards the actions of the data. Gradient: the learning flow only."""
        velocity = self.policy.velocity(self.policy.bc_flow, batch.observations)
        errors = flow_matching_loss(velocity, noise.x0, batch.actions, noise.t)
        loss = (batch.valids * errors).mean()
        return loss, {"bc_flow_loss": loss}

    def critic_loss(self, batch: Batch, noise: SWFPNoise) -> tuple[th.Tensor, Metrics]:
        """``L_Q``: the temporal difference error of what the cascade does. Gradient: critics only."""
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
        The sum of all ``L_n``, each at the actions that come into its block. Gradient: each loss its own block only.

        :param batch: A batch
        :param noise: As drawn by ``draw_noise``
        :param chain: As made by ``policy.chain``, without gradient
        :return: The loss, and what to log
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
        Flow matching from the noise that an action came from to that action behind all blocks: nearly straight paths, which
        Euler's method follows well. Gradient: the learning flow only.

        :param batch: A batch
        :param noise: As drawn by ``draw_noise``
        :param chain: As made by ``policy.chain``, without gradient
        :return: The loss, and what to log
        """
        velocity = self.policy.velocity(self.policy.bc_flow, batch.observations)
        start = noise.z[:, : self.policy.action_dim]
        loss = flow_matching_loss(velocity, start, chain.actions.clamp(-1, 1), noise.t).mean()
        return loss, {"absorption_loss": loss}

    def loss(self, batch: Batch, noise: SWFPNoise) -> tuple[th.Tensor, Metrics]:
        """All losses at the same parameters. ``update`` descends those of its stage, one after the other."""
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
        One update of the stage that training is in.

        :param batch: A batch
        :param noise: As drawn by ``draw_noise``
        :return: What to log
        """
        stage = self.stage
        if stage == "clone":
            return self._clone(batch, noise)
        policy, evaluate = self.policy, self.execution.evaluate
        loss, metrics = evaluate(self.critic_loss, batch, noise)
        self.descend(loss, policy.optimizer, clip=False)
        self.update_targets("critic_target")
        self.n_critic_updates += 1
        return metrics if stage == "evaluate" else metrics | self._improve(batch, noise)

    def _clone(self, batch: Batch, noise: SWFPNoise) -> Metrics:
        policy = self.policy
        loss, metrics = self.execution.evaluate(self.bc_flow_loss, batch, noise)
        self.descend(loss, policy.flow_optimizer, clip=False)
        self.update_targets("base")
        self.n_clone_updates += 1
        return metrics

    def _improve(self, batch: Batch, noise: SWFPNoise) -> Metrics:
        policy, evaluate = self.policy, self.execution.evaluate
        with th.no_grad():
            chain = policy.chain(batch.observations, noise.z)
            self.measure_energy(batch, noise, chain.actions)
        loss, metrics = evaluate(self.block_loss, batch, noise, chain)
        metrics |= self.descend(loss, policy.block_optimizer)
        self.lead_eta(chain.moved.square().mean(dim=(1, 2)))
        self.n_block_updates += 1
        if self.absorb_interval > 0 and self.n_block_updates > self.absorb_interval - self.absorb_steps:
            loss, absorption_metrics = evaluate(self.absorption_loss, batch, noise, chain)
            self.descend(loss, policy.flow_optimizer, clip=False)
            metrics |= absorption_metrics
            due = self.n_block_updates - self.absorb_interval
            if due >= 0 and due % self.absorb_steps == 0 and self.has_absorbed(batch, noise, chain):
                policy.absorb()
                self.n_block_updates = 0
        eta, scale = policy.log_eta.exp().mean(), policy.energy_scale
        return metrics | {"eta": eta, "energy_scale": scale}

    def measure_energy(self, batch: Batch, noise: SWFPNoise, actions: th.Tensor) -> None:
        """Follow ``c``, the standard deviation of the critics' values around the policy's actions."""
        policy = self.policy
        around = actions.clamp(-1, 1) + AROUND * noise.around
        spread = policy.energies(batch.observations, around).std(dim=0).mean()
        policy.energy_statistics.lerp_(th.stack([spread, th.ones_like(spread)]), ENERGY_RATE)

    def lead_eta(self, square: th.Tensor, reach: int = 1) -> None:
        """
        Raise ``eta`` of each block that moves further than ``radius``, and lower it otherwise, to ``1 / (2 h_max)``.

        :param square: Mean square of a coordinate of what each block has moved, ``(N,)``
        :param reach: As how many blocks each of them counts
        """
        error = (square + 1e-12).log() - 2 * math.log(reach * self.radius)
        self.policy.log_eta.add_(ETA_RATE * error).clamp_(-math.log(2 * reach * self.h_max), math.log(ETA_MAX))

    def has_absorbed(self, batch: Batch, noise: SWFPNoise, chain: Chain) -> bool:
        """Whether the learning flow is worth as much as base and blocks are, to ``absorb_tolerance``."""
        policy = self.policy
        with th.no_grad():
            learned = policy.flow_to(policy.bc_flow, batch.observations, noise.z[:, : policy.action_dim])
            before, after = policy.energies(batch.observations, th.stack([chain.actions, learned])).mean(dim=1)
            return bool((after - before).abs() <= self.absorb_tolerance * policy.energy_scale)
