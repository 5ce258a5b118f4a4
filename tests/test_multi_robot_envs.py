"""The environments of several robots: spaces, rules, rewards and pictures, with plans that are made by hand."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium.utils.env_checker import check_env as check_gymnasium
from stable_baselines3.common.env_checker import check_env

from sb3_flow.envs.multi_robot import MultiRobot
from sb3_flow.envs.multi_robot_drawing import FLOOR, OBSTACLE, PICTURE, colors
from sb3_flow.envs.multi_robot_replan import MultiRobotReplan
from sb3_flow.planning import observations
from sb3_flow.planning.motion import motion

IDS = [f"sb3_flow/MultiRobot{kind}-v0" for kind in ("2D", "3D", "2DReplan")]
#: Two robots that swap their places, and an obstacle beside their way.
SWAP = {"start": [[-3.0, 0.0], [3.0, 0.0]], "goal": [[3.0, 0.0], [-3.0, 0.0]], "obstacles": [[0.0, 2.0, 0.5]]}
ALONE = {"start": [[-2.0, 0.0]], "goal": [[2.0, 0.0]]}


def small(cls: type[MultiRobot] = MultiRobot, **kwargs) -> MultiRobot:
    return cls(**{"num_robots": (1, 2), "num_obstacles": 1, "size": 4.0, **kwargs})


def sideways(env: MultiRobot, *meters: float) -> np.ndarray:
    """The action in which robots leave the straight way along y, in the smoothest mode, by so many meters."""
    y = th.zeros(1, *env._shape)
    y[0, : len(meters), 1, 0] = th.tensor(meters)
    return observations.actions(y, env.limits)[0].numpy()


def straight(env: MultiRobot) -> np.ndarray:
    return np.zeros(env.action_space.shape, dtype=np.float32)


@pytest.mark.filterwarnings("ignore:.*unconventional shape")  # SB3 would rather have no matrices
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize(
    "kwargs",
    [
        {"num_robots": 2, "num_obstacles": 0},
        {"num_robots": [1, 3], "num_obstacles": [0, 2], "max_robots": 4, "max_obstacles": 3, "layout": "circle"},
        {
            "num_robots": 1,
            "layout": "random",
            "size": 3.0,
            "radius": 0.3,
            "v_max": 2.0,
            "a_max": 1.0,
            "horizon": 12.0,
            "degree": 8,
        },
    ],
)
def test_they_are_environments(name: str, kwargs: dict) -> None:
    env = gym.make(name, **kwargs)
    check_env(env.unwrapped)
    check_gymnasium(env.unwrapped)
    assert env.get_wrapper_attr("degree") == kwargs.get("degree", 12)
    limits = env.get_wrapper_attr("limits")
    assert (limits.dimensions == 3) is ("3D" in name)
    for argument in ("size", "radius", "v_max", "a_max", "horizon"):
        if argument in kwargs:
            assert getattr(limits, argument) == kwargs[argument]
    rows = kwargs.get("max_robots", kwargs["num_robots"])
    assert env.action_space.shape == (rows * limits.dimensions * (kwargs.get("degree", 12) - 5),)
    assert env.observation_space["obstacles"].shape[0] == kwargs.get("max_obstacles", kwargs.get("num_obstacles", 8)) or 1


def test_larger_groups_have_more_room_and_time() -> None:
    sizes = {robots: MultiRobot(num_robots=robots) for robots in (8, 16, 32)}
    assert [env.limits.size for env in sizes.values()] == [4.0, 5.0, 6.5]
    assert [env.limits.horizon for env in sizes.values()] == [10.0, 10.0, 14.0]
    assert [env.observation_space["obstacles"].shape[0] for env in sizes.values()] == [8, 12, 16]


def test_seeds_decide() -> None:
    def starts(seed: int) -> list[np.ndarray]:
        env = small()
        return [env.reset(seed=seed if first else None)[0]["start"] for first in (True, False)]

    first, again, other = starts(0), starts(0), starts(1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], first[1]) and not np.array_equal(first[0], other[0])


def test_an_episode_is_one_plan() -> None:
    env = small()
    env.reset(seed=0)
    observation, info = env.reset(options={"scene": SWAP})
    assert info == {}
    np.testing.assert_allclose(4 * observation["start"], SWAP["start"])
    np.testing.assert_allclose(4 * observation["goal"], SWAP["goal"])
    np.testing.assert_allclose(4 * observation["obstacles"], SWAP["obstacles"])
    after, reward, terminated, truncated, info = env.step(straight(env))
    assert terminated and not truncated and all(np.array_equal(after[key], observation[key]) for key in after)
    # Straight through each other; nothing is steeper than the straight way.
    assert not info["is_success"] and not info["certified"]
    assert info["min_pair_distance"] == pytest.approx(0, abs=0.02)
    assert info["certificate_margin"] < -0.35
    assert reward == pytest.approx(-0.4, abs=0.02) and info["penetration"] == pytest.approx(0.4, abs=0.02)

    # To both sides: the first mode's largest value is about 1.5 times its root mean square.
    env.reset(options={"scene": SWAP})
    _, reward, _, _, info = env.step(sideways(env, -0.4, 0.4))
    assert info["is_success"] and info["certified"] and 0 < info["certificate_margin"] < info["min_pair_distance"] - 0.4
    assert reward == pytest.approx(1 - 0.05 * 0.0533 * 0.4**2, abs=1e-4)
    assert {"max_speed", "max_acceleration", "smoothness", "length", "min_obstacle_distance"} < set(info)

    # Now into the obstacle, whose edge is 1.5 m from the way.
    env.reset(options={"scene": SWAP})
    _, _, _, _, info = env.step(sideways(env, 1.2, -0.4))
    assert not info["is_success"] and info["min_obstacle_distance"] < 0.2 and info["min_pair_distance"] > 0.4


def test_a_single_robot_has_no_pair_distance() -> None:
    env = small()
    observation, _ = env.reset(options={"scene": ALONE})
    assert observation["robot_mask"].tolist() == [1, 0] and observation["obstacle_mask"].tolist() == [0]
    _, reward, _, _, info = env.step(straight(env))
    assert reward == 1 and info["is_success"] and info["min_pair_distance"] == np.inf
    assert info["length"] == pytest.approx(4, rel=1e-4)
    assert info["max_speed"] == pytest.approx(1.515 * 4 / 10, rel=1e-3)
    # What stands in the action's rows of padding changes nothing.
    action = straight(env)
    action[14:] = 1
    env.reset(options={"scene": ALONE})
    assert env.step(action)[1] == 1
    assert (env.plan_from_action(action)[1] == 0).all()


def test_plans_have_the_polynomials_of_the_action() -> None:
    env = small()
    env.reset(options={"scene": SWAP})
    coefficients = env.plan_from_action(sideways(env, -0.4, 0.4))
    assert coefficients.shape == (2, 2, 13)
    np.testing.assert_allclose(coefficients[:, :, 0], SWAP["start"], atol=1e-6)
    np.testing.assert_allclose(coefficients[:, :, -1], SWAP["goal"], atol=1e-6)
    np.testing.assert_allclose(coefficients[0], -coefficients[1], atol=1e-6)
    outside = 3 * np.sign(sideways(env, -0.4, 0.4))
    np.testing.assert_array_equal(env.plan_from_action(outside), env.plan_from_action(np.clip(outside, -1, 1)))


@pytest.mark.parametrize(
    ("scene", "message"),
    [
        ({**SWAP, "start": [[-3.0, 0.0], [-2.7, 0.0]]}, r"starts of robots 0 and 1 are 0\.300 m apart"),
        ({**SWAP, "obstacles": [[3.0, 0.5, 0.5]]}, "Robot 1 starts 0.200 m too close to obstacle 0"),
        ({"start": SWAP["start"]}, "no `goal`"),
        ({**SWAP, "map": []}, "unknown keys: map"),
        ({**SWAP, "goal": [[3.0, 0.0]]}, "2 starts and 1 goals"),
        ({**SWAP, "start": [[0.0, 0.0, 0.0]]}, r"`start` has shape \(1, 3\); expected up to 2 rows of 2"),
        ({**SWAP, "obstacles": [[0.0, 2.0, 0.5]] * 2}, r"`obstacles` has shape \(2, 3\); expected up to 1"),
        ({"start": np.zeros((0, 2)), "goal": np.zeros((0, 2))}, "0 starts"),
    ],
)
def test_impossible_scenes_are_refused(scene: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small().reset(options={"scene": scene})


def test_what_makes_no_sense_is_refused() -> None:
    for arguments, message in [
        ({"render_mode": "human"}, "`render_mode` is 'human'"),
        ({"max_obstacles": 0, "num_obstacles": 0}, "`max_obstacles` is 0"),
        ({"num_robots": [1, 2, 3]}, "`num_robots` is"),
        ({"num_robots": 2.5}, "`num_robots` is 2.5; it must be a number, or the smallest and the largest number"),
        ({"num_robots": "12"}, "`num_robots` is '12'"),
        ({"num_obstacles": [1, 2.5]}, r"`num_obstacles` is \[1, 2.5\]"),
        ({"size": float("inf")}, "`size` is inf; it must be above 0, and finite"),
        ({"v_max": "fast"}, "`v_max` is 'fast'; it must be above 0, and finite"),
        ({"dimensions": 4}, "`dimensions` is 4"),
        ({"layout": "square"}, "`layout` is 'square'"),
    ]:
        with pytest.raises(ValueError, match=message):
            small(**arguments)
    for delta in (0.0, 11.0):
        with pytest.raises(ValueError, match="`delta` is"):
            small(MultiRobotReplan, delta=delta)
    env = small(render_mode="rgb_array")
    for act in (lambda: env.step(straight(env)), env.render):
        with pytest.raises(RuntimeError, match="reset"):
            act()
    with pytest.raises(ValueError, match="The options of `reset` are scenes; expected `scene` only"):
        env.reset(options={"scenes": SWAP})
    env.reset(seed=0)
    with pytest.raises(ValueError, match="The action has 3 numbers; expected 28"):
        env.step(np.zeros(3))
    with pytest.raises(ValueError, match="not finite"):
        env.step(np.full(28, np.nan, dtype=np.float32))


def test_scenes_are_not_changed() -> None:
    scene = {name: np.array(value, dtype=np.float32) for name, value in SWAP.items()}
    before = {name: value.copy() for name, value in scene.items()}
    env = small()
    env.reset(options={"scene": scene})
    env.step(straight(env))
    assert all(np.array_equal(before[name], scene[name]) for name in scene)


def pixel(picture: np.ndarray, size: float, x: float, y: float) -> np.ndarray:
    scale = PICTURE / (2 * (size + 0.3))
    return picture[round(PICTURE / 2 - 0.5 - scale * y), round(PICTURE / 2 - 0.5 + scale * x)] / 255


def test_the_picture_shows_the_plan() -> None:
    env = small(render_mode="rgb_array")
    env.reset(options={"scene": SWAP})
    start = env.render()
    first, second = colors(2)
    assert start.shape == (PICTURE, PICTURE, 3) and start.dtype == np.uint8
    tolerance = {"atol": 0.01}
    np.testing.assert_allclose(pixel(start, 4, -3, 0), first, **tolerance)
    np.testing.assert_allclose(pixel(start, 4, 3, 0), second, **tolerance)
    np.testing.assert_allclose(pixel(start, 4, 0, 2), OBSTACLE, **tolerance)
    np.testing.assert_allclose(pixel(start, 4, 0, -2), FLOOR, **tolerance)
    env.step(sideways(env, -0.4, 0.4))
    end = env.render()
    np.testing.assert_allclose(pixel(end, 4, 3.1, 0), first, **tolerance)
    half = env.unwrapped.picture(5.0)
    np.testing.assert_allclose(pixel(half, 4, 3.1, 0), FLOOR, **tolerance)  # a ring, for the goal
    middle = env.plan_from_action(sideways(env, -0.4, 0.4))
    weights = np.array([1, 12, 66, 220, 495, 792, 924, 792, 495, 220, 66, 12, 1]) / 4096
    x, y = middle[0] @ weights
    np.testing.assert_allclose(pixel(half, 4, x, y), first, **tolerance)
    np.testing.assert_allclose(pixel(half, 4, -x, -y), second, **tolerance)
    assert small().render() is None


def test_pictures_in_space() -> None:
    env = MultiRobot(3, num_robots=2, num_obstacles=1, render_mode="rgb_array")
    env.reset(
        options={"scene": {"start": [[-3, 0, 0], [3, 0, 1]], "goal": [[3, 0, 0], [-3, 0, 1]], "obstacles": [[0, 0, 2, 1]]}}
    )
    picture = env.render().astype(float)
    # Right is where x is large; up is where z is large.
    rows, columns = np.nonzero(np.abs(picture - 255 * OBSTACLE).max(axis=-1) < 25)
    assert abs(columns.mean() - PICTURE / 2) < 10 and rows.mean() < PICTURE / 2 - 30
    places = []
    for color in colors(2):
        hue = picture / np.maximum(picture.max(axis=-1, keepdims=True), 1)
        rows, columns = np.nonzero(np.abs(hue - color / color.max()).max(axis=-1) < 0.03)
        places.append((columns.mean(), rows.mean()))
    (left, _), (right, _) = places
    assert left < PICTURE / 2 < right


def test_replanning_arrives() -> None:
    """A robot alone, on plans for ten seconds that are always straight ahead, of each of which it goes one second."""
    env = small(MultiRobotReplan)
    env.reset(options={"scene": ALONE})
    terminated, seconds = False, 0
    while not terminated:
        observation, reward, terminated, truncated, info = env.step(straight(env))
        seconds += 1
        assert reward == terminated - 1 and not truncated and not info["is_collision"] and info["certified"]
    assert 10 < seconds < 20 and info["is_success"]
    assert np.linalg.norm(4 * observation["start"][0] - [2, 0]) <= 0.1
    assert np.linalg.norm(2.5 * observation["velocity"][0]) <= 0.1


def test_replanning_shows_robots_where_they_are() -> None:
    env = small(MultiRobotReplan, delta=0.5)
    env.reset(options={"scene": SWAP})
    before, plan = env.problem, sideways(env, -0.4, 0.4)
    observation, *_ = env.step(plan)
    now = observations.problems({name: th.from_numpy(array)[None] for name, array in observation.items()}, env.limits)
    y = observations.plans(th.from_numpy(plan)[None], env.limits)
    expected = motion(before, y, 10.0, th.tensor([0.5], dtype=th.float64))[..., 0].float()
    for tensor, value in zip((now.start, now.velocity, now.acceleration), expected, strict=True):
        th.testing.assert_close(tensor, value, atol=1e-5, rtol=1e-5)
    assert th.equal(now.goal, before.goal) and th.equal(now.obstacles, before.obstacles)


def test_replanning_ends_with_a_collision() -> None:
    env = small(MultiRobotReplan)
    env.reset(options={"scene": SWAP})
    rewards, terminated = [], False
    while not terminated:
        observation, reward, terminated, truncated, info = env.step(straight(env))
        rewards.append(reward)
        assert info["is_collision"] is terminated and not truncated
    assert rewards[-1] == -10 and len(rewards) > 2 and set(rewards[:-1]) == {-1.0}
    assert info["min_pair_distance"] < 0.4 and not info["is_success"]
    assert env.observation_space.contains(observation)


def test_robots_cannot_do_what_exceeds_their_limits() -> None:
    env = small(MultiRobotReplan)
    env.reset(options={"scene": ALONE})
    wild = straight(env)
    wild[13] = 1  # the stiffest mode
    observation, reward, terminated, _, info = env.step(wild)
    assert info["max_acceleration"] > 2 and reward == -10 and terminated and info["is_collision"]
    assert env.observation_space.contains(observation)


def test_replanning_takes_twice_the_horizon_at_most() -> None:
    env = small(MultiRobotReplan, delta=2.0, fallback=True)
    env.reset(options={"scene": SWAP})
    outcomes = [env.step(straight(env))[1:4] for _ in range(10)]  # refused: they stay where they are
    assert outcomes == [(-2.0, False, False)] * 9 + [(-2.0, False, True)]


def test_unsafe_plans_are_refused_where_there_is_a_fallback() -> None:
    env = small(MultiRobotReplan, fallback=True)
    env.reset(options={"scene": SWAP})
    *_, info = env.step(straight(env))
    assert info["is_fallback"] and not info["certified"]
    np.testing.assert_allclose(env.problem.start[0], SWAP["start"])  # as they had no plan before
    safe = sideways(env, -0.4, 0.4)
    before = env.problem
    *_, info = env.step(safe)
    assert info["certified"] and not info["is_fallback"]
    wild = np.ones_like(safe)
    for second in range(2, 13):  # from now on, the one safe plan is followed to its end, and beyond
        _, _, terminated, _, info = env.step(wild)
        assert info["is_fallback"] and not info["is_collision"]
        y = observations.plans(th.from_numpy(safe)[None], env.limits)
        expected = motion(before, y, 10.0, th.tensor([float(second)], dtype=th.float64))[0, ..., 0].float()
        th.testing.assert_close(env.problem.start, expected, atol=1e-5, rtol=1e-5)
        if terminated:
            break
    assert terminated and info["is_success"] and 8 <= second <= 10


def test_pictures_of_replanning_show_the_way_behind() -> None:
    env = small(MultiRobotReplan, render_mode="rgb_array")
    env.reset(options={"scene": ALONE})
    for _ in range(6):
        env.step(straight(env))
    picture = env.render()
    x = env.problem.start[0, 0, 0].item()
    color = colors(1)[0]
    np.testing.assert_allclose(pixel(picture, 4, x, 0), color, atol=0.01)
    assert x > -1
    for behind in (-1.9, -1.0):  # the line is fainter where it is older
        assert np.abs(pixel(picture, 4, behind, 0) - FLOOR).max() > 0.05 > np.abs(pixel(picture, 4, behind, 0.2) - FLOOR).max()
