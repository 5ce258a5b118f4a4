"""Environments of other packages: success under SB3's name, resets that follow their seed, and rewards of recorded actions."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from sb3_flow.common.environments import OwnGenerator, SuccessInfo, make_env, needs_success_report, report_success
from sb3_flow.datasets import load_dataset

MAZE = "pointmaze-medium-singletask-v0"


@pytest.fixture(autouse=True)
def quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of OGBench and MuJoCo
        yield


class Robot(gym.Env[np.ndarray, np.ndarray]):
    """Reports success as PointMaze, AntMaze and Adroit of Gymnasium-Robotics do."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        return np.zeros(1, np.float32), {"success": False}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), 0.0, False, False, {"success": np.True_}


@pytest.mark.parametrize("module", ["gymnasium_robotics.envs.maze.point_maze", "metaworld.envs.sawyer_reach_v3"])
def test_success_of_other_packages(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    assert "is_success" not in report_success(Robot()).step(np.zeros(1))[4]
    monkeypatch.setattr(Robot, "__module__", module)
    env = report_success(Robot())
    assert env.step(np.zeros(1))[4]["is_success"] is True
    assert report_success(env) is env


def test_ids_of_environments_that_report_success(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = gym.envs.registration.EnvSpec(
        "PointMaze_Test-v3", entry_point="gymnasium_robotics.envs.maze.point_maze:PointMazeEnv"
    )
    monkeypatch.setitem(gym.registry, spec.id, spec)
    for env_id in ("PointMaze_Test-v3", MAZE, "Meta-World/MT1"):
        assert needs_success_report(env_id)
    assert not needs_success_report("Pendulum-v1")


@pytest.mark.parametrize("env_id", [MAZE, "pointmaze-teleport-singletask-v0"])
def test_mazes_follow_the_seed_of_reset(env_id: str) -> None:
    pytest.importorskip("ogbench")
    first, second = make_env(env_id), make_env(env_id)

    def run(env: gym.Env[Any, Any], seed: int, global_seed: int) -> list[float]:
        np.random.seed(global_seed)
        observations = [env.reset(seed=seed)[0]]
        env.action_space.seed(seed)
        for _ in range(3):
            observations.append(env.step(env.action_space.sample())[0])
        observations.append(env.reset()[0])  # the next episode follows from the seed, too
        return np.concatenate(observations).tolist()

    assert run(first, 3, 0) == run(second, 3, 1)
    assert run(first, 3, 0) != run(first, 4, 0)
    np.random.seed(5)
    expected = np.random.uniform()
    np.random.seed(5)
    first.reset(seed=1)
    first.step(first.action_space.sample())
    assert np.random.uniform() == expected  # what others draw does not change


def test_an_environment_that_was_never_seeded_follows_the_global_generator() -> None:
    env = OwnGenerator(Drawing())
    np.random.seed(0)
    first = env.reset()[0]
    np.random.seed(0)
    assert OwnGenerator(Drawing()).reset()[0] == first
    assert env.reset()[0] != first


class Drawing(Robot):
    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        return np.array([np.random.uniform()]), {}


def replayed(env_id: str, reach: Any, steps: int, path: Path) -> tuple[np.ndarray, list[float], list[bool]]:
    """
    Act in an environment, past the end of the task, and record as OGBench does.

    :param reach: Called with the environment before each step; it may move something to its goal
    :return: Rewards and ends of the task of the recorded data, and those that the environment gave
    """
    env = make_env(env_id)
    inner: Any = env.unwrapped
    env.reset(seed=0)
    env.action_space.seed(0)
    columns: dict[str, list[Any]] = {name: [] for name in ("observations", "actions", "qpos", "qvel", "terminals")}
    rewards, ended = [], []
    observation = inner.get_ob() if hasattr(inner, "get_ob") else inner.compute_observation()
    for step in range(steps + 1):
        physics = inner.data if hasattr(inner, "data") else inner._data
        action = reach(inner, step)
        for name, value in zip(columns, (observation, action, physics.qpos, physics.qvel, step == steps), strict=True):
            columns[name].append(np.array(value, copy=True))
        if step < steps:
            observation, reward, terminated, _, _ = env.step(action)
            rewards.append(float(reward))
            ended.append(bool(terminated))
    env.close()
    np.savez(path, **{name: np.array(column) for name, column in columns.items()})
    data = load_dataset(path, env_id)
    assert data.rewards is not None
    np.testing.assert_array_equal(data.terminations[data.valids], ended)
    return data.rewards[data.valids], rewards, ended


def test_relabeled_rewards_are_those_of_a_maze(tmp_path: Path) -> None:
    """ogbench judges single-task mazes by the state before the action: the step that arrives pays -1, one that leaves 0."""
    pytest.importorskip("ogbench")

    def reach(inner: Any, step: int) -> np.ndarray:
        if step == 0:
            inner.set_xy(inner.cur_goal_xy - np.array([1.6, 0.0]))
        away = inner.cur_goal_xy - inner.get_xy() if step < 10 else np.array([-1.0, 0.0])
        return np.clip(5 * away, -1, 1).astype(np.float32)

    ours, theirs, ended = replayed(MAZE, reach, 30, tmp_path / "log.npz")
    np.testing.assert_array_equal(ours, theirs)
    assert set(theirs) == {-1.0, 0.0} and theirs[0] == theirs[-1] == -1.0  # it comes, and goes
    assert ended == [reward == 0 for reward in theirs]


@pytest.mark.slow
def test_relabeled_rewards_are_those_of_a_cube(tmp_path: Path) -> None:
    """The cube is put on its goal, and taken away."""
    pytest.importorskip("ogbench")
    place: dict[str, np.ndarray] = {}

    def reach(inner: Any, step: int) -> np.ndarray:
        physics = inner._data
        if step == 0:
            place["start"] = physics.qpos[14:17].copy()
        target = physics.mocap_pos[0] if 3 <= step < 6 else place["start"]
        physics.qpos[14:17], physics.qvel[14:20] = target, 0
        inner.post_step()  # judges the state
        return np.zeros(5, np.float32)

    ours, theirs, _ = replayed("cube-single-singletask-v0", reach, 9, tmp_path / "log.npz")
    np.testing.assert_array_equal(ours, theirs)
    assert theirs[3:6] == [0, 0, 0] and theirs[0] == theirs[-1] == -1


def test_wrappers_are_those_of_the_package() -> None:
    pytest.importorskip("ogbench")
    env = make_env(MAZE)
    assert isinstance(env, SuccessInfo) and isinstance(env.env, OwnGenerator)
    assert not isinstance(make_env("Pendulum-v1"), (SuccessInfo, OwnGenerator))
