"""
SWFP on one-step episodes: four blocks move the actions of a BC flow toward higher reward, each within its radius.

Train a BC flow, improve it online, and plot the actions before and after each block: at the start of improvement, before the
first absorption, and at the end.

    python examples/swfp_cascade.py [--online-steps 3000] [--file cascade.png]
"""

import argparse
from typing import Any

import gymnasium as gym
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch as th
from gymnasium import spaces

from sb3_flow import SWFP
from sb3_flow.plots.style import BLUE, GRAY, ORANGE, VERMILION

#: Mean and standard deviation of the data, and the best action.
START, SPREAD, GOAL = np.array([-0.4, -0.3]), 0.2, np.array([0.5, 0.4])


class Hill(gym.Env[np.ndarray, np.ndarray]):
    """One step: the reward is minus the squared distance to the best action."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), float(reward_of(action)), True, False, {}


def reward_of(actions: np.ndarray) -> np.ndarray:
    """Minus the squared distance to the best action."""
    rewards: np.ndarray = -np.square(actions - GOAL).sum(axis=-1)
    return rewards


def make_data(n: int) -> dict[str, np.ndarray]:
    """Episodes of one step, at some distance from the best action."""
    actions = np.clip(START + SPREAD * np.random.default_rng(0).normal(size=(n, 2)), -1, 1).astype(np.float32)
    return {
        "observations": np.zeros((n, 1), np.float32),
        "actions": actions,
        "rewards": reward_of(actions),
        "terminations": np.ones(n, dtype=bool),
        "truncations": np.zeros(n, dtype=bool),
    }


def draw(axes: Any, model: SWFP, title: str) -> None:
    """Plot actions of the base and of all blocks, and the way of some of them from block to block, over the reward."""
    grid = np.linspace(-1, 1, 101)
    rewards = reward_of(np.stack(np.meshgrid(grid, grid), axis=-1))
    axes.contour(grid, grid, rewards, levels=12, colors="0.8", linewidths=0.6, linestyles="solid")
    axes.plot([], [], color="0.8", linewidth=0.8, label="equal reward")
    with th.no_grad():
        noise = th.randn(400, model.policy.chain_dim, generator=th.Generator().manual_seed(0))
        chain = model.policy.chain(th.zeros(400, 1), noise)
    clouds = np.stack([*chain.starts.numpy(), chain.actions.numpy()])
    axes.scatter(*clouds[0].T, s=8, facecolor="white", edgecolor=ORANGE, linewidth=0.7, zorder=1, label="base")
    # New blocks do not move actions, and would hide the base.
    if np.abs(clouds[-1] - clouds[0]).max() > 1e-6:
        axes.plot(*clouds[:, :60].transpose(2, 0, 1), color=GRAY, linewidth=0.6, marker=".", markersize=2, zorder=2)
        axes.plot([], [], color=GRAY, linewidth=0.8, marker=".", label="from block to block (60 actions)")
        axes.scatter(*clouds[-1].T, s=5, color=BLUE, zorder=3, label="after the last block")
    axes.plot(*GOAL, "*", color="none", markersize=16, markeredgecolor=VERMILION, label="best action", zorder=4)
    reward = reward_of(chain.actions.numpy()).mean()
    axes.set(title=f"{title}\nmean reward {reward:.2f}", aspect="equal", xlim=(-1.05, 1.05), ylim=(-1.05, 1.05))
    axes.set(xlabel="action 1", ylabel="action 2")
    axes.label_outer()
    print(f"{title}: mean reward {reward:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--offline-steps", type=int, default=2000)
    parser.add_argument("--online-steps", type=int, default=3000)
    parser.add_argument("--file", default="cascade.png")
    arguments = parser.parse_args()

    period = max(arguments.online_steps // 6, 2)
    model = SWFP(
        "FlowPolicy",
        Hill(),
        learning_rate=1e-3,
        dataset=make_data(4000),
        offline_steps=arguments.offline_steps,
        bc_steps=arguments.offline_steps // 2,
        critic_steps=arguments.offline_steps // 2,
        learning_starts=0,
        tau=0.02,
        radius=0.06,
        absorb_interval=period,
        absorb_steps=period // 2,
        policy_kwargs={"net_arch": [64, 64], "block_arch": [32, 32]},
        seed=0,
        device="cpu",
    )
    figure, (first, second, third) = plt.subplots(1, 3, figsize=(11, 4.4), layout="constrained")
    model.learn(arguments.offline_steps)
    draw(first, model, "BC flow")
    model.learn(period - 1, reset_num_timesteps=False)
    draw(second, model, "before the first absorption")
    model.learn(arguments.online_steps - period + 1, reset_num_timesteps=False)
    draw(third, model, f"after {arguments.online_steps:,} steps online")
    figure.legend(*second.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    figure.savefig(arguments.file, dpi=110)


if __name__ == "__main__":
    main()
