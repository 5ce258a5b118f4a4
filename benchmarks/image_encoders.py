"""
Updates per second of an algorithm on images with each image encoder, `features_extractor_kwargs={"encoder": NAME}`, and the
floating-point operations of an update in convolutions and matrix products.

    python benchmarks/image_encoders.py --threads 1 [--algo fql] [--side 32] [--encoders impala small]

The encoders alternate in blocks. `by_part.py --side 32` shows how much of an update an encoder takes.
"""

import argparse

from algorithms import Operations
from alternating import BATCH_SIZE, SIZES, alternate, load, make_model, parse, random_data, repeated, report

from sb3_flow.common.encoders import ENCODERS


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--side", type=int, default=32, help="side of the images in pixels")
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS), choices=list(ENCODERS))


def main() -> None:
    arguments = parse(__doc__, add)
    data = random_data(2_000, arguments.side)
    for size in arguments.sizes:
        variants, operations = {}, {}
        for encoder in arguments.encoders:
            extractor = {"features_extractor_kwargs": {"encoder": encoder}}
            model = make_model(arguments.algo, SIZES[size], data, arguments.device, **extractor)
            batch, noise = model.sample_batch(BATCH_SIZE), model.draw_noise(BATCH_SIZE)
            with Operations() as counter:
                model.update(batch, noise)
            operations[encoder] = counter.count
            variants[encoder] = repeated(lambda m=model, b=batch, n=noise: m.update(b, n), arguments.device, warm_up=2)
        rates = alternate(variants, arguments.rounds, arguments.seconds)
        title = f"{arguments.algo}, {size}, images of {arguments.side} x {arguments.side}, load {load()}"
        report(title, rates, "updates/s")
        print("GFLOP: " + ", ".join(f"{encoder} {count / 1e9:.1f}" for encoder, count in operations.items()))


if __name__ == "__main__":
    main()
