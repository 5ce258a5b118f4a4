#!/bin/sh
# Minari 0.5.4: DataCollector with default arguments and images of one or four channels, such as four stacked gray frames.
#
# One would guess: every uint8 image that the observation space allows is stored as it was seen.
# What happens: images with channels last and sides of 32 or more are encoded as JPEG, which loses detail: in images of noise, pixels
# differ by more than 100. Images of 4 channels raise OSError ("cannot write mode RGBA as JPEG") and those of 1 channel
# TypeError, not at the first step, but when the first episode ends, so that the episode is lost. Channels first are stored
# unchanged. jpeg_encoding=False stores all of them exactly.
# Source: minari/dataset/_storages/hdf5_storage.py (_add_episode_to_group, is_image_space), version 0.5.4.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    minari==0.5.4 gymnasium==1.4.0 numpy==2.4.6 h5py==3.16.0 pillow==11.3.0 jax==0.10.2 jaxlib==0.10.2
cd "$folder"
MINARI_DATASETS_PATH="$folder/data" "$folder/venv/bin/python" -W ignore - <<'PY'
import sys

import gymnasium as gym
import minari
import numpy as np
from gymnasium import spaces


class Camera(gym.Env):
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, shape):
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.frames = self.np_random.integers(0, 256, (4, *self.observation_space.shape)).astype(np.uint8)
        self.shown = [self.frames[0]]
        return self.frames[0], {}

    def step(self, action):
        self.shown.append(self.frames[len(self.shown)])
        return self.shown[-1], 0.0, False, len(self.shown) == 4, {}


def outcome(shape, name, **arguments):
    camera = Camera(shape)
    collector = minari.DataCollector(camera, **arguments)
    collector.reset(seed=0)
    for step in (1, 2, 3):
        try:
            collector.step(collector.action_space.sample())
        except (OSError, TypeError) as error:
            return f"{type(error).__name__} at step {step} of 3"
    dataset = collector.create_dataset(f"camera/{name}-v0", algorithm_name="random", author="a", author_email="a@b.c", code_permalink="d")
    stored = next(dataset.iterate_episodes()).observations
    return int(np.abs(stored.astype(int) - np.array(camera.shown)).max())


print("minari", minari.__version__)
found = {}
for channels in (1, 3, 4):
    found[channels] = outcome((64, 64, channels), f"last{channels}")
    print(f"64 x 64 x {channels}, default arguments:", found[channels])
    found["exact", channels] = outcome((64, 64, channels), f"exact{channels}", jpeg_encoding=False)
    print(f"64 x 64 x {channels}, jpeg_encoding=False: largest difference", found["exact", channels])
found["first"] = outcome((3, 64, 64), "first")
print("3 x 64 x 64, default arguments: largest difference", found["first"])
exact = [found["exact", 1], found["exact", 3], found["exact", 4], found["first"]] == [0, 0, 0, 0]
errors = (found[1], found[4]) == ("TypeError at step 3 of 3", "OSError at step 3 of 3")
sys.exit(not (exact and errors and found[3] > 100))
PY
