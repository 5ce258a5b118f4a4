#!/bin/sh
# Stable-Baselines3 2.9.2: Monitor(override_existing=False) with a file that does not exist yet.
#
# One would guess: the file gets its header when it is created, and is appended to when it exists, so that load_results reads it in
# both cases.
# What happens: no header is ever written with override_existing=False. The new file has rows only, and load_results of the same
# package fails on it with an AssertionError. A run that appends from its start must write the header on its own.
# Source: stable_baselines3/common/monitor.py (ResultsWriter, load_results), version 2.9.2.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    stable-baselines3==2.9.2 torch==2.13.0 gymnasium==1.4.0 numpy==2.4.6 pandas==2.3.3
cd "$folder"
mkdir run
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore - <<'PY'
import sys

import gymnasium as gym
import stable_baselines3
from stable_baselines3.common.monitor import Monitor, load_results

env = Monitor(gym.make("Pendulum-v1", max_episode_steps=5), "run/first", override_existing=False)
env.reset(seed=0)
for _ in range(5):
    env.step(env.action_space.sample())
env.close()
lines = open("run/first.monitor.csv").read().splitlines()
try:
    read = f"{len(load_results('run'))} episodes"
except Exception as error:
    read = type(error).__name__
print("stable-baselines3", stable_baselines3.__version__)
print("lines of the new file:", len(lines), "header:", lines[0].startswith("#"))
print("load_results:", read)
sys.exit(not (len(lines) == 1 and not lines[0].startswith("#") and read == "AssertionError"))
PY
