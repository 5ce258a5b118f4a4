"""
All that is to be known about a GPU, in at most ten minutes: the tests of CUDA, the speed of updates, and a training.

1. `tests/test_cuda.py`: captured updates give the numbers of eager ones, and no update waits for the GPU.
2. Updates per second at the paper's size (512x4): eager, compiled and captured, with the data on the CPU and on the GPU,
   beside the authors' JAX if a checkout is given.
3. Updates per second of several models in one process, one stream each: how many it takes to fill the GPU.
4. FQL on OGBench's cube-single at the paper's settings, for as long as is left. Without the dataset on this machine, a smaller
   one is collected first with the scripted expert.

    python benchmarks/gpu.py [--minutes 10] [--jax PATH_OF_THE_CHECKOUT] [--jax-python PYTHON_THAT_HAS_JAX]
    python benchmarks/gpu.py --device cpu --quick     # all parts in small, to try out the script

Every part prints its results when it ends, so that an interrupted run is not lost.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch as th
import yaml
from alternating import (
    BATCH_SIZE,
    MODES,
    SIZES,
    Variant,
    Worker,
    alternate,
    make_model,
    random_data,
    repeated,
    report,
    synchronize,
)
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_flow import FQL
from sb3_flow.common.environments import make_env
from sb3_flow.datasets import collect, local_datasets

ROOT = Path(__file__).parents[1]
TASK, DATASET = "cube-single-singletask-task2-v0", "cube-single-play-v0"


class Clock:
    """The time that is left."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        return max(self.end - time.monotonic(), 0.0)


class Until(BaseCallback):
    """Stop training when a clock has run out, and print a line every half minute."""

    def __init__(self, clock: Clock, reserve: float) -> None:
        super().__init__()
        self.clock, self.reserve = clock, reserve
        self.start = self.last = time.monotonic()

    def _on_step(self) -> bool:
        if time.monotonic() - self.last > 30:
            self.last = time.monotonic()
            rate = self.num_timesteps / (self.last - self.start)
            print(f"{self.num_timesteps:,} updates, {rate:.1f} per second, {self.clock.left():.0f} s left", flush=True)
        return self.clock.left() > self.reserve


def title(text: str) -> None:
    print(f"\n== {text}", flush=True)


def conditions(device: str) -> None:
    title("Conditions")
    print(f"torch {th.__version__}, CUDA {th.version.cuda}, Python {platform.python_version()}, {os.cpu_count()} cores")
    if device.startswith("cuda"):
        free, total = th.cuda.mem_get_info(device)
        print(f"{th.cuda.get_device_name(device)}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free")


def test(seconds: float) -> None:
    title("tests/test_cuda.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "tests" / "test_cuda.py")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
        lines = done.stdout
    except subprocess.TimeoutExpired as error:
        lines = (error.stdout or b"").decode(errors="replace") + f"\nstopped after {seconds:.0f} s"
    print("\n".join(lines.splitlines()[-15:]), flush=True)


def speed(device: str, size: str, rounds: int, seconds: float, jax: list[str] | None) -> None:
    title(f"Updates per second, FQL, {size}, batch {BATCH_SIZE}")
    data, variants = random_data(), dict[str, Variant]()
    modes = [mode for mode in MODES if mode != "cudagraph" or device.startswith("cuda")]
    for mode in modes:
        for place in ("", ", data there") if device != "cpu" else ("",):
            model = make_model("fql", SIZES[size], data, device, mode, dataset_on_device=bool(place))
            start = time.perf_counter()
            model.train(1, BATCH_SIZE)
            synchronize(device)
            print(f"{mode}{place}: first update after {time.perf_counter() - start:.1f} s", flush=True)
            variants[f"{mode}{place}"] = repeated(lambda model=model: model.train(1, BATCH_SIZE), device)
    worker = None
    if jax is not None:
        variants["JAX, given batch"] = worker = Worker([*jax, "perf_counter", "1", *map(str, SIZES[size])])
    report(f"FQL, {size}", alternate(variants, rounds, seconds), "updates/s")
    if worker is not None:
        worker.close()


def several(device: str, size: str, counts: list[int], rounds: int, seconds: float) -> None:
    title(f"Updates per second of several models in turns, FQL, {size}, all together")
    data = random_data()
    mode = "cudagraph" if device.startswith("cuda") else "eager"
    models = [make_model("fql", SIZES[size], data, device, mode, dataset_on_device=True) for _ in range(max(counts))]
    streams = [th.cuda.Stream(device) if device.startswith("cuda") else None for _ in models]

    def updates(count: int) -> Callable[[], None]:
        def run() -> None:
            for model, stream in zip(models[:count], streams, strict=False):
                with th.cuda.stream(stream):  # None: the default one, which is all that a CPU has
                    model.train(1, BATCH_SIZE)

        return run

    variants = {f"{count} models": repeated(updates(count), device) for count in counts}
    rates = alternate(variants, rounds, seconds)
    for count, name in zip(counts, rates, strict=True):
        rates[name] = rates[name] * count
    report(f"FQL, {size}, {mode}", rates, "updates/s")


def train(device: str, clock: Clock, transitions: int, episodes: int) -> None:
    title(f"FQL on {TASK} at the paper's settings")
    settings: dict[str, Any] = yaml.safe_load((ROOT / "zoo_configs" / "fql.yml").read_text())["cube-single-singletask*-v0"]
    arguments = {name: settings[name] for name in ("alpha", "gamma", "q_agg")}
    with tempfile.TemporaryDirectory() as folder:
        path = local_datasets().get(DATASET)
        if path is None:
            print(f"{DATASET} is not on this machine: collecting {transitions:,} transitions instead of 1,000,000", flush=True)
            path = collect(DATASET, transitions=transitions, directory=folder)
        mode = "cudagraph" if device.startswith("cuda") else False
        model = FQL("FlowPolicy", TASK, dataset=path, dataset_on_device=True, compile=mode, device=device, seed=0, **arguments)
        start = time.monotonic()
        model.learn(callback=Until(clock, reserve=2.0 * episodes))
        seconds = time.monotonic() - start
    print(f"{model.num_timesteps:,} updates in {seconds:.0f} s, {model.num_timesteps / seconds:.1f} per second")
    successes: list[bool] = []

    def note(local: dict[str, Any], _: dict[str, Any]) -> None:
        if local["done"]:
            successes.append(bool(local["info"].get("is_success", False)))

    evaluate_policy(model, make_env(TASK), n_eval_episodes=episodes, deterministic=False, callback=note, warn=False)
    print(f"success in {sum(successes)} of {episodes} episodes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="total time")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="all parts in small, in some minutes")
    parser.add_argument("--jax", metavar="PATH", help="a checkout of the authors' FQL")
    parser.add_argument("--jax-python", default=sys.executable, metavar="PYTHON", help="the Python that has JAX")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not th.cuda.is_available():
        raise SystemExit("CUDA is not available here. To try out this script without it: --device cpu --quick")
    quick, device = options.quick, options.device
    clock = Clock(60.0 * options.minutes)
    size, rounds, seconds = ("128x3", 2, 0.3) if quick else ("512x4", 5, 1.0)
    script = str(Path(__file__).with_name("jax_fql.py"))
    conditions(device)
    test(clock.left() / 3)
    speed(device, size, rounds, seconds, [options.jax_python, script, options.jax] if options.jax else None)
    several(device, size, [1, 2] if quick else [1, 2, 4, 8], rounds, seconds)
    if quick:
        clock = Clock(10.0)
    train(device, clock, transitions=1_000 if quick else 100_000, episodes=1 if quick else 20)


if __name__ == "__main__":
    main()
