"""
Where the time of an update goes: drawing, each way to act, each loss, the optimiser, the target networks.

    python benchmarks/by_part.py [--algo fql] [--threads 1] [--device cuda]

The parts are timed one after the other, round by round; medians in milliseconds, and as a share of a whole update. A way to
act is part of a loss, and listed to see how much of it: FQL's `bc_flow` is its ten Euler steps.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch as th
from alternating import BATCH_SIZE, SIZES, load, make_model, now, parse, random_data, synchronize

from sb3_flow.common.algorithm import OfflineToOnlineAlgorithm


def parts_of(model: OfflineToOnlineAlgorithm) -> dict[str, Callable[[], Any]]:
    """What an update is made of, by name."""
    policy, batch, noise = model.policy, model.sample_batch(BATCH_SIZE), model.draw_noise(BATCH_SIZE)

    def act(head: str) -> None:
        with th.no_grad():
            policy.with_head(head).act(batch.observations, model.normal(BATCH_SIZE, dim=policy.with_head(head).noise_dim))

    def value(network: Any) -> None:
        with th.no_grad():
            policy.q_values(network, batch.observations, batch.actions)

    def forward_backward(loss: Callable[..., tuple[th.Tensor, Any]]) -> None:
        policy.optimizer.zero_grad()
        loss(batch, noise)[0].backward()

    def gradients() -> None:  # so that the optimiser has some
        forward_backward(model.loss)

    parts: dict[str, Callable[[], Any]] = {
        "whole update": partial(model.update, batch, noise),
        "draw a batch": partial(model.sample_batch, BATCH_SIZE),
        "draw noise": partial(model.draw_noise, BATCH_SIZE),
    }
    for head in policy.heads:
        parts[f"act: {head}"] = partial(act, head)
    for target in (name for name in model.targets if name.startswith("critic")):
        parts[f"values: {target}"] = partial(value, getattr(policy, target))
    for term in model.terms():
        parts[f"{term.__name__}: forward"] = partial(term, batch, noise)
        parts[f"{term.__name__}: both"] = partial(forward_backward, term)
    parts["all losses: both"] = gradients
    parts["optimiser"] = policy.optimizer.step
    parts["targets"] = model.update_targets
    return parts


def main() -> None:
    arguments = parse(__doc__)
    for size in arguments.sizes:
        parts = parts_of(make_model(arguments.algo, SIZES[size], random_data(), arguments.device))
        times: dict[str, list[float]] = {name: [] for name in parts}
        for i in range(5 * arguments.rounds + 3):
            for name, part in parts.items():
                synchronize(arguments.device)
                start = now()
                part()
                synchronize(arguments.device)
                if i >= 3:  # warm
                    times[name].append(now() - start)
        whole = np.median(times["whole update"])
        print(f"\n{arguments.algo}, {size}, load {load()}\n{'':<28}{'ms':>10}{'share':>8}")
        for name, seconds in times.items():
            print(f"{name:<28}{1e3 * np.median(seconds):>10.2f}{np.median(seconds) / whole:>8.0%}")


if __name__ == "__main__":
    main()
