"""
Common parts of the benchmarks: problem, models and protocol.

Variants alternate in blocks of about a second. Ratios are computed within each round, and their median over rounds is reported
with its range, so that changes in the speed of the machine have little effect.
"""

import argparse
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import stable_baselines3
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.logger import configure

from sb3_flow.common.offline_to_online_algorithm import OfflineToOnlineAlgorithm
from sb3_flow.methods import METHODS

#: Widths of the hidden layers.
SIZES = {"512x4": [512] * 4, "256x2": [256] * 2, "128x3": [128] * 3, "128x2": [128] * 2}
#: Modes of execution, and their values of the argument ``compile``.
MODES: dict[str, bool | str] = {"eager": False, "compiled": True, "cudagraph": "cudagraph"}
#: Algorithms by name: the class, and the arguments of the variant.
ALGORITHMS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    variant.name: (method.algorithm, {**variant.arguments, **variant.updates})
    for method in METHODS
    for variant in method.variants
    if variant.updates is not None
}
OBSERVATION_DIM, ACTION_DIM, BATCH_SIZE = 28, 5, 256

#: The clock of all measurements.
clock: Callable[[], float] = time.perf_counter
#: A variant: runs for about the given number of seconds, and returns its rate per second.
Variant = Callable[[float], float]


class Spaces(gym.Env[np.ndarray, np.ndarray]):
    """
    The spaces of data without an environment: only updates are timed.

    :param data: From ``random_data``
    """

    action_space = spaces.Box(-1, 1, (ACTION_DIM,), np.float32)

    def __init__(self, data: dict[str, np.ndarray]) -> None:
        _, *shape = data["observations"].shape
        images = data["observations"].dtype == np.uint8
        self.observation_space = spaces.Box(0, 255, shape, np.uint8) if images else spaces.Box(-np.inf, np.inf, shape)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        return np.zeros(self.observation_space.shape, self.observation_space.dtype), {}


def random_data(n: int = 100_000, side: int = 0) -> dict[str, np.ndarray]:
    """
    Random transitions in episodes of 1000 steps: vectors of OGBench's cube-single, or images.

    :param n: Number of transitions
    :param side: Side of the images in pixels; 0: vectors
    """
    rng = np.random.default_rng(0)

    def observations() -> np.ndarray:
        if side:
            return rng.integers(0, 256, (n, 3, side, side), np.uint8)
        return rng.normal(size=(n, OBSERVATION_DIM)).astype(np.float32)

    return {
        "observations": observations(),
        "next_observations": observations(),
        "actions": rng.uniform(-1, 1, size=(n, ACTION_DIM)).astype(np.float32),
        "rewards": -np.ones(n, dtype=np.float32),
        "terminations": np.zeros(n, dtype=bool),
        "truncations": np.arange(n) % 1000 == 999,
    }


def make_model(
    algo: str,
    net_arch: Sequence[int],
    data: dict[str, np.ndarray],
    device: str,
    mode: str = "eager",
    dataset_on_device: bool = False,
    **policy_kwargs: Any,
) -> OfflineToOnlineAlgorithm:
    """Create an algorithm of this package by its name."""
    if algo not in ALGORITHMS:
        raise SystemExit(f"Unknown algorithm {algo!r}; choose one of {', '.join(ALGORITHMS)}.")
    algorithm, variant = ALGORITHMS[algo]
    model: OfflineToOnlineAlgorithm = algorithm(
        "FlowPolicy",
        Spaces(data),
        dataset=data,
        dataset_on_device=dataset_on_device,
        policy_kwargs={"net_arch": list(net_arch), **policy_kwargs},
        seed=0,
        device=device,
        compile=MODES[mode],
        **variant,
    )
    model.set_logger(configure(None, []))
    return model


def make_sac(net_arch: Sequence[int], data: dict[str, np.ndarray], device: str) -> SAC:
    """Create SB3's SAC with networks of the same size."""
    policy_kwargs = {"net_arch": list(net_arch), "activation_fn": th.nn.GELU}
    model = SAC("MlpPolicy", Spaces(data), buffer_size=10_000, policy_kwargs=policy_kwargs, seed=0, device=device)
    model.set_logger(configure(None, []))
    assert model.replay_buffer is not None
    for i in range(10_000):
        row = [data[field][i : i + 1] for field in ("observations", "next_observations", "actions", "rewards", "terminations")]
        model.replay_buffer.add(*row, [{}])
    return model


def now() -> float:
    """Seconds on the selected clock."""
    return clock()


def synchronize(device: str) -> None:
    """Wait for the GPU."""
    if device.startswith("cuda"):
        th.cuda.synchronize()


def repeated(step: Callable[[], Any], device: str, warm_up: int = 10) -> Variant:
    """
    A variant that repeats one step.

    :param step: The step
    :param device: Its device
    :param warm_up: Number of steps before the measurement
    """
    for _ in range(warm_up):
        step()

    def block(seconds: float) -> float:
        synchronize(device)
        count, start = 0, now()
        while now() - start < seconds:
            step()
            count += 1
        synchronize(device)
        return count / (now() - start)

    return block


class Worker:
    """
    A variant in a separate process, which prints ``ready``, and then a rate for each line of seconds that it reads.

    :param command: The command of the process
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self._line() != "ready":
            raise SystemExit(f"This command failed to start: {' '.join(command)}")

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def __call__(self, seconds: float) -> float:
        assert self.process.stdin is not None
        print(seconds, file=self.process.stdin, flush=True)
        return float(self._line())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def alternate(variants: dict[str, Variant], rounds: int, seconds: float = 1.0) -> dict[str, np.ndarray]:
    """The rates of the variants in each round."""
    rates = np.array([[variant(seconds) for variant in variants.values()] for _ in range(rounds)])
    return dict(zip(variants, rates.T, strict=True))


def report(title: str, rates: dict[str, np.ndarray], unit: str) -> None:
    """Print the median rates, and the ratios of all variants to each other."""
    print(f"\n{title} (median; ratios within a round: median, smallest and largest)")
    names = list(rates)
    print(f"{'':<24}{unit:>14}   " + "".join(f"{'/ ' + name:>26}" for name in names))
    for name in names:
        ratios = [rates[name] / rates[other] for other in names]
        columns = "".join(f"{f'{np.median(r):.2f} ({r.min():.2f}-{r.max():.2f})':>26}" for r in ratios)
        print(f"{name:<24}{np.median(rates[name]):>14.1f}   {columns}")


def parse(description: str | None, add: Callable[[argparse.ArgumentParser], None] = lambda parser: None) -> argparse.Namespace:
    """
    Parse the command line, set the number of threads, and print the conditions.

    :param description: Description of the script
    :param add: Adds the script's own arguments
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algo", default="fql", help="an algorithm of sb3_flow")
    parser.add_argument("--sizes", nargs="+", default=["512x4", "256x2", "128x3"], choices=list(SIZES))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a block")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="measure CPU time of this process: for one thread, on a busy machine",
    )
    add(parser)
    arguments = parser.parse_args()
    if arguments.cpu_time:
        if arguments.threads != 1 or arguments.device != "cpu":
            parser.error("--cpu-time needs --threads 1 and the CPU")
        global clock
        clock = time.process_time
    th.set_num_threads(arguments.threads)
    machine = th.cuda.get_device_name(arguments.device) if arguments.device.startswith("cuda") else platform.processor()
    print(
        f"torch {th.__version__}, SB3 {stable_baselines3.__version__}, Python {platform.python_version()}; "
        f"{machine or 'CPU'}, {os.cpu_count()} cores, {arguments.threads} threads; load {load()}; batch {BATCH_SIZE}"
        f"{'; CPU time' if arguments.cpu_time else ''}"
    )
    return arguments


def load() -> str:
    """The load of the machine over the last minute. Above the number of threads, other processes are running."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
