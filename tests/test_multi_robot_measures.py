"""Measures of plans: on trajectories with known measures, and compared with a slow implementation in plain NumPy."""

import math

import numpy as np
import pytest
import torch as th
from scipy.interpolate import BPoly

from sb3_flow.planning.basis import make_basis
from sb3_flow.planning.measures import (
    Measures,
    different_sides,
    judge,
    mean_distance,
    measure,
    winding_angles,
)
from sb3_flow.planning.motion import motion
from sb3_flow.planning.problems import Limits, Problems
from sb3_flow.planning.scenes import Scenes, standard_limits

TIMES = th.linspace(0, 1, 2001, dtype=th.float64)


def around(radius: float, angle: float, phase: float = 0.0) -> th.Tensor:
    """On a circle by an angle, within one second: ``(3, 2, S)``."""
    turn = angle * TIMES + phase
    unit, tangent = th.stack([turn.cos(), turn.sin()]), th.stack([-turn.sin(), turn.cos()])
    return radius * th.stack([unit, angle * tangent, -(angle**2) * unit])


def still(x: float, y: float) -> th.Tensor:
    moves = th.zeros(3, 2, len(TIMES), dtype=th.float64)
    moves[0, 0], moves[0, 1] = x, y
    return moves


def problem(robots: int, obstacles: list | None = None) -> Problems:
    places = th.zeros(1, robots, 2)
    return Problems.rest_to_rest(places, places, None if obstacles is None else th.tensor([obstacles]))


def verdict(robots: list[th.Tensor], obstacles: list | None = None, **limits: float) -> Measures:
    moves = th.stack(robots, dim=1).unsqueeze(1)
    wide = {"size": 10.0, "v_max": 100.0, "a_max": 1000.0, **limits}
    return judge(problem(len(robots), obstacles), moves, Limits(**wide), 1.0)


def test_circles() -> None:
    m = verdict([around(2.0, math.pi), around(1.0, -math.pi)], [[0.0, 0.0, 0.25], [5.0, 0.0, 0.5]])
    # They begin beside each other and meet again on the other side; (2 pi)^2 and pi^2 are the speeds' squares over radius.
    assert m.min_pair_distance.item() == pytest.approx(1)
    assert m.min_obstacle_distance.item() == pytest.approx(0.75)
    assert m.max_speed.item() == pytest.approx(2 * math.pi)
    assert m.max_acceleration.item() == pytest.approx(2 * math.pi**2)
    assert m.smoothness.item() == pytest.approx((4 + 1) / 2 * math.pi**4)
    assert m.length.item() == pytest.approx(1.5 * math.pi, rel=1e-5)
    assert m.max_coordinate.item() == pytest.approx(2)
    assert m.success.item() and m.penetration.item() == 0


def test_one_robot_alone() -> None:
    m = verdict([around(2.0, math.pi)])
    assert m.success.item() and m.min_pair_distance.item() == m.min_obstacle_distance.item() == math.inf


@pytest.mark.parametrize(
    ("limits", "success"),
    [
        ({"radius": 0.4999}, True),
        ({"radius": 0.5001}, False),
        ({"v_max": 2 * math.pi / 1.009}, True),
        ({"v_max": 2 * math.pi / 1.011}, False),
        ({"a_max": 2 * math.pi**2 / 1.009}, True),
        ({"a_max": 2 * math.pi**2 / 1.011}, False),
        ({"size": 2 / 1.009}, True),
        ({"size": 2 / 1.011}, False),
    ],
)
def test_limits_have_a_tolerance_but_distances_have_none(limits: dict, success: bool) -> None:
    assert verdict([around(2.0, math.pi), around(1.0, -math.pi)], **limits).success.item() is success


def test_penetration_is_the_deepest() -> None:
    robots = [still(0, 0), still(0.3, 0), around(3.0, math.pi)]
    assert verdict(robots).penetration.item() == pytest.approx(0.1)
    assert verdict(robots, [[3.0, 0.0, 0.5]]).penetration.item() == pytest.approx(0.7)
    assert not verdict([still(0, 0)], [[0.0, 0.5, 0.31]]).success.item()
    assert verdict([still(0, 0)], [[0.0, 0.5, 0.29]]).success.item()


def test_padding_does_not_count() -> None:
    robots = [around(2.0, math.pi), around(1.0, -math.pi)]
    obstacles = [[0.0, 0.0, 0.25]]
    alone = verdict(robots, obstacles)
    moves = th.stack([*robots, still(2, 0), 100 * still(1, 1)], dim=1).unsqueeze(1)
    padded = problem(4, [*obstacles, [0.0, 2.0, 5.0]])
    padded.robot_mask[:, 2:] = False
    padded.obstacle_mask[:, 1:] = False
    limits = Limits(size=10.0, v_max=100.0, a_max=1000.0)
    assert judge(padded, moves, limits, 1.0) == alone


def test_what_is_no_number_is_no_success() -> None:
    nobody = around(2.0, math.pi)
    nobody[:, :, 7] = th.nan
    assert not verdict([nobody]).success.item()
    assert not verdict([nobody, around(1.0, math.pi)]).success.item()


@pytest.mark.slow
def test_plans_are_judged_as_by_hand() -> None:
    """Random plans, evaluated by SciPy, and judged in plain NumPy at other times."""
    limits = standard_limits(5)
    scenes = Scenes(limits, (2, 5), (0, 4), max_robots=6, max_obstacles=5)
    problems = scenes.sample(np.random.default_rng(0), 12)
    y = 0.3 * th.randn(12, 6, 2, 7, generator=th.Generator().manual_seed(0))
    measures = judge(
        problems, motion(problems, y, limits.horizon, th.linspace(0, limits.horizon, 10_001)), limits, limits.horizon
    )
    coefficients = make_basis(12, 64, limits.horizon).coefficients(problems.boundary, y).numpy()
    times = np.linspace(0, limits.horizon, 20_001)
    for b in range(12):
        robots = problems.robot_mask[b].nonzero()[:, 0].tolist()
        ways = [BPoly(coefficients[b, i].T[:, None], [0, limits.horizon]) for i in robots]
        p, v, a = (np.stack([way.derivative(k)(times) if k else way(times) for way in ways]) for k in range(3))
        pairs = [np.linalg.norm(p[i] - p[j], axis=1).min() for i in range(len(p)) for j in range(i)]
        hurdles = [
            np.linalg.norm(way - np.array(o[:2]), axis=1).min() - o[2]
            for way in p
            for o, there in zip(problems.obstacles[b].tolist(), problems.obstacle_mask[b], strict=True)
            if there
        ]
        speeds, accelerations = np.linalg.norm(v, axis=2), np.linalg.norm(a, axis=2)
        expected = {
            "min_pair_distance": min(pairs),
            "min_obstacle_distance": min(hurdles, default=math.inf),
            "max_speed": speeds.max(),
            "max_acceleration": accelerations.max(),
            "max_coordinate": np.abs(p).max(),
            "smoothness": (accelerations**2).mean(),
            "length": np.linalg.norm(np.diff(p, axis=1), axis=2).sum() / len(p),
        }
        for name, value in expected.items():
            assert getattr(measures, name)[b].item() == pytest.approx(value, rel=1e-3, abs=1e-3), name
        deepest = max(0.4 - expected["min_pair_distance"], 0.2 - expected["min_obstacle_distance"], 0)
        assert measures.penetration[b].item() == pytest.approx(deepest, abs=1e-3)
    assert measures.smoothness.dtype == th.float64


def test_smoothness_is_the_sum_of_its_modes() -> None:
    """By the identity of modal coordinates, which knows no grid."""
    limits = standard_limits(3)
    problems = Scenes(limits, 3, 0).sample(np.random.default_rng(0), 4)
    y = th.randn(4, 3, 2, 7, dtype=th.float64, generator=th.Generator().manual_seed(0))
    more = measure(problems, y, limits).smoothness - measure(problems, 0 * y, limits).smoothness
    expected = (y**2 * make_basis(12, 64, limits.horizon).stiffness).sum(dim=(1, 2, 3)) / 3
    th.testing.assert_close(more, expected, rtol=1e-4, atol=0)


def test_the_grid_is_ten_times_finer() -> None:
    problems = Problems.rest_to_rest(th.tensor([[[-1.0, 0.0]]]), th.tensor([[[1.0, 0.0]]]))
    y = th.zeros(1, 1, 2, 7)
    for horizon, samples in ((10.0, 64), (14.0, 84)):
        limits = Limits(horizon=horizon)
        times = th.linspace(0, horizon, 10 * (samples - 1) + 1, dtype=th.float64)
        assert measure(problems, y, limits) == judge(problems, motion(problems, y, horizon, times), limits, horizon)


def test_sides() -> None:
    """Two robots that swap their places, each to its right or each to its left."""
    right, left = around(1.0, math.pi)[0], around(1.0, -math.pi)[0]
    ways = {"right": th.stack([right, -right]), "left": th.stack([left, -left])}
    for name, sign in (("right", 1), ("left", -1)):
        angles = winding_angles(ways[name])
        expected = sign * math.pi * (1 - th.eye(2, dtype=th.float64))
        th.testing.assert_close(angles, expected)
    both = th.ones(2, dtype=th.bool)
    assert different_sides(ways["right"], ways["left"], both).item() == 1
    assert different_sides(ways["right"], ways["right"], both).item() == 0
    assert different_sides(ways["right"], ways["left"], th.tensor([True, False])).item() == 0
    # Robots far away from each other do not pass; those above each other count as seen from above.
    apart = th.stack([right, right + 10])
    assert winding_angles(apart).abs().max() < 1e-9
    space = {name: th.cat([way, th.rand(2, 1, len(TIMES), dtype=th.float64)], dim=1) for name, way in ways.items()}
    assert different_sides(space["right"], space["left"], both).item() == 1


def test_distance_of_plans() -> None:
    right, left = around(1.0, math.pi)[0], around(1.0, -math.pi)[0]
    first, second = th.stack([right, right]), th.stack([right, left])
    both = th.ones(2, dtype=th.bool)
    # |2 sin| has the mean 4 / pi over half a circle, and the other robot does the same in both plans.
    assert mean_distance(first, second, both).item() == pytest.approx(2 / math.pi, rel=1e-3)
    assert mean_distance(first, second, th.tensor([True, False])).item() == 0
