#!/bin/sh
# Stable-Baselines3 2.9.2: SAC with VecNormalize around an environment with a dictionary of an image and a vector.
#
# One would guess: VecNormalize(norm_obs_keys=["joints"]) leaves the image alone, the algorithm moves the channels of the image to
# the front as it does for every image with channels last, and SAC trains.
# What happens: the algorithm puts VecTransposeImage around VecNormalize. The replay buffer gets VecNormalize's original
# observations, whose images have channels last, while its columns have channels first: the first stored transition raises
# "could not broadcast input array". With VecNormalize(VecTransposeImage(venv)) it trains.
# Source: stable_baselines3/common/base_class.py (_wrap_env), common/off_policy_algorithm.py (_store_transition), version 2.9.2.
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
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize, VecTransposeImage


class Robot(gym.Env):
    observation_space = spaces.Dict(
        {"camera": spaces.Box(0, 255, (36, 36, 3), np.uint8), "joints": spaces.Box(-1, 1, (4,), np.float32)}
    )
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


def outcome(env):
    model = SAC("MultiInputPolicy", env, learning_starts=5, buffer_size=100, policy_kwargs={"net_arch": [8]})
    try:
        model.learn(10)
    except ValueError as error:
        return f"ValueError: {error}"
    return "trained"


plain = outcome(VecNormalize(DummyVecEnv([Robot]), norm_obs_keys=["joints"]))
transposed = outcome(VecNormalize(VecTransposeImage(DummyVecEnv([Robot])), norm_obs_keys=["joints"]))
print("stable-baselines3", stable_baselines3.__version__)
print("VecNormalize(venv):", plain)
print("VecNormalize(VecTransposeImage(venv)):", transposed)
sys.exit(not ("could not broadcast" in plain and transposed == "trained"))
PY
