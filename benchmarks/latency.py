"""
Latency of `predict` for one observation and for eight: all samplers of our policies, and SB3's SAC with networks of the same
size. Median, 95 % and 99 % quantile, in microseconds, and relative to SAC.

    python benchmarks/latency.py --threads 1 [--algos fpmd fpmd_m fql] [--flow-steps 10] [--cpu-time] [--onnx] [--frequency 50]

Variants alternate after a few calls, so that all of them have the same conditions. Warm-up calls before each measurement are
not counted. `--onnx` also measures exported policies. `--cpu-time` excludes the time of other processes, which on a busy
machine is most of the 95 % quantile. With `--frequency`, there are pauses between calls, as in a control loop: caches are then
colder than in calls that follow each other.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from alternating import (
    ALGORITHMS,
    OBSERVATION_DIM,
    SIZES,
    load,
    make_model,
    make_sac,
    now,
    parse,
    random_data,
    synchronize,
)

#: Number of calls per turn: warm-up and measured.
WARM_UP, CALLS = 5, 25


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--algos", nargs="+", default=["fpmd", "fpmd_m", "fql"], choices=list(ALGORITHMS))
    parser.add_argument("--flow-steps", type=int, default=10, help="Euler steps of flows")
    parser.add_argument("--onnx", action="store_true", help="also measure exported policies")
    parser.add_argument("--frequency", type=float, help="calls per second (default: no pauses)")
    parser.add_argument("--single", action="store_true", help="only one observation, not eight")
    parser.add_argument("--turns", type=int, default=40, help=f"turns of each variant, of {CALLS} calls")


def make_policies(arguments: argparse.Namespace, size: str) -> dict[str, Any]:
    """Policies with each sampler, by the names of algorithm and sampler; SAC last."""
    device, data = arguments.device, random_data(10_000)
    policies: dict[str, Any] = {}
    for algo in arguments.algos:
        policy = make_model(algo, SIZES[size], data, device).policy
        policy.flow_steps = arguments.flow_steps
        policies |= {f"{algo}, {sampler}": policy.with_sampler(sampler) for sampler in policy.samplers}
    if arguments.onnx:
        policies |= {f"{name}, ONNX": export(policy, arguments.threads) for name, policy in policies.items()}
    return policies | {"SAC": make_sac(SIZES[size], data, device).policy}


def export(policy: Any, threads: int) -> Any:
    """Export a policy and load the file."""
    from sb3_flow.common.export import export_policy
    from sb3_flow.deploy import OnnxPolicy

    with tempfile.TemporaryDirectory() as folder:
        export_policy(policy, None, "", f"{folder}/policy.onnx")
        return OnnxPolicy(f"{folder}/policy.onnx", threads=threads)


def time_calls(call: Callable[[], Any], device: str, pause: float) -> list[float]:
    """The seconds of each call in one turn, with pauses in seconds between calls."""
    for _ in range(WARM_UP):
        call()
    seconds = []
    for _ in range(CALLS):
        time.sleep(pause)
        synchronize(device)
        start = now()
        call()
        synchronize(device)
        seconds.append(now() - start)
    return seconds


def main() -> None:
    arguments = parse(__doc__, add)
    pause = 1 / arguments.frequency if arguments.frequency else 0.0
    for size in arguments.sizes:
        policies = make_policies(arguments, size)
        for n in (1,) if arguments.single else (1, 8):
            observation = np.zeros((n, OBSERVATION_DIM), dtype=np.float32)
            seconds: dict[str, list[float]] = {name: [] for name in policies}
            for _ in range(arguments.turns):
                for name, policy in policies.items():
                    seconds[name] += time_calls(lambda p=policy, o=observation: p.predict(o), arguments.device, pause)
            quantiles = {name: 1e6 * np.quantile(times, [0.5, 0.95, 0.99]) for name, times in seconds.items()}
            print(f"\n{size}, {n} observations, {arguments.flow_steps} flow steps, load {load()}")
            print(f"{'':<24}{'median':>10}{'95 %':>10}{'99 %':>10}{'/ SAC':>10}{'95 % / SAC':>12}")
            for name, found in quantiles.items():
                ratios = found / quantiles["SAC"]
                print(
                    f"{name:<24}{found[0]:>10.0f}{found[1]:>10.0f}{found[2]:>10.0f}{ratios[0]:>10.2f}{ratios[1]:>12.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
