"""
Speed of streaming and chunk policies with equal numbers of parameters: time to the first action, time per action, network
evaluations per action, and updates per second. Print a Markdown table.

    python benchmarks/streaming.py --threads 1 [--networks small published] [--turns 40] [--cpu-time]

Spaces are those of Push-T's states. The first action is that of `predict` without a state. The time per action is that of
whole plans, of which eight actions are executed. Variants alternate, so that all of them have the same conditions; times are
medians over turns. `small` has the networks of results/streaming_flow/sweep.yml, `published` that of the published streaming
flow policy, with equal numbers of parameters for the others. `outside` is the time of a first action without its network
evaluations, which are timed separately.
"""

import argparse
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from alternating import BATCH_SIZE, Variant, alternate, load, now, parse, repeated
from gymnasium import spaces
from stable_baselines3.common.logger import configure

from sb3_flow import StreamingFlow
from sb3_flow.baselines import ChunkDiffusion, ChunkFlow, ChunkRegression
from sb3_flow.common.networks import VelocityMLP
from sb3_flow.imitation.networks import ModulatedMLP

#: Number of calls per turn: warm-up and measured.
WARM_UP, CALLS = 3, 8
STOCHASTIC = {"stochastic": True, "k": 0.0, "sigma_0": 0.1}
#: Each row: name, algorithm, arguments, sampler, and widths of the small and of the published network.
ROWS: list[tuple[str, Any, dict[str, Any], str, list[int], list[int]]] = [
    ("streaming flow, k = 2.5", StreamingFlow, {"k": 2.5}, "average", [256] * 3, [256, 512, 1024]),
    ("streaming flow, stochastic", StreamingFlow, STOCHASTIC, "average", [256] * 3, [256, 512, 1024]),
    ("chunk flow, 10 steps", ChunkFlow, {}, "average", [242] * 3, [256, 512, 1024]),
    ("diffusion, DDIM-10", ChunkDiffusion, {}, "ddim", [242] * 3, [256, 512, 1024]),
    ("diffusion, DDPM-100", ChunkDiffusion, {}, "ddpm", [242] * 3, [256, 512, 1024]),
    ("chunk regression", ChunkRegression, {}, "average", [264] * 3, [2466] * 4),
]


class Spaces(gym.Env[np.ndarray, np.ndarray]):
    """The spaces of Push-T's states without an environment."""

    observation_space = spaces.Box(0, 512, (5,), np.float32)
    action_space = spaces.Box(0, 512, (2,), np.float32)


def random_data(n: int = 10_000) -> dict[str, np.ndarray]:
    """Episodes of 100 steps."""
    rng = np.random.default_rng(0)
    numbers = {"observations": rng.uniform(0, 512, (n, 5)), "actions": rng.uniform(0, 512, (n, 2))}
    ends = np.arange(n) % 100 == 99
    return {**{name: column.astype(np.float32) for name, column in numbers.items()}, "terminals": ends}


def make(row: tuple[Any, ...], network: str, data: dict[str, np.ndarray]) -> Any:
    """The model of a row."""
    _, algorithm, arguments, _, small, published = row
    policy_kwargs: dict[str, Any] = {"net_arch": small if network == "small" else published}
    if network == "published" and algorithm is not ChunkRegression:
        policy_kwargs |= {"modulated": True, "encode_time_dim": 256}
    model = algorithm("FlowPolicy", Spaces(), dataset=data, policy_kwargs=policy_kwargs, seed=0, device="cpu", **arguments)
    model.set_logger(configure(None, []))
    return model


def timed(call: Callable[[], Any], calls: int = CALLS) -> float:
    """Median seconds of calls, after warm-up calls."""
    for _ in range(WARM_UP):
        call()
    seconds = []
    for _ in range(calls):
        start = now()
        call()
        seconds.append(now() - start)
    return float(np.median(seconds))


def plan(policy: Any, observation: np.ndarray) -> None:
    """Execute one whole plan."""
    state, start = None, np.ones(1, bool)
    for _ in range(policy.n_action_steps):
        state = policy.predict(observation, state, start, True)[1]
        start = np.zeros(1, bool)


def evaluations(policy: Any, observation: np.ndarray, calls: Callable[[Any, np.ndarray], Any]) -> int:
    """Number of network evaluations."""
    found: list[int] = []
    hook = policy.average.net.register_forward_hook(lambda *_: found.append(1))
    calls(policy, observation)
    hook.remove()
    return len(found)


def evaluation(policy: Any) -> Callable[[], Any]:
    """A function that evaluates the network once."""
    net, n = policy.average.net, policy.n_obs_steps * 5
    with th.no_grad():
        context = net.context(th.zeros(1, n))
    inputs = []
    if isinstance(net, VelocityMLP | ModulatedMLP):
        dim = (net.out if isinstance(net, ModulatedMLP) else net.layers[-1]).out_features
        inputs = [th.zeros(1, dim), th.zeros(1, 1)]

    def call() -> None:
        with th.no_grad():
            net(context, *(inputs or [th.zeros(1, 0)]))

    return call


def updates(model: Any) -> Variant:
    """Updates with the same batch."""
    batch = model.sample_batch(BATCH_SIZE)
    return repeated(lambda: model.update(batch, model.draw_noise(BATCH_SIZE)), "cpu")


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--networks", nargs="+", default=["small"], choices=["small", "published"])
    parser.add_argument("--turns", type=int, default=40, help=f"turns of each variant, of {CALLS} calls")


def main() -> None:
    arguments = parse(__doc__, add)
    data, observation = random_data(), np.full((1, 5), 256, np.float32)
    for network in arguments.networks:
        models = {row[0]: make(row, network, data) for row in ROWS}
        policies = {row[0]: models[row[0]].policy.with_sampler(row[3]) for row in ROWS}
        seconds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in policies}
        for _ in range(arguments.turns):
            for name, policy in policies.items():
                first = timed(lambda p=policy: p.predict(observation, deterministic=True))
                whole = timed(lambda p=policy: plan(p, observation))
                seconds[name].append((first, whole / policy.n_action_steps, timed(evaluation(policy))))
        variants = {name: updates(model) for name, model in models.items()}
        rates = alternate(variants, arguments.rounds, arguments.seconds)
        print(f"\n{network}, load {load()}\n")
        columns = (
            "parameters",
            "first action",
            "/ streaming",
            "evaluations",
            "outside",
            "per action",
            "evaluations",
            "updates/s",
        )
        print(f"| | {' | '.join(columns)} |\n|{' --- |' * (len(columns) + 1)}")
        medians = {name: 1e6 * np.median(times, axis=0) for name, times in seconds.items()}
        for name, policy in policies.items():
            first, per_action, alone = medians[name]
            ratio = first / medians[ROWS[0][0]][0]
            before_first = evaluations(policy, observation, lambda p, o: p.predict(o))
            in_plan = evaluations(policy, observation, plan) / policy.n_action_steps
            parameters = sum(parameter.numel() for parameter in policy.average.parameters())
            cells = [f"{parameters:,}", f"{first:,.0f} us", f"{ratio:.1f}", str(before_first)]
            cells += [f"{first - before_first * alone:,.0f} us", f"{per_action:,.0f} us", f"{in_plan:.3g}"]
            print(f"| {name} | {' | '.join(cells)} | {np.median(rates[name]):.0f} |", flush=True)


if __name__ == "__main__":
    main()
