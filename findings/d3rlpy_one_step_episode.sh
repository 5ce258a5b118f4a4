#!/bin/sh
# d3rlpy 2.8.1: MDPDataset with an episode that a time limit cuts after one step.
#
# One would guess: an episode of one step that is marked in timeouts becomes an episode of one step, or an error names it.
# What happens: it is missing from the dataset, without an error. With the same flag in terminals instead, it is kept.
# Source: d3rlpy/dataset/episode_generator.py and replay_buffer.py, version 2.8.1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    d3rlpy==2.8.1 torch==2.13.0 gymnasium==1.0.0 numpy==2.4.6
cd "$folder"
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore - <<'PY'
import sys
from importlib.metadata import version

import d3rlpy
import numpy as np

n = 7
ends = np.zeros(n, dtype=np.float32)
ends[[2, 3, 6]] = 1  # episodes of three, one and three steps
rows = {
    "observations": np.arange(n, dtype=np.float32)[:, None],
    "actions": np.zeros((n, 1), dtype=np.float32),
    "rewards": np.zeros(n, dtype=np.float32),
}
none = np.zeros(n, dtype=np.float32)


def lengths(terminals, timeouts):
    data = d3rlpy.dataset.MDPDataset(**rows, terminals=terminals, timeouts=timeouts)
    return [episode.size() for episode in data.episodes]


cut, ended = lengths(none, ends), lengths(ends, none)
print("d3rlpy", version("d3rlpy"))
print("lengths with timeouts:", cut)
print("lengths with terminals:", ended)
sys.exit(not (1 not in cut and ended == [3, 1, 3]))
PY
