#!/bin/sh
# Stable-Baselines3 2.9.2: CheckpointCallback(save_replay_buffer=True) with SAC.
#
# One would guess: the replay buffer that is saved at 10 steps has 10 transitions.
# What happens: it has 9. Callbacks are called in collect_rollouts before the transition of the step is stored, so each saved buffer
# lacks the newest transition of every environment, while the model that is saved beside it counts it in num_timesteps. A run that
# continues from both trains without this transition.
# Source: stable_baselines3/common/off_policy_algorithm.py (collect_rollouts: on_step, then _store_transition), version 2.9.2.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    stable-baselines3==2.9.2 torch==2.13.0 gymnasium==1.4.0 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore - <<'PY'
import sys

import stable_baselines3
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import CheckpointCallback

callback = CheckpointCallback(save_freq=10, save_path="run", save_replay_buffer=True)
SAC("MlpPolicy", "Pendulum-v1", learning_starts=100, policy_kwargs={"net_arch": [8]}).learn(10, callback=callback)
model = SAC.load("run/rl_model_10_steps.zip")
model.load_replay_buffer("run/rl_model_replay_buffer_10_steps.pkl")
print("stable-baselines3", stable_baselines3.__version__)
print("num_timesteps of the model:", model.num_timesteps)
print("transitions in the buffer:", model.replay_buffer.size())
sys.exit(not (model.num_timesteps == 10 and model.replay_buffer.size() == 9))
PY
