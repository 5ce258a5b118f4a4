"""
Updates per second of all algorithms relative to FQL, with the same networks and number of critics, and the floating-point
operations of their matrix products, which dominate the computation.

    python benchmarks/algorithms.py [--critics 2] [--mode compiled] [--threads 1] [--device cuda]

If a speed ratio is far below the ratio of the operations, time is lost elsewhere: in many small operators, or in waiting.
"""

import argparse
from typing import Any

from alternating import (
    ALGORITHMS,
    BATCH_SIZE,
    MODES,
    SIZES,
    Variant,
    alternate,
    load,
    make_model,
    parse,
    random_data,
    repeated,
    report,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class Operations(TorchDispatchMode):
    """Counts multiplications and additions. (PyTorch's own counter fails with `autograd.grad`.)"""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.count += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--critics", type=int, default=2, help="number of critics of all algorithms")
    parser.add_argument("--mode", default="eager", choices=["eager", "compiled"])
    parser.add_argument("--algos", nargs="+", default=list(ALGORITHMS), choices=list(ALGORITHMS))


def main() -> None:
    arguments = parse(__doc__, add)
    device, data = arguments.device, random_data()
    for size in arguments.sizes:
        variants: dict[str, Variant] = {}
        operations: dict[str, int] = {}
        for algo in arguments.algos:
            eager = make_model(algo, SIZES[size], data, device, n_critics=arguments.critics)
            batch, noise = eager.sample_batch(BATCH_SIZE), eager.draw_noise(BATCH_SIZE)
            with Operations() as counter:
                eager.update(batch, noise)
            operations[algo] = counter.count
            model = eager
            if MODES[arguments.mode]:
                model = make_model(algo, SIZES[size], data, device, arguments.mode, n_critics=arguments.critics)
            variants[algo] = repeated(lambda m=model, b=batch, n=noise: m.update(b, n), device)
        rates = alternate(variants, arguments.rounds, arguments.seconds)
        report(f"{size}, {arguments.critics} critics, {arguments.mode}, load {load()}", rates, "updates/s")
        first = arguments.algos[0]
        print(f"\n{'':<24}{'GFLOP':>14}{'/ ' + first:>14}")
        for algo, count in operations.items():
            print(f"{algo:<24}{count / 1e9:>14.2f}{count / operations[first]:>14.2f}")


if __name__ == "__main__":
    main()
