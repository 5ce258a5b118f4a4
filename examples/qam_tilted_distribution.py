"""
What adjoint matching does to a distribution, in one dimension where the answer is known.

The behaviour has two modes, and the better one is the rarer. QAM moves the behaviour's flow so that its samples follow
`behaviour(a) exp(tau Q(a))`; with few steps it falls short of that. Draws what it reaches with several numbers of steps.

    python examples/qam_tilted_distribution.py [--steps 5 10 20 50] [--inverse-temperature 2] [--file tilted_distribution.png]
"""

import argparse
import math

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch as th
from torch import nn

from sb3_flow.common.flow import euler
from sb3_flow.common.types import Velocity
from sb3_flow.qam.adjoint import adjoint_matching_loss, lean_adjoint, memoryless_path

#: The behaviour: weights, means and common standard deviation of its modes. The value of an action is the action.
WEIGHTS, MEANS, STD = th.tensor([0.7, 0.3]), th.tensor([-0.5, 0.5]), 0.3


def behaviour_velocity(x: th.Tensor, t: th.Tensor) -> th.Tensor:
    """The velocity field whose flow samples the behaviour exactly: each mode's own, by how likely the mode is at `x`."""
    variance = (1 - t) ** 2 + t**2 * STD**2
    of_modes = MEANS + (t * STD**2 - (1 - t)) / variance * (x - t * MEANS)
    likelihoods = th.softmax(WEIGHTS.log() - (x - t * MEANS) ** 2 / (2 * variance), dim=1)
    return (likelihoods * of_modes).sum(dim=1, keepdim=True)


def density(actions: th.Tensor, inverse_temperature: float) -> th.Tensor:
    """The behaviour's density times `exp(tau a)`, normalised: again two Gaussian modes, moved and weighted anew."""
    weights = th.softmax(WEIGHTS.log() + inverse_temperature * MEANS, dim=0)
    means = MEANS + inverse_temperature * STD**2
    modes = th.exp(-((actions[:, None] - means) ** 2) / (2 * STD**2)) / (STD * math.sqrt(2 * math.pi))
    return (weights * modes).sum(dim=1)


def learn(n_steps: int, inverse_temperature: float, n_updates: int, batch_size: int = 512) -> Velocity:
    """
    The flow that adjoint matching reaches.

    :param n_steps: Steps of the flow
    :param inverse_temperature: `tau`
    :param n_updates: Number of updates
    :param batch_size: Paths per update
    :return: Its velocity field
    """
    th.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 1))
    optimizer = th.optim.Adam(network.parameters(), lr=3e-3)
    schedule = th.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, n_updates)

    def velocity(x: th.Tensor, t: th.Tensor) -> th.Tensor:
        correction: th.Tensor = network(th.cat([x, t], dim=1))
        return behaviour_velocity(x, t) + correction

    for _ in range(n_updates):
        with th.no_grad():
            path = memoryless_path(velocity, behaviour_velocity, th.randn(n_steps, batch_size, 1))
            terminal = th.full((batch_size, 1), -inverse_temperature)  # minus tau times the slope of Q, which is 1
            adjoints = lean_adjoint(behaviour_velocity, path, terminal)
        optimizer.zero_grad()
        adjoint_matching_loss(velocity, behaviour_velocity, path, adjoints).mean().backward()
        optimizer.step()
        schedule.step()
    return velocity


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 10, 20, 50], help="numbers of flow steps")
    parser.add_argument("--inverse-temperature", type=float, default=2.0)
    parser.add_argument("--updates", type=int, default=1500)
    parser.add_argument("--file", default="tilted_distribution.png")
    arguments = parser.parse_args()

    grid, tau = th.linspace(-2, 2, 400), arguments.inverse_temperature
    figure, all_axes = plt.subplots(
        1,
        len(arguments.steps),
        figsize=(3 * len(arguments.steps), 3),
        layout="constrained",
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    print(f"P(a > 0): behaviour {share_above_zero(0.0):.3f}, target {share_above_zero(tau):.3f}")
    for axes, n_steps in zip(all_axes[0], arguments.steps, strict=True):
        velocity = learn(n_steps, tau, arguments.updates)
        with th.no_grad():
            actions = euler(velocity, th.randn(50_000, 1), n_steps)
        share = (actions > 0).float().mean().item()
        print(f"{n_steps:3d} steps: {share:.3f}, mean {actions.mean().item():.3f}")
        axes.hist(actions[:, 0], bins=80, range=(-2, 2), density=True, color="tab:blue", alpha=0.5, label="QAM's samples")
        axes.plot(grid, density(grid, 0.0), color="gray", linestyle="--", label="behaviour")
        axes.plot(grid, density(grid, tau), color="tab:red", label="target")
        axes.set(title=f"{n_steps} steps: P(a > 0) = {share:.2f}", xlabel="action")
    all_axes[0, 0].legend(fontsize="small")
    figure.savefig(arguments.file, dpi=120)


def share_above_zero(inverse_temperature: float) -> float:
    """The probability of `a > 0` under the tilted behaviour."""
    weights = th.softmax(WEIGHTS.log() + inverse_temperature * MEANS, dim=0)
    means = MEANS + inverse_temperature * STD**2
    return float((weights * 0.5 * (1 + th.erf(means / (STD * math.sqrt(2))))).sum())


if __name__ == "__main__":
    main()
