"""
Resident memory over many updates, which should not grow.

    python benchmarks/memory_growth.py [--algo fql] [--sizes 128x3] [--updates 10000]
"""

import argparse

from alternating import BATCH_SIZE, SIZES, make_model, parse, random_data


def resident_mb() -> float:
    """Resident memory of this process, MB (Linux)."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--updates", type=int, default=10_000)


def main() -> None:
    arguments = parse(__doc__, add)
    for size in arguments.sizes:
        model = make_model(arguments.algo, SIZES[size], random_data(), arguments.device)
        model.train(200, BATCH_SIZE)
        start = resident_mb()
        print(f"{size}: {start:.1f} MB after 200 updates")
        for i in range(1, 6):
            model.train(arguments.updates // 5, BATCH_SIZE)
            print(f"{size}: {resident_mb() - start:+.1f} MB after {i * arguments.updates // 5} more")


if __name__ == "__main__":
    main()
