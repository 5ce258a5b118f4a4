#!/bin/sh
# rliable 1.2.0: the argument random_state of get_interval_estimates.
#
# One would guess: two calls with random states of the same seed give the same intervals, as the documentation of
# StratifiedBootstrap says.
# What happens: the intervals differ. The indices are drawn by numpy.random.choice, from NumPy's global generator, whatever state
# was given; np.random.seed before each call gives equal intervals.
# Source: rliable/library.py (StratifiedBootstrap.update_indices), version 1.2.0, with arch 7.2.0.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    rliable==1.2.0 arch==7.2.0 numpy==2.4.6 pandas==2.3.3 scipy==1.17.1
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PY'
import sys
from importlib.metadata import version

import numpy as np
from rliable import library, metrics

scores = {"algorithm": np.random.default_rng(0).random((5, 3))}


def interval(seed, seed_numpy):
    if seed_numpy:
        np.random.seed(seed)
    estimate = library.get_interval_estimates(
        scores, lambda x: np.array([metrics.aggregate_iqm(x)]), reps=200, random_state=np.random.RandomState(seed)
    )
    return estimate[1]["algorithm"].ravel()


given = [interval(0, False), interval(0, False)]
seeded = [interval(0, True), interval(0, True)]
print("rliable", version("rliable"), "arch", version("arch"))
print("random_state of seed 0, twice:", *given)
print("np.random.seed(0), twice:", *seeded)
sys.exit(bool(np.array_equal(*given)) or not np.array_equal(*seeded))
PY
