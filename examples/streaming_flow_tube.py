"""
Tubes and velocity fields of a streaming flow policy, for data with two ways around an obstacle.

Train both variants on the knots of two demonstrations, and plot the tubes with the exact field, the learned field with actions
of `predict`, and actions with latents from a single start.

    python examples/streaming_flow_tube.py [--updates 4000] [--file tube.png]
"""

import argparse

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch as th
from gymnasium import spaces

from sb3_flow import StreamingFlow
from sb3_flow.common.data.no_environment import NoEnvironment
from sb3_flow.common.type_aliases import Batch
from sb3_flow.plots import plot_velocity
from sb3_flow.plots.style import BLUE
from sb3_flow.streaming_flow.tubes import latent_covariance, mixture_velocity, segment, tube_std

HORIZON = 16
#: The tubes of both variants. From a single start, latents have more effect if the tube is wide there.
TUBE = {"k": 2.5, "sigma_0": 0.1}
LATENT_TUBE = {"k": 5.0, "sigma_0": 0.3, "sigma_1": 0.4}
TIMES = np.arange(HORIZON + 1) / HORIZON
#: The two ways around the obstacle, from zero back to zero.
WAYS = np.stack([0.7 * np.sin(np.pi * TIMES), -0.7 * np.sin(np.pi * TIMES)])


def train(updates: int, stochastic: bool) -> StreamingFlow:
    """Train a small network by direct updates; half of each batch is from each demonstration."""
    model = StreamingFlow(
        "FlowPolicy",
        NoEnvironment(spaces.Box(0, 1, (1,)), spaces.Box(-1, 1, (1,))),
        learning_rate=5e-3,
        horizon_length=HORIZON,
        n_action_steps=HORIZON,  # a whole episode is one plan
        n_obs_steps=1,
        stochastic=stochastic,
        **(LATENT_TUBE if stochastic else TUBE),
        policy_kwargs={"net_arch": [64, 64], "encode_time_dim": 8},
        seed=0,
        device="cpu",
    )
    knots = th.as_tensor(WAYS, dtype=th.float32).repeat(128, 1)
    unused, observations = th.ones(256), th.zeros(256, 1)  # the same history for both demonstrations
    batch = Batch(observations, knots, unused, unused, unused, observations, unused)
    for _ in range(updates):
        model.update(batch, model.draw_noise(256))
    return model


def stream(model: StreamingFlow, n: int) -> np.ndarray:
    """Actions of ``n`` environments, ``(n, HORIZON + 1)``; the first column is the start."""
    th.manual_seed(0)
    state, sent = None, []
    for j in range(HORIZON):
        actions, state = model.predict(np.zeros((n, 1), np.float32), state, np.full(n, j == 0))
        sent.append(actions[:, 0])
    return np.stack([np.zeros(n), *sent], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=4_000)
    parser.add_argument("--file", default="tube.png")
    arguments = parser.parse_args()

    figure, (tubes, learned, latent) = plt.subplots(1, 3, figsize=(12, 4.4), layout="constrained", sharey=True)
    knots = th.as_tensor(WAYS[:, :, None], dtype=th.float32)

    t = th.linspace(0, 1, 200).unsqueeze(1)
    stds = tube_std(t, **TUBE), latent_covariance(t, **LATENT_TUBE)[0].sqrt()
    for axes, std in ((tubes, stds[0]), (latent, stds[1])):
        for way in knots:
            xi = segment(way.expand(len(t), -1, -1), t)[0]
            low, high = (part[:, 0].numpy() for part in (xi - 2 * std, xi + 2 * std))
            axes.fill_between(t[:, 0].numpy(), low, high, color="0.8", alpha=0.6, zorder=0, label="tube (95 %)")
    plot_velocity(lambda a, t: mixture_velocity(a, t, knots, (0.5, 0.5), **TUBE), tubes, limit=0.95)
    tubes.set_title("two demonstrations, their tubes,\nand the exact velocity field")

    model = train(arguments.updates, stochastic=False)
    context = model.policy.context(model.policy.average, th.zeros(1, 1))
    plot_velocity(lambda a, t: model.policy.field(model.policy.average, context.expand(len(a), -1))(a, t), learned, limit=0.95)
    for axes, variant, title in (
        (learned, model, "learned field, and 40 streams\nwith noise at the start"),
        (latent, train(arguments.updates, stochastic=True), "40 streams from one start,\neach with its own latent"),
    ):
        paths = stream(variant, 1000)
        starts = 1 if variant is model else 0
        axes.plot(TIMES[starts:], paths[:40, starts:].T, color=BLUE, linewidth=0.7, alpha=0.8)
        axes.lines[-1].set_label("streams: actions of the policy")
        up = paths[:, HORIZON // 2] > 0
        distance = np.abs(np.abs(paths[:, HORIZON // 2]) - 0.7).mean()
        axes.set_title(title)
        print(f"{title!r}: {up.mean():.1%} of 1000 go up; half-way they are {distance:.3f} from the demonstration")
    for axes in (tubes, learned, latent):
        axes.plot(TIMES, WAYS.T, "k--", linewidth=0.8)
        axes.lines[-1].set_label("demonstrations")
        axes.set(xlabel="flow time (fraction of the episode)", ylabel="action", xlim=(-0.02, 1.02), ylim=(-1, 1))
        axes.label_outer()
    entries = {label: part for axes in (tubes, learned) for part, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=4)
    figure.savefig(arguments.file, dpi=110)


if __name__ == "__main__":
    main()
