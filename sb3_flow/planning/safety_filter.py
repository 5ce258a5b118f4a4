"""The safety filter: an iterative, batched projection of proposals onto plans that satisfy all constraints."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch as th

from sb3_flow.planning.basis import make_basis
from sb3_flow.planning.certificate import Certificate
from sb3_flow.planning.filter_settings import FilterSettings
from sb3_flow.planning.problems import Limits, Problems
from sb3_flow.planning.pushes import chord_pushes, inward_pushes, sample_pushes, spread


class Filtered(NamedTuple):
    """
    Results of the filter.

    :param y: The plans, ``(B, N, D, m)``: the first certified iterate, or else the one with the smallest violation
    :param safe: Whether this plan is certified, ``(B,)``, bool
    :param margin: Smallest slack of its distances, in meters, ``(B,)``, float64; see ``Certified``
    :param iterations: Number of iterations to this plan, ``(B,)``, int64; of a plan that is not safe: all iterations
    :param violation: Largest violation of a constraint at the samples, in the constraint's unit, ``(B,)``
    """

    y: th.Tensor
    safe: th.Tensor
    margin: th.Tensor
    iterations: th.Tensor
    violation: th.Tensor


class Unrolled(NamedTuple):
    """
    Iterations of the filter, with gradients.

    :param iterates: ``y_0`` to ``y_K``, ``(K + 1, B, N, D, m)``
    :param pushes: ``rho g_k``, the changes of the multipliers, ``(K, B, N, D, m)``
    :param plans: ``Y_0`` to ``Y_K``, the iterates with momentum that the filter returns, ``(K + 1, B, N, D, m)``
    :param multipliers: ``lambda_0`` to ``lambda_K``, ``(K + 1, B, N, D, m)``
    :param violations: Largest violation of each plan at the samples, in the constraint's unit, ``(K + 1, B)``
    """

    iterates: th.Tensor
    pushes: th.Tensor
    plans: th.Tensor
    multipliers: th.Tensor
    violations: th.Tensor

    def first_feasible(self) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """
        The first plan of each problem without a violation at the samples, and the multipliers there.

        :return: Plans and multipliers, ``(B, N, D, m)``, and whether there is such a plan, ``(B,)``, bool; the others are
            initial values
        """
        feasible = self.violations <= 0
        first, rows = feasible.int().argmax(dim=0), th.arange(feasible.shape[1], device=feasible.device)
        return self.plans[first, rows], self.multipliers[first, rows], feasible.any(dim=0)


class _Quadratic(NamedTuple):
    """``B + rho S`` for any ``rho``: in the columns of ``directions``, ``B`` is the identity and ``S`` is diagonal."""

    damping: th.Tensor  # S: (B or 1, 1, m, m)
    directions: th.Tensor  # (B or 1, 1, m, m)
    curvature: th.Tensor  # diagonal of S in the directions: (B or 1, 1, 1, m)

    @classmethod
    def of(cls, metric: th.Tensor, damping: th.Tensor) -> _Quadratic:
        """From ``B``, ``(m, m)``, and ``S``, ``(K, m, m)``, both positive definite and float64."""
        whiten = th.linalg.inv(th.linalg.cholesky(metric)).mT
        curvature, turn = th.linalg.eigh(whiten.mT @ damping @ whiten)
        return cls(damping.unsqueeze(1), (whiten @ turn).unsqueeze(1), curvature[:, None, None])

    def solve(self, target: th.Tensor, ahead: th.Tensor, penalty: float | th.Tensor) -> th.Tensor:
        """``y`` with ``(B + rho S) y = target + rho S Y``, all ``(B, N, D, m)``."""
        right = target + penalty * (ahead @ self.damping)
        return (right @ self.directions / (1 + penalty * self.curvature)) @ self.directions.transpose(-2, -1)

    def select(self, index: th.Tensor) -> _Quadratic:
        return self if len(self.damping) == 1 else _Quadratic(*(part[index] for part in self))


class _Pairs(NamedTuple):
    """Pairs of robots."""

    first: th.Tensor  # (P,)
    second: th.Tensor  # (P,)
    incidence: th.Tensor  # from pushes of pairs to robots: (N, P)

    @classmethod
    def of(cls, robots: int, like: th.Tensor) -> _Pairs:
        # Copies, because loops of exported graphs must not get two views of one tensor.
        first, second = (row.clone() for row in th.triu_indices(robots, robots, 1, device=like.device))
        eye = th.eye(robots, dtype=like.dtype, device=like.device)
        return cls(first, second, eye[:, first] - eye[:, second])

    def select(self, index: th.Tensor) -> _Pairs:
        return self


class Scene(NamedTuple):
    """What is constant over iterations, with a batch axis so that problems can be selected."""

    line: th.Tensor  # positions, velocities and accelerations for y = 0: (B, N, D, 3 S)
    centers: th.Tensor  # (B, M, D)
    pairs: _Pairs
    pair_distance: th.Tensor  # (B, P); 0: no such pair
    obstacle_distance: th.Tensor  # (B, N, M); 0: no such robot or obstacle
    border: th.Tensor  # (B, N, D, 1)
    robots: th.Tensor  # (B, N)
    mean: _Quadratic  # for the mean over robots
    rest: _Quadratic  # for the differences to the mean
    anchor: th.Tensor  # B times the proposals: (B, N, D, m)

    def select(self, index: th.Tensor) -> Scene:
        return Scene(*(x[index] if isinstance(x, th.Tensor) else x.select(index) for x in self))  # type: ignore[arg-type]


class State(NamedTuple):
    """State between iterations."""

    y: th.Tensor  # y_k
    ahead: th.Tensor  # Y_k, by momentum
    multiplier: th.Tensor  # lambda_k
    push: th.Tensor  # g at Y_k

    def select(self, index: th.Tensor) -> State:
        return State(*(x[index] for x in self))


class SafetyFilter(th.nn.Module):
    """
    Projects proposals onto certified plans.

    In modal coordinates, with ``B`` the metric of the distance to the proposal and ``f`` the pushes at the samples::

        Y = y_k + beta (y_k - y_(k-1))
        g = <mode f(Y)> + s_v^2 <mode' f_v(Y)> + s_a^2 <mode'' f_a(Y)>
        lambda <- lambda + rho g
        (B + rho S) y_(k+1) = B y_proposal + lambda + rho S Y + rho g

    ``rho`` grows over the iterations: a small ``rho`` keeps plans smooth, a large one repairs the remaining violations. Pushes
    aim at the required distance plus a shrinking margin, because convergence to the exact distance is slow; plans are accepted
    without the margin. For each problem, the filter returns the first ``Y`` that is feasible at the samples and certified.
    Later iterates drift, because multipliers grow and never shrink.

    The multipliers in the space of trajectories are from the authors' earlier filter (Swarm-Gen). The projections in place of
    its angles, the coordinates, majorizer, momentum, margin, chords and certificate are ours.

    :param limits: Limits of the plans
    :param settings: Settings of the filter
    :param dtype: Floating-point type of everything except the certificate
    """

    lines: th.Tensor
    modes: th.Tensor
    weighted_modes: th.Tensor
    schedule: th.Tensor
    metric: th.Tensor
    grams: th.Tensor
    dampings: th.Tensor
    directions: th.Tensor
    curvatures: th.Tensor

    def __init__(self, limits: Limits, settings: FilterSettings | None = None, dtype: th.dtype = th.float32) -> None:
        super().__init__()
        self.limits = limits
        self.settings = settings = settings or FilterSettings()
        self.basis = basis = make_basis(settings.basis_degree, settings.samples, limits.horizon)
        self.certificate = Certificate(limits, settings.basis_degree, settings.samples)
        sampled = [basis.sampled(order) for order in range(3)]
        weights = (1.0, settings.speed_weight**2, settings.acceleration_weight**2)
        # Means over the samples, so that no setting depends on their number.
        weighted = [weight / basis.samples * modes for weight, (_, modes) in zip(weights, sampled, strict=True)]
        grams = th.stack([part.T @ modes for part, (_, modes) in zip(weighted, sampled, strict=True)])
        if settings.metric == "modal":
            metric = th.diag(1 + settings.smoothing * basis.stiffness)
        else:
            metric = basis.modes.T @ basis.modes
        self._buffer("lines", th.cat([line for line, _ in sampled]).T, dtype)  # (6, 3 S)
        self._buffer("modes", th.cat([modes for _, modes in sampled]).T, dtype)  # (m, 3 S)
        self._buffer("weighted_modes", th.cat(weighted), dtype)  # (3 S, m)
        schedule = th.tensor([settings.at(k) for k in range(int(settings.max_iterations) + 1)])
        self._buffer("schedule", schedule, dtype)  # penalty and margin of each iteration
        self._buffer("metric", settings.anchor * metric, th.float64)
        self._buffer("grams", grams, th.float64)
        self.most_robots = self.most_obstacles = -1
        self.tabulate(0, 0)

    def _buffer(self, name: str, value: th.Tensor, dtype: th.dtype) -> None:
        self.register_buffer(name, value.to(dtype).contiguous(), persistent=False)

    @th.no_grad()
    def forward(
        self,
        problems: Problems,
        proposals: th.Tensor,
        start: tuple[th.Tensor, th.Tensor] | None = None,
        max_iterations: int | None = None,
        deadline: float | None = None,
    ) -> Filtered:
        """
        Filter proposals.

        :param problems: ``B`` problems
        :param proposals: Plans to stay close to, ``(B, N, D, m)``
        :param start: Initial ``y_0`` and ``lambda_0``, each ``(B, N, D, m)``; None: the proposals, and 0
        :param max_iterations: Largest number of iterations; None: that of the settings
        :param deadline: Value of ``time.perf_counter`` after which no block of iterations starts; None: no deadline
        :return: Plans, and which of them are certified
        :raises ValueError: If the shapes do not match.
        """
        y_0, lambda_0 = start or (proposals, th.zeros_like(proposals))
        limit = self.settings.max_iterations if max_iterations is None else max_iterations
        scene, state, violation = self.begin(problems, proposals, y_0, lambda_0)
        batch, device = len(proposals), proposals.device
        best = Filtered(
            state.ahead.clone(),
            th.zeros(batch, dtype=th.bool, device=device),
            th.full((batch,), -th.inf, dtype=th.float64, device=device),
            th.zeros(batch, dtype=th.int64, device=device),
            violation,
        )
        left = th.arange(batch, device=device)
        plans, violations, done = state.ahead.unsqueeze(0), violation.unsqueeze(0), 0
        while True:
            unsafe = ~self._certify(problems, best, left, plans, violations, done)
            over = done >= limit or (deadline is not None and time.perf_counter() >= deadline)
            kept = unsafe.nonzero().squeeze(1)
            left = left[kept]
            if over or not len(left):
                break
            if len(kept) < len(unsafe):
                scene, state = scene.select(kept), state.select(kept)
            steps = min(self.settings.block, limit - done)
            history, seen = [], []
            for k in range(done, done + steps):
                state, violation = self.iterate(scene, state, *self.settings.at(k))
                history.append(state.ahead)
                seen.append(violation)
            plans, violations, done = th.stack(history), th.stack(seen), done + steps
        best.iterations[left] = done
        return best._replace(margin=self._margins(problems, best, left))

    def matching(self, displacements: th.Tensor) -> th.Tensor:
        """
        Multipliers ``B (y - y_proposal)``: without pushes, the filter stays at ``y`` with them. With smaller ones it returns
        towards the proposal.

        :param displacements: ``y - y_proposal``, ``(B, N, D, m)``
        :return: ``(B, N, D, m)``
        """
        return displacements @ self.metric.to(displacements.dtype)

    def unroll(
        self, problems: Problems, proposals: th.Tensor, y_0: th.Tensor, lambda_0: th.Tensor, iterations: int
    ) -> Unrolled:
        """
        Run the filter with gradients and without certificates.

        :param problems: ``B`` problems
        :param proposals: Plans to stay close to, ``(B, N, D, m)``
        :param y_0: Initial plans, ``(B, N, D, m)``
        :param lambda_0: Initial multipliers, ``(B, N, D, m)``
        :param iterations: Number of iterations, ``K``
        :return: All iterates, pushes, plans, multipliers and violations
        """
        scene, state, violation = self.begin(problems, proposals, y_0, lambda_0)
        states, pushes, violations = [state], [], [violation]
        for k in range(iterations):
            penalty, margin = self.settings.at(k)
            pushes.append(penalty * state.push)
            state, violation = self.iterate(scene, state, penalty, margin)
            states.append(state)
            violations.append(violation)
        y, ahead, multipliers, _ = (th.stack(column) for column in zip(*states, strict=True))
        return Unrolled(y, th.stack(pushes), ahead, multipliers, th.stack(violations))

    def begin(
        self, problems: Problems, proposals: th.Tensor, y_0: th.Tensor, lambda_0: th.Tensor
    ) -> tuple[Scene, State, th.Tensor]:
        """
        Prepare the iteration.

        :param problems: ``B`` problems
        :param proposals: Plans to stay close to, ``(B, N, D, m)``
        :param y_0: Initial plans, ``(B, N, D, m)``
        :param lambda_0: Initial multipliers, ``(B, N, D, m)``
        :return: What is constant over iterations, the first state, and the largest violation of ``y_0``, ``(B,)``
        :raises ValueError: If the shapes do not match.
        """
        expected = (*problems.start.shape, self.basis.n_modes)
        for name, value in {"proposals": proposals, "y_0": y_0, "lambda_0": lambda_0}.items():
            if value.shape != expected:
                raise ValueError(
                    f"`{name}` has shape {tuple(value.shape)}; expected {expected}: problems, robots, axes, modes."
                )
        there = problems.robot_mask[..., None, None]
        scene = self._scene(problems, th.where(there, proposals, 0.0))
        y_0, lambda_0 = th.where(there, y_0, 0.0), th.where(there, lambda_0, 0.0)
        push, violation = self._look(scene, y_0, self.settings.margin_at(0))
        return scene, State(y_0, y_0, lambda_0, push), violation

    def _scene(self, problems: Problems, proposals: th.Tensor) -> Scene:
        limits, there, dtype = self.limits, problems.robot_mask, proposals.dtype
        boundary = th.where(there[..., None, None], problems.boundary, 0.0)
        obstacles = th.where(problems.obstacle_mask.unsqueeze(2), problems.obstacles, 0.0)
        pairs = _Pairs.of(there.shape[1], proposals)
        pair_distance = (there[:, pairs.first] & there[:, pairs.second]).to(dtype) * (2 * limits.radius)
        meet = there.unsqueeze(2) & problems.obstacle_mask.unsqueeze(1)
        obstacle_distance = (obstacles[..., -1] + limits.radius).unsqueeze(1) * meet
        ends = boundary[..., ::3].abs().amax(dim=-1, keepdim=True)
        return Scene(
            boundary @ self.lines,
            obstacles[..., :-1],
            pairs,
            pair_distance,
            obstacle_distance,
            # Robots that start or end closer to the border than the margin keep their own distance to it.
            ends.clamp(min=limits.size - self.settings.border),
            there.to(dtype),
            *self._quadratics(problems, dtype),
            self.matching(proposals),
        )

    def _quadratics(self, problems: Problems, dtype: th.dtype) -> tuple[_Quadratic, _Quadratic]:
        """
        For the mean over robots, and for the differences to the mean.

        With the constraints of all pairs, the matrix of the pairs is the graph Laplacian ``N I - 1 1'``: 0 on the mean, and N
        on its complement. Therefore one large quadratic program becomes two small ones.
        """
        self.tabulate(problems.robot_mask.shape[1], problems.obstacle_mask.shape[1])
        table = _Quadratic(*(part.to(dtype) for part in (self.dampings, self.directions, self.curvatures)))
        if self.settings.majorizer == "shared":
            return table, table
        alone = problems.obstacle_mask.sum(dim=1) * (self.most_robots + 1)
        return table.select(alone), table.select(alone + problems.robot_mask.sum(dim=1))

    @th.inference_mode(False)  # also usable in training
    def tabulate(self, most_robots: int, most_obstacles: int) -> None:
        """
        Prepare for problems of up to these sizes: decompose the quadratics for all numbers of obstacles and robots. Larger
        problems do so when they come, which makes the host wait for a GPU.

        Row ``i (most_robots + 1) + j`` is the quadratic of the differences to the mean for ``i`` obstacles and ``j`` robots;
        with ``j = 0`` it is that of the mean.

        :param most_robots: Largest number of robots of a problem
        :param most_obstacles: Largest number of obstacles
        """
        shared = self.settings.majorizer == "shared"
        if shared:  # one quadratic for all problems
            most_robots = most_obstacles = 0
        if most_robots <= self.most_robots and most_obstacles <= self.most_obstacles:
            return
        self.most_robots, self.most_obstacles = max(most_robots, self.most_robots), max(most_obstacles, self.most_obstacles)
        position, speed, acceleration = self.grams
        if shared:
            damping = (self.settings.majorization * position + speed + acceleration).unsqueeze(0)
        else:
            count = th.arange(1, self.most_obstacles + 2, device=position.device).double()  # all obstacles, and the border
            mean = count[:, None, None] * position + speed + acceleration
            robots = th.arange(self.most_robots + 1, device=position.device).double()[:, None, None]
            damping = (mean.unsqueeze(1) + robots * position).flatten(end_dim=1)
        quadratics = _Quadratic.of(self.metric, damping)
        self._buffer("dampings", quadratics.damping, th.float64)
        self._buffer("directions", quadratics.directions, th.float64)
        self._buffer("curvatures", quadratics.curvature, th.float64)

    def iterate(
        self, scene: Scene, state: State, penalty: float | th.Tensor, margin: float | th.Tensor
    ) -> tuple[State, th.Tensor]:
        """
        From ``Y_k`` to ``Y_(k+1)``.

        :param scene: What is constant over iterations
        :param state: The state of iteration ``k``
        :param penalty: ``rho`` of iteration ``k``
        :param margin: Margin of iteration ``k + 1``, in meters
        :return: The next state, and the largest violation of its plans, ``(B,)``
        """
        y, multiplier = self._step(scene, state, penalty)
        ahead = y + self.settings.momentum * (y - state.y)
        push, violation = self._look(scene, ahead, margin)
        return State(y, ahead, multiplier, push), violation

    def _step(self, scene: Scene, state: State, penalty: float | th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """The next iterate and multiplier."""
        weighted = penalty * state.push
        multiplier = state.multiplier + weighted
        target = scene.anchor + multiplier + weighted
        if self.settings.majorizer == "shared":
            return scene.rest.solve(target, state.ahead, penalty), multiplier

        def mean(x: th.Tensor) -> th.Tensor:
            total = (x * scene.robots[..., None, None]).sum(dim=1, keepdim=True)
            return total / scene.robots.sum(dim=1)[:, None, None, None].clamp(min=1)

        target_mean, ahead_mean = mean(target), mean(state.ahead)
        rest = scene.rest.solve(target - target_mean, state.ahead - ahead_mean, penalty)
        y = scene.mean.solve(target_mean, ahead_mean, penalty) + rest
        return y * scene.robots[..., None, None], multiplier

    def _look(self, scene: Scene, y: th.Tensor, margin: float | th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        Evaluate the constraints at a plan.

        :return: The push ``g``, ``(B, N, D, m)``, and the largest violation, ``(B,)``, in the constraint's unit
        """
        limits, settings = self.limits, self.settings
        position, velocity, acceleration = (scene.line + y @ self.modes).chunk(3, dim=-1)
        axes = position.unbind(dim=2)

        inside = position.clamp(-scene.border, scene.border) - position
        outside = position.abs().flatten(start_dim=1).amax(dim=1) - limits.size
        force, worst = inside, outside
        if scene.pair_distance.shape[1]:
            first, second, incidence = scene.pairs
            relative = [x[:, first] - x[:, second] for x in axes]
            moved, deficit = self._apart(relative, scene.pair_distance, margin, lambda x: incidence @ x)
            force, worst = force + moved, th.maximum(worst, deficit)
        if scene.obstacle_distance.shape[2]:
            relative = [
                x.unsqueeze(2) - center[:, None, :, None] for x, center in zip(axes, scene.centers.unbind(2), strict=True)
            ]
            moved, deficit = self._apart(relative, scene.obstacle_distance, margin, lambda x: x.sum(dim=2))
            force, worst = force + moved, th.maximum(worst, deficit)
        if settings.boost:
            share = (force != 0).any(dim=2).to(force.dtype).mean(dim=-1)
            force = force * ((share + 0.05) ** -settings.boost)[..., None, None]
        braked, speed = inward_pushes(velocity, settings.speed_share * limits.v_max)
        eased, strongest = inward_pushes(acceleration, settings.acceleration_share * limits.a_max)
        worst = th.maximum(worst, speed - limits.v_max)
        worst = th.maximum(worst, strongest - limits.a_max)
        return th.cat([force, braked, eased], dim=-1) @ self.weighted_modes, worst.clamp(min=0)

    def _apart(
        self,
        relative: list[th.Tensor],
        distance: th.Tensor,
        margin: float | th.Tensor,
        collect: Callable[[th.Tensor], th.Tensor],
    ) -> tuple[th.Tensor, th.Tensor]:
        """Pushes out of balls, summed for each robot, ``(B, N, D, S)``, and the largest missing distance, ``(B,)``."""
        required = th.where(distance > 0, distance + margin, 0.0).unsqueeze(-1)
        if self.settings.push == "chords":
            pushes, later, squared = chord_pushes(relative, required)
            moved = [spread(collect(push), collect(part)) for push, part in zip(pushes, later, strict=True)]
        else:
            pushes, squared = sample_pushes(relative, required)
            moved = [collect(push) for push in pushes]
        deficit = distance - squared.sqrt()
        return th.stack(moved, dim=2), deficit.flatten(start_dim=1).amax(dim=1)

    def _certify(
        self, problems: Problems, best: Filtered, left: th.Tensor, plans: th.Tensor, violations: th.Tensor, done: int
    ) -> th.Tensor:
        """
        Write the first certified plan of each remaining problem into ``best``, or else the plan with the smallest violation.

        :param plans: The plans of the last block, ``(K, b, N, D, m)``
        :param violations: Their violations, ``(K, b)``
        :param done: Number of iterations so far
        :return: Which problems are solved, ``(b,)``
        """
        least, which = violations.min(dim=0)
        better = (least < best.violation[left]).nonzero().squeeze(1)
        best.y[left[better]], best.violation[left[better]] = plans[which[better], better], least[better]
        safe = th.zeros_like(least, dtype=th.bool)
        untried = violations <= 0
        while True:
            open_ = (untried.any(dim=0) & ~safe).nonzero().squeeze(1)
            if not len(open_):
                return safe
            first = untried[:, open_].int().argmax(dim=0)
            candidates, rows = plans[first, open_], left[open_]
            certified = self.certificate.certify(problems.select(rows), candidates)
            untried[first, open_] = False
            passed = certified.safe.nonzero().squeeze(1)
            rows = rows[passed]
            best.y[rows], best.safe[rows] = candidates[passed], True
            best.margin[rows], best.violation[rows] = certified.margin[passed], 0.0
            best.iterations[rows] = done - len(plans) + 1 + first[passed]
            safe[open_[passed]] = True

    def _margins(self, problems: Problems, best: Filtered, left: th.Tensor) -> th.Tensor:
        """The margins, including those of plans that are not safe."""
        if len(left):
            best.margin[left] = self.certificate.certify(problems.select(left), best.y[left]).margin
        return best.margin
