#!/usr/bin/env bash
# Makes the data of results/small/sweep.yml, with no download: about half an hour on two cores, most of it for the expert.
set -euo pipefail
cd "$(dirname "$0")/../.."

sb3-flow datasets collect cube-single-noisy-v0 --transitions 100000
sb3-flow datasets collect pointmaze-medium-navigate-v0 --transitions 100000

# A locomotion expert of 100,000 steps, half way to what SAC reaches, and its data: sampled actions, as it acted in training.
sb3-flow train --algo sac --env HalfCheetah-v5 --seed 0 --num-threads 1 --device cpu --eval-freq 20000 \
    --conf-file results/small/expert.yml --log-folder runs/expert --run-id 1
sb3-flow datasets collect HalfCheetah-v5 --policy runs/expert/sac/HalfCheetah-v5_1/best_model.zip --algo sac \
    --transitions 100000 --seed 1 --name halfcheetah/sac-v0
