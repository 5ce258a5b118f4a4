"""VecNormalize's rewards: each reward is divided and clipped by itself, before several are summed."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_flow.common.data.offline_buffer import OfflineBuffer
from sb3_flow.common.data.online_buffer import OnlineBuffer
from sb3_flow.datasets import load_dataset

GAMMA = 0.9
SPACE, ACTIONS = spaces.Box(-1, 1, (1,), np.float32), spaces.Box(-1, 1, (1,), np.float32)


class Spaces(gym.Env[Any, Any]):
    observation_space, action_space = SPACE, ACTIONS


@pytest.mark.parametrize("clip", [0.5, 1.0, 10.0])
def test_n_step_returns_are_those_of_stable_baselines3(clip: float) -> None:
    """The same steps in SB3's n-step buffer and in ours, online and offline, with rewards that are clipped at times."""
    env = VecNormalize(DummyVecEnv([Spaces]), norm_obs=False, clip_reward=clip, gamma=GAMMA)
    env.ret_rms.var = np.array(4.0)
    rng = np.random.default_rng(0)
    rewards = 5 * rng.normal(size=40).astype(np.float32)
    ended, cut = np.arange(40) % 10 == 6, np.arange(40) % 10 == 9
    theirs = NStepReplayBuffer(40, SPACE, ACTIONS, device="cpu", n_steps=3, gamma=GAMMA)
    ours = OnlineBuffer(40, SPACE, ACTIONS, "cpu")
    states = rng.uniform(-1, 1, (41, 1)).astype(np.float32)
    for row in range(40):
        infos = [{"TimeLimit.truncated": bool(cut[row])}]
        step = (
            states[row][None],
            states[row + 1][None],
            np.zeros((1, 1)),
            rewards[row][None],
            (ended | cut)[row][None],
            infos,
        )
        theirs.add(*step)
        ours.add(*step)
    rows = np.arange(37)
    expected = theirs._get_samples(rows, env).rewards[:, 0]
    data = load_dataset(
        {
            "observations": states[:-1],
            "next_observations": states[1:],
            "actions": np.zeros((40, 1), np.float32),
            "rewards": rewards,
            "terminations": ended,
            "truncations": cut,
        }
    )
    for buffer in (ours, OfflineBuffer(data, SPACE, ACTIONS)):
        drawn = buffer.draw(th.as_tensor(rows), n_steps=3, gamma=GAMMA, env=env).rewards
        th.testing.assert_close(drawn, expected)
        chunk = buffer.draw(th.tensor([10]), gamma=GAMMA, chunk_length=3, env=env).rewards
        clipped = np.clip(rewards[10:13] / np.sqrt(4.0 + env.epsilon), -clip, clip)
        assert chunk.item() == pytest.approx((clipped * GAMMA ** np.arange(3)).sum(), rel=1e-5)
