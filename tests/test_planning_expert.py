"""Polish keeps plans safe and makes them smoother; the expert keeps the good and different ones."""

import numpy as np
import pytest
import torch as th
from planning_problems import crossing, judge, least

from sb3_flow.planning.basis import make_basis
from sb3_flow.planning.costs import distance, noise, smoothness
from sb3_flow.planning.expert import solve
from sb3_flow.planning.filter_settings import FilterSettings
from sb3_flow.planning.polish import gentle_filter, polish
from sb3_flow.planning.problems import Limits, Problems
from sb3_flow.planning.safety_filter import Filtered, SafetyFilter

LIMITS = Limits(size=4.0)


def generator(seed: int = 0) -> th.Generator:
    return th.Generator().manual_seed(seed)


def some_problems() -> Problems:
    """Three of three robots and three of two; the obstacles differ, too."""
    problems = crossing(6, 3, seed=2, obstacles=4)
    robots, obstacles = problems.robot_mask.clone(), problems.obstacle_mask.clone()
    robots[3:, 2], obstacles[1:, 3] = False, False
    return problems._replace(robot_mask=robots, obstacle_mask=obstacles)


def test_smoothness_is_the_mean_square_acceleration() -> None:
    basis = make_basis()
    problems = some_problems()._replace(velocity=th.randn(6, 3, 2, generator=generator(1)))
    y = noise(problems, basis, 0.5, generator())
    fine = make_basis(12, 5001)
    line, modes = fine.sampled(2)
    acceleration = problems.boundary.double() @ line.T + y.double() @ modes.T
    squares = acceleration.square().sum(dim=2).mean(dim=-1)
    expected = th.stack([row[there].mean() for row, there in zip(squares, problems.robot_mask, strict=True)])
    th.testing.assert_close(smoothness(problems, y, basis), expected, rtol=1e-3, atol=0)


def test_distance_is_that_of_positions() -> None:
    basis, problems = make_basis(), some_problems()
    y, other = (noise(problems, basis, 0.5, generator(seed)) for seed in (0, 1))
    line, modes = basis.sampled()
    places = [problems.boundary.double() @ line.T + plan.double() @ modes.T for plan in (y, other)]
    apart = (places[0] - places[1]).norm(dim=2).mean(dim=-1)
    expected = th.stack([row[there].mean() for row, there in zip(apart, problems.robot_mask, strict=True)])
    th.testing.assert_close(distance(problems, y, other, basis).double(), expected, rtol=1e-5, atol=1e-5)


def test_noise_is_smaller_for_stiffer_modes() -> None:
    basis = make_basis()
    problems = Problems.rest_to_rest(*th.zeros(2, 2000, 5, 2))
    problems.robot_mask[:, 4] = False
    sigma = th.ones(2000)
    sigma[1000:] = 0.5
    y = noise(problems, basis, sigma, generator())
    assert not y[:, 4].any()
    expected = (basis.stiffness[0] / basis.stiffness).sqrt().float()
    th.testing.assert_close(y[:1000, :4].std(dim=(0, 1, 2)), expected, rtol=0.05, atol=0)
    th.testing.assert_close(y[1000:, :4].std(dim=(0, 1, 2)), 0.5 * expected, rtol=0.05, atol=0)


@pytest.mark.parametrize("polished_rounds", [1, 6])
def test_polish_never_loses_a_certificate_nor_smoothness(polished_rounds: int) -> None:
    filter_ = SafetyFilter(LIMITS)
    problems = crossing(8, 6, seed=5)
    rough = filter_(problems, noise(problems, filter_.basis, 0.7, generator(1)), max_iterations=6)
    assert 2 < rough.safe.sum() < 8  # some of each kind
    before = smoothness(problems, rough.y, filter_.basis)
    result = polish(filter_, problems, rough.y, rough.safe, polished_rounds)
    after = smoothness(problems, result.y, filter_.basis)
    assert result.safe.tolist() == rough.safe.tolist()
    assert (after <= before).all()
    assert (after[rough.safe] < 0.9 * before[rough.safe]).all()
    th.testing.assert_close(result.y[~rough.safe], rough.y[~rough.safe], rtol=0, atol=0)
    assert (least(judge(problems, result.y, filter_.basis, LIMITS))[rough.safe.numpy()] >= 0).all()
    certified = filter_.certificate.certify(problems, result.y)
    th.testing.assert_close(result.margin, certified.margin, rtol=0, atol=0)
    assert not result.iterations[~rough.safe].any()
    # Once more: what is smooth already would come back from the filter's margin rougher, and must not.
    again = polish(filter_, problems, result.y, result.safe, 3)
    assert again.safe.tolist() == result.safe.tolist()
    assert (smoothness(problems, again.y, filter_.basis) <= after).all()
    # A filter that hardly pushes finds smoother plans, which collide.
    weak = SafetyFilter(LIMITS, FilterSettings(penalty=(0.05, 0.05)))
    weakly = polish(weak, problems, rough.y, rough.safe, 2)
    assert (least(judge(problems, weakly.y, filter_.basis, LIMITS))[rough.safe.numpy()] >= 0).all()
    if polished_rounds == 6:
        costs = [smoothness(problems, polish(filter_, problems, rough.y, rough.safe, k).y, filter_.basis) for k in (2, 4)]
        assert (costs[1] <= costs[0]).all()
        assert (after <= costs[1]).all()
        assert after[rough.safe].mean() < 0.6 * before[rough.safe].mean()


def test_after_a_round_that_failed_the_next_shrinks_half_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    filter_ = SafetyFilter(LIMITS)
    problems = Problems.rest_to_rest(th.zeros(2, 1, 2), th.ones(2, 1, 2))
    y = noise(problems, filter_.basis, 0.2, generator(1))
    shares = []

    def one_is_never_safe(_: Problems, proposals: th.Tensor, deadline: None) -> Filtered:
        shares.append((proposals / before).mean(dim=(1, 2)).numpy())
        before[0] = proposals[0]
        result = filter_(problems, proposals)
        return result._replace(safe=th.tensor([True, False]))

    before = y.clone()
    monkeypatch.setattr("sb3_flow.planning.polish.gentle_filter", lambda *_: one_is_never_safe)
    polish(filter_, problems, y, th.tensor([True, True]), 3)
    stiffness = (filter_.basis.stiffness / filter_.basis.stiffness[0]).numpy()
    steps = np.array([[1, 1], [1, 1 / 2], [1, 1 / 4]])[..., None]
    np.testing.assert_allclose(shares, (1 - steps / 4) / (1 + steps / 10 * stiffness), rtol=1e-5)


def test_polish_ends_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock ticks once for each look at it: by the deadline of 2 two rounds have begun, and the second is cut short."""
    filter_ = SafetyFilter(LIMITS)
    problems = crossing(4, 6, seed=5)
    rough = filter_(problems, noise(problems, filter_.basis, 0.7, generator(1)))
    deadlines = []

    def still(_: Problems, proposals: th.Tensor, deadline: float) -> Filtered:
        deadlines.append(deadline)
        return rough

    ticks = iter(range(100))
    monkeypatch.setattr("sb3_flow.planning.polish.gentle_filter", lambda *_: still)
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    result = polish(filter_, problems, rough.y, rough.safe, 6, deadline=2)
    assert deadlines == [2, 2]
    assert result.safe.tolist() == rough.safe.tolist() and rough.safe.any()
    th.testing.assert_close(result.y, rough.y, rtol=0, atol=0)


def test_polish_does_not_push_harder_and_harder() -> None:
    filter_ = SafetyFilter(LIMITS)
    gentle = gentle_filter(filter_.limits, filter_.settings, th.float32, th.device("cpu")).settings
    assert gentle.penalty_at(0) == gentle.penalty_at(99) == filter_.settings.penalty_at(0)


def test_polish_checks_the_marks_of_plans() -> None:
    """A plan that is marked safe but collides is not accepted."""
    filter_ = SafetyFilter(LIMITS)
    start = th.tensor([[[-2.0, 0.0], [2.0, 0.0]]])
    result = polish(filter_, Problems.rest_to_rest(start, -start), th.zeros(1, 2, 2, 7), th.tensor([True]))
    assert result.safe.tolist() == [False]


def test_the_expert_keeps_good_and_different_plans() -> None:
    filter_, problems = SafetyFilter(LIMITS), some_problems()
    expert = solve(problems, filter_, 8, generator(), keep=3, polish_rounds=3, apart=0.3, worst=1.6)
    assert expert.certified.shape == (6,)
    assert set(expert.problem.tolist()) == set(range(6))
    assert expert.problem.tolist() == sorted(expert.problem.tolist())
    counts = th.bincount(expert.problem)
    assert counts.max() == 3  # there are four in two problems
    assert counts.min() < 3
    solved = problems.select(expert.problem)
    assert (least(judge(solved, expert.y, filter_.basis, LIMITS)) >= 0).all()
    th.testing.assert_close(expert.cost, smoothness(solved, expert.y, filter_.basis))
    th.testing.assert_close(expert.margin, filter_.certificate.certify(solved, expert.y).margin)
    assert not expert.y[~solved.robot_mask].any()
    for problem in range(6):
        rows = (expert.problem == problem).nonzero().squeeze(1)
        costs = expert.cost[rows]
        assert (costs.diff() >= 0).all()
        assert costs[-1] <= 1.6 * costs[0]
        for i in rows:
            for j in rows[rows < i]:
                one = problems.select(th.tensor([problem]))
                assert distance(one, expert.y[i : i + 1], expert.y[j : j + 1], filter_.basis) >= 0.3


def test_more_is_kept_when_less_is_asked_for() -> None:
    filter_, problems = SafetyFilter(LIMITS), crossing(3, 3, seed=2, obstacles=4)
    few = solve(problems, filter_, 6, generator(), polish_rounds=2, apart=1.0)
    many = solve(problems, filter_, 6, generator(), polish_rounds=2, apart=0.0, worst=np.inf)
    assert len(few.y) < len(many.y)
    assert len(many.y) == many.certified.sum()
    assert th.equal(few.certified, many.certified)


def test_the_expert_has_no_plan_for_what_is_impossible() -> None:
    problems = crossing(2, 2, seed=3, obstacles=1)
    obstacles = problems.obstacles.clone()
    obstacles[0, 0, :2] = problems.goal[0, 0]
    expert = solve(problems._replace(obstacles=obstacles), SafetyFilter(LIMITS), 3, generator(), polish_rounds=1)
    assert expert.certified[0] == 0
    assert expert.certified[1] > 0
    assert (expert.problem == 1).all()


def test_the_expert_is_seeded() -> None:
    problems, filter_ = crossing(2, 3, seed=2), SafetyFilter(LIMITS)
    first, second = (solve(problems, filter_, 3, generator(5), polish_rounds=1) for _ in range(2))
    th.testing.assert_close(first.y, second.y, rtol=0, atol=0)
