"""
Updates per second and latency of `predict`: FQL beside SB3's SAC with the same networks, in one alternating run.

Blocks of about a second alternate between the two; the ratio is the median over rounds of the ratios within a round, so
that a machine whose speed drifts does not matter. Run it on a quiet machine.

    python benchmarks/updates_per_second.py [--threads 2] [--rounds 6]
"""

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.logger import configure

from sb3_flow import FQL

#: Widths of the hidden layers.
SIZES = {"512x4": [512] * 4, "256x2": [256] * 2, "128x3": [128] * 3}
OBSERVATION_DIM, ACTION_DIM, BATCH_SIZE = 28, 5, 256


class Spaces(gym.Env[np.ndarray, np.ndarray]):
    """The spaces of OGBench's cube-single, and nothing behind them: only updates are timed."""

    observation_space = spaces.Box(-np.inf, np.inf, (OBSERVATION_DIM,), np.float32)
    action_space = spaces.Box(-1, 1, (ACTION_DIM,), np.float32)


def random_data(n: int = 100_000) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "observations": rng.normal(size=(n, OBSERVATION_DIM)).astype(np.float32),
        "next_observations": rng.normal(size=(n, OBSERVATION_DIM)).astype(np.float32),
        "actions": rng.uniform(-1, 1, size=(n, ACTION_DIM)).astype(np.float32),
        "rewards": -np.ones(n, dtype=np.float32),
        "terminations": np.zeros(n, dtype=bool),
        "truncations": np.arange(n) % 1000 == 999,
    }


def make_fql(net_arch: list[int], data: dict[str, np.ndarray]) -> FQL:
    model = FQL("FlowPolicy", Spaces(), dataset=data, policy_kwargs={"net_arch": net_arch}, alpha=300.0, seed=0, device="cpu")
    model.set_logger(configure(None, []))
    return model


def make_sac(net_arch: list[int], data: dict[str, np.ndarray]) -> SAC:
    policy_kwargs = {"net_arch": net_arch, "activation_fn": th.nn.GELU}
    model = SAC("MlpPolicy", Spaces(), buffer_size=10_000, policy_kwargs=policy_kwargs, seed=0, device="cpu")
    model.set_logger(configure(None, []))
    assert model.replay_buffer is not None
    for i in range(10_000):
        row = [data[field][i : i + 1] for field in ("observations", "next_observations", "actions", "rewards", "terminations")]
        model.replay_buffer.add(*row, [{}])
    return model


def rate(step: Callable[[int], Any], seconds: float = 1.0) -> float:
    """How often a second something can be done, over a block of about `seconds`."""
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        step(5)
        count += 5
    return count / (time.perf_counter() - start)


def compare(name: str, ours: Callable[[int], Any], theirs: Callable[[int], Any], rounds: int, unit: str) -> None:
    ours(10)  # warm up
    theirs(10)
    pairs = np.array([[rate(ours), rate(theirs)] for _ in range(rounds)])
    ratios = pairs[:, 0] / pairs[:, 1]
    medians = np.median(pairs, axis=0)
    print(
        f"{name:<18} FQL {medians[0]:>9.1f}  SAC {medians[1]:>9.1f} {unit}   "
        f"FQL / SAC {np.median(ratios):.2f} ({ratios.min():.2f}-{ratios.max():.2f})"
    )


def measure(name: str, fql: FQL, sac: SAC, rounds: int) -> None:
    """Print one line each for the bare update, for `train` and for `predict`."""
    batch, noise = fql.sample_batch(BATCH_SIZE), fql.draw_noise(BATCH_SIZE)
    fql.train(20, BATCH_SIZE)
    bare, whole = rate(lambda n: [fql.update(batch, noise) for _ in range(n)]), rate(lambda n: fql.train(n, BATCH_SIZE))
    print(f"{name:<16} bare update {bare:.1f}/s, with sampling and logging {whole:.1f}/s")
    compare(name, lambda n: fql.train(n, BATCH_SIZE), lambda n: sac.train(n, BATCH_SIZE), rounds, "updates/s")
    observation = np.zeros(OBSERVATION_DIM, dtype=np.float32)
    compare(
        f"{name} predict",
        lambda n: [fql.predict(observation) for _ in range(n)],
        lambda n: [sac.predict(observation) for _ in range(n)],
        rounds,
        "calls/s",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    th.set_num_threads(arguments.threads)
    print(f"torch {th.__version__}, {arguments.threads} threads, load {os.getloadavg()[0]:.1f}")
    data = random_data()
    for name, net_arch in SIZES.items():
        measure(name, make_fql(net_arch, data), make_sac(net_arch, data), arguments.rounds)


if __name__ == "__main__":
    main()
