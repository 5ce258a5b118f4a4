"""The columns of the replay buffer are those of Stable-Baselines3's, by name and by value."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from conformance.environments import pendulum
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_flow import FQL
from sb3_flow.common.data.online_buffer import OnlineBuffer

SPACE, TORQUE = spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (2,))
COLUMNS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


@pytest.mark.parametrize("steps", [3, 7, 12], ids=["half", "full", "overwritten"])
@pytest.mark.parametrize("n_envs", [1, 2])
def test_columns_are_those_of_stable_baselines3(n_envs: int, steps: int) -> None:
    ours = OnlineBuffer(7 * n_envs, SPACE, TORQUE, "cpu", n_envs)
    theirs = ReplayBuffer(7 * n_envs, SPACE, TORQUE, "cpu", n_envs)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        dones = rng.random(n_envs) < 0.4
        step: tuple[Any, ...] = (
            rng.uniform(-1, 1, (n_envs, 3)).astype(np.float32),
            rng.uniform(-1, 1, (n_envs, 3)).astype(np.float32),
            rng.uniform(-1, 1, (n_envs, 2)).astype(np.float32),
            rng.normal(size=n_envs).astype(np.float32),
            dones,
            [{"TimeLimit.truncated": bool(done and rng.random() < 0.5)} for done in dones],
        )
        ours.add(*step)
        theirs.add(*step)
    assert (ours.pos, ours.full, ours.size()) == (theirs.pos, theirs.full, theirs.size())
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name)[: theirs.size()], err_msg=name)


def test_an_empty_buffer_says_so() -> None:
    buffer = OnlineBuffer(7, SPACE, TORQUE)
    for name in COLUMNS:
        with pytest.raises(ValueError, match="replay buffer is empty"):
            getattr(buffer, name)


def test_a_loaded_buffer_cuts_the_open_trajectory(tmp_path: Path) -> None:
    """New transitions start another episode, unless ``truncate_last_traj=False``."""
    options: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}, "learning_starts": 100, "device": "cpu", "seed": 0}
    model = FQL("FlowPolicy", pendulum(), **options).learn(5)
    model.save_replay_buffer(tmp_path / "buffer")
    for truncate in (True, False):
        other = FQL("FlowPolicy", pendulum(), **options)
        other.learn(3)
        other.load_replay_buffer(tmp_path / "buffer", truncate_last_traj=truncate)
        other.learn(2, reset_num_timesteps=False)
        assert len(other.replay_buffer) == 7
        steps = other.replay_buffer.transitions.steps(th.tensor([3]), 3, 0.99)
        assert steps.rows[:, 0].tolist() == ([3, 4, 4] if truncate else [3, 4, 5])
