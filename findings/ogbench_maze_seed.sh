#!/bin/sh
# OGBench 1.2.2 with Gymnasium 1.4.0: reset(seed=...) of mazes.
#
# One would guess: reset(seed=0) starts the same episode each time, as Gymnasium's interface says and as OGBench's arm tasks with a
# fixed task do; two environments with one seed are equal.
# What happens: the mazes draw the positions of agent and goal (and, without a fixed task, all environments draw the task) from
# NumPy's global generator. The seed of reset has no effect on them; np.random.seed before it has. So a replay buffer that draws
# from the global generator changes the episodes of an evaluation, and processes that are forked from one parent, such as those of
# Stable-Baselines3's SubprocVecEnv with start_method="fork", all start in the same places, whatever their seeds are.
# Source: ogbench/locomaze/maze.py (reset, add_noise), ogbench/manipspace/envs/manipspace_env.py (reset), version 1.2.2.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    ogbench==1.2.2 gymnasium==1.4.0 mujoco==3.17.0 dm-control==1.0.50 numpy==2.4.6 stable-baselines3==2.9.2 torch==2.13.0
cd "$folder"
OMP_NUM_THREADS=1 MUJOCO_GL=disabled "$folder/venv/bin/python" -W ignore - <<'PY'
import sys
from importlib.metadata import version

import gymnasium as gym
import numpy as np
import ogbench  # noqa: F401
from stable_baselines3.common.vec_env import SubprocVecEnv


def maze():
    import ogbench  # noqa: F401

    return gym.make("pointmaze-medium-singletask-task1-v0")


def start(env, seed):
    return env.reset(seed=seed)[0]


same = {}
for name in ("cube-single-singletask-task2-v0", "pointmaze-medium-singletask-task1-v0", "antmaze-medium-v0", "cube-single-v0"):
    env = gym.make(name)
    same[name] = all(np.array_equal(start(env, 0), start(env, 0)) for _ in range(5))
    print(f"{name}: five times reset(seed=0) twice, equal: {same[name]}")
env = maze()
starts = []
for _ in range(2):
    np.random.seed(7)
    starts.append(start(env, 0))
seeded = np.array_equal(*starts)
print("pointmaze after np.random.seed(7), twice: equal:", seeded)

venv = SubprocVecEnv([maze] * 3, start_method="fork")
venv.seed(0)  # seeds 0, 1 and 2
forked = venv.reset()
venv.close()
print("three forked processes with seeds 0, 1, 2 start at", *(row.round(3).tolist() for row in forked))
print("ogbench", version("ogbench"))
sys.exit(not (list(same.values()) == [True, False, False, False] and seeded and (forked == forked[0]).all()))
PY
