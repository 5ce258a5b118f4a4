"""The safety filter against a second, literal implementation, and what must hold of it whatever the scene is."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch as th
from planning_problems import crossing, judge, least, proposals
from planning_transcription import Scene

from sb3_flow.planning.filter_settings import FilterSettings
from sb3_flow.planning.problems import Limits, Problems
from sb3_flow.planning.pushes import chord_pushes, spread
from sb3_flow.planning.safety_filter import Filtered, SafetyFilter

#: Limits that are in force all the time, so that every kind of row pushes.
TIGHT = Limits(size=2.2, radius=0.3, v_max=0.7, a_max=0.4)
WIDE = Limits(size=4.0)


def generator(seed: int = 0) -> th.Generator:
    return th.Generator().manual_seed(seed)


def crowd(batch: int, robots: int, dimensions: int = 2, obstacles: int = 2, seed: int = 0) -> Problems:
    """Robots that begin and end anywhere, moving, in float64."""
    rng = generator(seed)

    def uniform(*shape: int, scale: float) -> th.Tensor:
        return scale * (2 * th.rand(batch, *shape, generator=rng, dtype=th.float64) - 1)

    rest = Problems.rest_to_rest(
        uniform(robots, dimensions, scale=2.19),
        uniform(robots, dimensions, scale=2.1),
        th.cat([uniform(obstacles, dimensions, scale=1.5), uniform(obstacles, 1, scale=0.1) + 0.4], dim=-1),
    )
    rest.start[:, 0, 0] = 2.195  # closer to the border than plans are pushed
    moving = uniform(robots, dimensions, scale=0.3)
    return rest._replace(velocity=moving, acceleration=0.5 * moving.flip(1))


def plans(problems: Problems, n_modes: int = 7, scale: float = 0.3, seed: int = 1) -> th.Tensor:
    shape = (*problems.start.shape, n_modes)
    return scale * th.randn(shape, generator=generator(seed), dtype=problems.start.dtype)


def pad(problems: Problems, robots: int, obstacles: int, value: float = 0.0) -> Problems:
    def more(x: th.Tensor, rows: int) -> th.Tensor:
        fill = False if x.dtype == th.bool else value
        return th.cat([x, x.new_full((len(x), rows, *x.shape[2:]), fill)], dim=1)

    return Problems(*(more(x, obstacles if "obstacle" in name else robots) for name, x in problems._asdict().items()))


def scene(problems: Problems, filter_: SafetyFilter, b: int = 0) -> Scene:
    obstacles = problems.obstacles[b].numpy()
    return Scene(filter_.basis, filter_.limits, filter_.settings, problems.boundary[b].numpy(), obstacles)


@pytest.mark.parametrize("push", ["chords", "samples"])
@pytest.mark.parametrize(("dimensions", "robots", "obstacles"), [(2, 4, 2), (3, 3, 1), (2, 1, 1), (2, 2, 0)])
def test_the_iteration_is_the_literal_one(push: str, dimensions: int, robots: int, obstacles: int) -> None:
    limits = replace(TIGHT, dimensions=dimensions)
    schedule = {"margin_iterations": 3, "penalty_iterations": 3}
    settings = FilterSettings(samples=20, push=push, anchor=1.3, acceleration_weight=0.6, **schedule)
    filter_ = SafetyFilter(limits, settings, th.float64)
    problems = crowd(2, robots, dimensions, obstacles)
    proposal, y_0, lambda_0 = (plans(problems, seed=seed) for seed in (1, 2, 3))
    unrolled = filter_.unroll(problems, proposal, y_0, lambda_0, 5)
    for b in range(2):
        literal = scene(problems, filter_, b)
        assert all((force != 0).any() for force in literal.forces(y_0[b].numpy(), 0))
        expected = literal.run(proposal[b].numpy(), y_0[b].numpy(), lambda_0[b].numpy(), 5)
        np.testing.assert_allclose(unrolled.iterates[:, b], expected, rtol=0, atol=1e-9)
        first = 4.0 * literal.push(y_0[b].numpy(), 0)
        np.testing.assert_allclose(unrolled.pushes[0, b], first, rtol=0, atol=1e-9)
    assert unrolled.pushes.shape == (5, 2, robots, dimensions, 7)


@pytest.mark.parametrize("robots", [1, 5])
def test_the_predecessors_form_is_its_dense_quadratic_programme(robots: int) -> None:
    filter_ = SafetyFilter(TIGHT, FilterSettings.predecessor(), th.float64)
    basis, problems = filter_.basis, crowd(1, robots)
    proposal, y_0 = (plans(problems, basis.n_modes, 0.4, seed) for seed in (1, 2))
    multiplier = th.randn(1, robots, 2, basis.degree + 1, generator=generator(3), dtype=th.float64)
    # It sums over samples, and its multipliers act on the coefficients.
    lambda_0 = multiplier @ basis.modes / basis.samples
    unrolled = filter_.unroll(problems, proposal, y_0, lambda_0, 1)
    got = basis.coefficients(problems.boundary, unrolled.iterates[1])[0]
    expected = scene(problems, filter_).predecessor_step(proposal[0].numpy(), y_0[0].numpy(), multiplier[0].numpy())
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-8 * np.abs(expected).max())
    assert filter_.settings.penalty_at(0) == filter_.settings.penalty_at(99) == 1.1


def test_in_the_predecessors_form_problems_do_not_matter_to_one_another() -> None:
    """With its matrices, which are each problem's own: one is solved at once and leaves, the other is worked on."""
    filter_ = SafetyFilter(WIDE, FilterSettings.predecessor(basis_degree=12, block=3), th.float64)
    start = th.tensor([[[-3.0, -3.0], [-3.0, 3.0]], [[-2.0, 0.1], [2.0, 0.0]]], dtype=th.float64)
    obstacles = th.tensor([[[0.0, 0.0, 0.3]], [[0.0, 3.5, 0.1]]], dtype=th.float64)
    goal = th.stack([start[0] * th.tensor([-1.0, 1.0]), -start[1]])
    problems = Problems.rest_to_rest(start, goal, obstacles)._replace(obstacle_mask=th.tensor([[True], [False]]))
    proposal = th.zeros(2, 2, 2, 7, dtype=th.float64)
    both = filter_(problems, proposal)
    assert both.iterations[0] == 0 < both.iterations[1]
    alone = filter_(problems.select(th.tensor([1])), proposal[1:])
    th.testing.assert_close(both.y[1:], alone.y, rtol=0, atol=1e-9)


def test_plans_without_conflicts_are_not_changed() -> None:
    start = th.tensor([[[-3.0, -3.0], [-3.0, 0.0], [-3.0, 3.0]]], dtype=th.float64)
    problems = Problems.rest_to_rest(start, start * th.tensor([-1.0, 1.0]), th.tensor([[[0.0, 1.5, 0.1]]]).double())
    proposal = plans(problems, scale=0.01)
    for filter_ in (
        SafetyFilter(WIDE, dtype=th.float64),
        SafetyFilter(WIDE, FilterSettings.predecessor(basis_degree=12), th.float64),
    ):
        result = filter_(problems, proposal)
        assert result.safe.all()
        assert result.iterations.tolist() == [0]
        assert result.violation.tolist() == [0]
        th.testing.assert_close(result.y, proposal, rtol=0, atol=0)
        unrolled = filter_.unroll(problems, proposal, proposal, th.zeros_like(proposal), 3)
        th.testing.assert_close(unrolled.iterates, proposal.expand(4, -1, -1, -1, -1), rtol=0, atol=1e-13)
        assert not unrolled.pushes.any()


def head_on(lateral: float) -> tuple[SafetyFilter, Filtered]:
    filter_ = SafetyFilter(WIDE, dtype=th.float64)
    start = th.tensor([[[-2.0, 0.0], [2.0, 0.0]]], dtype=th.float64)
    proposal = th.zeros(1, 2, 2, 7, dtype=th.float64)
    proposal[0, :, 1, 0] = th.tensor([lateral, -lateral])
    return filter_, filter_(Problems.rest_to_rest(start, -start), proposal)


def test_two_robots_that_meet_head_on() -> None:
    _, stuck = head_on(0.0)
    assert not stuck.safe.item()
    assert not stuck.y[:, :, 1].any()
    assert stuck.violation.item() == pytest.approx(0.4, abs=1e-3)  # one drives through the other
    for side in (1e-6, -1e-6):
        _, result = head_on(side)
        assert result.safe.item()
        assert result.iterations.item() <= 10
        th.testing.assert_close(result.y[:, 0], -result.y[:, 1], rtol=0, atol=0)
        assert result.y[0, 0, 1, 0].sign().item() == np.sign(side)


def test_order_does_not_matter() -> None:
    filter_ = SafetyFilter(TIGHT, FilterSettings(samples=32), th.float64)
    problems = crowd(2, 5, obstacles=3)
    y, multiplier = plans(problems), plans(problems, seed=4)
    robots, obstacles = th.tensor([3, 0, 4, 1, 2]), th.tensor([2, 0, 1])
    shuffled = Problems(*(x[:, obstacles if "obstacle" in name else robots] for name, x in problems._asdict().items()))
    expected = filter_.unroll(problems, y, y, multiplier, 12)
    result = filter_.unroll(shuffled, y[:, robots], y[:, robots], multiplier[:, robots], 12)
    assert expected.pushes.abs().max() > 0.1
    th.testing.assert_close(result.iterates, expected.iterates[:, :, robots], rtol=0, atol=1e-9)


def test_it_turns_with_the_scene() -> None:
    filter_ = SafetyFilter(TIGHT, FilterSettings(samples=32), th.float64)
    problems = crowd(2, 5, obstacles=3)
    y = plans(problems)

    def turn(x: th.Tensor, axis: int = 2) -> th.Tensor:
        first, second, *rest = x.split(1, dim=axis)
        return th.cat([-second, first, *rest], dim=axis)

    turned = problems._replace(
        start=turn(problems.start),
        goal=turn(problems.goal),
        obstacles=turn(problems.obstacles),
        velocity=turn(problems.velocity),
        acceleration=turn(problems.acceleration),
    )
    zero = th.zeros_like(y)
    expected = filter_.unroll(problems, y, y, zero, 12).iterates
    result = filter_.unroll(turned, turn(y), turn(y), zero, 12).iterates
    th.testing.assert_close(result, turn(expected, 3), rtol=0, atol=1e-9)


@pytest.mark.parametrize("settings", [FilterSettings(), FilterSettings.predecessor(basis_degree=12)], ids=["ours", "theirs"])
def test_gradients_are_those_of_finite_differences(settings: FilterSettings) -> None:
    filter_ = SafetyFilter(WIDE, settings, th.float64)
    problems = crossing(2, 8).to(dtype=th.float64)
    inputs = [plans(problems, scale=0.2, seed=seed) for seed in (1, 2, 3)]
    directions = [plans(problems, scale=1.0, seed=seed) for seed in (4, 5, 6)]

    def loss(share: float) -> th.Tensor:
        proposal, y_0, multiplier = (x + share * d for x, d in zip(moved, directions, strict=True))
        iterates, pushes, *_ = filter_.unroll(problems, proposal, y_0, multiplier, 6)
        fixed_point = pushes.flatten(2).norm(dim=-1).mean() + iterates.diff(dim=0).flatten(2).norm(dim=-1).mean()
        return fixed_point + 0.05 * (iterates[-1] - proposal).square().sum()

    moved = [x.requires_grad_() for x in inputs]
    gradients = th.autograd.grad(loss(0.0), moved)
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True)).item()
    with th.no_grad():
        difference = (loss(1e-6) - loss(-1e-6)).item() / 2e-6
    assert abs(slope) > 1
    assert slope == pytest.approx(difference, rel=1e-5)


def test_the_push_of_a_chord_moves_its_nearest_point() -> None:
    """By ``((1 - theta)^2 + theta^2) c q``, if both ends go where they are pushed."""
    r = th.tensor([[-0.5, 0.9], [0.1, 0.25]], dtype=th.float64)  # by axis; two samples
    pushes, later, squared = chord_pushes(list(r), th.tensor(0.6, dtype=th.float64))
    u = r[:, 1] - r[:, 0]
    theta = -(r[:, 0] @ u) / (u @ u)
    q = r[:, 0] + theta * u
    assert 0.2 < theta < 0.8
    assert squared.item() == pytest.approx((q @ q).item())
    moved = th.stack([spread(push, part) for push, part in zip(pushes, later, strict=True)])
    at_nearest = (1 - theta) * moved[:, 0] + theta * moved[:, 1]
    c = 0.6 / q.norm() - 1
    assert c > 0.2
    th.testing.assert_close(at_nearest, ((1 - theta) ** 2 + theta**2) * c * q, rtol=1e-6, atol=0)


@pytest.mark.parametrize("settings", [FilterSettings(max_iterations=40), FilterSettings.predecessor(basis_degree=12)])
def test_padding_changes_nothing(settings: FilterSettings) -> None:
    limits = replace(TIGHT, radius=0.15, a_max=2.0, v_max=2.0)
    filter_ = SafetyFilter(limits, settings, th.float64)
    problems = crowd(6, 3)
    y = plans(problems, scale=0.1)
    expected = filter_(problems, y)
    more = th.cat([y, th.full_like(y[:, :2], th.nan)], dim=1)
    result = filter_(pad(problems, 2, 3, th.nan), more)
    assert 0 < expected.iterations.max()
    for name, value in result._asdict().items():
        wanted = getattr(expected, name)
        if name == "y":
            assert not value[:, 3:].any()
            value = value[:, :3]
        th.testing.assert_close(value, wanted, rtol=0, atol=1e-9)
    # The same, mixed with problems that have no padding.
    alone = pad(problems, 2, 3).select(th.tensor([0]))
    both = Problems(*(th.cat(pair) for pair in zip(alone, crowd(1, 5, obstacles=5, seed=7), strict=True)))
    mixed = filter_(both, th.cat([more[:1], plans(both, seed=3)[1:]]))
    th.testing.assert_close(mixed.y[0, :3], expected.y[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_lone_robot_in_an_empty_room(dimensions: int) -> None:
    filter_ = SafetyFilter(Limits(dimensions=dimensions))
    problems = Problems.rest_to_rest(th.zeros(1, 1, dimensions), th.ones(1, 1, dimensions))
    result = filter_(problems, th.full((1, 1, dimensions, 7), 2.0))  # swings too far, and too fast
    assert result.safe.item()
    assert result.iterations.item() > 0
    assert result.margin.item() == np.inf


def test_it_works_in_space() -> None:
    limits = Limits(dimensions=3, size=3.0, radius=0.4)
    start = th.tensor([[[-2.5, 0, 0], [2.5, 0, 0], [0, -2.5, 0], [0, 2.5, 0], [0, 0, 2.5], [0, 0, -2.5]]])
    problems = Problems.rest_to_rest(start, -start, th.tensor([[[1.0, 0.5, 0.5, 0.4]]])).repeat(4)
    filter_ = SafetyFilter(limits)
    result = filter_(problems, proposals(problems, filter_.basis, 0.3, generator(2)))
    assert result.safe.all()
    assert (least(judge(problems, result.y, filter_.basis, limits)) >= 0).all()


def test_the_first_certified_iterate_of_every_problem_is_returned() -> None:
    filter_ = SafetyFilter(WIDE, dtype=th.float64)
    problems = crossing(10, 8, seed=3).to(dtype=th.float64)
    proposal = proposals(problems, filter_.basis, 0.5, generator(1))
    result = filter_(problems, proposal)
    assert result.safe.all()
    assert len(set(result.iterations.tolist())) > 3  # they do not end together
    y = filter_.unroll(problems, proposal, proposal, th.zeros_like(proposal), int(result.iterations.max())).iterates
    ahead = y + filter_.settings.momentum * (y - th.cat([y[:1], y[:-1]]))
    certified = th.stack([filter_.certificate.certify(problems, plan).safe for plan in ahead])
    assert result.iterations.tolist() == certified.int().argmax(dim=0).tolist()
    th.testing.assert_close(result.y, ahead[result.iterations, th.arange(10)], rtol=0, atol=1e-8)
    # Neither the blocks nor the others of the batch matter.
    settings = replace(filter_.settings, block=3)
    th.testing.assert_close(SafetyFilter(WIDE, settings, th.float64)(problems, proposal).y, result.y, rtol=0, atol=1e-8)
    alone = filter_(problems.select(th.tensor([2])), proposal[2:3])
    th.testing.assert_close(alone.y[0], result.y[2], rtol=0, atol=1e-8)
    # A start at the solution needs no iteration.
    again = filter_(problems, proposal, (result.y, th.zeros_like(proposal)))
    assert not again.iterations.any()
    th.testing.assert_close(again.y, result.y, rtol=0, atol=0)


def test_the_verdict_is_on_the_very_plan() -> None:
    filter_ = SafetyFilter(WIDE)
    problems = crossing(6, 8, seed=4)
    proposal = proposals(problems, filter_.basis, 0.5, generator(1))
    for iterations in (0, 7, 160):
        result = filter_(problems, proposal, max_iterations=iterations)
        certified = filter_.certificate.certify(problems, result.y)
        assert result.y.dtype == th.float32
        assert result.safe.tolist() == certified.safe.tolist()
        th.testing.assert_close(result.margin, certified.margin, rtol=0, atol=0)
        assert result.iterations.max() <= iterations
        assert (result.iterations[~result.safe] == iterations).all()
        if iterations == 7:
            assert 0 < result.safe.sum() < 6


def test_what_cannot_be_solved_is_said_to_be_so() -> None:
    """A goal inside an obstacle: the plan that violates least comes back, and the other problem is not held up."""
    filter_ = SafetyFilter(WIDE, FilterSettings(max_iterations=30), th.float64)
    start = th.tensor([[[-3.0, 0.0], [3.0, 0.1]]], dtype=th.float64).repeat(2, 1, 1)
    obstacles = th.tensor([[[3.0, 0.0, 0.5]], [[0.0, 3.0, 0.5]]], dtype=th.float64)
    problems = Problems.rest_to_rest(start, -start, obstacles)
    proposal = plans(problems, scale=0.05)
    result = filter_(problems, proposal)
    assert result.safe.tolist() == [False, True]
    assert result.iterations[0] == 30
    y = filter_.unroll(problems, proposal, proposal, th.zeros_like(proposal), 30).iterates
    ahead = y + filter_.settings.momentum * (y - th.cat([y[:1], y[:-1]]))
    seen = [-least(judge(problems, plan, filter_.basis, WIDE, 40))[0] for plan in ahead]
    mine = -least(judge(problems, result.y, filter_.basis, WIDE, 40))[0]
    assert mine == pytest.approx(min(seen), abs=0.01)
    assert result.violation[0].item() == pytest.approx(mine, abs=0.01)
    assert result.margin[0] == pytest.approx(-mine, abs=0.02)


@pytest.mark.parametrize(
    ("row", "limits"),
    [
        ("pairs", {"radius": 0.5}),
        ("obstacles", {"radius": 0.2}),
        ("speed", {"v_max": 0.5}),
        ("acceleration", {"a_max": 0.2}),
        ("workspace", {"size": 2.2}),
    ],
)
def test_violation_is_that_of_the_worst_row(row: str, limits: dict[str, float]) -> None:
    roomy = Limits(**{"size": 50.0, "radius": 0.01, "v_max": 100.0, "a_max": 100.0, **limits})
    filter_ = SafetyFilter(roomy, FilterSettings(push="samples"), th.float64)
    problems = crowd(8, 4, obstacles=0 if row == "pairs" else 2, seed=5)
    if row != "pairs":
        problems = problems._replace(robot_mask=th.tensor([[True, False, False, False]] * 8))
    result = filter_(problems, plans(problems), max_iterations=0)
    slacks = judge(problems, plans(problems), filter_.basis, roomy, finer=1)
    worst = -least(slacks)
    assert (worst == -slacks[row]).sum() >= 4  # it is about this row
    np.testing.assert_allclose(result.violation, worst.clip(min=0), atol=1e-9)


def test_a_deadline_returns_what_is_certified_so_far() -> None:
    filter_ = SafetyFilter(WIDE)
    start = th.tensor([[[-3.0, 0.0], [-3.0, 2.0]], [[-3.0, 0.0], [3.0, 0.1]]])
    problems = Problems.rest_to_rest(start, start * th.tensor([-1.0, 1.0]))
    proposal = th.zeros(2, 2, 2, 7)
    late = filter_(problems, proposal, deadline=time.perf_counter())
    assert late.safe.tolist() == [True, False]
    assert late.iterations.tolist() == [0, 0]
    assert late.violation[1] > 0.1
    assert filter_(problems, proposal, deadline=time.perf_counter() + 600).safe.all()


def test_a_proposal_that_is_not_finite_is_not_safe() -> None:
    filter_ = SafetyFilter(WIDE, FilterSettings(max_iterations=20))
    start = th.tensor([[[-3.0, 0.0], [3.0, 0.1]]]).repeat(3, 1, 1)
    proposal = th.zeros(3, 2, 2, 7)
    proposal[0, 0, 0, 0], proposal[1, 0, 0, 0] = th.nan, th.inf
    result = filter_(Problems.rest_to_rest(start, -start), proposal)
    assert result.safe.tolist() == [False, False, True]
    assert not result.margin.isnan().any()


def test_nothing_of_the_callers_is_changed() -> None:
    filter_ = SafetyFilter(WIDE)
    problems = crossing(2, 4)
    proposal = proposals(problems, filter_.basis, 0.5, generator(1))
    start = (proposal + 0.1, th.ones_like(proposal))
    before = [x.clone() for x in (*problems, proposal, *start)]
    result = filter_(problems, proposal, start)
    assert result.iterations.any()
    for x, copy in zip((*problems, proposal, *start), before, strict=True):
        th.testing.assert_close(x, copy, rtol=0, atol=0)


@pytest.mark.parametrize("settings", [FilterSettings(), FilterSettings.predecessor(basis_degree=12)], ids=["ours", "theirs"])
def test_with_matching_multipliers_the_start_takes_the_place_of_the_proposal(settings: FilterSettings) -> None:
    filter_ = SafetyFilter(WIDE, settings, th.float64)
    problems = crossing(3, 6, seed=2).to(dtype=th.float64)
    proposal, y_0 = (plans(problems, scale=0.3, seed=seed) for seed in (1, 2))
    expected = filter_.unroll(problems, y_0, y_0, th.zeros_like(y_0), 6)
    unrolled = filter_.unroll(problems, proposal, y_0, filter_.matching(y_0 - proposal), 6)
    assert unrolled.pushes.any()
    th.testing.assert_close(unrolled.iterates, expected.iterates, rtol=0, atol=1e-9)
    smaller = filter_.unroll(problems, proposal, y_0, th.zeros_like(y_0), 6).iterates
    assert (smaller - expected.iterates).abs().max() > 0.01


def test_the_first_feasible_plan_and_its_multipliers() -> None:
    filter_ = SafetyFilter(WIDE, dtype=th.float64)
    problems = crossing(10, 8, seed=3).to(dtype=th.float64)
    proposal = proposals(problems, filter_.basis, 0.5, generator(1))
    lambda_0 = plans(problems, scale=0.1, seed=5)
    unrolled = filter_.unroll(problems, proposal, proposal, lambda_0, 12)
    y, multipliers, found = unrolled.first_feasible()
    assert 2 <= found.sum() <= 9
    for b in range(10):
        seen = [filter_(problems, plan, max_iterations=0).violation[b].item() for plan in unrolled.plans]
        first = next((k for k, violation in enumerate(seen) if violation <= 0), None)
        assert (first is not None) == found[b]
        if first is not None:
            assert th.equal(y[b], unrolled.plans[first, b])
            expected = lambda_0[b] + unrolled.pushes[:first, b].sum(dim=0)
            th.testing.assert_close(multipliers[b], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [0.1, 1e2, 1e6, 1e18, 3e38])
def test_no_start_makes_a_plan_look_safe_that_is_not(size: float) -> None:
    """Multipliers and places of any finite size: the plan is finite, and safe only if it is certified."""
    limits = Limits(size=4.0)
    filter_ = SafetyFilter(limits, FilterSettings(max_iterations=20))
    problems = crossing(8, 4, seed=4)
    proposal = proposals(problems, filter_.basis, 0.2, generator(1))
    random = 2 * th.rand(proposal.shape, generator=generator(2)) - 1
    for start in ((proposal, size * random), (size * random, size * random), (proposal, size * random.sign())):
        result = filter_(problems, proposal, start)
        assert th.isfinite(result.y).all()
        assert not result.margin.isnan().any()
        assert result.safe.tolist() == filter_.certificate.certify(problems, result.y).safe.tolist()
        true = least(judge(problems, result.y, filter_.basis, limits)) >= 0
        assert not (result.safe.numpy() & ~true).any()
        assert result.safe.any() or size > 1


def test_settings_and_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`push` is 'angles'; it must be one of 'chords', 'samples'"):
        FilterSettings(push="angles")
    with pytest.raises(ValueError, match=r"`momentum` is 1.0"):
        FilterSettings(momentum=1.0)
    with pytest.raises(ValueError, match=r"`penalty` is 20\.0; it must be two numbers"):
        FilterSettings(penalty=20.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`penalty` is \(0, 1\)"):
        FilterSettings(penalty=(0, 1))
    for name, value in (
        ("penalty", (1.0, "two")),
        ("penalty", (1.0, float("nan"))),
        ("anchor", float("inf")),
        ("anchor", "x"),
    ):
        with pytest.raises(ValueError, match=f"`{name}` is .*; it must be a finite number of at least 0"):
            FilterSettings(**{name: value})
    with pytest.raises(ValueError, match=r"`max_iterations` is 2.5; it must be a whole number of at least 0"):
        FilterSettings(max_iterations=2.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`speed_share` is 1.5; it must be above 0 and at most 1"):
        FilterSettings(speed_share=1.5)
    with pytest.raises(ValueError, match="`radius` is nan; it must be above 0, and finite"):
        Limits(radius=float("nan"))
    assert FilterSettings(penalty=[1, 2]) == FilterSettings(penalty=(1, 2))  # type: ignore[arg-type]
    problems = Problems.rest_to_rest(th.zeros(1, 1, 2), th.ones(1, 1, 2))
    with pytest.raises(ValueError, match=r"`proposals` has shape \(1, 1, 2, 5\); expected \(1, 1, 2, 7\)"):
        SafetyFilter(WIDE)(problems, th.zeros(1, 1, 2, 5))
    with pytest.raises(ValueError, match="`lambda_0` has shape"):
        SafetyFilter(WIDE)(problems, th.zeros(1, 1, 2, 7), (th.zeros(1, 1, 2, 7), th.zeros(1)))


def test_it_is_saved_without_its_constants() -> None:
    assert not SafetyFilter(WIDE).state_dict()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("robots", "batch", "size", "obstacles", "k", "iterations"), [(8, 16, 4.0, 8, 1, 15), (16, 8, 5.0, 12, 4, 40)]
)
def test_rates(robots: int, batch: int, size: float, obstacles: int, k: int, iterations: int) -> None:
    """Nearly all proposals of noise become safe, and every problem with four of them. Pushes that do not grow fail here."""
    limits = Limits(size=size)
    filter_ = SafetyFilter(limits)
    problems = crossing(batch, robots, 11, obstacles, size).repeat(k)
    result = filter_(problems, proposals(problems, filter_.basis, 0.5, generator(12)))
    assert result.safe.float().mean() >= 0.9
    assert result.safe.view(batch, k).any(dim=1).all()
    assert result.iterations.median() <= iterations
    true = least(judge(problems, result.y, filter_.basis, limits)) >= 0
    assert not (result.safe.numpy() & ~true).any()
