"""FQL with a value-aware teacher: Guided Flow Policy (Tiofack et al., ICLR 2026, arXiv 2512.03973)."""

from typing import Any, ClassVar, Literal, NamedTuple, get_args

import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch.nn import functional as F

from sb3_flow.common.critics import Aggregation, aggregate
from sb3_flow.common.effects import warn_without_effect
from sb3_flow.common.flow import flow_matching_loss
from sb3_flow.common.flow_algorithm import total
from sb3_flow.common.policies import aliases
from sb3_flow.common.type_aliases import Batch, Metrics
from sb3_flow.fql.fql import FQL, FQLNoise
from sb3_flow.gfp.policies import GFPPolicy

GuidanceFunction = Literal["softmax", "advantage"]
GuidanceAggregation = Literal["actor", "min"]
TargetAggregation = Literal["actor", "mean", "min", "max", "vabc"]


class Proposals(NamedTuple):
    """
    The actions of the actor and of its teacher in the states of a batch, from the same noise.

    :param actions: The actor's, not clipped, with their graph, ``(B, action_dim)``
    :param teacher_actions: The flow's, without graph, ``(B, action_dim)`` in [-1, 1]
    :param q: Value of the actor's actions, clipped, with its graph, ``(B,)``
    :param scale: ``1 / lambda``, without graph and without axes
    """

    actions: th.Tensor
    teacher_actions: th.Tensor
    q: th.Tensor
    scale: th.Tensor


class GFP(FQL):
    """
    Guided flow policy: FQL with a value-aware BC flow, which weights each action by its advantage over the actor's action.

    ``L = L_Q + L_VaBC + L_A``, with::

        L_VaBC = E[g(s, a) |v_omega(s, x_t, t) - (a - x_0)|^2]                                      bc_flow_loss
        g      = sigmoid(lambda (Q'(s, a) - Q'(s, clip(mu_theta(s, z)))) / eta)                     guidance
        L_A    = -lambda E[Q(s, clip(mu_theta(s, z)))] + alpha E[|mu_theta(s, z) - mu_omega(s, z)|^2]   actor_loss

    ``v_omega`` is the velocity field and ``mu_omega`` its flow, the teacher; ``mu_theta`` is the one-step actor, which acts;
    ``Q'`` are the target critics; ``lambda`` is one over the mean of ``|Q|`` in the batch. ``g`` is a softmax over the action
    of the data and the actor's action. The teacher is trained on actions of the data only, so it stays in their support.
    Squared errors are means over the action's dimensions, as in the published code, which ``alpha`` refers to. With chunks of
    actions (``horizon_length > 1``), chunks that reach past the end of a trajectory are masked out of ``L_Q`` and ``L_VaBC``.

    ``deterministic=True`` acts from ``z = 0``; the paper's scores are taken with ``deterministic=False``.

    Paper: https://arxiv.org/abs/2512.03973. Deviations from the published code: see ``docs/gfp.md``.

    :param policy: ``"FlowPolicy"`` (or a subclass of ``GFPPolicy``)
    :param env: Environment, or its id. None: the spaces are those of the dataset
    :param learning_rate: Learning rate, or a function of the remaining progress (from 1 to 0)
    :param alpha: Weight of the distillation. Tune it first; the paper uses 0.01 to 10.
    :param eta: Temperature of the guidance. Tune it second; the paper uses 1e-6 (only actions that are better than the actor's
        are imitated) to 0.1 (all are, similar to FQL). 0 disables guidance: ``g = 1``, as in FQL.
    :param eta_online: ``eta`` from the first online update on; None: unchanged
    :param guidance_fn: ``"softmax"``, or ``"advantage"``: ``g`` is the exponential of the sigmoid's argument, unbounded
    :param guidance_agg: Reference of the guidance: the value of the ``"actor"``'s action, or the smaller (``"min"``) of the
        actor's and the teacher's
    :param target_agg: Value in the target: that of the next action of the ``"actor"``, of the teacher (``"vabc"``), or the
        ``"mean"``, ``"min"`` or ``"max"`` of both
    :param target_vabc_at_next: Whether the teacher's action in the target is for ``s'``. If False, it is for ``s`` and is
        evaluated in ``s'``, as in the published code; see ``docs/gfp.md``.
    :param q_agg: How the critics are aggregated, everywhere: ``"mean"`` or ``"min"``
    :param flow_steps: Euler steps of the flow
    :param normalize_q_loss: Whether to use ``lambda``; if False, it is 1
    :param kwargs: Arguments of ``OfflineToOnlineAlgorithm``, such as ``dataset``, ``offline_steps``, ``batch_size``,
        ``gamma``, ``n_steps``, ``seed`` and ``policy_kwargs``
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = aliases(GFPPolicy)
    policy: GFPPolicy

    def __init__(
        self,
        policy: str | type[GFPPolicy],
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 3e-4,
        *,
        alpha: float = 1.0,
        eta: float = 1e-3,
        eta_online: float | None = None,
        guidance_fn: GuidanceFunction = "softmax",
        guidance_agg: GuidanceAggregation = "actor",
        target_agg: TargetAggregation = "actor",
        target_vabc_at_next: bool = False,
        q_agg: Aggregation = "mean",
        flow_steps: int = 10,
        normalize_q_loss: bool = True,
        **kwargs: Any,
    ) -> None:
        for name, value, names in (
            ("guidance_fn", guidance_fn, get_args(GuidanceFunction)),
            ("guidance_agg", guidance_agg, get_args(GuidanceAggregation)),
            ("target_agg", target_agg, get_args(TargetAggregation)),
        ):
            if value not in names:
                raise ValueError(f"Unknown `{name}` {value!r}; choose one of {', '.join(map(repr, names))}.")
        for name, temperature in (("eta", eta), ("eta_online", eta_online)):
            if temperature is not None and temperature < 0:
                raise ValueError(f"`{name}` is {temperature}; it must not be negative.")
        self.eta = eta
        self.eta_online = eta_online
        self.guidance_fn = guidance_fn
        self.guidance_agg = guidance_agg
        self.target_agg = target_agg
        self.target_vabc_at_next = target_vabc_at_next
        super().__init__(
            policy,
            env,
            learning_rate,
            alpha=alpha,
            flow_steps=flow_steps,
            q_agg=q_agg,
            normalize_q_loss=normalize_q_loss,
            **kwargs,
        )
        if target_agg == "actor":
            teacher = {"target_vabc_at_next": target_vabc_at_next}
            warn_without_effect(type(self), teacher, "the target has no action of the teacher with `target_agg='actor'`")
        if not eta and not eta_online:
            guidance = {"guidance_fn": guidance_fn, "guidance_agg": guidance_agg}
            warn_without_effect(type(self), guidance, "there is no guidance with `eta=0`")

    def train(self, gradient_steps: int, batch_size: int) -> None:
        if self.eta_online is not None and not self._in_offline_phase():
            self.eta = self.eta_online
        super().train(gradient_steps, batch_size)

    def next_value(self, batch: Batch, noise: FQLNoise) -> th.Tensor:
        """The value that the target bootstraps from, by ``target_agg``, ``(B,)``. Actor and teacher share their noise."""
        if self.target_agg == "actor":
            return super().next_value(batch, noise)
        policy = self.policy
        where = batch.next_observations if self.target_vabc_at_next else batch.observations
        teacher_actions = policy.act_bc_flow(where, noise.next_noise)
        teacher_qs = policy.q_values(policy.critic_target, batch.next_observations, teacher_actions)
        of_teacher = aggregate(teacher_qs, self.q_agg)
        if self.target_agg == "vabc":
            return of_teacher
        of_actor = super().next_value(batch, noise)
        if self.target_agg == "mean":
            return (of_actor + of_teacher) / 2
        return th.minimum(of_actor, of_teacher) if self.target_agg == "min" else th.maximum(of_actor, of_teacher)

    def loss(self, batch: Batch, noise: FQLNoise) -> tuple[th.Tensor, Metrics]:
        """``L``, all terms at the same parameters. Two of them need the proposals."""
        proposals = self.propose(batch, noise)
        return total(
            self.critic_loss(batch, noise),
            self.bc_flow_loss(batch, noise, proposals),
            self.actor_loss(batch, noise, proposals),
        )

    def propose(self, batch: Batch, noise: FQLNoise) -> Proposals:
        """The actions of actor and teacher from the same noise, and the value of the actor's, by ``q_agg``."""
        policy, observations = self.policy, batch.observations
        actions = policy.one_step(policy.actor, observations, noise.z)
        with th.no_grad():
            teacher_actions = policy.act_bc_flow(observations, noise.z)
        q = aggregate(policy.q_values(policy.critic, observations, actions.clamp(-1, 1), frozen=True), self.q_agg)
        scale = q.detach().abs().mean().clamp(min=1e-8) if self.normalize_q_loss else q.new_ones(())
        return Proposals(actions, teacher_actions, q, scale)

    def guidance(self, batch: Batch, proposals: Proposals) -> th.Tensor:
        """``g(s, a)``: the weight of each action of the dataset in the teacher's loss, without gradient, ``(B,)``."""
        if self.eta == 0:
            return th.ones_like(proposals.q)
        with th.no_grad():
            reference = self.value(batch, proposals.actions.clamp(-1, 1))
            if self.guidance_agg == "min":
                reference = th.minimum(reference, self.value(batch, proposals.teacher_actions))
            # Subtract before scaling: the quotients are so large that their difference would lose precision.
            advantage = (self.value(batch, batch.actions) - reference) / proposals.scale / self.eta
            return advantage.sigmoid() if self.guidance_fn == "softmax" else advantage.exp()

    def value(self, batch: Batch, actions: th.Tensor) -> th.Tensor:
        """Value of actions in the batch's states by the target critics, aggregated, ``(B,)``."""
        return aggregate(self.policy.q_values(self.policy.critic_target, batch.observations, actions), self.q_agg)

    def bc_flow_loss(self, batch: Batch, noise: FQLNoise, proposals: Proposals | None = None) -> tuple[th.Tensor, Metrics]:
        """``L_VaBC``: flow matching, weighted by the guidance; the weights are not normalized. Gradient: flow only."""
        guidance = self.guidance(batch, proposals or self.propose(batch, noise))
        velocity = self.policy.velocity(self.policy.bc_flow, batch.observations)
        errors = flow_matching_loss(velocity, noise.x0, batch.actions, noise.t)
        loss = (batch.valids * guidance * errors).mean()
        metrics = {"vabc_loss": loss, "guidance": guidance.mean()}
        return loss, metrics | {f"guidance_above_{level}": (guidance > level).float().mean() for level in (0.01, 0.5)}

    def actor_loss(self, batch: Batch, noise: FQLNoise, proposals: Proposals | None = None) -> tuple[th.Tensor, Metrics]:
        """``L_A``: stay close to the teacher, increase the value. Gradient: one-step actor only."""
        actions, teacher_actions, q, scale = proposals or self.propose(batch, noise)
        distill_loss = F.mse_loss(actions, teacher_actions)
        q_loss = -q.mean() / scale
        loss = self.alpha * distill_loss + q_loss
        return loss, {"actor_loss": loss, "distill_loss": distill_loss, "q_loss": q_loss}
