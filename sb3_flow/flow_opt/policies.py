"""The policy of FlowOpt: proposals of a flow, a learned start of the safety filter, and the best of several plans."""

import time
from collections.abc import Mapping
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn

from sb3_flow.common.arguments import checked_value
from sb3_flow.common.flow import euler
from sb3_flow.common.policies import FlowPolicy
from sb3_flow.common.renamed import FormerName, renamed_arguments, with_new_names
from sb3_flow.common.type_aliases import TensorObs, Velocity
from sb3_flow.flow_opt.networks import Scene, TrajectoryTransformer
from sb3_flow.flow_opt.plans import Candidates, Plan, best_plan
from sb3_flow.flow_opt.symmetries import parities, symmetries
from sb3_flow.planning.costs import smooth, smoothness
from sb3_flow.planning.filter_loop import Tensors, filter_loop, polish_loop, while_loop
from sb3_flow.planning.filter_settings import FilterSettings
from sb3_flow.planning.observations import action_scale, solver_samples
from sb3_flow.planning.observations import actions as as_actions
from sb3_flow.planning.observations import plans as as_plans
from sb3_flow.planning.observations import problems as as_problems
from sb3_flow.planning.polish import gentle_filter, polish
from sb3_flow.planning.problems import Limits, Problems
from sb3_flow.planning.safety_filter import SafetyFilter

#: Standard deviations of the random proposals that are tried if no proposal of the flow could be repaired, in meters.
FALLBACK_SPREADS = (0.5, 1.0)
#: Ways to start the multipliers of the filter.
MULTIPLIERS = ("free", "matched", "none")
#: Former names of the policy's arguments, and of the filter's settings.
FORMER_POLICY_NAMES = {
    "initialiser_width": "initializer_width",
    "initialiser_depth": "initializer_depth",
    "initialise": "initialize",
}
FORMER_FILTER_NAMES = {"majoriser": "majorizer", "majorisation": "majorization"}


class FlowOptPolicy(FlowPolicy):
    """
    A flow over plans, an initializer of the safety filter, and the filter.

    Samplers: ``"filter"`` (the best of ``best_of_n`` filtered proposals) and ``"flow"`` (the first proposal, not filtered).

    :param limits: Arguments of ``planning.problems.Limits``; None: its defaults
    :param degree: Degree of the polynomials
    :param width: Size of the flow's tokens
    :param depth: Number of the flow's blocks
    :param attention_heads: Number of attention heads
    :param initializer_width: Size of the initializer's tokens
    :param initializer_depth: Number of the initializer's blocks
    :param multipliers: Initial multipliers of the filter. ``"free"``: an output of the initializer, as in version 0.1;
        ``"matched"``: those with which the filter stays at the initial plan, plus this output; ``"none"``: 0
    :param flow_steps: Euler steps from noise to a proposal
    :param initialize: Whether to use the initializer. An untrained initializer has no effect.
    :param polish_rounds: Number of rounds that make certified plans smoother
    :param fallback: Whether to try random proposals if none of the flow's could be repaired
    :param filter_kwargs: Settings of the filter, see ``planning.filter_settings.FilterSettings``
    :param optimizer_class: The optimizer of all networks
    :param optimizer_kwargs: Its arguments except the learning rate; None: betas of 0.9 and 0.99 and a weight decay of 1e-4
    """

    #: Root mean square of each mode in the data, in meters, ``(m,)``
    sigma: th.Tensor
    #: Amplitude of each mode for an action of 1, in meters, ``(m,)``
    amplitudes: th.Tensor
    #: Symmetries of problems, ``(8, D, D)``, and parities of the modes under time reversal, ``(m,)``
    symmetries: th.Tensor
    parities: th.Tensor
    without_effect: ClassVar[tuple[str, ...]] = (
        *("activation", "critic_layer_norm", "features_extractor_class", "features_extractor_kwargs", "n_critics", "net_arch"),
        "normalize_images",
    )

    initialiser = FormerName("initializer")
    initialise = FormerName("initialize")
    to_metres = FormerName("to_meters")

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

    @renamed_arguments(**FORMER_POLICY_NAMES)
    def build(
        self,
        limits: Mapping[str, Any] | None = None,
        degree: int = 12,
        width: int = 256,
        depth: int = 6,
        attention_heads: int = 8,
        initializer_width: int = 128,
        initializer_depth: int = 3,
        multipliers: str = "free",
        flow_steps: int = 10,
        initialize: bool = True,
        polish_rounds: int = 0,
        fallback: bool = True,
        filter_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        for name, value, least in (("flow_steps", flow_steps, 1), ("polish_rounds", polish_rounds, 0)):
            if value < least:
                raise ValueError(f"`{name}` is {value}; it must be at least {least}.")
        if multipliers not in MULTIPLIERS:
            raise ValueError(f"`multipliers` is {multipliers!r}; it must be one of {', '.join(map(repr, MULTIPLIERS))}.")
        self.multipliers = multipliers
        self.limits, self.flow_steps = Limits(**(limits or {})), flow_steps
        self.initialize, self.polish_rounds, self.fallback = initialize, polish_rounds, fallback
        filter_kwargs = with_new_names(filter_kwargs or {}, FORMER_FILTER_NAMES)
        if "basis_degree" in filter_kwargs:
            raise ValueError("`filter_kwargs` has `basis_degree`, which is the argument `degree` of the algorithm.")
        settings = {"samples": solver_samples(self.limits), **filter_kwargs, "basis_degree": degree}
        self.filter = SafetyFilter(self.limits, FilterSettings(**settings))
        # For the exported graph, which cannot build it.
        self.gentle_filter = (
            gentle_filter(self.limits, self.filter.settings, th.float32, self.device) if polish_rounds else None
        )
        self.basis = self.filter.basis
        dimensions, modes = self.limits.dimensions, self.basis.n_modes
        self.max_robots = self.action_dim // (dimensions * modes)
        if self.max_robots * dimensions * modes != self.action_dim:
            raise ValueError(
                f"The action has {self.action_dim} numbers, which is not a multiple of {modes} modes times {dimensions} "
                f"dimensions: `degree` is {degree}; it must be that of the environment."
            )
        obstacles = self.observation_space["obstacles"].shape  # type: ignore[index]
        self.filter.tabulate(self.max_robots, obstacles[0])
        points = dimensions * modes
        self.flow = TrajectoryTransformer(dimensions, points, points, width, depth, attention_heads)
        self.flow_average = self.make_target(self.flow)
        # From a proposal to the start of the filter: a displacement and multipliers.
        self.initializer = TrajectoryTransformer(
            dimensions, points, 2 * points, initializer_width, initializer_depth, attention_heads
        )
        self.samplers = {"filter": "act_filtered", "flow": "act_unfiltered"}
        self.last_plan: Plan | None = None
        self.register_buffer("sigma", th.ones(modes))
        # A buffer, because compiled code would compute them, with their eigenvalues, in each update.
        self.register_buffer("amplitudes", action_scale(self.limits, degree), persistent=False)
        self.register_buffer("symmetries", symmetries(dimensions).float(), persistent=False)
        self.register_buffer("parities", parities(self.basis).float(), persistent=False)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As in PyTorch, with parameters that version 0.1 saved as ``initialiser``."""
        renamed = {
            f"initializer{name.removeprefix('initialiser')}" if name.startswith("initialiser.") else name: value
            for name, value in state_dict.items()
        }
        return super().load_state_dict(renamed, strict, assign)

    # Conversions between actions, meters and the input of the networks.

    def problems(self, observations: TensorObs) -> Problems:
        """Convert observations to problems, in meters."""
        assert isinstance(observations, dict)
        return as_problems(observations, self.limits)

    def to_meters(self, actions: th.Tensor) -> th.Tensor:
        """Convert actions, ``(B, action_dim)``, to plans in meters, ``(B, N, D, m)``."""
        return as_plans(actions, self.limits, self.basis.degree, self.amplitudes)

    def to_actions(self, y: th.Tensor) -> th.Tensor:
        """Convert plans in meters, ``(B, N, D, m)``, to actions clipped to [-1, 1], ``(B, action_dim)``."""
        return as_actions(y, self.limits, scale=self.amplitudes)

    def unscale_action(self, scaled_action: np.ndarray) -> np.ndarray:
        # If the environment's actions are in [-1, 1], keep them bit by bit, because the plan is certified so.
        space = self.action_space
        if (space.low == -1).all() and (space.high == 1).all():
            return scaled_action.astype(space.dtype)
        return super().unscale_action(scaled_action)

    def scene(self, problems: Problems) -> Scene:
        """Convert problems to the input of the networks."""
        size, v_max, a_max = self.limits.size, self.limits.v_max, self.limits.a_max
        robots = [problems.start / size, problems.goal / size, problems.velocity / v_max, problems.acceleration / a_max]
        obstacles = th.cat([problems.obstacles[..., :-1] / size, problems.obstacles[..., -1:]], dim=-1)
        return Scene(th.cat(robots, dim=-1), problems.robot_mask, obstacles, problems.obstacle_mask)

    # The flow and the initializer.

    def velocity_of(self, network: nn.Module, problems: Problems, copies: int = 1) -> Velocity:
        """
        The velocity field of plans in units of ``sigma``, conditioned on problems.

        :param network: ``flow`` or ``flow_average``
        :param problems: ``B`` problems
        :param copies: Number of points per problem; points of one problem are adjacent
        :return: ``(x, t) -> v``, of shapes ``(B * copies, N * D * m), (B * copies, 1) -> (B * copies, N * D * m)``
        """
        context = network.context(self.scene(problems)).repeat(copies)  # type: ignore[operator]

        def velocity(x: th.Tensor, t: th.Tensor) -> th.Tensor:
            points = x.view(len(x), self.max_robots, -1)
            return network(context, points, t).flatten(start_dim=1)  # type: ignore[no-any-return]

        return velocity

    def propose(self, problems: Problems, noise: th.Tensor) -> th.Tensor:
        """
        Sample proposals by Euler's method.

        :param problems: ``B`` problems
        :param noise: Standard normal, ``(B * k, action_dim)``; rows of one problem are adjacent
        :return: Proposals in meters, ``(B * k, N, D, m)``
        """
        copies = len(noise) // len(problems.start)
        x = self.integrate(self.velocity_of(self.flow_average, problems, copies), noise)
        return self.to_plans(x) * self.sigma * mask_of(problems.repeat(copies))

    def integrate(self, velocity: Velocity, noise: th.Tensor) -> th.Tensor:
        """Integrate the flow from noise, ``(B, action_dim)``, by Euler's method."""
        return euler(velocity, noise, self.flow_steps)

    def to_plans(self, x: th.Tensor) -> th.Tensor:
        """Reshape plans from ``(..., action_dim)`` to ``(..., N, D, m)``."""
        return x.reshape(*x.shape[:-1], self.max_robots, self.limits.dimensions, self.basis.n_modes)

    def starts(self, problems: Problems, proposals: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        Start of the filter, by the initializer.

        :param problems: ``B`` problems
        :param proposals: Proposals in meters, ``(B, N, D, m)``
        :return: Initial iterates and multipliers; an untrained initializer returns the proposals and 0
        """
        context = self.initializer.context(self.scene(problems))
        points = (proposals / self.sigma).flatten(start_dim=2)
        out = self.initializer(context, points, points.new_zeros(len(points), 1))
        moves, forces = out.view(*out.shape[:2], 2, *proposals.shape[2:]).unbind(dim=2)
        scale = mask_of(problems) * self.sigma
        start, anchor = proposals + scale * moves, scale * forces
        if self.multipliers == "none":
            return start, th.zeros_like(start)
        return start, self.filter.matching(start - proposals + anchor if self.multipliers == "matched" else anchor)

    # Planning.

    def plan(
        self,
        observations: TensorObs,
        k: int | None = None,
        deadline_ms: float | None = None,
        deterministic: bool = False,
    ) -> Plan:
        """
        Plan, and return the plans with their certificates.

        :param observations: A raw batch of ``B``
        :param k: Number of proposals for each problem; None: ``best_of_n``
        :param deadline_ms: Time in milliseconds after which filter and polishing stop. None: no deadline
        :param deterministic: Whether to use the same noise at each call
        :return: The plans; ``feasible`` tells which of them are certified
        :raises ValueError: If ``k`` is below 1, or the deadline below 0.
        """
        began = time.perf_counter()
        k = self.best_of_n if k is None else checked_value("k", k, int)
        if k < 1:
            raise ValueError(f"`k` is {k}; it must be at least 1.")
        if deadline_ms is not None and not (isinstance(deadline_ms, Real) and deadline_ms >= 0):
            raise ValueError(f"`deadline_ms` is {deadline_ms!r}; it must be at least 0 milliseconds, or None.")
        deadline = None if deadline_ms is None else began + deadline_ms / 1000
        problems = self.problems(observations)
        return self._plan(problems, self._noise_for(len(problems.start), k, deterministic), k, began, deadline)

    def _plan(self, problems: Problems, noise: th.Tensor, k: int, began: float, deadline: float | None) -> Plan:
        """As ``plan``, from noise of ``_noise_for`` and times of ``time.perf_counter``."""
        with th.no_grad():
            candidates = self.repair(
                problems, self.propose(problems, noise[:, :k].flatten(end_dim=1)), self.initialize, deadline
            )
            for i, spread in enumerate(self.spreads, start=1):
                if candidates.feasible.any(dim=1).all() or (deadline is not None and time.perf_counter() > deadline):
                    break
                lines = self.random_plans(problems, noise[:, i * k : (i + 1) * k].flatten(end_dim=1), spread)
                candidates = candidates.joined(self.repair(problems, lines, False, deadline))
        return best_plan(candidates, problems.boundary, self.basis, 1000 * (time.perf_counter() - began))

    def plan_in_graph(self, observations: TensorObs, noise: th.Tensor) -> Candidates:
        """
        As ``plan`` without a deadline, as one graph of tensor operations, which can be exported.

        :param observations: A raw batch of ``B``
        :param noise: Standard normal, ``(B, n_noises, action_dim)``
        :return: The best candidate of each problem, ``K = 1``. Its ``iterations`` are 0.
        """
        problems, k = self.problems(observations), self.best_of_n
        repeated = problems.repeat(k)
        # Proposals of the flow, then random ones for the fallback.
        normal = [part.flatten(end_dim=1) for part in th.split(noise, k, dim=1)]
        flow = self.propose(problems, normal[0])
        lines = [self.random_plans(problems, part, spread) for part, spread in zip(normal[1:], self.spreads, strict=True)]
        y_0, lambda_0 = self.starts(repeated, flow) if self.initialize else (flow, th.zeros_like(flow))
        proposals, starts = th.stack([flow, *lines]), th.stack([y_0, *lines])
        forces = th.stack([lambda_0, *(th.zeros_like(line) for line in lines)])

        def more(run: th.Tensor, *best: th.Tensor) -> th.Tensor:
            return (run < len(normal)) & ~Candidates(*best).feasible.all()

        def attempt(run: th.Tensor, *best: th.Tensor) -> Tensors:
            x, y_0, lambda_0 = (part.index_select(0, run.reshape(1)).squeeze(0) for part in (proposals, starts, forces))
            y, safe = filter_loop(self.filter, repeated, x, y_0, lambda_0, skip=th.zeros_like(x[:, 0, 0, 0], dtype=th.bool))
            if self.gentle_filter is not None:
                y = polish_loop(self.gentle_filter, repeated, y, safe, self.polish_rounds)
            candidates = self.assess(problems, repeated, y, th.zeros_like(safe, dtype=th.int64))
            return run + 1, *Candidates(*best).joined(candidates).only_best()

        none = self.assess(problems, problems, self.to_plans(noise[:, 0]), th.zeros_like(noise[:, 0, 0], dtype=th.int64))
        feasible, margin = th.zeros_like(none.feasible), th.full_like(none.margin, -th.inf)
        none = none._replace(actions=th.full_like(none.actions, th.nan), feasible=feasible, margin=margin)
        return Candidates(*while_loop(more, attempt, [th.zeros((), dtype=th.int64), *none])[1:])

    def repair(self, problems: Problems, proposals: th.Tensor, initialize: bool, deadline: float | None) -> Candidates:
        """
        Filter and polish proposals. Certificates are for plans as the environment executes them.

        :param problems: ``B`` problems
        :param proposals: ``(B * k, N, D, m)``; proposals of one problem are adjacent
        :param initialize: Whether to use the initializer
        :param deadline: Value of ``time.perf_counter`` at which to stop; None: no deadline
        :return: The candidates
        """
        repeated = problems.repeat(len(proposals) // len(problems.start))
        start = self.starts(repeated, proposals) if initialize else None
        filtered = self.filter(repeated, proposals, start, deadline=deadline)
        y = filtered.y
        if self.polish_rounds:
            y = polish(self.filter, repeated, y, filtered.safe, self.polish_rounds, deadline).y
        return self.assess(problems, repeated, y, filtered.iterations)

    def assess(self, problems: Problems, repeated: Problems, y: th.Tensor, iterations: th.Tensor) -> Candidates:
        """
        Certify plans as the environment executes them.

        :param problems: ``B`` problems
        :param repeated: The same, ``k`` times each
        :param y: Their plans in meters, ``(B * k, N, D, m)``; those of one problem are adjacent
        :param iterations: Iterations of the safety filter, ``(B * k,)``
        :return: The candidates
        """
        actions = self.to_actions(y)
        y = self.to_meters(actions) * mask_of(repeated)  # rounded and clipped, as it will be executed
        certified = self.filter.certificate.certify(repeated, y)
        cost = smoothness(repeated, y, self.basis)
        parts = actions, y, certified.safe, certified.margin, iterations, cost
        return Candidates(*(part.view(len(problems.start), -1, *part.shape[1:]) for part in parts))

    def random_plans(self, problems: Problems, noise: th.Tensor, spread: float) -> th.Tensor:
        """
        Proposals that do not depend on the flow: straight lines plus smooth noise.

        :param problems: ``B`` problems
        :param noise: Standard normal, ``(B * k, action_dim)``; rows of one problem are adjacent
        :param spread: Standard deviation of the first mode in meters
        :return: Proposals in meters, ``(B * k, N, D, m)``
        """
        return smooth(problems.repeat(len(noise) // len(problems.start)), self.basis, spread, self.to_plans(noise))

    @property
    def spreads(self) -> tuple[float, ...]:
        """Spreads of the random proposals of the fallback."""
        return FALLBACK_SPREADS if self.fallback else ()

    @property
    def n_noises(self) -> int:
        # With a filter, also those of the fallback, which may not be needed.
        return self.best_of_n * (1 + len(self.spreads) if self.sampler == "filter" else 1)

    def _noise_for(self, n: int, k: int, deterministic: bool) -> th.Tensor:
        """The noise of all proposals, ``(n, k * (1 + len(spreads)), action_dim)``."""
        twin = self if (self.sampler, self.best_of_n) == ("filter", k) else self.with_sampler("filter", best_of_n=k)
        return twin._noise(n, deterministic)

    # Acting.

    def act_filtered(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """Filter one proposal per problem. The result, ``(B, action_dim)``, may not be certified."""
        problems = self.problems(observations)
        candidates = self.repair(problems, self.propose(problems, noise), self.initialize, None)
        return candidates.actions[:, 0]

    def act_unfiltered(self, observations: TensorObs, noise: th.Tensor) -> th.Tensor:
        """One proposal per problem, not filtered, ``(B, action_dim)``."""
        return self.to_actions(self.propose(self.problems(observations), noise))

    @property
    def certifies(self) -> bool:
        return self.sampler == "filter"

    def plan_actions(
        self, observations: TensorObs, noise: th.Tensor, last_actions: th.Tensor, episode_start: th.Tensor
    ) -> th.Tensor:
        if self.sampler != "filter":
            return super().plan_actions(observations, noise, last_actions, episode_start)
        self.last_plan = self._plan(self.problems(observations), noise, self.best_of_n, time.perf_counter(), None)
        self.certified = self.last_plan.feasible
        return self.executed(self.last_plan.actions)

    def plan_actions_in_graph(
        self, observations: TensorObs, noise: th.Tensor, last_actions: th.Tensor, episode_start: th.Tensor
    ) -> th.Tensor:
        if self.sampler != "filter":
            return super().plan_actions_in_graph(observations, noise, last_actions, episode_start)
        best = self.plan_in_graph(observations, noise)
        self.certified = best.feasible[:, 0]
        return self.executed(best.actions)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        if self.sampler != "filter":
            return super()._predict(observation, deterministic)
        self.last_plan = self.plan(observation, deterministic=deterministic)
        return self.last_plan.actions


def mask_of(problems: Problems) -> th.Tensor:
    """0 for padding and 1 for other robots, ``(B, N, 1, 1)``."""
    return problems.robot_mask[:, :, None, None].to(problems.start.dtype)
