"""
Resident memory for memory-mapped datasets of several sizes, and of a replay buffer of stacked images.

Each size is measured in a separate process, which loads a folder of `.npy` files and trains on it. Linux counts two kinds of
resident memory. *Anonymous* memory belongs to the process. *File* memory is the part of the kernel's page cache that the
process has read; it grows up to the size of the files if memory is free, and the kernel releases it when memory is needed.
Only the anonymous memory must not grow with the data. Each process may allocate at most `--allow` MiB for loading and
training, otherwise it fails.

    python benchmarks/memory.py [--gibibytes 0.25 1 4] [--updates 2000] [--directory FOLDER]
    python benchmarks/memory.py --images
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from sb3_flow import FQL

OBSERVATION_DIM, ACTION_DIM, EPISODE = 28, 5, 1000
BLOCK = 250_000  # rows written at once


class Spaces(gym.Env[np.ndarray, np.ndarray]):
    """The spaces of OGBench's cube-single without an environment: only updates are measured."""

    observation_space = spaces.Box(-np.inf, np.inf, (OBSERVATION_DIM,), np.float32)
    action_space = spaces.Box(-1, 1, (ACTION_DIM,), np.float32)


def columns(n: int) -> dict[str, np.ndarray]:
    """Random transitions."""
    rng = np.random.default_rng(0)
    return {
        "observations": rng.normal(size=(n, OBSERVATION_DIM)).astype(np.float32),
        "next_observations": rng.normal(size=(n, OBSERVATION_DIM)).astype(np.float32),
        "actions": rng.uniform(-1, 1, size=(n, ACTION_DIM)).astype(np.float32),
        "rewards": rng.normal(size=n).astype(np.float32),
        "terminations": np.zeros(n, dtype=bool),
        "truncations": np.arange(n) % EPISODE == EPISODE - 1,
    }


def write(folder: Path, gibibytes: float) -> None:
    """Write a dataset of about this size, in blocks."""
    block = columns(BLOCK)
    n_blocks = max(1, round(gibibytes * 2**30 / sum(column.nbytes for column in block.values())))
    folder.mkdir()
    for field, column in block.items():
        with (folder / f"{field}.npy").open("wb") as file:
            shape = (n_blocks * BLOCK, *column.shape[1:])
            header = {"descr": np.lib.format.dtype_to_descr(column.dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for _ in range(n_blocks):
                column.tofile(file)
            file.flush()
            os.fsync(file.fileno())  # pages can leave the cache once they are on disk


def forget(folder: Path) -> None:
    """Ask the kernel to drop files from its cache, so that they are read from disk."""
    for path in folder.iterdir():
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def status() -> dict[str, float]:
    """Memory of this process in MiB by the kernel's names."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.endswith(" kB")}


def make_model(dataset: Any, net_arch: list[int]) -> FQL:
    model = FQL("FlowPolicy", Spaces(), dataset=dataset, policy_kwargs={"net_arch": net_arch}, seed=0, device="cpu")
    model.set_logger(configure(None, []))
    return model


def train_on(folder: Path, updates: int, allow: float) -> dict[str, Any]:
    """Load a folder and train on it, with a limit on allocations."""
    make_model(columns(1000), [128] * 3).train(10, 256)  # allocate everything that does not depend on the data
    forget(folder)
    stages = [status()]
    limit = int((stages[0]["VmData"] + allow) * 2**20)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    start = time.perf_counter()
    model = make_model(folder, [128] * 3)
    cold = time.perf_counter() - start
    stages.append(status())
    model.train(updates, 256)
    stages.append(status())
    start = time.perf_counter()
    make_model(folder, [128] * 3)
    return {"cold": cold, "warm": time.perf_counter() - start, "stages": stages}


def compare(folder: Path, rounds: int = 6) -> str:
    """Updates per second from mapped and from loaded arrays, in alternating blocks of about a second."""
    loaded = {path.stem: np.load(path) for path in folder.iterdir()}
    models = [make_model(folder, [128] * 3), make_model(loaded, [128] * 3)]
    rates = np.zeros((rounds + 1, 2))
    for row in rates:
        for i, model in enumerate(models):
            count, start = 0, time.perf_counter()
            while time.perf_counter() - start < 1:
                model.train(5, 256)
                count += 5
            row[i] = count / (time.perf_counter() - start)
    rates = rates[1:]  # the first round warms up
    ratios = rates[:, 0] / rates[:, 1]
    return (
        f"updates/s, 128x3 networks: mapped {np.median(rates[:, 0]):.1f}, in memory {np.median(rates[:, 1]):.1f}, "
        f"ratio {np.median(ratios):.2f} ({ratios.min():.2f}-{ratios.max():.2f})"
    )


class Pictures(gym.Env[np.ndarray, np.ndarray]):
    """Images of noise, in episodes of 200 steps."""

    observation_space = spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self._picture(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return self._picture(), 0.0, False, self.time == 200, {}

    def _picture(self) -> np.ndarray:
        return self.np_random.integers(0, 256, (64, 64, 3), dtype=np.uint8)


def images(n: int = 20_000, n_stack: int = 3) -> None:
    """Print the memory of a full replay buffer of stacked images."""
    env = VecFrameStack(DummyVecEnv([Pictures]), n_stack)
    model = FQL("FlowPolicy", env, buffer_size=n, learning_starts=2 * n, policy_kwargs={"net_arch": [16]}, device="cpu")
    model.learn(10)
    before = status()["RssAnon"]
    model.learn(n, reset_num_timesteps=False)
    grown = status()["RssAnon"] - before
    print(
        f"{n:,} transitions of 64x64x3 images, {n_stack} stacked: {grown:,.0f} MiB of anonymous memory. "
        f"Observations and next observations without sharing would need {n * 64 * 64 * 3 * n_stack * 2 / 2**20:,.0f} MiB."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gibibytes", type=float, nargs="+", default=[0.25, 1, 4], help="sizes of the datasets")
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--allow", type=float, default=256, help="MiB that loading and training may allocate")
    parser.add_argument("--directory", type=Path, help="folder for the temporary data")
    parser.add_argument("--images", action="store_true", help="measure a replay buffer of images instead")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--compare", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(train_on(arguments.worker, arguments.updates, arguments.allow)))
        return
    if arguments.compare:
        print(compare(arguments.compare))
        return
    print(f"torch {th.__version__}, {th.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    if arguments.images:
        images()
        return
    rest = ["--updates", str(arguments.updates), "--allow", str(arguments.allow)]
    print("                    anonymous memory, MiB   file memory, MiB   seconds to load")
    print("  GiB  transitions  start  loaded  trained   loaded  trained   from disk  cached")
    for size in arguments.gibibytes:
        with tempfile.TemporaryDirectory(dir=arguments.directory) as scratch:
            folder = Path(scratch) / "data"
            write(folder, size)
            result = json.loads(subprocess.check_output([sys.executable, __file__, "--worker", str(folder), *rest]))
            start, loaded, trained = result["stages"]
            n = len(np.load(folder / "rewards.npy", mmap_mode="r"))
            gibibytes = sum(path.stat().st_size for path in folder.iterdir()) / 2**30
            print(
                f"{gibibytes:5.2f} {n:12,} {start['RssAnon']:6.0f} {loaded['RssAnon']:7.0f} {trained['RssAnon']:8.0f} "
                f"{loaded['RssFile']:8.0f} {trained['RssFile']:8.0f} {result['cold']:11.1f} {result['warm']:7.1f}",
                flush=True,
            )
            if size == min(arguments.gibibytes):
                line = subprocess.check_output([sys.executable, __file__, "--compare", str(folder)], text=True)
    print(line, end="")


if __name__ == "__main__":
    main()
