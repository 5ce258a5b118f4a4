"""
The authors' FQL in JAX, as a separate process that `updates_per_second.py` starts. It needs jax, flax, optax, distrax and
ml_collections, and the path of a checkout of https://github.com/seohongpark/fql, which is not part of this package.

    python benchmarks/jax_fql.py PATH_OF_THE_CHECKOUT CLOCK THREADS WIDTH [WIDTH ...]
"""

import os
import sys
import time

import numpy as np

OBSERVATION_DIM, ACTION_DIM, BATCH_SIZE = 28, 5, 256


def main() -> None:
    checkout, clock, threads, *widths = sys.argv[1:]
    if hasattr(os, "sched_setaffinity"):  # JAX has no argument for the number of threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(threads)])
    sys.path.insert(0, checkout)
    import jax
    from agents.fql import FQLAgent, get_config

    rng = np.random.default_rng(0)
    batch = {
        "observations": rng.normal(size=(BATCH_SIZE, OBSERVATION_DIM)),
        "next_observations": rng.normal(size=(BATCH_SIZE, OBSERVATION_DIM)),
        "actions": rng.uniform(-1, 1, size=(BATCH_SIZE, ACTION_DIM)),
        "rewards": -np.ones(BATCH_SIZE),
        "masks": np.ones(BATCH_SIZE),
    }
    batch = {name: jax.device_put(values.astype(np.float32)) for name, values in batch.items()}
    config = get_config()
    config.actor_hidden_dims = config.value_hidden_dims = tuple(map(int, widths))
    agent = FQLAgent.create(0, batch["observations"], batch["actions"], config)
    for _ in range(10):
        agent, info = agent.update(batch)
    jax.block_until_ready((agent.network.params, info))
    now = getattr(time, clock)  # perf_counter or process_time
    print("ready", flush=True)
    for line in sys.stdin:
        count, start = 0, now()
        while now() - start < float(line):
            agent, info = agent.update(batch)
            jax.block_until_ready((agent.network.params, info))
            count += 1
        print(count / (now() - start), flush=True)


if __name__ == "__main__":
    main()
