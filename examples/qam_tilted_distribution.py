"""
Adjoint matching in one dimension, where the target distribution is known.

The behavior distribution has two modes, of which the better one is rarer. QAM changes the flow so that its samples follow
`behavior(a) exp(tau Q(a))`. With few steps it does not reach this target, in particular if the modes are far apart. Plot the
result for several numbers of steps.

    python examples/qam_tilted_distribution.py [--steps 5 10 20 50] [--file tilted_distribution.png]
"""

import argparse
import math
from dataclasses import dataclass

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch as th
from torch import nn

from sb3_flow.common.flow import euler
from sb3_flow.common.type_aliases import Velocity
from sb3_flow.plots.style import BLACK, GRAY, SKY
from sb3_flow.qam.adjoint import adjoint_matching_loss, control, lean_adjoint, memoryless_path


@dataclass
class Modes:
    """A mixture of two Gaussians with the same standard deviation."""

    weights: th.Tensor
    means: th.Tensor
    std: float

    def tilted(self, tau: float) -> "Modes":
        """This distribution times `exp(tau a)`, normalized: again a mixture, with other means and weights."""
        return Modes(th.softmax(self.weights.log() + tau * self.means, 0), self.means + tau * self.std**2, self.std)

    def density(self, actions: th.Tensor) -> th.Tensor:
        """`(N,) -> (N,)`"""
        modes = th.exp(-((actions[:, None] - self.means) ** 2) / (2 * self.std**2)) / (self.std * math.sqrt(2 * math.pi))
        return (self.weights * modes).sum(dim=1)

    def share_above_zero(self) -> float:
        """The probability of `a > 0`."""
        return float((self.weights * 0.5 * (1 + th.erf(self.means / (self.std * math.sqrt(2))))).sum())

    def velocity(self, x: th.Tensor, t: th.Tensor) -> th.Tensor:
        """The velocity field of this distribution: velocities of the modes, weighted by their posterior probability at `x`."""
        variance = (1 - t) ** 2 + t**2 * self.std**2
        of_modes = self.means + (t * self.std**2 - (1 - t)) / variance * (x - t * self.means)
        likelihoods = th.softmax(self.weights.log() - (x - t * self.means) ** 2 / (2 * variance), dim=1)
        return (likelihoods * of_modes).sum(dim=1, keepdim=True)


#: Behavior distributions and inverse temperatures `tau`. The value of an action is the action itself.
BEHAVIORS = {
    "modes that overlap": (Modes(th.tensor([0.7, 0.3]), th.tensor([-0.5, 0.5]), 0.3), 2.0),
    "modes far apart": (Modes(th.tensor([0.8, 0.2]), th.tensor([-0.5, 0.5]), 0.1), 4.0),
}


def learn(behavior: Modes, tau: float, n_steps: int, n_updates: int, batch_size: int = 512) -> Velocity:
    """
    Train a flow by adjoint matching.

    :param behavior: The behavior distribution, which is the initial flow
    :param tau: Inverse temperature
    :param n_steps: Steps of the flow
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
        return behavior.velocity(x, t) + correction

    for _ in range(n_updates):
        with th.no_grad():
            path = memoryless_path(velocity, behavior.velocity, th.randn(n_steps, batch_size, 1))
            terminal = th.full((batch_size, 1), -tau)  # minus tau times the derivative of Q, which is 1
            adjoints = lean_adjoint(behavior.velocity, path, terminal)
        optimizer.zero_grad()
        adjoint_matching_loss(control(velocity, behavior.velocity, path), adjoints).mean().backward()
        optimizer.step()
        schedule.step()
    return velocity


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 10, 20, 50], help="numbers of flow steps")
    parser.add_argument("--updates", type=int, default=1500)
    parser.add_argument("--file", default="tilted_distribution.png")
    arguments = parser.parse_args()

    columns, grid = arguments.steps, th.linspace(-1.5, 2, 700)
    figure, rows = plt.subplots(
        2, len(columns), figsize=(3 * len(columns), 5.5), squeeze=False, layout="constrained", sharex=True, sharey="row"
    )
    for all_axes, (name, (behavior, tau)) in zip(rows, BEHAVIORS.items(), strict=True):
        target = behavior.tilted(tau)
        print(f"{name}, P(a > 0): behavior {behavior.share_above_zero():.2f}, target {target.share_above_zero():.2f}")
        for axes, n_steps in zip(all_axes, columns, strict=True):
            velocity = learn(behavior, tau, n_steps, arguments.updates)
            with th.no_grad():
                actions = euler(velocity, th.randn(50_000, 1), n_steps)
            share = (actions > 0).float().mean().item()
            print(f"{n_steps:3d} steps: {share:.2f}, mean {actions.mean().item():.2f}", flush=True)
            axes.hist(actions[:, 0], bins=90, range=(-1.5, 2), density=True, color=SKY, label="QAM's samples")
            axes.plot(grid, behavior.density(grid), color=GRAY, linestyle="--", label="behavior")
            axes.plot(grid, target.density(grid), color=BLACK, label="target")
            axes.set(title=f"{n_steps} steps: P(a > 0) = {share:.2f}", xlabel="action")
            axes.label_outer()
        all_axes[0].set_ylabel(f"{name}\ntarget: P(a > 0) = {target.share_above_zero():.2f}\ndensity")
        # With few steps the modes are too narrow; their bars would flatten all curves.
        all_axes[0].set_ylim(0, 1.5 * float(target.density(grid).max()))
    figure.suptitle("bars that reach the top are cut", fontsize="small")
    figure.legend(*rows[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(arguments.file, dpi=110)


if __name__ == "__main__":
    main()
