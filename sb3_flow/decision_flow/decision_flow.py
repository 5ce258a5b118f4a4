"""Decision Flow policy optimization (Hu et al., 2025, arXiv 2505.20350). Our reconstruction."""

from typing import Any, ClassVar, Literal, NamedTuple, get_args

import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_flow.common.critics import Aggregation, aggregate, check_aggregation
from sb3_flow.common.flow import flow_matching_loss, interpolate
from sb3_flow.common.flow_algorithm import total
from sb3_flow.common.offline_to_online_algorithm import OfflineToOnlineAlgorithm
from sb3_flow.common.policies import aliases
from sb3_flow.common.type_aliases import Batch, Metrics, Velocity
from sb3_flow.decision_flow.inner import Cost, divergence, inner_rollout, misdirection
from sb3_flow.decision_flow.policies import DecisionFlowPolicy

FlowVariant = Literal["dir", "div"]
FlowTarget = Literal["mc", "td"]
#: Default weights: the best of three each on OGBench's noisy cube, see results/cube_noisy_30k.
FM_COEF, BETA = 0.06, 0.12
#: Update rate of the running mean of ``lambda``.
SCALE_RATE = 0.01


class DecisionFlowNoise(NamedTuple):
    """
    All random numbers of one update.

    :param next_noise: Noise of the next action in the target, standard normal, ``(B, action_dim)``
    :param start: Start of the inner process, standard normal, ``(B, action_dim)``
    :param k: Step of the inner process, uniform in ``0 .. flow_steps - 1``, ``(B, 1)`` of int64
    :param on_policy: Uniform in [0, 1]; the inner state is on-policy if this is below ``on_policy_share``, ``(B, 1)``
    :param x0: Start of the straight path in the flow matching losses, standard normal, ``(B, action_dim)``
    :param t: Time on that path, uniform in [0, 1], ``(B, 1)``
    """

    next_noise: th.Tensor
    start: th.Tensor
    k: th.Tensor
    on_policy: th.Tensor
    x0: th.Tensor
    t: th.Tensor


class InnerStates(NamedTuple):
    """
    The states of the inner process in an update, without gradient.

    :param x: ``x_k``, the intermediate actions, ``(B, action_dim)``
    :param k: Number of steps that led to them, ``(B, 1)`` of int64
    :param on_policy: Whether they come from the policy; otherwise they lie on a straight path to an action of the data,
        ``(B, 1)``
    :param returns: ``G_k``, return of the inner process from there on, ``(B,)``
    :param inverse_scale: ``lambda``, one over the mean of ``|Q|`` at the resulting actions, a scalar
    :param running_inverse_scale: ``lambda_hat``, its running mean, a scalar
    """

    x: th.Tensor
    k: th.Tensor
    on_policy: th.Tensor
    returns: th.Tensor
    inverse_scale: th.Tensor
    running_inverse_scale: th.Tensor


class DecisionFlow(OfflineToOnlineAlgorithm):
    """
    Decision Flow: the integration of a flow is a Markov decision process (the inner process), whose decisions are velocities.

    Its state after ``k`` of ``T`` Euler steps is an intermediate action ``x_k``. The velocity ``u_theta(s, x_k, t_k)`` leads
    to ``x_{k+1} = x_k + u / T``, and the final action has the reward ``Q(s, clip(x_T))``. A flow critic ``V`` learns the value
    of intermediate actions, and each velocity maximizes it::

        L_Q  = E[(Q(s, a) - r - gamma m Q'(s', clip(Psi(s', z'))))^2]                              critic_loss
        L_V  = E[(V(s, x_k, t_k) - G_k)^2],   G_k = sum_{j >= k} r_j + Q'(s, clip(x_T))              flow_critic_loss
        L_FM = E[|u_theta(s, x_t, t) - (a - x_0)|^2]                                               flow_matching_loss

        DF-dir:  L_pi = w_FM L_FM - lambda T E[W(s, x_{k+1})]                                      policy_loss
        DF-div:  L_pi = beta / 2 E[|u_theta - v_beta|^2] - lambda T E[W(s, x_{k+1})] (+ w_FM L_FM)     policy_loss
                 r_k  = -(beta / lambda_hat) / (2 T) |u_theta - v_beta|^2

    ``Psi`` is the policy's flow; ``W`` is the flow critic, or after the last step the critics. ``v_beta`` is a BC flow
    (DF-div), trained by flow matching only (``bc_flow_loss``); DF-dir has no inner rewards. ``lambda`` is one over the mean of
    ``|Q|``, ``lambda_hat`` its running mean. Half of the inner states ``x_k`` come from the policy, the others lie on straight
    paths to actions of the data. The gradient flows through one evaluation of the flow, not through the integration. Losses of
    velocities are sums over the action's dimensions.

    This is **our reconstruction**: the inner process and the flow critic are the paper's; losses, networks and constants are
    ours. ``docs/decision_flow.md`` lists what the part of the paper that we could read leaves open.

    ``deterministic=True`` acts from zero noise.

    Paper: https://arxiv.org/abs/2505.20350.

    :param policy: ``"FlowPolicy"`` (or a subclass of ``DecisionFlowPolicy``)
    :param env: Environment, or its id. None: the spaces are those of the dataset
    :param learning_rate: Learning rate, or a function of the remaining progress (from 1 to 0)
    :param variant: ``"dir"`` (DF-dir) or ``"div"`` (DF-div)
    :param fm_coef: ``w_FM``, weight of flow matching, at least 0. Tune it first in DF-dir: start at FQL's ``alpha`` divided by
        the mean of ``|Q|`` and the size of an action (a chunk). None: 0.06 in DF-dir, 0 in DF-div
    :param beta: Weight of the divergence from the BC flow, at least 0, in DF-div only. Tune it first in DF-div: start at twice
        that value. None: 0.12
    :param flow_steps: ``T``, Euler steps of the flow
    :param q_agg: How the critics are aggregated, in the target and at the end of the inner process: ``"mean"`` or ``"min"``
    :param on_policy_share: ``rho``, fraction of inner states that come from the policy, in [0, 1]
    :param flow_target: Target of the flow critic: ``"mc"``, the inner return, or ``"td"``, one inner reward plus the target
        network of the flow critic
    :param direction_coef: ``kappa``, at least 0, in DF-dir only: inner steps on paths to actions of the data cost ``kappa /
        T`` times one minus the cosine of the angle between velocity and path, in units of ``Q``. 0: no cost
    :param expectile: A number in (0, 1): critics bootstrap from a state value, the expectile of the critics over the data's
        actions (implicit Q-learning). None: critics bootstrap from actions of the flow
    :param kwargs: Arguments of ``OfflineToOnlineAlgorithm``, such as ``dataset``, ``offline_steps``, ``batch_size``,
        ``gamma``, ``horizon_length``, ``seed`` and ``policy_kwargs``
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = aliases(DecisionFlowPolicy)
    policy: DecisionFlowPolicy

    def __init__(
        self,
        policy: str | type[DecisionFlowPolicy],
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 3e-4,
        *,
        variant: FlowVariant = "dir",
        fm_coef: float | None = None,
        beta: float | None = None,
        flow_steps: int = 10,
        q_agg: Aggregation = "mean",
        on_policy_share: float = 0.5,
        flow_target: FlowTarget = "mc",
        direction_coef: float = 0.0,
        expectile: float | None = None,
        **kwargs: Any,
    ) -> None:
        check_aggregation(q_agg)
        if variant not in get_args(FlowVariant):
            raise ValueError(f"Unknown `variant` {variant!r}; choose 'dir' (DF-dir) or 'div' (DF-div).")
        if flow_target not in get_args(FlowTarget):
            raise ValueError(f"Unknown `flow_target` {flow_target!r}; choose 'mc' or 'td'.")
        for name, value in (("fm_coef", fm_coef), ("beta", beta), ("direction_coef", direction_coef)):
            if value is not None and value < 0:
                raise ValueError(f"`{name}` is {value}; it must not be negative.")
        if variant == "dir" and beta is not None:
            raise ValueError(f"`beta={beta}` is for DF-div: pass `variant='div'`, or tune `fm_coef`.")
        if variant == "div" and direction_coef > 0:
            raise ValueError(f"`direction_coef={direction_coef}` is for DF-dir: pass `variant='dir'`, or leave it at 0.")
        if not 0 <= on_policy_share <= 1:
            raise ValueError(f"`on_policy_share` is {on_policy_share}; it must be in [0, 1].")
        if expectile is not None and not 0 < expectile < 1:
            raise ValueError(f"`expectile` is {expectile}; it must be in (0, 1), or None.")
        self.variant = variant
        self.fm_coef = (FM_COEF if variant == "dir" else 0.0) if fm_coef is None else fm_coef
        #: None in DF-dir.
        self.beta = BETA if beta is None and variant == "div" else beta
        self.flow_steps = flow_steps
        self.q_agg = q_agg
        self.on_policy_share = on_policy_share
        self.flow_target = flow_target
        self.direction_coef = direction_coef
        self.expectile = expectile
        if flow_target == "td":
            self.targets = {**self.targets, "flow_critic_target": "flow_critic"}  # type: ignore[misc]
        super().__init__(policy, env, learning_rate, **kwargs)

    def _policy_arguments(self) -> dict[str, Any]:
        return {
            "flow_steps": self.flow_steps,
            "with_bc_flow": self.variant == "div",
            "flow_critic_target": self.flow_target == "td",
            "state_value": self.expectile is not None,
            **super()._policy_arguments(),
        }

    def draw_noise(self, n: int) -> DecisionFlowNoise:
        """Draw all random numbers of an update with ``n`` transitions."""
        return DecisionFlowNoise(
            next_noise=self.normal(n),
            start=self.normal(n),
            k=th.randint(self.flow_steps, (n, 1), generator=self.generator, device=self.device),
            on_policy=self.uniform(n),
            x0=self.normal(n),
            t=self.uniform(n),
        )

    def loss(self, batch: Batch, noise: DecisionFlowNoise) -> tuple[th.Tensor, Metrics]:
        """The sum of all losses. Each has a gradient for its own networks only."""
        inner = self.inner_states(batch, noise)
        terms = [
            self.critic_loss(batch, noise),
            self.flow_critic_loss(batch, inner),
            self.policy_loss(batch, noise, inner),
        ]
        if self.variant == "div":
            terms.append(self.bc_flow_loss(batch, noise))
        if self.expectile is not None:
            terms.append(self.value_loss(batch))
        return total(*terms)

    def update(self, batch: Batch, noise: DecisionFlowNoise) -> Metrics:
        """As for ``FlowAlgorithm``, and store ``lambda_hat`` for the next update."""
        metrics = super().update(batch, noise)
        self.policy.inverse_scale.copy_(metrics["inverse_scale"])
        return metrics

    # The critics.

    def end_value(self, batch: Batch, actions: th.Tensor, online: bool = False) -> th.Tensor:
        """
        Final reward of the inner process, ``Q(s, clip(x_T))``, aggregated.

        :param batch: A batch with the states
        :param actions: ``x_T``, ``(B, action_dim)``
        :param online: Whether to use the critics, with gradients for the actions only, or their targets
        :return: ``(B,)``
        """
        policy = self.policy
        critic = policy.critic if online else policy.critic_target
        return aggregate(policy.q_values(critic, batch.observations, actions.clamp(-1, 1), frozen=True), self.q_agg)

    def critic_loss(self, batch: Batch, noise: DecisionFlowNoise) -> tuple[th.Tensor, Metrics]:
        """``L_Q``, with the flow's next action or, with ``expectile``, the value of the next state. Gradient: critics only."""
        policy = self.policy
        with th.no_grad():
            if self.expectile is not None:
                next_q = policy.state_values(batch.next_observations)
            else:
                next_actions = policy.act_flow(batch.next_observations, noise.next_noise)
                next_qs = policy.q_values(policy.critic_target, batch.next_observations, next_actions)
                next_q = aggregate(next_qs, self.q_agg)
            target = batch.rewards + batch.discounts * batch.masks * next_q
        qs = policy.q_values(policy.critic, batch.observations, batch.actions)
        loss = (batch.valids * (qs - target).square()).mean()
        return loss, {"critic_loss": loss, "q_mean": qs.mean(), "q_min": qs.amin(), "q_max": qs.amax()}

    def value_loss(self, batch: Batch) -> tuple[th.Tensor, Metrics]:
        """
        Expectile regression of ``V(s)`` on ``Q'(s, a)``: ``E[|expectile - 1(Q' < V)| (Q' - V)^2]``. Gradient: ``V(s)`` only.
        """
        assert self.expectile is not None
        with th.no_grad():
            q = self.end_value(batch, batch.actions)
        error = q - self.policy.state_values(batch.observations)
        weight = (self.expectile - (error < 0).to(error.dtype)).abs()
        loss = (batch.valids * weight * error.square()).mean()
        return loss, {"value_loss": loss}

    # The inner process.

    def inner_states(self, batch: Batch, noise: DecisionFlowNoise) -> InnerStates:
        """
        Intermediate actions, and their returns under the current flow.

        A state comes from the policy, or it lies on the straight path from the same noise to the action of the data. For
        invalid chunks, the state comes from the policy.
        """
        policy = self.policy
        with th.no_grad():
            on_policy = (noise.on_policy < self.on_policy_share) | (batch.valids[:, None] == 0)
            t = noise.k.to(noise.start.dtype) / self.flow_steps
            x = th.where(on_policy, noise.start, interpolate(noise.start, batch.actions, t))
            start = noise.k.masked_fill(on_policy, 0)
            velocity = policy.velocity(policy.flow, batch.observations)
            path = inner_rollout(velocity, x, start, noise.k, self.flow_steps, self.inner_cost(batch, on_policy))

            end_value = self.end_value(batch, path.end)
            inverse_scale = 1 / end_value.abs().mean().clamp(min=1e-8)
            running = policy.inverse_scale
            running = th.where(running > 0, th.lerp(running, inverse_scale, SCALE_RATE), inverse_scale)
            price: th.Tensor | float = self.direction_coef
            if self.variant == "div":
                assert self.beta is not None
                price = self.beta / running
            if self.flow_target == "mc":
                returns = end_value - price * path.total_cost
            else:
                targets, next_t = policy.flow_critic_target, self.next_time(noise.k)
                values = policy.flow_values(targets, batch.observations, path.next_x, next_t).mean(dim=0)
                returns = th.where(noise.k[:, 0] + 1 < self.flow_steps, values, end_value) - price * path.cost
        return InnerStates(path.x, noise.k, on_policy, returns, inverse_scale, running)

    def inner_cost(self, batch: Batch, on_policy: th.Tensor) -> Cost | None:
        """
        Cost of velocities, without its weight: in DF-div the divergence from the BC flow, in DF-dir with ``direction_coef``
        the misdirection, which is 0 for states from the policy.
        """
        if self.variant == "div":
            with th.no_grad():
                bc_velocity = self.policy.velocity(self.policy.bc_flow, batch.observations)

            def divergence_from_bc_flow(x: th.Tensor, t: th.Tensor, u: th.Tensor) -> th.Tensor:
                with th.no_grad():
                    v = bc_velocity(x, t)
                return divergence(u, v)

            return divergence_from_bc_flow
        if self.direction_coef > 0:
            return lambda x, t, u: th.where(on_policy[:, 0], 0.0, misdirection(u, x, batch.actions))
        return None

    def next_time(self, k: th.Tensor) -> th.Tensor:
        """``t_{k+1}``, ``(B, 1)``."""
        return (k + 1).to(self.policy.inverse_scale.dtype) / self.flow_steps

    def inner_value(self, batch: Batch, x: th.Tensor, k: th.Tensor) -> th.Tensor:
        """
        ``W(s, x_{k+1})``: the mean of the flow critics, or after the last step the critics. Gradient: ``x`` only.

        :param batch: A batch with the states
        :param x: ``x_{k+1}``, ``(B, action_dim)``
        :param k: Number of steps that led to ``x_k``, ``(B, 1)`` of int64
        :return: ``(B,)``
        """
        policy = self.policy
        values = policy.flow_values(policy.flow_critic, batch.observations, x, self.next_time(k), frozen=True)
        return th.where(k[:, 0] + 1 < self.flow_steps, values.mean(dim=0), self.end_value(batch, x, online=True))

    def flow_critic_loss(self, batch: Batch, inner: InnerStates) -> tuple[th.Tensor, Metrics]:
        """``L_V``, a mean over flow critics and batch. Gradient: flow critics only."""
        t = inner.k.to(inner.x.dtype) / self.flow_steps
        values = self.policy.flow_values(self.policy.flow_critic, batch.observations, inner.x, t)
        loss = (values - inner.returns).square().mean()
        return loss, {"flow_critic_loss": loss}

    # The flows.

    def flow_matching_loss(self, batch: Batch, noise: DecisionFlowNoise, velocity: Velocity) -> th.Tensor:
        """``L_FM``: flow matching on the actions of the data, a sum over dimensions and a mean over the batch."""
        errors = flow_matching_loss(velocity, noise.x0, batch.actions, noise.t)
        return self.policy.action_dim * (batch.valids * errors).mean()

    def bc_flow_loss(self, batch: Batch, noise: DecisionFlowNoise) -> tuple[th.Tensor, Metrics]:
        """``L_FM`` of the BC flow. Gradient: BC flow only."""
        loss = self.flow_matching_loss(batch, noise, self.policy.velocity(self.policy.bc_flow, batch.observations))
        return loss, {"bc_flow_loss": loss}

    def policy_loss(self, batch: Batch, noise: DecisionFlowNoise, inner: InnerStates) -> tuple[th.Tensor, Metrics]:
        """
        ``L_pi``: increase the value of the next inner state, stay close to the data. Gradient: flow only, through one
        evaluation for the inner states and one for flow matching.
        """
        policy, n_steps = self.policy, self.flow_steps
        velocity = policy.velocity(policy.flow, batch.observations)
        t = inner.k.to(inner.x.dtype) / n_steps
        u = velocity(inner.x, t)
        value = self.inner_value(batch, th.add(inner.x, u, alpha=1 / n_steps), inner.k).mean()
        # A velocity moves the next state by 1 / T only. The factor T makes the weights independent of T.
        loss = -inner.inverse_scale * n_steps * value
        metrics = {"inner_value": value, "inverse_scale": inner.running_inverse_scale}
        cost = self.inner_cost(batch, inner.on_policy)
        if cost is not None:
            paid = cost(inner.x, t, u)
            if self.variant == "div":
                assert self.beta is not None
                loss = loss + self.beta * paid.mean()
                own = inner.on_policy[:, 0].to(paid.dtype)
                metrics["divergence"] = 2 * (own * paid).sum() / own.sum().clamp(min=1)
            else:
                loss = loss + inner.inverse_scale * self.direction_coef * paid.mean()
        if self.fm_coef > 0:
            fm_loss = self.flow_matching_loss(batch, noise, velocity)
            loss = loss + self.fm_coef * fm_loss
            metrics["flow_matching_loss"] = fm_loss
        return loss, {"policy_loss": loss, **metrics}
