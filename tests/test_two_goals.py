"""The environment with two goals: its rules, and the returns of policies, by formulas and by episodes."""

import itertools
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_gymnasium
from scipy.special import ndtr
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv

import sb3_flow
from sb3_flow.envs import TwoGoals
from sb3_flow.envs.two_goals import AGENT, CLOSED, OPEN, PATH, WALL, WHITE, goal_at, success_probability

ID = "sb3_flow/TwoGoals-v0"
LEFT, RIGHT, MIDDLE, SIDE = -0.5, 0.5, 0.0, 0.9
#: Where the openings begin and end.
EDGES = np.array([-0.75, -0.25, 0.25, 0.75])


def act(*places: float) -> list[np.ndarray]:
    return [np.array([place], dtype=np.float32) for place in places]


def walk(env: gym.Env, choose: Callable[[int], float], open_goal: str | None = None) -> float:
    """One episode of a policy that knows the number of the attempt; its return."""
    env.reset(options=open_goal and {"open_goal": open_goal})
    for attempt in itertools.count():
        _, reward, terminated, truncated, _ = env.step(act(choose(attempt))[0])
        if terminated or truncated:
            return float(reward)
    raise AssertionError


@pytest.mark.filterwarnings("error")
def test_it_is_an_environment() -> None:
    env = TwoGoals(render_mode="rgb_array")
    check_env(env)
    check_gymnasium(gym.make(ID, render_mode="rgb_array").unwrapped, skip_render_check=False)


def test_its_rules() -> None:
    env = gym.make(ID, attempts=2)
    for options, places, expected in [
        # reward, terminated, truncated, goal of the last step
        ("left", [LEFT], (1.0, True, False, "left")),
        ("left", [RIGHT], (0.0, False, False, "right")),
        ("left", [RIGHT, LEFT], (1.0, True, False, "left")),
        ("left", [RIGHT, RIGHT], (0.0, False, True, "right")),
        ("left", [RIGHT, MIDDLE], (0.0, True, False, None)),
        ("right", [RIGHT], (1.0, True, False, "right")),
        ("right", [LEFT], (0.0, False, False, "left")),
        ("right", [SIDE], (0.0, True, False, None)),
        ("right", [-SIDE], (0.0, True, False, None)),
    ]:
        first, info = env.reset(options={"open_goal": options})
        assert info == {"open_goal": options}
        for action in act(*places):
            observation, reward, terminated, truncated, info = env.step(action)
            np.testing.assert_array_equal(observation, first)  # it sees nothing of what it did
        assert (reward, terminated, truncated, info["goal"]) == expected
        assert info["is_success"] is bool(reward) and info["open_goal"] == options


def test_the_openings_are_where_the_docstring_says() -> None:
    assert [goal_at(edge + 0.01) for edge in EDGES] == [-1, 0, 1, 0]
    assert [goal_at(edge - 0.01) for edge in EDGES] == [0, -1, 0, 1]


def test_seeds_decide_which_goal_is_open() -> None:
    def goals(seed: int) -> list[str]:
        env = TwoGoals()
        return [env.reset(seed=seed if first else None)[1]["open_goal"] for first in [True] + [False] * 199]

    assert goals(3) == goals(3) != goals(4)
    assert 70 <= goals(3).count("left") <= 130  # 4 standard deviations


def test_walking_gives_what_the_formula_says() -> None:
    rng = np.random.default_rng(0)
    places = np.array([LEFT, RIGHT, MIDDLE])
    for left, right, attempts in [(0.5, 0.5, 1), (0.5, 0.5, 2), (0.5, 0.5, 8), (1.0, 0.0, 8), (0.2, 0.5, 3), (0.4, 0.4, 8)]:
        env = TwoGoals(attempts)
        env.reset(seed=0)
        p = [left, right, 1 - left - right]
        returns = [walk(env, lambda _, p=p: rng.choice(places, p=p)) for _ in range(2000)]
        error = 4 * np.sqrt(0.25 / len(returns))
        assert np.mean(returns) == pytest.approx(success_probability(left, right, attempts), abs=error)


def test_the_best_policy_chooses_both_goals_alike() -> None:
    p = np.linspace(0, 1, 201)
    for attempts in (2, 8):
        left, right = np.meshgrid(p, p, indexing="ij")
        returns = np.where(left + right <= 1, success_probability(left, right, attempts), 0)
        assert np.unravel_index(returns.argmax(), returns.shape) == (100, 100)
        assert returns.max() == pytest.approx(1 - 0.5**attempts)
        assert success_probability(1, 0, attempts) == success_probability(0, 1, attempts) == 0.5


@pytest.mark.parametrize("squash", [False, True])
def test_no_gaussian_has_more_than_half(squash: bool) -> None:
    """Clipped, or squashed as SAC's: every mean and standard deviation, on a fine grid."""
    edges = np.arctanh(EDGES) if squash else EDGES
    means, stds = np.linspace(-3, 3, 601)[:, None], np.geomspace(0.003, 30, 400)[None]
    below = [ndtr((edge - means) / stds) for edge in edges]
    left, right = below[1] - below[0], below[3] - below[2]
    returns = success_probability(left, right)
    assert returns.max() == pytest.approx(0.5)
    best = np.unravel_index(returns.argmax(), returns.shape)
    assert max(left[best], right[best]) == pytest.approx(1)  # it has decided for one
    both = np.minimum(left, right) > 0.1
    assert both.any() and returns[both].max() < 0.4


def test_memory_needs_no_randomness() -> None:
    for open_goal in ("left", "right"):
        assert walk(TwoGoals(), lambda attempt: (LEFT, RIGHT)[attempt], open_goal) == 1.0
    assert walk(TwoGoals(), lambda _: LEFT, "right") == 0.0


def test_the_picture_shows_the_room() -> None:
    env = TwoGoals(render_mode="rgb_array")
    env.reset(options={"open_goal": "right"})
    env.step(act(LEFT)[0])
    picture = env.render()
    assert picture is not None

    def color(x: float, y: float) -> tuple[int, ...]:
        return tuple(picture[round((1.6 - y) / 2 * 239), round((x + 1.2) / 2.4 * 239)].tolist())

    assert (color(0, 0), color(0.5, 1.25), color(-0.6, 1.25)) == (AGENT, OPEN, CLOSED)
    assert color(-0.25, 0.5) == PATH and color(0.25, 0.5) == WHITE  # it went left
    assert [color(x, 1) for x in (-0.9, 0, 0.9)] == [WALL] * 3 and color(0.5, 1) == WHITE
    assert TwoGoals().render() is None


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="`attempts` is 0"):
        TwoGoals(0)
    with pytest.raises(ValueError, match="`render_mode` is 'human'"):
        TwoGoals(render_mode="human")
    with pytest.raises(ValueError, match="'left' or 'right'"):
        TwoGoals().reset(options={"open_goal": "up"})
    with pytest.raises(ValueError, match="The options of `reset` are goal; expected `open_goal` only"):
        TwoGoals().reset(options={"goal": "left"})
    env = TwoGoals()
    env.reset()
    with pytest.raises(ValueError, match="finite"):
        env.step(np.array([np.nan], dtype=np.float32))


@pytest.mark.nightly
def test_several_at_once() -> None:
    """By ``sb3_flow:ID``, in subprocesses that have not imported this package."""
    env = make_vec_env(f"sb3_flow:{ID}", n_envs=2, seed=0, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "spawn"})
    try:
        env.reset()
        for _ in range(8):
            _, _, dones, infos = env.step(np.array([[LEFT], [MIDDLE]], dtype=np.float32))
            assert dones[1] and not infos[1]["is_success"] and infos[0]["goal"] == "left"
    finally:
        env.close()


def test_an_algorithm_makes_it_by_its_id() -> None:
    model = sb3_flow.FPMD("FlowPolicy", ID, learning_starts=4, batch_size=4, flow_steps=2, particles=2)
    assert model.learn(6).n_env_steps == 6
