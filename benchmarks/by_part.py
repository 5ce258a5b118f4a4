"""
Time of the parts of an update: sampling of batches, each sampler, each loss, the optimizer, the target networks.

    python benchmarks/by_part.py [--algo fql] [--threads 1] [--side 32 --encoder small] [--device cuda]

The parts are timed in alternation; results are medians in milliseconds, and as fractions of a whole update. Samplers are part
of losses; they are listed to show their cost: FQL's `bc_flow` has its ten Euler steps. With images (`--side`),
the encoder of one network is listed, too.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch as th
from alternating import BATCH_SIZE, SIZES, load, make_model, now, parse, random_data, synchronize
from stable_baselines3.common.preprocessing import preprocess_obs

from sb3_flow.common.encoders import ENCODERS, image_keys
from sb3_flow.common.flow_algorithm import FlowAlgorithm
from sb3_flow.common.type_aliases import Batch


def losses_of(model: FlowAlgorithm, batch: Batch, noise: Any) -> dict[str, Callable[[], tuple[th.Tensor, Any]]]:
    """The methods ``..._loss`` whose sum is the loss of an algorithm, with their arguments."""
    called: dict[str, tuple[Any, ...]] = {}

    def watched(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            called[name] = args
            return method(*args)

        return call

    names = [name for name in dir(type(model)) if name.endswith("_loss")]
    try:
        for name in names:
            setattr(model, name, watched(name, getattr(model, name)))
        model.loss(batch, noise)
    finally:
        for name in names:
            vars(model).pop(name, None)
    return {name: partial(getattr(model, name), *args) for name, args in called.items()}


def parts_of(model: FlowAlgorithm) -> dict[str, Callable[[], Any]]:
    """The parts of an update by name."""
    policy, batch, noise = model.policy, model.sample_batch(BATCH_SIZE), model.draw_noise(BATCH_SIZE)

    def act(sampler: str) -> None:
        acting = policy.with_sampler(sampler)
        with th.no_grad():
            acting.act(batch.observations, model.normal(BATCH_SIZE, dim=acting.noise_dim))

    def value(network: Any) -> None:
        with th.no_grad():
            policy.q_values(network, batch.observations, batch.actions)

    def forward_backward(loss: Callable[[], tuple[th.Tensor, Any]]) -> None:
        policy.optimizer.zero_grad()
        loss()[0].backward()

    whole = partial(model.loss, batch, noise)
    losses = losses_of(model, batch, noise)
    parts: dict[str, Callable[[], Any]] = {
        "whole update": partial(model.update, batch, noise),
        "draw a batch": partial(model.sample_batch, BATCH_SIZE),
        "draw noise": partial(model.draw_noise, BATCH_SIZE),
    }
    if image_keys(model.observation_space):
        encoder = policy.critic.features_extractor
        inputs = preprocess_obs(batch.observations, model.observation_space)
        parts["encoder: forward"] = partial(encoder, inputs)
        parts["encoder: both"] = lambda: encoder(inputs).sum().backward()
    for sampler in policy.samplers:
        parts[f"act: {sampler}"] = partial(act, sampler)
    for target in (name for name in model.targets if name.startswith("critic")):
        parts[f"values: {target}"] = partial(value, getattr(policy, target))
    for name, loss in losses.items():
        parts[f"{name}: forward"] = loss
        parts[f"{name}: both"] = partial(forward_backward, loss)
    parts["all losses: both"] = partial(forward_backward, whole)
    parts["optimizer"] = policy.optimizer.step
    parts["targets"] = model.update_targets
    return parts


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--side", type=int, default=0, help="side of images in pixels; default: vectors")
    parser.add_argument("--encoder", default="impala", choices=list(ENCODERS))
    parser.add_argument("--operators", type=int, default=0, help="also list so many operators of an update, by their time")


def main() -> None:
    arguments = parse(__doc__, add)
    data = random_data(2_000 if arguments.side else 100_000, arguments.side)
    extractor = {"features_extractor_kwargs": {"encoder": arguments.encoder}} if arguments.side else {}
    for size in arguments.sizes:
        parts = parts_of(make_model(arguments.algo, SIZES[size], data, arguments.device, **extractor))
        times: dict[str, list[float]] = {name: [] for name in parts}
        for i in range(5 * arguments.rounds + 3):
            for name, part in parts.items():
                synchronize(arguments.device)
                start = now()
                part()
                synchronize(arguments.device)
                if i >= 3:  # warm
                    times[name].append(now() - start)
        if arguments.operators:
            with th.profiler.profile(activities=[th.profiler.ProfilerActivity.CPU]) as profiler:
                for _ in range(3):
                    parts["whole update"]()
            print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=arguments.operators))
        whole = np.median(times["whole update"])
        print(f"\n{arguments.algo}, {size}, load {load()}\n{'':<28}{'ms':>10}{'share':>8}")
        for name, seconds in times.items():
            print(f"{name:<28}{1e3 * np.median(seconds):>10.2f}{np.median(seconds) / whole:>8.0%}")


if __name__ == "__main__":
    main()
