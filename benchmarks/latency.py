"""
Latency of `predict`, for one observation and for eight: each head of our policy beside SB3's SAC with networks of that size.

    python benchmarks/latency.py [--algo fql] [--threads 1] [--device cuda]
"""

import numpy as np
from alternating import (
    OBSERVATION_DIM,
    SIZES,
    Variant,
    alternate,
    load,
    make_model,
    make_sac,
    parse,
    random_data,
    repeated,
    report,
)


def main() -> None:
    arguments = parse(__doc__)
    device, data = arguments.device, random_data()
    for size in arguments.sizes:
        model, sac = make_model(arguments.algo, SIZES[size], data, device), make_sac(SIZES[size], data, device)
        for n in (1, 8):
            observation = np.zeros((n, OBSERVATION_DIM), dtype=np.float32)
            policies = {head: model.policy.with_head(head) for head in model.policy.heads} | {"SAC": sac.policy}
            variants: dict[str, Variant] = {
                name: repeated(lambda p=policy, o=observation: p.predict(o), device) for name, policy in policies.items()
            }
            rates = alternate(variants, arguments.rounds, arguments.seconds / 4)
            report(f"{arguments.algo}, {size}, batch {n}, load {load()}: predictions", rates, "calls/s")
            print("latency, microseconds: " + ", ".join(f"{name} {1e6 / np.median(r):.0f}" for name, r in rates.items()))


if __name__ == "__main__":
    main()
