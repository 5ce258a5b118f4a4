"""Observations, actions and motion of several robots, and going on with a plan: against formulas and SciPy's polynomials."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from scipy.interpolate import BPoly

from sb3_flow.planning import observations
from sb3_flow.planning.basis import make_basis
from sb3_flow.planning.measures import measure
from sb3_flow.planning.motion import advance, motion
from sb3_flow.planning.problems import Limits, Problems
from sb3_flow.planning.rewards import rewards
from sb3_flow.planning.scenes import Scenes
from sb3_flow.planning.warm_start import warm_start

LIMITS = Limits(size=4.0, v_max=2.5, a_max=2.0)
FULL = Limits(dimensions=3, size=3.0, v_max=1.5, a_max=2.5, horizon=8.0)


def scenes(limits: Limits = LIMITS, count: int = 5, moving: bool = False) -> Problems:
    problems = Scenes(limits, (1, 4), (0, 3), "random", max_robots=5, max_obstacles=4).sample(np.random.default_rng(0), count)
    if moving:
        generator = th.Generator().manual_seed(1)
        velocity, acceleration = (
            scale * (2 * th.rand(problems.start.shape, generator=generator) - 1) / 2 for scale in (limits.v_max, limits.a_max)
        )
        there = problems.robot_mask[..., None]
        problems = problems._replace(velocity=velocity * there, acceleration=acceleration * there)
    return problems


def plans_for(problems: Problems, size: float = 0.3) -> th.Tensor:
    """Random plans; stiffer modes are smaller, as in smooth plans."""
    stiffness = make_basis(12, 64, 10.0).stiffness.float()
    y = size * th.randn(*problems.start.shape, 7, generator=th.Generator().manual_seed(2)) * (stiffness[0] / stiffness)
    return y * problems.robot_mask[..., None, None]


@pytest.mark.parametrize("limits", [LIMITS, FULL])
def test_observations_show_the_problem(limits: Limits) -> None:
    problems = scenes(limits, moving=True)
    shown = observations.observation(problems, limits)
    space = observations.space(limits, 5, 4)
    assert all(space.contains({name: array[b] for name, array in shown.items()}) for b in range(5))
    back = observations.problems({name: th.from_numpy(array) for name, array in shown.items()}, limits)
    for name, before, after in zip(Problems._fields, problems, back, strict=True):
        assert before.dtype == after.dtype
        th.testing.assert_close(before, after, msg=name)
    np.testing.assert_allclose(shown["obstacles"][0, 0] * limits.size, problems.obstacles[0, 0], rtol=1e-6)
    np.testing.assert_allclose(shown["velocity"][0, 0] * limits.v_max, problems.velocity[0, 0], rtol=1e-6)
    np.testing.assert_allclose(shown["acceleration"][0, 0] * limits.a_max, problems.acceleration[0, 0], rtol=1e-6)


def test_observations_stay_in_their_space() -> None:
    """For any values in rows of padding, and any distance of robots."""
    problems = scenes()
    problems = problems._replace(start=problems.start + 100, obstacles=problems.obstacles + 100)
    shown = observations.observation(problems, LIMITS)
    assert observations.space(LIMITS, 5, 4).contains({name: array[0] for name, array in shown.items()})
    assert (shown["start"][~problems.robot_mask.numpy()] == 0).all()
    assert (shown["obstacles"][~problems.obstacle_mask.numpy()] == 0).all()
    assert (shown["start"][problems.robot_mask.numpy()] == 1).all()


def test_a_space_has_a_row_for_everybody() -> None:
    shapes = {name: box.shape for name, box in observations.space(FULL, 5, 4).items()}
    assert shapes == {
        **dict.fromkeys(["start", "goal", "velocity", "acceleration"], (5, 3)),
        "obstacles": (4, 4),
        "robot_mask": (5,),
        "obstacle_mask": (4,),
    }
    assert all(isinstance(box, spaces.Box) and box.dtype == np.float32 for box in observations.space(FULL, 5, 4).values())


@pytest.mark.parametrize("degree", [8, 12])
def test_actions_are_plans_in_modes_of_equal_weight(degree: int) -> None:
    scale = observations.action_scale(LIMITS, degree)
    stiffness = make_basis(degree, 64, 10.0).stiffness
    assert scale[0].item() == pytest.approx(1.5 * 4.0)
    th.testing.assert_close(scale.double() ** 2 * stiffness, (36 * stiffness[0]).expand(degree - 5))
    action = th.rand(2, 3 * 2 * (degree - 5), generator=th.Generator().manual_seed(0)) * 2 - 1
    y = observations.plans(action, LIMITS, degree)
    assert y.shape == (2, 3, 2, degree - 5)
    # By robot, axis and mode.
    robot, axis, mode = 2, 1, degree - 7
    index = (robot * 2 + axis) * (degree - 5) + mode
    assert y[1, robot, axis, mode] == action[1, index] * scale[mode]
    th.testing.assert_close(observations.actions(y, LIMITS), action)


def test_actions_are_clipped_and_padding_is_zero() -> None:
    action = th.full((1, 2 * 2 * 7), 3.0)
    y = observations.plans(action, LIMITS)
    assert th.equal(y, observations.action_scale(LIMITS).expand(1, 2, 2, 7))
    assert th.equal(observations.actions(5 * y, LIMITS), th.ones_like(action))
    masked = observations.actions(y, LIMITS, th.tensor([[True, False]]))
    assert masked[:, :14].eq(1).all() and masked[:, 14:].eq(0).all()


def test_solvers_look_at_longer_plans_more_often() -> None:
    assert [observations.solver_samples(Limits(horizon=horizon)) for horizon in (5.0, 10.0, 14.0)] == [64, 64, 84]


@pytest.mark.parametrize("limits", [LIMITS, FULL])
def test_motion_is_that_of_the_polynomials(limits: Limits) -> None:
    problems, horizon = scenes(limits, moving=True), limits.horizon
    y = plans_for(problems)
    times = th.linspace(0, horizon, 17, dtype=th.float64)
    moves = motion(problems, y, horizon, times)
    coefficients = make_basis(12, 64, horizon).coefficients(problems.boundary, y).numpy()
    way = BPoly(coefficients[1, 0].T[:, None], [0, horizon])
    for order in range(3):
        expected = way(times.numpy(), nu=order).T
        np.testing.assert_allclose(moves[order, 1, 0], expected, atol=1e-8)
    for order, ends in enumerate([(problems.start, problems.goal), (problems.velocity, 0), (problems.acceleration, 0)]):
        th.testing.assert_close(moves[order, ..., 0].float(), ends[0], atol=1e-5, rtol=1e-5)
        th.testing.assert_close(moves[order, ..., -1].float(), ends[1] + 0 * problems.goal, atol=1e-5, rtol=1e-5)
    after = motion(problems, y, horizon, th.tensor([horizon + 3.0]))[..., 0]
    th.testing.assert_close(after, moves[..., -1])  # they rest


def test_going_on_keeps_to_the_plan() -> None:
    """With the last plan restricted and extended by rest, robots move on nearly as they would have."""
    problems, horizon, time = scenes(moving=True), LIMITS.horizon, 1.5
    y = plans_for(problems).double()
    left, proposal = advance(problems, y, horizon, time), warm_start(problems, y, horizon, time)
    state = motion(problems, y, horizon, th.tensor([time], dtype=th.float64))[..., 0].float()
    for tensor, expected in zip((left.start, left.velocity, left.acceleration), state, strict=True):
        th.testing.assert_close(tensor, expected)
    assert th.equal(left.goal, problems.goal) and proposal.shape == y.shape
    times = th.linspace(0, horizon, 2001, dtype=th.float64)
    planned = motion(problems, y, horizon, times + time)[0]

    def error(coordinates: th.Tensor) -> th.Tensor:
        return (motion(left, coordinates, horizon, times)[0] - planned).square().mean(dim=-1)

    best = error(proposal)
    assert best.max() < 0.01**2  # a centimeter
    # No other plan is nearer: along every mode the error has its minimum there.
    for mode in range(7):
        for change in (-0.01, 0.01):
            other = proposal.clone()
            other[..., mode] += change
            th.testing.assert_close(error(other) - best, th.full_like(best, 0.01**2), rtol=0.02, atol=0)


def test_nothing_is_lost_where_no_time_has_passed() -> None:
    problems = scenes(moving=True)
    y = plans_for(problems).double()
    th.testing.assert_close(warm_start(problems, y, 10.0, 0.0), y, atol=1e-6, rtol=0)
    rest = warm_start(problems, y, 10.0, 10.0)
    th.testing.assert_close(rest, th.zeros_like(rest), atol=1e-6, rtol=0)


def test_rewards_are_the_formula() -> None:
    """1 for success, less 0.05 of the acceleration beyond the straight way's, less the deepest collision."""
    problems = scenes(count=12)
    y = plans_for(problems, 0.15)
    measures, straight = measure(problems, y, LIMITS), measure(problems, 0 * y, LIMITS)
    expected = measures.success.double() - 0.05 * (measures.smoothness - straight.smoothness) - measures.penetration
    th.testing.assert_close(rewards(problems, y, measures, LIMITS), expected, rtol=0, atol=1e-5)
    assert 0 < measures.success.sum() < 12
    # What padding does is of no importance.
    noisy = y + 9.0 * ~problems.robot_mask[..., None, None]
    th.testing.assert_close(rewards(problems, noisy, measures, LIMITS), rewards(problems, y, measures, LIMITS))
