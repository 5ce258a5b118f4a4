#!/usr/bin/env bash
# Collects the data of results/small/sweep.yml without a download: about half an hour on two cores, mostly for the expert.
set -euo pipefail
cd "$(dirname "$0")/../.."

sb3-flow datasets collect cube-single-noisy-v0 --transitions 100000
sb3-flow datasets collect pointmaze-medium-navigate-v0 --transitions 100000

# A locomotion expert after 100,000 steps of SAC, half of SAC's final performance, and its data: sampled actions, as in training.
sb3-flow train --algo sac --env HalfCheetah-v5 --seed 0 --num-threads 1 --device cpu --eval-freq 20000 \
    --conf-file results/small/expert.yml --log-folder runs/expert --run-id 1
sb3-flow datasets collect HalfCheetah-v5 --policy runs/expert/sac/HalfCheetah-v5_1/best_model.zip --algo sac \
    --transitions 100000 --seed 1 --name halfcheetah/sac-v0
