"""
Updates per second of an algorithm of this package in each mode of execution, of SB3's SAC with networks of the same size, and
optionally of the authors' JAX implementation of FQL; with and without the overhead of `learn`.

    python benchmarks/updates_per_second.py [--threads 1] [--modes eager compiled] [--device cuda]
        [--jax PATH_OF_THE_CHECKOUT] [--jax-python PYTHON_THAT_HAS_JAX]

Run it on an idle machine. Compilation takes half a minute for each size.
"""

import argparse
import sys
import time
from pathlib import Path

from alternating import (
    BATCH_SIZE,
    MODES,
    SIZES,
    Variant,
    Worker,
    alternate,
    load,
    make_model,
    make_sac,
    now,
    parse,
    random_data,
    repeated,
    report,
    synchronize,
)
from stable_baselines3.common.callbacks import BaseCallback

from sb3_flow.common.offline_to_online_algorithm import OfflineToOnlineAlgorithm


class Until(BaseCallback):
    """Stop training at a given time."""

    def __init__(self, end: float) -> None:
        super().__init__()
        self.end = end

    def _on_step(self) -> bool:
        return now() < self.end


def learning(model: OfflineToOnlineAlgorithm, device: str) -> Variant:
    """All of `learn`: sampling of batches, updates, sums of metrics, callbacks and logs."""
    model.learn(10)

    def block(seconds: float) -> float:
        synchronize(device)
        before, start = model.n_offline_updates, now()
        model.learn(10**9, callback=Until(start + seconds), reset_num_timesteps=False)
        synchronize(device)
        return (model.n_offline_updates - before) / (now() - start)

    return block


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--modes", nargs="+", default=["eager"], choices=list(MODES))
    parser.add_argument("--jax", metavar="PATH", help="a checkout of the authors' FQL")
    parser.add_argument("--jax-python", default=sys.executable, metavar="PYTHON", help="the Python that has JAX")


def main() -> None:
    arguments = parse(__doc__, add)
    device, data = arguments.device, random_data()
    for size in arguments.sizes:
        net_arch, variants = SIZES[size], dict[str, Variant]()
        for mode in arguments.modes:
            model = make_model(arguments.algo, net_arch, data, device, mode)
            start = time.perf_counter()
            model.train(1, BATCH_SIZE)
            synchronize(device)
            print(f"{size}, {mode}: first update after {time.perf_counter() - start:.1f} s", flush=True)
            if mode != "cudagraph":  # graphs are used by `train` only
                batch, noise = model.sample_batch(BATCH_SIZE), model.draw_noise(BATCH_SIZE)
                variants[f"{mode}, bare"] = repeated(lambda m=model, b=batch, n=noise: m.update(b, n), device)
            variants[f"{mode}, learn"] = learning(model, device)
        sac = make_sac(net_arch, data, device)
        variants["SAC, train"] = repeated(lambda sac=sac: sac.train(10, BATCH_SIZE), device, warm_up=1)
        worker = None
        if arguments.jax:
            clock = "process_time" if arguments.cpu_time else "perf_counter"
            script = Path(__file__).with_name("jax_fql.py")
            command = [arguments.jax_python, str(script), arguments.jax, clock, *map(str, [arguments.threads, *net_arch])]
            variants["JAX"] = worker = Worker(command)
        rates = alternate(variants, arguments.rounds, arguments.seconds)
        rates["SAC, train"] *= 10
        report(f"{arguments.algo}, {size}, load {load()}", rates, "updates/s")
        if worker is not None:
            worker.close()


if __name__ == "__main__":
    main()
