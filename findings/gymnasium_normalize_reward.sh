#!/bin/sh
# Gymnasium 1.4.0: NormalizeReward at the ends of episodes.
#
# One would guess: the discounted return, by whose standard deviation rewards are divided, starts again with each episode, as that
# of Stable-Baselines3's VecNormalize does.
# What happens: a time limit does not end it: returns of all episodes add up. A terminal state ends it one step too early: it
# forgets the episode before the last reward is added, and the last reward is then part of the next episode's returns. With
# rewards of 1, episodes of 3 steps that a time limit ends, and no discount, the returns are 1, 2, 3, 4, 5, ... instead of
# 1, 2, 3, 1, 2, ..., and after 100 episodes rewards are divided by 87 instead of by 0.8.
# Source: gymnasium/wrappers/stateful_reward.py (NormalizeReward.step), version 1.4.0;
# stable_baselines3/common/vec_env/vec_normalize.py (step_wait), version 2.9.2.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    gymnasium==1.4.0 numpy==2.4.6 stable-baselines3==2.9.2 torch==2.13.0
cd "$folder"
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore - <<'PY'
import sys

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize


class Three(gym.Env):
    """Episodes of three steps, with rewards of 1."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, terminal):
        self.terminal = terminal

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        end = self.steps == 3
        return np.zeros(1, np.float32), 1.0, end and self.terminal, end and not self.terminal, {}


def gymnasium_returns(terminal, episodes):
    env, seen = gym.wrappers.NormalizeReward(Three(terminal), gamma=1.0), []
    for _ in range(episodes):
        env.reset()
        for _ in range(3):
            env.step(env.action_space.sample())
            seen.append(round(np.asarray(env.discounted_reward).item()))
    return seen, float(np.sqrt(env.return_rms.var))


def sb3_returns(terminal, episodes):
    env, seen = VecNormalize(DummyVecEnv([lambda: Three(terminal)]), gamma=1.0), []
    env.reset()
    for _ in range(3 * episodes):
        before = env.returns.copy()  # set to 0 at the end of an episode, after the statistics are updated
        env.step(np.zeros((1, 1)))
        seen.append(round(before.item()) + 1)
    return seen, float(np.sqrt(env.ret_rms.var))


print("gymnasium", gym.__version__)
limit, terminal = gymnasium_returns(False, 3)[0], gymnasium_returns(True, 3)[0]
expected = sb3_returns(False, 3)[0]
print("returns, three episodes that a time limit ends:", limit)
print("returns, three episodes that end in a terminal state:", terminal)
print("returns of VecNormalize:", expected)
ours, theirs = gymnasium_returns(False, 100)[1], sb3_returns(False, 100)[1]
print(f"standard deviation after 100 episodes: {ours:.1f}, of VecNormalize: {theirs:.1f}")
right = expected == [1, 2, 3] * 3 == sb3_returns(True, 3)[0]
sys.exit(not (right and limit == list(range(1, 10)) and terminal == [1, 2, 1, 2, 3, 1, 2, 3, 1] and ours > 50 > 1 > theirs))
PY
