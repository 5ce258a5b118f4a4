#!/bin/sh
# Stable-Baselines3 2.9.2: learn() is called twice, and the first call ends within an episode.
#
# One would guess: the second call resets the environment, so that the replay buffer treats the rows before and after the reset as
# two episodes.
# What happens: nothing marks the row before the reset. With n_steps=3, NStepReplayBuffer returns a next observation and rewards
# from after the reset. HerReplayBuffer counts the rows of both calls as one episode, and relabels the first rows with goals that
# were achieved after the reset. In both buffers, `dones` and `timeouts` of that row are 0.
# Source: stable_baselines3/common/buffers.py (NStepReplayBuffer), her/her_replay_buffer.py, common/off_policy_algorithm.py
# (_setup_learn resets the environment), version 2.9.2.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    stable-baselines3==2.9.2 torch==2.13.0 gymnasium==1.4.0 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore - <<'PY'
import sys

import gymnasium as gym
import numpy as np
import stable_baselines3
from gymnasium.spaces import Box, Dict
from stable_baselines3 import SAC, HerReplayBuffer

SPACE = Box(-1e6, 1e6, (1,))


class Counter(gym.Env):
    """The k-th episode begins at 1000 k; each step adds 1."""

    observation_space, action_space, episodes = SPACE, Box(-1, 1, (1,)), 0

    def seen(self):
        return np.array([self.x], np.float32)

    def reset(self, seed=None, options=None):
        self.episodes += 1
        self.x, self.steps = 1000.0 * self.episodes, 0
        return self.seen(), {}

    def step(self, action):
        self.x, self.steps = self.x + 1, self.steps + 1
        return self.seen(), 1.0, False, self.steps >= 15, {}


class Goals(Counter):
    observation_space = Dict(observation=SPACE, achieved_goal=SPACE, desired_goal=SPACE)

    def seen(self):
        here = super().seen()
        return {"observation": here, "achieved_goal": here, "desired_goal": np.zeros(1, np.float32)}

    def compute_reward(self, achieved, desired, info):
        return -np.abs(achieved - desired)[..., 0]


arguments = dict(learning_starts=10**6, policy_kwargs={"net_arch": [4]}, device="cpu")
model = SAC("MlpPolicy", Counter(), n_steps=3, **arguments)
model.learn(10)
model.learn(10)
rows = model.replay_buffer._get_samples(np.array([8]))  # the second last row of the first call
pair = rows.observations.item(), rows.next_observations.item()
marks = int(model.replay_buffer.dones.sum() + model.replay_buffer.timeouts.sum())

model = SAC("MultiInputPolicy", Goals(), replay_buffer_class=HerReplayBuffer, **arguments)
model.learn(10)
model.learn(15)
buffer = model.replay_buffer
rows = buffer._get_virtual_samples(np.full(50, 5), np.zeros(50, int))
goals = rows.observations["desired_goal"].max().item()
length = int(buffer.ep_length[5, 0])

print("stable-baselines3", stable_baselines3.__version__)
print("n-step: observation and next observation", pair, "marks of an end:", marks)
print("HER: length of the episode of row 5:", length, "largest relabeled goal:", goals)
sys.exit(not (pair == (1008.0, 2001.0) and marks == 0 and length == 25 and goals > 2000))
PY
