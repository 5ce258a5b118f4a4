"""Scenes of several robots: that random ones are what they are said to be, and that impossible ones are refused by name."""

import dataclasses

import numpy as np
import pytest
import torch as th

from sb3_flow.planning.problems import Limits, Problems
from sb3_flow.planning.scenes import LAYOUTS, Scenes, check, standard_limits, standard_obstacles, straight_reach


def sample(count: int = 20, seed: int = 0, robots: int = 8, dimensions: int = 2, **kwargs) -> Problems:
    limits = standard_limits(robots, dimensions)
    scenes = Scenes(limits, robots, standard_obstacles(robots), **kwargs)
    return scenes.sample(np.random.default_rng(seed), count)


def pair_distances(points: th.Tensor) -> th.Tensor:
    i, j = th.triu_indices(points.shape[-2], points.shape[-2], 1)
    return (points[:, i] - points[:, j]).norm(dim=-1)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_scenes_have_room_for_robots(layout: str, dimensions: int) -> None:
    limits = standard_limits(8, dimensions)
    problems = sample(dimensions=dimensions, layout=layout)
    check(problems, limits)
    ends = th.cat([problems.start, problems.goal], dim=1)
    assert ends.abs().max() <= limits.size - limits.radius + 1e-5  # a robot as a whole is inside
    assert min(pair_distances(problems.start).min(), pair_distances(problems.goal).min()) >= 0.6 - 1e-5
    centers, radii = problems.obstacles[..., :-1], problems.obstacles[..., -1]
    assert centers.abs().max() <= 0.75 * limits.size
    low, high = {2: (0.2, 0.5), 3: (0.4, 1.0)}[dimensions]
    assert low <= radii.min() and radii.max() <= high and radii.max() - radii.min() > 0.5 * (high - low)
    i, j = th.triu_indices(8, 8, 1)
    assert (pair_distances(centers) - radii[:, i] - radii[:, j]).min() >= 0.7 - 1e-5
    assert (th.cdist(ends, centers) - radii[:, None]).min() > limits.radius
    assert (problems.goal - problems.start).norm(dim=-1).max() <= 0.9 * straight_reach(limits) + 1e-5
    assert problems.boundary[..., [1, 2]].abs().max() == 0  # at rest


def test_layouts_are_what_they_are_called() -> None:
    size = standard_limits(8).size
    crossing, circle, permutation, random = (sample(layout=layout) for layout in LAYOUTS)
    for problems in (crossing, permutation):
        assert (size - problems.start.abs().amax(dim=-1)).max() <= 1.2 + 1e-5  # near the border
    assert (random.start.abs().amax(dim=-1) < size - 1.2).any()
    assert (crossing.start + crossing.goal).abs().max() <= 0.3 + 1e-5
    assert (crossing.start + crossing.goal).abs().max() > 0.1
    th.testing.assert_close(circle.start, -circle.goal)
    assert circle.start.norm(dim=-1).std() < 1e-5 < circle.start[:, 0].std()
    same = th.cdist(permutation.goal, permutation.start) < 1e-5
    assert same.sum(dim=1).eq(1).all() and same.sum(dim=2).eq(1).all()  # every place is somebody's goal
    assert not same.diagonal(dim1=1, dim2=2).any()  # no robot keeps its place
    assert (permutation.start + permutation.goal).abs().max() > 1


def test_mixed_scenes_are_mostly_crossings() -> None:
    problems = sample(100)
    opposite = ((problems.start + problems.goal).abs() <= 0.3 + 1e-5).all(dim=-1).all(dim=-1)
    exchanged = (th.cdist(problems.goal, problems.start) < 1e-5).sum(dim=2).eq(1).all(dim=1)
    # Of 100, four standard deviations at most.
    assert 40 <= opposite.sum() <= 80 and 4 <= exchanged.sum() <= 36 and 4 <= 100 - (opposite | exchanged).sum() <= 96 - 40


def test_numbers_vary_and_the_rest_is_padding() -> None:
    scenes = Scenes(Limits(), robots=(1, 4), obstacles=(0, 3), max_robots=6, max_obstacles=5)
    problems = scenes.sample(np.random.default_rng(0), 60)
    assert problems.start.shape == (60, 6, 2) and problems.obstacles.shape == (60, 5, 3)
    assert set(problems.robot_mask.sum(dim=1).tolist()) == {1, 2, 3, 4}
    assert set(problems.obstacle_mask.sum(dim=1).tolist()) == {0, 1, 2, 3}
    assert problems.start[problems.robot_mask].norm(dim=-1).min() > 0
    for padding in (problems.start, problems.goal):
        assert (padding[~problems.robot_mask] == 0).all()
    assert (problems.obstacles[~problems.obstacle_mask] == 0).all()
    check(problems, Limits())  # padding is no robot, or all of them would stand in the middle


def test_seeds_decide() -> None:
    assert th.equal(sample(2, seed=3).start, sample(2, seed=3).start)
    assert not th.equal(sample(2, seed=3).start, sample(2, seed=4).start)
    first = sample(1, seed=3)
    assert all(th.equal(one[0], two[0]) for one, two in zip(first, sample(2, seed=3), strict=True))  # one after the other


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="robots do not fit"):
        Scenes(Limits(size=1.0), 40, 0).sample(np.random.default_rng(0))
    with pytest.raises(ValueError, match="robots do not fit"):
        Scenes(Limits(size=2.0), 40, 0, "circle").sample(np.random.default_rng(0))
    with pytest.raises(ValueError, match="obstacles do not fit"):
        Scenes(Limits(size=2.0), 1, 40).sample(np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"in 3 s with a reserve"):
        Scenes(Limits(horizon=3), 2, 0, "circle").sample(np.random.default_rng(0))
    for arguments, message in [
        ({"layout": "square"}, "`layout` is 'square'"),
        ({"robots": 0}, "`robots` is 0"),
        ({"robots": (3, 2)}, r"`robots` is \(3, 2\)"),
        ({"obstacles": -1}, "`obstacles` is -1"),
        ({"robots": (1, 9), "max_robots": 8}, "`max_robots` is 8, but there may be 9"),
    ]:
        with pytest.raises(ValueError, match=message):
            Scenes(**arguments)


#: Three robots and two obstacles, all of which can be done.
START = [[-3.0, 0.0], [3.0, 0.0], [0.0, 3.0]]
GOAL = [[3.0, 0.0], [-3.0, 0.0], [0.0, -3.0]]
OBSTACLES = [[1.0, 1.0, 0.5], [-2.0, 2.0, 0.3]]


def scene(**changes: list) -> Problems:
    values = {"start": START, "goal": GOAL, "obstacles": OBSTACLES, **changes}
    motion = {name: values.pop(name) for name in ("velocity", "acceleration") if name in values}
    problems = Problems.rest_to_rest(**{name: th.tensor([value]) for name, value in values.items()})
    return problems._replace(**{name: th.tensor([value]) for name, value in motion.items()})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": [[-3.0, 0.0], [3.0, 0.0], [2.65, 0.0]]}, r"The starts of robots 1 and 2 are 0\.350 m apart; .* 0\.4 m"),
        ({"goal": [[0.0, -2.65], [-3.0, 0.0], [0.0, -3.0]]}, r"The goals of robots 0 and 2 are 0\.350 m apart"),
        ({"start": [[-3.0, 0.0], [1.0, 0.4], [0.0, 3.0]]}, r"Robot 1 starts 0\.100 m too close to obstacle 0"),
        ({"goal": [[3.0, 0.0], [-3.0, 0.0], [-2.0, 2.4]]}, r"Robot 2 ends 0\.100 m too close to obstacle 1"),
        ({"start": [[-3.0, 0.0], [3.0, 0.0], [0.0, 4.1]]}, r"Robot 2 starts outside of the workspace"),
        ({"start": [[-3.0, 0.0], [3.0, 0.0], [0.0, float("nan")]]}, "The start of robot 2 is"),
        ({"obstacles": [[1.0, 1.0, 0.5], [-2.0, 2.0, -0.1]]}, "Obstacle 1 is"),
        ({"velocity": [[0.0, 0.0], [2.0, 1.6], [0.0, 0.0]]}, r"Robot 1 starts with speed 2\.561 m/s; at most 2\.5"),
        ({"acceleration": [[0.0, 0.0], [0.0, 0.0], [0.0, 2.1]]}, r"Robot 2 starts with acceleration 2\.100"),
    ],
)
def test_the_impossible_is_refused_by_name(changes: dict, message: str) -> None:
    limits = Limits(size=4.0)
    check(scene(), limits)
    problems = scene(**changes)
    with pytest.raises(ValueError, match=message):
        check(problems, limits)
    whole = Problems(*(th.cat([a, b]) for a, b in zip(scene(), problems, strict=True)))
    with pytest.raises(ValueError, match="Problem 1: " + message):
        check(whole, limits)
    # The same robots and obstacles as padding are ignored.
    check(problems._replace(robot_mask=th.zeros(1, 3).bool(), obstacle_mask=th.zeros(1, 2).bool()), limits)


def test_ways_that_take_too_long_are_refused() -> None:
    """From rest to rest: a triangle of speeds where there is no time to reach the largest, and else a trapezium."""
    for horizon, a_max, reach in [(2.0, 2.0, 2.0), (10.0, 0.25, 6.25), (4.0, 2.0, 2.5 * (4 - 1.25))]:
        limits = Limits(size=20.0, horizon=horizon, a_max=a_max)
        for way, possible in [(0.99 * reach, True), (1.01 * reach, False)]:
            problems = Problems.rest_to_rest(th.zeros(1, 1, 2), th.tensor([[[way, 0.0]]]))
            if possible:
                check(problems, limits)
                continue
            with pytest.raises(ValueError, match=rf"Robot 0 is {way:.2f} m from its goal; .* at most {reach:.2f} m"):
                check(problems, limits)
            moving = problems._replace(velocity=th.tensor([[[1.0, 0.0]]]))
            check(moving, limits)


def test_straight_ways_keep_to_the_limits() -> None:
    """The constants of the smoothest straight way of degree 12: 1.515 d / T and 6.53 d / T^2."""
    slow, weak = Limits(v_max=1.0, a_max=100.0), Limits(v_max=100.0, a_max=1.0)
    assert straight_reach(slow) == pytest.approx(10 / 1.515, rel=1e-3)
    assert straight_reach(weak) == pytest.approx(100 / 6.53, rel=2e-3)
    assert straight_reach(dataclasses.replace(weak, horizon=20.0)) == pytest.approx(400 / 6.53, rel=2e-3)
