#!/bin/sh
# rl_zoo3 2.9.2: the table of `rl_zoo3 all_plots` for a run that was evaluated once.
#
# One would guess: the mean reward of this evaluation, or a message that there is too little to plot.
# What happens: the run is skipped without a message, and the table has "0.0" for it, as if this were its reward.
# Source: rl_zoo3/plots/all_plots.py, version 2.9.2.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    "rl_zoo3[plots]==2.9.2" stable-baselines3==2.9.2 sb3-contrib==2.9.2 torch==2.13.0 gymnasium==1.3.0 numpy==2.4.6 requests==2.34.2
cd "$folder"
export OMP_NUM_THREADS=1 MPLBACKEND=Agg
python="$folder/venv/bin/python -W ignore"
printf 'Pendulum-v1:\n  n_timesteps: 300\n  policy: MlpPolicy\n  n_steps: 100\n  batch_size: 50\n' > ppo.yml
$python -m rl_zoo3.train --algo ppo --env Pendulum-v1 --conf-file ppo.yml --eval-freq 200 --eval-episodes 1 -f logs > train.txt 2>&1
$python -m rl_zoo3.plots.all_plots -a ppo -e Pendulum-v1 -f logs --no-display > plot.txt 2>&1 || true
$python - <<'PY'
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

rewards = np.load("logs/ppo/Pendulum-v1_1/evaluations.npz")["results"]
rows = [line for line in Path("plot.txt").read_text().splitlines() if line.startswith("|Pendulum-v1")]
print("rl_zoo3", version("rl_zoo3"))
print("rewards of the evaluation:", rewards.round(1).tolist())
print("table:", rows)
sys.exit(not (rewards.shape == (1, 1) and rewards.item() < -100 and len(rows) == 1 and "0.0" in rows[0]))
PY
