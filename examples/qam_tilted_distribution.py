"""
What adjoint matching does to a distribution, in one dimension where the answer is known.

The behaviour has two modes, and the better one is the rarer. QAM moves the behaviour's flow so that its samples follow
`behaviour(a) exp(tau Q(a))`; with few steps it falls short of that, the more so, the further apart the modes are. Draws what
it reaches with several numbers of steps.

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
from sb3_flow.qam.adjoint import adjoint_matching_loss, control, lean_adjoint, memoryless_path


@dataclass
class Modes:
    """A mixture of two Gaussians with the same standard deviation."""

    weights: th.Tensor
    means: th.Tensor
    std: float

    def tilted(self, tau: float) -> "Modes":
        """This times `exp(tau a)`, normalised: again two modes, moved and weighted anew."""
        return Modes(th.softmax(self.weights.log() + tau * self.means, 0), self.means + tau * self.std**2, self.std)

    def density(self, actions: th.Tensor) -> th.Tensor:
        """`(N,) -> (N,)`"""
        modes = th.exp(-((actions[:, None] - self.means) ** 2) / (2 * self.std**2)) / (self.std * math.sqrt(2 * math.pi))
        return (self.weights * modes).sum(dim=1)

    def share_above_zero(self) -> float:
        """The probability of `a > 0`."""
        return float((self.weights * 0.5 * (1 + th.erf(self.means / (self.std * math.sqrt(2))))).sum())

    def velocity(self, x: th.Tensor, t: th.Tensor) -> th.Tensor:
        """The field whose flow samples this: each mode's own velocity, by how likely the mode is at `x`."""
        variance = (1 - t) ** 2 + t**2 * self.std**2
        of_modes = self.means + (t * self.std**2 - (1 - t)) / variance * (x - t * self.means)
        likelihoods = th.softmax(self.weights.log() - (x - t * self.means) ** 2 / (2 * variance), dim=1)
        return (likelihoods * of_modes).sum(dim=1, keepdim=True)


#: The behaviours, each with the inverse temperature `tau` that it is tilted by. The value of an action is the action.
BEHAVIOURS = {
    "modes that overlap": (Modes(th.tensor([0.7, 0.3]), th.tensor([-0.5, 0.5]), 0.3), 2.0),
    "modes far apart": (Modes(th.tensor([0.8, 0.2]), th.tensor([-0.5, 0.5]), 0.1), 4.0),
}


def learn(behaviour: Modes, tau: float, n_steps: int, n_updates: int, batch_size: int = 512) -> Velocity:
    """
    The flow that adjoint matching reaches.

    :param behaviour: What it starts from, and stays near
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
        return behaviour.velocity(x, t) + correction

    for _ in range(n_updates):
        with th.no_grad():
            path = memoryless_path(velocity, behaviour.velocity, th.randn(n_steps, batch_size, 1))
            terminal = th.full((batch_size, 1), -tau)  # minus tau times the slope of Q, which is 1
            adjoints = lean_adjoint(behaviour.velocity, path, terminal)
        optimizer.zero_grad()
        adjoint_matching_loss(control(velocity, behaviour.velocity, path), adjoints).mean().backward()
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
    for all_axes, (name, (behaviour, tau)) in zip(rows, BEHAVIOURS.items(), strict=True):
        target = behaviour.tilted(tau)
        print(f"{name}, P(a > 0): behaviour {behaviour.share_above_zero():.2f}, target {target.share_above_zero():.2f}")
        for axes, n_steps in zip(all_axes, columns, strict=True):
            velocity = learn(behaviour, tau, n_steps, arguments.updates)
            with th.no_grad():
                actions = euler(velocity, th.randn(50_000, 1), n_steps)
            share = (actions > 0).float().mean().item()
            print(f"{n_steps:3d} steps: {share:.2f}, mean {actions.mean().item():.2f}", flush=True)
            axes.hist(
                actions[:, 0], bins=90, range=(-1.5, 2), density=True, color="tab:blue", alpha=0.5, label="QAM's samples"
            )
            axes.plot(grid, behaviour.density(grid), color="gray", linestyle="--", label="behaviour")
            axes.plot(grid, target.density(grid), color="tab:red", label="target")
            axes.set(title=f"{n_steps} steps: P(a > 0) = {share:.2f}", xlabel="action")
        all_axes[0].set_ylabel(f"{name}\ntarget: P(a > 0) = {target.share_above_zero():.2f}")
    rows[0, 0].legend(fontsize="small")
    figure.savefig(arguments.file, dpi=110)


if __name__ == "__main__":
    main()
