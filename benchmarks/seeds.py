"""
Updates of several seeds, together in one process as with ``sb3-flow train --seeds``, compared with one after the other.

    OMP_NUM_THREADS=1 python benchmarks/seeds.py --threads 1 --cpu-time --sizes 128x2 256x2 512x4

An update includes everything that ``train`` does: batch, noise, losses, gradients, optimizer, targets, and the turns.
"""

import argparse
from collections.abc import Sequence

from alternating import MODES, SIZES, Variant, alternate, make_model, now, parse, random_data, report, synchronize

from sb3_flow.common.batched_gradients import BatchedGradients, train_together
from sb3_flow.common.flow_algorithm import FlowAlgorithm
from sb3_flow.common.turns import Ask, take_turns


def update(model: FlowAlgorithm) -> None:
    """One update, as in ``learn``."""
    model.train(gradient_steps=1, batch_size=model.batch_size)


def one_after_the_other(models: Sequence[FlowAlgorithm], device: str) -> Variant:
    """A variant with one update of each model in turn; its rate counts the updates of all models."""

    def block(seconds: float) -> float:
        synchronize(device)
        count, start = 0, now()
        while now() - start < seconds:
            for model in models:
                update(model)
            count += len(models)
        synchronize(device)
        return count / (now() - start)

    return block


def together(models: Sequence[FlowAlgorithm], device: str) -> Variant:
    """The same with batched gradients."""
    gradients = BatchedGradients()

    def block(seconds: float) -> float:
        synchronize(device)
        rounds, start = 0, now()

        def run(ask: Ask) -> None:
            nonlocal rounds
            model = next(waiting)
            train_together(model, ask)
            is_first = model is models[0]
            done = 0
            while done < rounds or (is_first and now() - start < seconds):
                rounds += is_first
                done += 1
                update(model)

        waiting = iter(models)
        errors = take_turns([run] * len(models), gradients)
        assert not any(errors), errors
        synchronize(device)
        return rounds * len(models) / (now() - start)

    return block


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=4, help="number of seeds")
    parser.add_argument("--modes", nargs="+", default=["eager", "compiled"], choices=["eager", "compiled"])


def main() -> None:
    arguments = parse(__doc__, add)
    data = random_data()
    for size in arguments.sizes:
        for mode in arguments.modes:
            assert mode in MODES
            groups = [
                [make_model(arguments.algo, SIZES[size], data, arguments.device, mode) for _ in range(arguments.seeds)]
                for _ in range(2)
            ]
            variants = {
                "one after the other": one_after_the_other(groups[0], arguments.device),
                "together": together(groups[1], arguments.device),
            }
            for variant in variants.values():
                variant(0.5)  # compilation
            title = f"{arguments.algo}, {size}, {mode}, {arguments.seeds} seeds"
            report(title, alternate(variants, arguments.rounds, arguments.seconds), "updates/s")


if __name__ == "__main__":
    main()
