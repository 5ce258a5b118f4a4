"""Target poses for arms that are commanded by displacements: round trips in formulas and in the real environment."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_flow import StreamingFlow
from sb3_flow.common.data.columns import DatasetError
from sb3_flow.common.data.sources import read_dataset
from sb3_flow.common.environments import make_env
from sb3_flow.envs.absolute_action import (
    AbsoluteActionWrapper,
    absolute_actions,
    absolute_dataset,
    pose,
    relative_actions,
)

pytestmark = pytest.mark.slow

CUBE = "cube-single-singletask-task2-v0"


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    """Sixty steps of the real arm, at smooth random actions that also press against the workspace and close the gripper."""
    pytest.importorskip("ogbench")
    env, rng = make_env(CUBE), np.random.default_rng(0)
    observation, _ = env.reset(seed=0)
    columns: dict[str, list[Any]] = {"observations": [], "next_observations": [], "actions": []}
    action = np.zeros(5)
    for i in range(60):
        action = np.clip(0.8 * action + [0.15, 0.15, 0.15, 0.4, 0.3] * rng.normal(size=5), -1, 1)
        action[2] = -1 if 20 <= i < 40 else action[2]  # against the table
        columns["observations"].append(observation)
        columns["actions"].append(action.astype(np.float32))
        observation = env.step(action.astype(np.float32))[0]
        columns["next_observations"].append(observation)
    return {name: np.array(column) for name, column in columns.items()}


def test_the_round_trip_is_exact(recorded: dict[str, np.ndarray]) -> None:
    """Where nothing is clipped, the displacement that leads to the target is the one that was."""
    observations, actions = recorded["observations"], recorded["actions"].astype(np.float64)
    targets = absolute_actions(observations, actions)
    back = relative_actions(observations, targets)
    position, _, opening = pose(observations)
    free = np.ones(actions.shape, bool)
    free[:, :3] = np.abs(targets[:, :3] - position - 0.05 * actions[:, :3]) < 1e-12
    free[:, 4] = np.abs(targets[:, 5] - opening - actions[:, 4]) < 1e-12
    np.testing.assert_allclose(back[free], actions[free], atol=1e-6)
    assert free.mean(axis=0).min() > 0.3 and not free[20:40, 2].all(), "some of it is clipped"
    assert free[:, 3].all() and np.ptp(pose(observations)[1]) > 0.3, "the arm has turned"


def test_the_short_way_round() -> None:
    """Across the half turn, where the yaw jumps."""
    observation = np.zeros(19)
    observation[15], observation[16] = np.cos(3.1), np.sin(3.1)
    for turn in (-0.9, 0.4):
        action = np.array([0, 0, 0, turn, 0.0])
        assert relative_actions(observation, absolute_actions(observation, action))[3] == pytest.approx(turn, abs=1e-12)


def test_too_far_is_as_far_as_it_reaches() -> None:
    observation = np.zeros(19)
    observation[15] = 1.0
    target = np.array([0.6, 0.0, 0.0, 0.0, 1.0, 0.5])  # 17 cm and a quarter turn away
    np.testing.assert_allclose(relative_actions(observation, target), [1, 0, 0, 1, 0.5], atol=1e-12)


def test_targets_move_the_real_arm_as_displacements_did(recorded: dict[str, np.ndarray]) -> None:
    """Also where the workspace clips them: the same states follow, one after the other."""
    env = AbsoluteActionWrapper(make_env(CUBE))
    observation, _ = env.reset(seed=0)
    targets = absolute_dataset(recorded).actions
    for target, before in zip(targets, recorded["observations"], strict=True):
        np.testing.assert_allclose(observation, before, atol=2e-3)
        assert env.action_space.contains(target)
        observation = env.step(target)[0]
    after = recorded["next_observations"][-1]
    np.testing.assert_allclose(observation[12:19], after[12:19], atol=1e-4)
    assert np.abs(recorded["observations"][0, 12:15] - after[12:15]).max() > 0.5, "it has moved by more than 5 cm"


def test_streaming_on_targets(recorded: dict[str, np.ndarray]) -> None:
    """An algorithm takes the data, without rewards, and acts in the wrapped environment."""
    env = AbsoluteActionWrapper(make_env(CUBE, max_episode_steps=10))
    policy_kwargs = {"net_arch": [16]}
    model = StreamingFlow("FlowPolicy", env, dataset=absolute_dataset(recorded), policy_kwargs=policy_kwargs).learn(3)
    first = model.predict(recorded["observations"][0], deterministic=True)[0]
    assert np.abs(first - absolute_dataset(recorded).actions[0]).max() < 0.2, "it starts near the first target"
    _, lengths = evaluate_policy(model, env, n_eval_episodes=1, return_episode_rewards=True, warn=False)
    assert lengths == [10]


def test_a_name_may_ask_for_targets(recorded: dict[str, np.ndarray], tmp_path: Path) -> None:
    """As the command line and a sweep say it."""
    np.savez(tmp_path / "log.npz", **recorded)
    found = read_dataset(f"{tmp_path / 'log.npz'}#absolute")
    np.testing.assert_array_equal(found.actions, absolute_dataset(recorded).actions)
    assert read_dataset(str(tmp_path / "log.npz")).actions.shape[1] == 5
    with pytest.raises(DatasetError):
        read_dataset(f"{tmp_path / 'other.npz'}#absolute")


def test_what_it_is_not_for(recorded: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"is not an environment of OGBench's arm \(cube, scene, puzzle\)"):
        AbsoluteActionWrapper(gym.make("Pendulum-v1"))
    with pytest.raises(ValueError, match="5 displacements"):
        absolute_dataset({**recorded, "actions": recorded["actions"][:, :4]})
