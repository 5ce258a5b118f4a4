"""The networks of FlowOpt, and how it plans: proposals of a flow, a learned start, the safety filter, the best of several."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn

from sb3_flow.common.flow import euler
from sb3_flow.common.policies import FlowPolicy
from sb3_flow.common.type_aliases import TensorObs, Velocity
from sb3_flow.flow_opt.networks import Scene, TrajectoryTransformer
from sb3_flow.flow_opt.plans import Candidates, Plan, best_plan
from sb3_flow.flow_opt.symmetries import parities, symmetries
from sb3_flow.planning.costs import noise as random_plans
from sb3_flow.planning.costs import smoothness
from sb3_flow.planning.filter_settings import FilterSettings
from sb3_flow.planning.observations import actions as as_actions
from sb3_flow.planning.observations import plans as as_plans
from sb3_flow.planning.observations import problems as as_problems
from sb3_flow.planning.observations import solver_samples
from sb3_flow.planning.polish import polish
from sb3_flow.planning.problems import Limits, Problems
from sb3_flow.planning.safety_filter import SafetyFilter

#: Spreads of the random proposals that are tried where no proposal of the flow could be repaired.
FALLBACK_SPREADS = (0.5, 1.0)


class FlowOptPolicy(FlowPolicy):
    """
    A flow over plans, a network that starts the safety filter, and the filter.

    Heads: ``"filter"`` (the best of ``best_of_n`` proposals behind the filter) and ``"flow"`` (the first proposal as it is).

    :param limits: What all problems have in common, the arguments of ``planning.problems.Limits``;
        None: its defaults
    :param degree: Degree of the polynomials that plans are
    :param width: Size of the flow's tokens
    :param depth: Number of its blocks
    :param attention_heads: Number of heads of each attention
    :param initialiser_width: Size of the initialiser's tokens
    :param initialiser_depth: Number of its blocks
    :param flow_steps: Euler steps from noise to a proposal
    :param initialise: Whether the initialiser has a say when plans are made. Before it is trained, it changes nothing.
    :param polish_rounds: How often certified plans are made smoother
    :param fallback: Whether random proposals are tried where none of the flow's could be repaired
    :param filter_kwargs: Settings of the filter, see ``planning.safety_filter.FilterSettings``
    :param optimizer_class: The optimiser of all networks
    :param optimizer_kwargs: Its arguments but for the learning rate; None: betas of 0.9 and 0.99 and a weight decay of 1e-4
    """

    #: Root mean square of each mode in the data, in metres, ``(m,)``
    sigma: th.Tensor
    #: Symmetries of problems, ``(8, D, D)``, and what modes are when time runs backwards, ``(m,)``
    symmetries: th.Tensor
    parities: th.Tensor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        *,
        optimizer_class: type[th.optim.Optimizer] = th.optim.AdamW,
        optimizer_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if optimizer_class is th.optim.AdamW and optimizer_kwargs is None:
            optimizer_kwargs = {"betas": (0.9, 0.99), "weight_decay": 1e-4, "fused": True}
        kwargs = {"optimizer_class": optimizer_class, "optimizer_kwargs": optimizer_kwargs, **kwargs}
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def build(
        self,
        limits: Mapping[str, Any] | None = None,
        degree: int = 12,
        width: int = 256,
        depth: int = 6,
        attention_heads: int = 8,
        initialiser_width: int = 128,
        initialiser_depth: int = 3,
        flow_steps: int = 10,
        initialise: bool = True,
        polish_rounds: int = 0,
        fallback: bool = True,
        filter_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        for name, value, least in (("flow_steps", flow_steps, 1), ("polish_rounds", polish_rounds, 0)):
            if value < least:
                raise ValueError(f"`{name}` is {value}; it must be at least {least}.")
        self.limits, self.flow_steps = Limits(**(limits or {})), flow_steps
        self.initialise, self.polish_rounds, self.fallback = initialise, polish_rounds, fallback
        settings = {"samples": solver_samples(self.limits), **(filter_kwargs or {}), "basis_degree": degree}
        self.filter = SafetyFilter(self.limits, FilterSettings(**settings))
        self.basis = self.filter.basis
        dimensions, modes = self.limits.dimensions, self.basis.n_modes
        self.max_robots = self.action_dim // (dimensions * modes)
        if self.max_robots * dimensions * modes != self.action_dim:
            raise ValueError(
                f"An action has {self.action_dim} numbers, which are no whole number of robots with {modes} modes in "
                f"{dimensions} dimensions: `degree` is not that of the environment."
            )
        points = dimensions * modes
        self.flow = TrajectoryTransformer(dimensions, points, points, width, depth, attention_heads)
        self.flow_average = self.make_target(self.flow)
        # From a proposal to where the filter starts: a displacement, and multipliers.
        self.initialiser = TrajectoryTransformer(
            dimensions, points, 2 * points, initialiser_width, initialiser_depth, attention_heads
        )
        self.samplers = {"filter": "act_filtered", "flow": "act_unfiltered"}
        self.last_plan: Plan | None = None
        self.register_buffer("sigma", th.ones(modes))
        self.register_buffer("symmetries", symmetries(dimensions).float(), persistent=False)
        self.register_buffer("parities", parities(self.basis).float(), persistent=False)

    # Between actions, metres and what the networks see.

    def problems(self, observations: TensorObs) -> Problems:
        """Observations as problems, in metres."""
        assert isinstance(observations, dict)
        return as_problems(observations, self.limits)

    def to_metres(self, actions: th.Tensor) -> th.Tensor:
        """Actions, ``(B, action_dim)``, as the environment understands them: ``(B, N, D, m)``."""
        return as_plans(actions, self.limits, self.basis.degree)

    def to_actions(self, y: th.Tensor) -> th.Tensor:
        """Plans in metres, ``(B, N, D, m)``, as actions clipped to [-1, 1], ``(B, action_dim)``."""
        return as_actions(y, self.limits)

    def unscale_action(self, scaled_action: np.ndarray) -> np.ndarray:
        # The environment's actions are in [-1, 1] as well, and a plan is certified as it is: to the last bit.
        space = self.action_space
        if (space.low == -1).all() and (space.high == 1).all():
            return scaled_action.astype(space.dtype)
        return super().unscale_action(scaled_action)

    def scene(self, problems: Problems) -> Scene:
        """Problems as the networks see them."""
        size, v_max, a_max = self.limits.size, self.limits.v_max, self.limits.a_max
        robots = [problems.start / size, problems.goal / size, problems.velocity / v_max, problems.acceleration / a_max]
        obstacles = th.cat([problems.obstacles[..., :-1] / size, problems.obstacles[..., -1:]], dim=-1)
        return Scene(th.cat(robots, dim=-1), problems.robot_mask, obstacles, problems.obstacle_mask)

    # The flow and the initialiser.

    def velocity_of(self, network: nn.Module, problems: Problems, copies: int = 1) -> Velocity:
        """
        The velocity field of plans in units of ``sigma``, given problems.

        :param network: ``flow`` or ``flow_average``
        :param problems: ``B`` problems
        :param copies: How many points there are for each; those of one problem come one after the other.
        :return: ``(x, t) -> v``, of shapes ``(B * copies, N * D * m), (B * copies, 1) -> (B * copies, N * D * m)``
        """
        context = network.context(self.scene(problems)).repeat(copies)  # type: ignore[operator]

        def velocity(x: th.Tensor, t: th.Tensor) -> th.Tensor:
            points = x.view(len(x), self.max_robots, -1)
            return network(context, points, t).flatten(start_dim=1)  # type: ignore[no-any-return]

        return velocity

    def propose(self, problems: Problems, noise: th.Tensor) -> th.Tensor:
        """
        Carry noise to proposals, by Euler's method.

        :param problems: ``B`` problems
        :param noise: Standard normal, ``(B * k, action_dim)``, those of one problem one after the other
        :return: In metres, ``(B * k, N, D, m)``
        """
        copies = len(noise) // len(problems.start)
        x = self.integrate(self.velocity_of(self.flow_average, problems, copies), noise)
        return self.to_plans(x) * self.sigma * there(problems.repeat(copies))

    def integrate(self, velocity: Velocity, noise: th.Tensor) -> th.Tensor:
        """Carry noise to samples, ``(B, action_dim)``, by Euler's method."""
        return euler(velocity, noise, self.flow_steps)

    def to_plans(self, x: th.Tensor) -> th.Tensor:
        """The numbers of plans, ``(..., action_dim)``, by robots, axes and modes, ``(..., N, D, m)``."""
        return x.reshape(*x.shape[:-1], self.max_robots, self.limits.dimensions, self.basis.n_modes)

    def starts(self, problems: Problems, proposals: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        Where the initialiser has the filter start.

        :param problems: ``B`` problems
        :param proposals: In metres, ``(B, N, D, m)``
        :return: First iterates and multipliers; of an untrained initialiser the proposals themselves, and 0.
        """
        context = self.initialiser.context(self.scene(problems))
        points = (proposals / self.sigma).flatten(start_dim=2)
        out = self.initialiser(context, points, points.new_zeros(len(points), 1))
        moves, forces = out.view(*out.shape[:2], 2, *proposals.shape[2:]).unbind(dim=2)
        scale = there(problems) * self.sigma
        return proposals + scale * moves, (scale * forces) @ self.filter.metric.to(forces.dtype)

    # Planning.

    def plan(
        self,
        observations: TensorObs,
        k: int | None = None,
        deadline_ms: float | None = None,
        deterministic: bool = False,
    ) -> Plan:
        """
        Plan, and tell what is known about the plan.

        :param observations: A raw batch of ``B``
        :param k: Number of proposals for each problem; None: ``best_of_n``
        :param deadline_ms: When repairing and polishing stop; what is certified by then is chosen from. None: at the end
        :param deterministic: Whether to start from the same noise at each call
        :return: The plans; ``feasible`` says which of them are certified.
        :raises ValueError: If ``k`` is below 1.
        """
        began = time.perf_counter()
        k = self.best_of_n if k is None else k
        if k < 1:
            raise ValueError(f"`k` is {k}; it must be at least 1.")
        deadline = None if deadline_ms is None else began + deadline_ms / 1000
        problems = self.problems(observations)
        n = len(problems.start)
        with th.no_grad():
            proposals = self.propose(problems, self._noise_for(n, k, deterministic).flatten(end_dim=1))
            candidates = self.repair(problems, proposals, self.initialise, deadline)
            for spread in FALLBACK_SPREADS if self.fallback else ():
                if candidates.feasible.any(dim=1).all() or (deadline is not None and time.perf_counter() > deadline):
                    break
                generator = th.Generator(self.device).manual_seed(0) if deterministic else self.generator
                lines = random_plans(problems.repeat(k), self.basis, spread, generator)
                candidates = candidates.joined(self.repair(problems, lines, False, deadline))
        return best_plan(candidates, problems.boundary, self.basis, 1000 * (time.perf_counter() - began))

    def repair(self, problems: Problems, proposals: th.Tensor, initialise: bool, deadline: float | None) -> Candidates:
        """
        Proposals behind the filter, as the environment will execute them.

        :param problems: ``B`` problems
        :param proposals: ``(B * k, N, D, m)``, those of one problem one after the other
        :param initialise: Whether the initialiser has a say
        :param deadline: When to stop, on the clock of ``time.perf_counter``
        :return: The candidates
        """
        n = len(problems.start)
        repeated = problems.repeat(len(proposals) // n)
        start = self.starts(repeated, proposals) if initialise else None
        filtered = self.filter(repeated, proposals, start, deadline=deadline)
        y = filtered.y
        if self.polish_rounds:
            y = polish(self.filter, repeated, y, filtered.safe, self.polish_rounds, deadline).y
        actions = self.to_actions(y)
        y = self.to_metres(actions) * there(repeated)  # as rounded and clipped as it will be flown
        certified = self.filter.certificate.certify(repeated, y)
        cost = smoothness(repeated, y, self.basis)
        parts = actions, y, certified.safe, certified.margin, filtered.iterations, cost
        return Candidates(*(part.view(n, -1, *part.shape[1:]) for part in parts))

    def _noise_for(self, n: int, k: int, deterministic: bool) -> th.Tensor:
        """What to propose from, ``(n, k, action_dim)``."""
        twin = self if k == self.best_of_n else self.with_sampler(self.sampler, best_of_n=k)
        return twin._noise(n, deterministic)

    # Acting.

    def act_filtered(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """One proposal behind the filter, certified or not, ``(B, action_dim)``."""
        problems = self.problems(observations)
        candidates = self.repair(problems, self.propose(problems, noise), self.initialise, None)
        return candidates.actions[:, 0]

    def act_unfiltered(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """One proposal as it is, ``(B, action_dim)``."""
        return self.to_actions(self.propose(self.problems(observations), noise))

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        if self.sampler != "filter":
            return super()._predict(observation, deterministic)
        self.last_plan = self.plan(observation, deterministic=deterministic)
        return self.last_plan.actions


def there(problems: Problems) -> th.Tensor:
    """1 for robots that there are and 0 for padding, ``(B, N, 1, 1)``."""
    return problems.robot_mask[:, :, None, None].to(problems.start.dtype)
