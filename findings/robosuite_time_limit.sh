#!/bin/sh
# robosuite 1.5.2 with mujoco 3.3.0 and Gymnasium 1.4.0: its GymWrapper at the end of the horizon, and the seed of its reset.
#
# One would guess: an episode that reaches the horizon is truncated, as Gymnasium's interface says of time limits, and reset(seed=0)
# starts the same episode each time.
# What happens: the last step of the horizon is returned as terminated, never as truncated, so that algorithms learn that the time
# limit is a state in which the task ends, and bootstrap nothing there. reset(seed=0) seeds NumPy's global generator, from which
# robosuite does not draw: the same seed gives other episodes. With ignore_done=True and Gymnasium's TimeLimit around the wrapper,
# the end is truncated; the argument `seed` of robosuite.make decides about episodes.
# Source: robosuite/wrappers/gym_wrapper.py (step, reset), robosuite/environments/base.py (step), version 1.5.2.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    robosuite==1.5.2 mujoco==3.3.0 gymnasium==1.4.0 numpy==1.26.4 scipy==1.17.1 numba==0.68.1 opencv-python==4.11.0.86 h5py==3.16.0
cd "$folder"
MUJOCO_GL=egl "$folder/venv/bin/python" -W ignore - <<'PY'
import sys
from importlib.metadata import version

import gymnasium as gym
import numpy as np
import robosuite
from robosuite.wrappers import GymWrapper


def make(**arguments):
    arguments = {"robots": "Panda", "use_camera_obs": False, "has_renderer": False, "has_offscreen_renderer": False, **arguments}
    return GymWrapper(robosuite.make("Lift", **arguments))


def end(env, steps):
    env.reset()
    for _ in range(steps):
        result = env.step(np.zeros(7))
    return bool(result[2]), bool(result[3])


horizon = end(make(horizon=5), 5)
limit = end(gym.wrappers.TimeLimit(make(horizon=5, ignore_done=True), 5), 5)
env = make(horizon=5)
same = np.array_equal(env.reset(seed=0)[0], env.reset(seed=0)[0])
made = np.array_equal(make(seed=0).reset()[0], make(seed=0).reset()[0])
print("robosuite", version("robosuite"))
print("(terminated, truncated) after the horizon of 5 steps:", horizon)
print("the same with ignore_done=True and TimeLimit:", limit)
print("reset(seed=0) twice, equal:", same)
print("two environments made with seed=0, equal:", made)
sys.exit(not (horizon == (True, False) and limit == (False, True) and not same and made))
PY
