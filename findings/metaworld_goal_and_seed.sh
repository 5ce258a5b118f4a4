#!/bin/sh
# metaworld 3.1.1, with mujoco 3.3.0, which it requires: the environments "Meta-World/MT1", made by Gymnasium 1.4.0.
#
# One would guess: observations are in the observation space, and reset(seed=0) starts the same episode each time.
# What happens: the last three observations are the goal, but the space bounds each of them by 0 and 0, also in the tasks of one
# known goal position; who clips or scales by the bounds of the space removes the goal. reset(seed=0) draws another goal each
# time; only the argument `seed` of gymnasium.make makes the goals of two environments equal.
# Source: metaworld/sawyer_xyz_env.py (sawyer_observation_space, reset), metaworld/wrappers.py (RandomTaskSelectWrapper.reset),
# version 3.1.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    metaworld==3.1.1 mujoco==3.3.0 "gymnasium[mujoco]==1.4.0" numpy==2.4.6 scipy==1.17.1
cd "$folder"
MUJOCO_GL=disabled "$folder/venv/bin/python" -W ignore - <<'PY'
import sys
from importlib.metadata import version

import gymnasium as gym
import metaworld  # noqa: F401
import numpy as np


def make():
    return gym.make("Meta-World/MT1", env_name="reach-v3", seed=0)


env = make()
goals = [env.reset(seed=0)[0][-3:] for _ in range(3)]
observation = env.reset(seed=0)[0]
space = env.observation_space
outside = [i for i in range(len(observation)) if not space.low[i] <= observation[i] <= space.high[i]]
one, other = make(), make()
pairs = [(one.reset()[0], other.reset()[0]) for _ in range(3)]
equal = all(np.array_equal(*pair) for pair in pairs)
print("metaworld", version("metaworld"))
print("goals after reset(seed=0), three times:", *(goal.round(3).tolist() for goal in goals))
print("elements of an observation outside of the space:", outside, observation[outside].round(3).tolist())
print("their bounds:", space.low[outside].tolist(), space.high[outside].tolist())
print("two environments made with seed=0, three resets each, equal:", equal)
differ = not any(np.array_equal(goals[0], goal) for goal in goals[1:])
bounded = not space.low[outside].any() and not space.high[outside].any()
sys.exit(not (differ and outside == [36, 37, 38] and bounded and equal))
PY
