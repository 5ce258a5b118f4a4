"""Implicit flow Q-learning (IFQL), a baseline of the FQL paper: implicit Q-learning with the best of several BC actions."""

from typing import Any, ClassVar, NamedTuple

import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_flow.common.flow import euler, flow_matching_loss
from sb3_flow.common.flow_algorithm import total
from sb3_flow.common.offline_to_online_algorithm import OfflineToOnlineAlgorithm
from sb3_flow.common.policies import FlowPolicy, aliases
from sb3_flow.common.search import Parameters, SearchSpace, suggest_common
from sb3_flow.common.type_aliases import Batch, Metrics, TensorObs


class IFQLPolicy(FlowPolicy):
    """
    A BC flow, critics with their targets, and a state value.

    Samplers: ``"best_of_n"`` (default): the action with the largest value among ``num_samples`` actions of the BC flow;
    ``"bc_flow"``: the BC policy.

    :param flow_steps: Euler steps of the flow
    :param num_samples: Number of actions from which ``"best_of_n"`` selects
    """

    guided_samplers: ClassVar[tuple[str, ...]] = ("bc_flow",)

    def build(self, flow_steps: int = 10, num_samples: int = 32) -> None:
        for name, value in (("flow_steps", flow_steps), ("num_samples", num_samples)):
            if value < 1:
                raise ValueError(f"`{name}` is {value}; it must be at least 1.")
        self.flow_steps, self.num_samples = flow_steps, num_samples
        self.samplers = {"best_of_n": "act_best_of_n", "bc_flow": "act_bc_flow"}
        self.bc_flow = self.make_velocity()
        self.value = self.make_values(n_inputs=0, n_members=1)
        self.critic = self.make_critic()
        self.critic_target = self.make_target(self.critic)

    def state_values(self, observations: TensorObs) -> th.Tensor:
        """``V(s)``, ``(B,)``."""
        return self.value.net(self.features(self.value, observations))[0]  # type: ignore[no-any-return]

    def act_bc_flow(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """``mu_theta(s, z)``: the flow integrated from ``z`` by Euler's method, then clipped to [-1, 1]."""
        return euler(self.velocity(self.bc_flow, observations), noise, self.flow_steps).clamp(-1, 1)

    def act_best_of_n(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """
        The action with the largest ``min_k Q_k(s, a)`` among the BC flow's actions for ``num_samples`` noises.

        :param observations: A raw batch
        :param noise: All noises of each observation, concatenated, ``(B, num_samples * action_dim)``
        :return: Actions in [-1, 1], ``(B, action_dim)``
        """
        batch, n = noise.shape[0], self.num_samples
        z = noise.view(batch, n, -1).transpose(0, 1).flatten(end_dim=1)  # the first noise of each observation first
        actions = euler(self.velocity(self.bc_flow, observations, copies=n), z, self.flow_steps).clamp(-1, 1)
        q = self.q_values(self.critic, observations, actions, copies=n).amin(dim=0)
        best = q.view(n, batch).argmax(dim=0)
        return actions.view(n, batch, -1)[best, th.arange(batch, device=noise.device)]

    @property
    def noise_dim(self) -> int:
        return self.action_dim * (self.num_samples if self.sampler == "best_of_n" else 1)

    def _fixed_noise(self) -> th.Tensor:
        # Only the first noise is zero; otherwise all actions would be equal.
        noise = th.randn(self.best_of_n, self.noise_dim, generator=th.Generator().manual_seed(0))
        noise[0, : self.action_dim] = 0.0
        return noise

    def score(self, observations: TensorObs, actions: th.Tensor) -> th.Tensor:
        """Score for ``best_of_n``, as in ``act_best_of_n``: the minimum over the critics, ``(B,)``."""
        return self.q_values(self.critic, observations, actions).amin(dim=0)


class IFQLNoise(NamedTuple):
    """
    All random numbers of one update.

    :param x0: Start of the straight path in the flow matching loss, standard normal, ``(B, action_dim)``
    :param t: Time on that path, uniform in [0, 1], ``(B, 1)``
    """

    x0: th.Tensor
    t: th.Tensor


class IFQL(OfflineToOnlineAlgorithm):
    """
    Implicit flow Q-learning: implicit diffusion Q-learning (IDQL) with a flow instead of the diffusion model.

    ``L = L_V + L_Q + L_BC``, with::

        L_V  = E[w (min_k Q'_k(s, a) - V(s))^2]                           value_loss
        L_Q  = E[sum_k (Q_k(s, a) - r - gamma m V(s'))^2]                 critic_loss
        L_BC = E[|v_theta(s, x_t, t) - (a - x_0)|^2]                      bc_flow_loss

    ``w`` is ``expectile`` if ``min_k Q'_k(s, a) >= V(s)``, else ``1 - expectile``, so ``V`` is an expectile of the values of
    the dataset's actions (Kostrikov, Nair and Levine, 2022), and the critics are only evaluated at actions of the dataset.
    ``Q'`` are the target critics, ``m`` is 0 if the task ended, ``v_theta`` is the velocity field. The squared error of
    ``L_BC`` is a mean over action dimensions, that of ``L_Q`` a sum over critics. With action chunks
    (``horizon_length > 1``), ``a`` is a chunk; chunks that reach past the end of a trajectory are masked out of all losses.

    The policy samples ``num_samples`` actions of the BC flow and executes the one with the largest ``min_k Q_k(s, a)``.
    ``deterministic=True`` uses the same noises in each call, the first of which is zero.

    Papers: IDQL, Hansen-Estruch et al., 2023, https://arxiv.org/abs/2304.10573; IFQL is a baseline in Park, Li and Levine,
    2025, https://arxiv.org/abs/2502.02538. Deviations from the published code: see ``docs/ifql.md``.

    :param policy: ``"FlowPolicy"`` (or a subclass of ``IFQLPolicy``)
    :param env: Environment, or its id. None: the spaces are those of the dataset
    :param learning_rate: Learning rate, or a function of the remaining progress (from 1 to 0)
    :param expectile: Expectile of the values of the dataset's actions, in (0, 1). 0.5 is their mean; close to 1 it approaches
        their maximum.
    :param num_samples: Number of actions from which the critics select
    :param flow_steps: Euler steps of the flow
    :param kwargs: All other arguments are those of ``OfflineToOnlineAlgorithm``, such as ``dataset``, ``offline_steps``,
        ``batch_size``, ``gamma``, ``n_steps``, ``seed`` and ``policy_kwargs``.
    :raises ValueError: If an argument is out of its range.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = aliases(IFQLPolicy)
    policy: IFQLPolicy

    def __init__(
        self,
        policy: str | type[IFQLPolicy],
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 3e-4,
        *,
        expectile: float = 0.9,
        num_samples: int = 32,
        flow_steps: int = 10,
        **kwargs: Any,
    ) -> None:
        if not 0 < expectile < 1:
            raise ValueError(f"`expectile` is {expectile}; it must be above 0 and below 1.")
        self.expectile = expectile
        self.num_samples = num_samples
        self.flow_steps = flow_steps
        super().__init__(policy, env, learning_rate, **kwargs)

    def _policy_arguments(self) -> dict[str, Any]:
        return {"flow_steps": self.flow_steps, "num_samples": self.num_samples, **super()._policy_arguments()}

    def draw_noise(self, n: int) -> IFQLNoise:
        """All random numbers of an update with ``n`` transitions."""
        return IFQLNoise(x0=self.normal(n), t=self.uniform(n))

    def loss(self, batch: Batch, noise: IFQLNoise) -> tuple[th.Tensor, Metrics]:
        """``L``. Each term trains a different network, so one optimizer step minimizes all of them."""
        return total(self.value_loss(batch), self.critic_loss(batch), self.bc_flow_loss(batch, noise))

    def value_loss(self, batch: Batch) -> tuple[th.Tensor, Metrics]:
        """``L_V``: expectile regression on the values of the dataset's actions. Gradient: the value only."""
        with th.no_grad():
            q = self.policy.q_values(self.policy.critic_target, batch.observations, batch.actions).amin(dim=0)
        v = self.policy.state_values(batch.observations)
        squares = (q - v).square()
        loss = (batch.valids * th.where(q >= v, self.expectile * squares, (1 - self.expectile) * squares)).mean()
        return loss, {"value_loss": loss, "v_mean": v.mean(), "v_min": v.amin(), "v_max": v.amax()}

    def critic_loss(self, batch: Batch) -> tuple[th.Tensor, Metrics]:
        """``L_Q``: the temporal difference error, a sum over critics and a mean over the batch. Gradient: critics only."""
        with th.no_grad():
            target = batch.rewards + batch.discounts * batch.masks * self.policy.state_values(batch.next_observations)
        qs = self.policy.q_values(self.policy.critic, batch.observations, batch.actions)
        loss = (batch.valids * (qs - target).square().sum(dim=0)).mean()
        return loss, {"critic_loss": loss, "q_mean": qs.mean(), "q_min": qs.amin(), "q_max": qs.amax()}

    def bc_flow_loss(self, batch: Batch, noise: IFQLNoise) -> tuple[th.Tensor, Metrics]:
        """``L_BC``: flow matching on the actions of the dataset. Gradient: the velocity field only."""
        velocity = self.policy.velocity(self.policy.bc_flow, batch.observations)
        errors = flow_matching_loss(velocity, noise.x0, batch.actions, noise.t)
        loss = (batch.valids * errors).mean()
        return loss, {"bc_flow_loss": loss}


def _suggest_ifql(trial: Any) -> Parameters:
    """The FQL paper tunes the number of samples per task; QAM's code, which also has this baseline, tunes the expectile."""
    return {
        "expectile": trial.suggest_float("expectile", 0.6, 0.98),
        "num_samples": trial.suggest_categorical("num_samples", [16, 32, 64, 128]),
        "flow_steps": trial.suggest_categorical("flow_steps", [5, 10, 20]),
        **suggest_common(trial),
    }


IFQL_SPACE = SearchSpace(_suggest_ifql)
