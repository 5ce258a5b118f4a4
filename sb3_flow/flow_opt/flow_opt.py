"""Flow-Opt (Idoko, Jadhav and Singh, 2026, arXiv 2510.09204v2): multi-robot trajectories by a flow and a safety filter."""

import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule

from sb3_flow.common.execution import Loss
from sb3_flow.common.flow import interpolate
from sb3_flow.common.flow_algorithm import FlowAlgorithm, total
from sb3_flow.common.policies import aliases
from sb3_flow.common.renamed import FormerName, renamed_arguments
from sb3_flow.common.schedules import InTurn, WarmUpCosine
from sb3_flow.common.type_aliases import Batch, Metrics, TensorObs
from sb3_flow.common.vec_envs import attributes
from sb3_flow.flow_opt.plans import Plan
from sb3_flow.flow_opt.policies import FORMER_FILTER_NAMES, FORMER_POLICY_NAMES, FlowOptPolicy, mask_of
from sb3_flow.flow_opt.symmetries import N_SYMMETRIES, transform
from sb3_flow.planning.demonstrations import demonstrate
from sb3_flow.planning.problems import Problems
from sb3_flow.planning.scenes import check

Stage = Literal["flow", "imitate", "unroll"]
#: Weight of the distance from the proposal in the loss of unrolled iterations.
ANCHOR_COEF = 0.05
#: Weight of the multipliers in the loss of imitation.
MULTIPLIER_COEF = 0.3
#: Number of scenes that the expert solves at once, and number of proposals for each.
EXPERT_BATCH, EXPERT_PROPOSALS = 16, 8


class FlowOptNoise(NamedTuple):
    """
    All random numbers of one update.

    :param x0: Start of the straight path, standard normal, ``(B, action_dim)``
    :param t: Time on that path, uniform in [0, 1], ``(B, 1)``
    :param symmetry: Index of the symmetry that is applied to each problem, ``(B,)`` of int64 in [0, 8)
    :param backwards: Whether time is reversed, ``(B,)``, bool
    """

    x0: th.Tensor
    t: th.Tensor
    symmetry: th.Tensor
    backwards: th.Tensor


class FlowOpt(FlowAlgorithm):
    """
    Flow-Opt: a flow proposes joint trajectories, a safety filter makes them feasible, and an initializer starts the filter.

    This is our **reconstruction**: we only had the paper's abstract, and the code of the authors' earlier solvers.
    ``docs/flow_opt.md`` lists what is ours.

    A plan ``y`` holds modal coordinates, see ``planning.basis``; ``x_1 = y / sigma``. First the flow ``v`` is trained, then
    the initializer ``(y_0, lambda_0) = g(proposal)``::

        L_flow    = E[|v(x_t, t) - (x_1 - x_0)|^2],  x_t = (1 - t) x_0 + t x_1,  x_0 ~ N(0, 1)            flow_loss
        L_imitate = E[|(y_0 - y*) / sigma|^2 + 0.3 |(lambda_0 - lambda*) / (sigma B)|^2]                  imitation_loss
        L_unroll  = E[mean_k |rho g_k| + mean_k |y_(k+1) - y_k| + 0.05 |y_K - proposal|^2]                unrolled_loss

    Squared errors are means over robots, without padding. ``y*`` and ``lambda*`` are the first plan without violations at the
    samples, and its multipliers, that the filter finds from the proposal without ``g``; problems without one are left out. In
    the last line ``y_1 ... y_K`` are iterations of the filter from ``(y_0, lambda_0)``, and ``rho g_k`` are the pushes of the
    constraints. The gradient flows through the iterations; no solutions are needed.

    ``predict`` returns the best of ``best_of_n`` plans, even if none is certified. ``plan``, or ``last_plan`` after
    ``predict``, tells whether it is.

    :param policy: ``"FlowPolicy"`` (or a subclass of ``FlowOptPolicy``)
    :param env: A multi-robot environment such as ``sb3_flow/MultiRobot2D-v0``, or its id
    :param learning_rate: Largest learning rate of each stage, or a function of the remaining progress (from 1 to 0)
    :param tau: Update coefficient of the moving average of the flow's weights, in [0, 1]
    :param flow_fraction: Fraction of training for the flow, in (0, 1]; the rest trains the initializer
    :param imitation_fraction: Fraction of that rest in which the initializer imitates the filter's solutions, in [0, 1]
    :param initializer_batch_size: Number of problems in each update of the initializer; at most ``batch_size``
    :param imitated_iterations: Largest number of iterations of the filter to the imitated solution
    :param unrolled_iterations: ``K``
    :param augment: Whether to apply random symmetries to problems
    :param warm_up: Fraction of each stage in which the learning rate increases; then it decays to 0 as a cosine
    :param expert_scenes: Number of random scenes of the environment that the expert solves if there is no ``dataset``
    :param limits: Limits of all problems; None: those of the environment
    :param degree: Degree of the polynomials; None: that of the environment
    :param kwargs: Arguments of ``FlowAlgorithm``, such as ``dataset``, ``batch_size``, ``seed`` and ``policy_kwargs``
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = aliases(FlowOptPolicy)
    policy: FlowOptPolicy
    needs_rewards: ClassVar[bool] = False
    default_timesteps: ClassVar[int] = 100_000
    #: The updates of the stages differ.
    one_graph: ClassVar[bool] = False
    #: The moving average is updated like a target network.
    targets: ClassVar[dict[str, str]] = {"flow_average": "flow"}
    initialiser_batch_size = FormerName("initializer_batch_size")

    @renamed_arguments(initialiser_batch_size="initializer_batch_size")
    def __init__(
        self,
        policy: str | type[FlowOptPolicy],
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 3e-4,
        *,
        tau: float = 0.001,
        max_grad_norm: float | None = 1.0,
        flow_fraction: float = 0.8,
        imitation_fraction: float = 0.2,
        initializer_batch_size: int = 32,
        imitated_iterations: int = 60,
        unrolled_iterations: int = 10,
        augment: bool = True,
        warm_up: float = 0.01,
        expert_scenes: int = 1_000,
        limits: dict[str, Any] | None = None,
        degree: int | None = None,
        **kwargs: Any,
    ) -> None:
        for name, share in (("flow_fraction", flow_fraction), ("imitation_fraction", imitation_fraction)):
            if not 0 <= share <= 1 or (name == "flow_fraction" and share == 0):
                raise ValueError(f"`{name}` is {share}; it must be a fraction of training, at most 1.")
        for name, count in (
            ("initializer_batch_size", initializer_batch_size),
            ("imitated_iterations", imitated_iterations),
            ("unrolled_iterations", unrolled_iterations),
            ("expert_scenes", expert_scenes),
        ):
            if count < 1:
                raise ValueError(f"`{name}` is {count}; it must be at least 1.")
        WarmUpCosine(float, warm_up)  # raises
        self.flow_fraction = flow_fraction
        self.imitation_fraction = imitation_fraction
        self.initializer_batch_size = initializer_batch_size
        self.imitated_iterations = imitated_iterations
        self.unrolled_iterations = unrolled_iterations
        self.augment = augment
        self.warm_up = warm_up
        self.expert_scenes = expert_scenes
        self.limits, self.degree = limits, degree
        self.tau = tau
        super().__init__(policy, env, learning_rate, max_grad_norm=max_grad_norm, **kwargs)
        if self.normalize_observations or (self._vec_normalize_env is not None and self._vec_normalize_env.norm_obs):
            raise ValueError("Observations of FlowOpt are positions in meters: do not normalize them.")

    def _setup_model(self) -> None:
        if "initialiser_batch_size" in vars(self):
            self._rename_saved_attributes()
        if self.limits is None or self.degree is None:
            self._ask_the_environment()
        super()._setup_model()
        self._check_limits()
        stages = [share for share in self._shares() if share > 0]
        self.lr_schedule = InTurn(WarmUpCosine(self.lr_schedule, self.warm_up), stages)

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        super().set_env(env, force_reset)
        self._check_limits()

    def _check_limits(self) -> None:
        """Observations and actions are in units of the environment: other ones would be misread, and plans not be safe."""
        found = None if self.env is None else attributes(self.env, "limits")
        for name in ("dimensions", "size", "horizon") if found else ():
            own, there = getattr(self.policy.limits, name), getattr(found[0], name)  # type: ignore[index]
            if own != there:
                raise ValueError(
                    f"The `{name}` of this model is {own}, but that of the environment is {there}: plans would not be safe. "
                    "Make the environment as for training."
                )

    def _rename_saved_attributes(self) -> None:
        """Rename what a file of version 0.1 saved under former names."""
        self.initializer_batch_size = vars(self).pop("initialiser_batch_size")
        kwargs = {FORMER_POLICY_NAMES.get(name, name): value for name, value in self.policy_kwargs.items()}
        settings = kwargs.get("filter_kwargs") or {}
        kwargs["filter_kwargs"] = {FORMER_FILTER_NAMES.get(name, name): value for name, value in settings.items()}
        self.policy_kwargs = kwargs

    def _ask_the_environment(self) -> None:
        assert self.env is not None
        limits, degree = attributes(self.env, "limits"), attributes(self.env, "degree")
        if limits is None or degree is None:
            raise ValueError(
                "The environment has no `limits` and no `degree`. FlowOpt needs a multi-robot environment, such as "
                "'sb3_flow/MultiRobot2D-v0'."
            )
        if self.limits is None:
            self.limits = dataclasses.asdict(limits[0])
        self.degree = int(degree[0]) if self.degree is None else self.degree

    def _policy_arguments(self) -> dict[str, Any]:
        return {"limits": self.limits, "degree": self.degree}

    # Dataset.

    def _require_dataset(self) -> None:
        if self.dataset is None and self.dataset_name is None:
            self.set_dataset(self.demonstrations())
        super()._require_dataset()

    def demonstrations(self) -> dict[str, Any]:
        """
        Let the expert solve ``expert_scenes`` random scenes of the environment. A hundred scenes take seconds.

        :return: Its plans, in the format of ``dataset``
        :raises ValueError: If the environment has no random scenes, or no plan was found.
        """
        found = None if self.env is None else attributes(self.env, "scenes")
        if found is None:
            raise ValueError("There is nothing to imitate: pass `dataset`, or an environment with random `scenes`.")
        scenes, seed = found[0], int(th.randint(2**31, (), generator=self.host_generator))
        rng, generator = np.random.default_rng(seed), th.Generator().manual_seed(seed)
        parts = []
        for start in range(0, self.expert_scenes, EXPERT_BATCH):
            problems = scenes.sample(rng, min(EXPERT_BATCH, self.expert_scenes - start))
            parts.append(demonstrate(problems, self.policy.limits, EXPERT_PROPOSALS, generator, self.policy.basis.degree))
            if self.verbose:
                print(f"The expert has solved {start + len(problems.start):,} of {self.expert_scenes:,} scenes.")
        actions = np.concatenate([part.actions for part in parts])
        if len(actions) == 0:
            raise ValueError(
                f"The expert found no plan in {self.expert_scenes} scenes. Give the environment a larger `size` or `horizon`."
            )
        return {
            "observations": {key: np.concatenate([part.observations[key] for part in parts]) for key in parts[0].observations},
            "actions": actions,
            "rewards": np.concatenate([part.rewards for part in parts]),
            "terminations": np.ones(len(actions), dtype=bool),
            "truncations": np.zeros(len(actions), dtype=bool),
        }

    def set_dataset(self, dataset: Any) -> None:
        super().set_dataset(dataset)
        if self._n_updates == 0:
            self.policy.sigma.copy_(self._root_mean_squares())

    def _root_mean_squares(self, rows: int = 4096) -> th.Tensor:
        """Root mean square of each mode over all robots and axes of the data, in meters, ``(m,)``."""
        assert self.offline_buffer is not None
        squares, count = th.zeros(self.policy.basis.n_modes, device=self.device), th.zeros((), device=self.device)
        for start in range(0, len(self.offline_buffer), rows):
            batch = self.offline_buffer.draw(th.arange(start, min(start + rows, len(self.offline_buffer))))
            y, mask = self.policy.to_meters(batch.actions), mask_of(self.policy.problems(batch.observations))
            squares += (mask * y.square()).sum(dim=(0, 1, 2))
            count += mask.sum() * self.policy.limits.dimensions
        return (squares / count).sqrt().clamp(min=1e-3)

    # Stages.

    def _shares(self) -> tuple[float, float, float]:
        rest = 1.0 - self.flow_fraction
        return self.flow_fraction, rest * self.imitation_fraction, rest * (1.0 - self.imitation_fraction)

    @property
    def stage(self) -> Stage:
        """The stage of the next update."""
        done = 1.0 - self._current_progress_remaining
        flow, imitate, _ = self._shares()
        if done < flow or flow == 1.0:
            return "flow"
        return "imitate" if done < flow + imitate else "unroll"

    # The losses.

    def draw_noise(self, n: int) -> FlowOptNoise:
        """Draw all random numbers of an update with ``n`` problems."""
        symmetry = th.randint(N_SYMMETRIES, (n,), generator=self.generator, device=self.device)
        backwards = th.randint(2, (n,), generator=self.generator, device=self.device).bool()
        return FlowOptNoise(self.normal(n), self.uniform(n), symmetry, backwards)

    def loss(self, batch: Batch, noise: FlowOptNoise) -> tuple[th.Tensor, Metrics]:
        """The sum of all losses. ``update`` minimizes only the loss of its stage."""
        return total(self.flow_loss(batch, noise), self.imitation_loss(batch, noise), self.unrolled_loss(batch, noise))

    def examples(self, batch: Batch, noise: FlowOptNoise) -> tuple[Problems, th.Tensor]:
        """Problems and plans of a batch, ``(B, N, D, m)``, with random symmetries applied."""
        policy = self.policy
        problems, y = policy.problems(batch.observations), policy.to_meters(batch.actions).to(noise.x0.dtype)
        if not self.augment:
            return problems, y
        return transform(problems, y, policy.symmetries[noise.symmetry], policy.parities, noise.backwards)

    def flow_loss(self, batch: Batch, noise: FlowOptNoise) -> tuple[th.Tensor, Metrics]:
        """``L_flow``. Gradient: flow only."""
        policy = self.policy
        problems, y = self.examples(batch, noise)
        x1 = (y / policy.sigma).flatten(start_dim=1)
        point, target = self.path(x1, noise)
        v = policy.velocity_of(policy.flow, problems)(point, noise.t)
        loss = mean_square(policy.to_plans(v - target), problems)
        return loss, {"flow_loss": loss}

    def path(self, x1: th.Tensor, noise: FlowOptNoise) -> tuple[th.Tensor, th.Tensor]:
        """Point at time ``t`` on the path from noise to ``x1``, and the target of the network there: the velocity."""
        return interpolate(noise.x0, x1, noise.t), x1 - noise.x0

    def imitation_loss(self, batch: Batch, noise: FlowOptNoise) -> tuple[th.Tensor, Metrics]:
        """``L_imitate``. Gradient: initializer only."""
        policy = self.policy
        problems, proposals = self.proposals(batch, noise)
        with th.no_grad():
            cold = proposals, th.zeros_like(proposals)
            unrolled = policy.filter.unroll(problems, proposals, *cold, self.imitated_iterations)
            solutions, multipliers, found = unrolled.first_feasible()
        return self.start_loss(problems, proposals, solutions, multipliers, found)

    def start_loss(
        self,
        problems: Problems,
        proposals: th.Tensor,
        solutions: th.Tensor,
        multipliers: th.Tensor,
        found: th.Tensor | None = None,
    ) -> tuple[th.Tensor, Metrics]:
        """
        ``L_imitate`` for known solutions. Gradient: initializer only.

        :param problems: ``B`` problems
        :param proposals: Proposals in meters, ``(B, N, D, m)``
        :param solutions: ``y*``, of the same shape
        :param multipliers: ``lambda*``, of the same shape
        :param found: Which problems have a solution, ``(B,)``, bool; the others are left out. None: all have one
        :return: The loss, and metrics to log
        """
        policy = self.policy
        start, forces = policy.starts(problems, proposals)
        if found is not None:
            problems = problems._replace(robot_mask=problems.robot_mask & found.unsqueeze(1))
        loss = mean_square((start - solutions) / policy.sigma, problems)
        still = mean_square((proposals - solutions) / policy.sigma, problems)
        metrics = {"imitation_loss": loss, "imitation_loss_cold": still}
        if policy.multipliers == "none":
            return loss, metrics
        # In the unit of plans: displacements that the filter would keep up.
        unit = policy.sigma * policy.filter.metric.diagonal().to(policy.sigma.dtype)
        forces_loss = mean_square((forces - multipliers) / unit, problems)
        return loss + MULTIPLIER_COEF * forces_loss, {**metrics, "imitation_loss_multipliers": forces_loss}

    def unrolled_loss(self, batch: Batch, noise: FlowOptNoise) -> tuple[th.Tensor, Metrics]:
        """``L_unroll``. Gradient: initializer only."""
        policy = self.policy
        problems, proposals = self.proposals(batch, noise)
        starts = policy.starts(problems, proposals)
        unrolled = policy.filter.unroll(problems, proposals, *starts, self.unrolled_iterations)
        fixed_point = unrolled.iterates.diff(dim=0).flatten(start_dim=2).norm(dim=-1).mean()
        primal = unrolled.pushes.flatten(start_dim=2).norm(dim=-1).mean()
        distance = (unrolled.iterates[-1] - proposals).square().sum(dim=(1, 2, 3)).mean()
        loss = primal + fixed_point + ANCHOR_COEF * distance
        return loss, {"unrolled_loss": loss, "fixed_point": fixed_point, "primal": primal, "distance": distance}

    def proposals(self, batch: Batch, noise: FlowOptNoise) -> tuple[Problems, th.Tensor]:
        """The first ``initializer_batch_size`` problems of a batch, and the flow's proposals for them."""
        n = min(self.initializer_batch_size, len(noise.x0))
        with th.no_grad():
            problems = self.examples(batch, noise)[0].select(th.arange(n, device=self.device))
            return problems, self.policy.propose(problems, noise.x0[:n])

    def update(self, batch: Batch, noise: FlowOptNoise) -> Metrics:
        """
        One update of the current stage.

        :param batch: A batch
        :param noise: As drawn by ``draw_noise``
        :return: Metrics to log
        """
        losses: dict[Stage, Loss] = {"flow": self.flow_loss, "imitate": self.imitation_loss, "unroll": self.unrolled_loss}
        stage = self.stage
        metrics = self.descend(losses[stage], self.policy.optimizer, batch, noise)
        if stage == "flow":
            self.update_targets()
        return metrics

    # Planning.

    @property
    def last_plan(self) -> Plan | None:
        """The plan of the last ``predict``; None before the first."""
        return self.policy.last_plan

    def plan(
        self,
        observation: Any,
        k: int | None = None,
        deadline_ms: float | None = None,
        deterministic: bool = False,
    ) -> Plan:
        """
        Plan, and return the plans with their certificates.

        :param observation: One observation, or one for each environment
        :param k: Number of proposals for each problem; None: ``best_of_n`` of ``policy_kwargs``
        :param deadline_ms: Time in milliseconds after which filter and polishing stop. None: no deadline
        :param deterministic: Whether to use the same noise at each call
        :return: The plans; ``feasible`` tells which of them are certified
        :raises ValueError: If a problem is impossible: robots or obstacles overlap at the start or at the goals, or a goal is
            too far away. The message names them. (``predict`` does not raise; such plans are not feasible.)
        """
        self.check_finite()
        self.policy.set_training_mode(False)
        tensors: TensorObs = self.policy.obs_to_tensor(observation)[0]
        check(self.policy.problems(tensors), self.policy.limits)
        return self.policy.plan(tensors, k, deadline_ms, deterministic)


def mean_square(errors: th.Tensor, problems: Problems) -> th.Tensor:
    """
    Mean square over robots, without padding.

    :param errors: ``(B, N, D, m)``
    :param problems: The problems
    :return: A scalar
    """
    mask = mask_of(problems)
    return (mask * errors.square()).sum() / (mask.sum().clamp(min=1) * errors.shape[2] * errors.shape[3])
