#!/bin/sh
# rl_zoo3 2.9.2: `env_kwargs` in a file of hyperparameters, and evaluations.
#
# One would guess: training and evaluation have the same environment, as with the option --env-kwargs, which also holds for
# evaluations unless --eval-env-kwargs is given.
# What happens: only the environments of training get the `env_kwargs` of the file. Those of evaluations are made without them, and
# best_model.zip is chosen in another environment than that of training.
# Source: rl_zoo3/exp_manager.py (ExperimentManager.__init__, _preprocess_hyperparams, create_envs), version 2.9.2.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    rl_zoo3==2.9.2 stable-baselines3==2.9.2 sb3-contrib==2.9.2 torch==2.13.0 gymnasium==1.3.0 numpy==2.4.6 requests==2.34.2
cd "$folder"
cat > sized.py <<'PY'
import gymnasium as gym
from gymnasium.spaces import Box


class Sized(gym.Env):
    observation_space, action_space = Box(-1, 1, (1,)), Box(-1, 1, (1,))

    def __init__(self, size=0, render_mode=None):
        print("made with size", size, flush=True)

    def reset(self, seed=None, options=None):
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        return self.observation_space.sample(), 0.0, False, self.steps >= 5, {}


gym.register("Sized-v0", Sized)
PY
echo 'Sized-v0: {policy: MlpPolicy, n_timesteps: 20, env_kwargs: {size: 7}}' > sac.yml
export PYTHONPATH=. OMP_NUM_THREADS=1
for options in "" "--env-kwargs size:7"; do
    "$folder/venv/bin/python" -W ignore -m rl_zoo3.train --algo sac --env Sized-v0 --gym-packages sized --conf-file sac.yml \
        --eval-freq 10 --eval-episodes 1 --log-folder logs $options > output.txt 2>&1
    grep "made with" output.txt | sort | uniq -c | xargs | tee -a found.txt
done
"$folder/venv/bin/pip" list --disable-pip-version-check 2>/dev/null | grep -i "rl.zoo3"
# The first run is that of the file alone, the second one has the option as well.
printf '1 made with size 0 1 made with size 7\n2 made with size 7\n' | cmp - found.txt
