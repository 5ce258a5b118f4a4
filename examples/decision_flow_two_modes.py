"""
Decision Flow on data with two modes, of which the better one is rarer.

Train both variants on one-step episodes, and plot the flow after fitting the data and after improvement: final actions, and
for some of them the path from noise in ten inner steps. DF-dir has one flow, which is first fitted (large weight of flow
matching) and then improved (small weight). In DF-div the fitted flow is the BC flow, which is trained together with the
improved flow.

    python examples/decision_flow_two_modes.py [--updates 1500] [--file two_modes.png]
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

from sb3_flow import DecisionFlow
from sb3_flow.common.policies import Network
from sb3_flow.plots.style import BLUE, GRAY, ORANGE

#: The two modes, their frequencies in the data, and their rewards.
WAYS, SHARES, REWARDS = np.array([[-0.5, 0.0], [0.5, 0.0]]), [0.7, 0.3], np.array([0.0, 1.0])
SPREAD = 0.12
FLOW_STEPS = 10


class TwoWays(gym.Env[np.ndarray, np.ndarray]):
    """One step: the reward is that of the closest mode, reduced by the distance to it."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), float(reward_of(action[None])[0]), True, False, {}


def nearer_way(actions: np.ndarray) -> np.ndarray:
    """Index of the closest mode for each action."""
    nearest: np.ndarray = np.linalg.norm(actions[:, None] - WAYS, axis=2).argmin(axis=1)
    return nearest


def reward_of(actions: np.ndarray) -> np.ndarray:
    """Reward of the closest mode, minus four times the squared distance to it."""
    way = nearer_way(actions)
    rewards: np.ndarray = REWARDS[way] - 4 * np.square(actions - WAYS[way]).sum(axis=1)
    return rewards


def make_data(n: int, seed: int) -> dict[str, np.ndarray]:
    """Episodes of one step."""
    rng = np.random.default_rng(seed)
    way = rng.choice(2, size=n, p=SHARES)
    actions = np.clip(WAYS[way] + SPREAD * rng.normal(size=(n, 2)), -1, 1)
    return {
        "observations": np.zeros((n, 1)),
        "actions": actions,
        "rewards": reward_of(actions) + 0.1 * rng.normal(size=n),
        "terminations": np.ones(n),
    }


def make_model(data: dict[str, np.ndarray], updates: int, seed: int, **kwargs: Any) -> DecisionFlow:
    return DecisionFlow(
        "FlowPolicy",
        TwoWays(),
        dataset=data,
        learning_rate=3e-3,
        tau=0.02,
        flow_steps=FLOW_STEPS,
        policy_kwargs={"net_arch": [64, 64], "encode_time_dim": 0},
        offline_log_interval=updates,
        seed=seed,
        device="cpu",
        **kwargs,
    )


def paths(model: DecisionFlow, network: Network, n: int) -> np.ndarray:
    """The inner states from noise to action, ``(FLOW_STEPS + 1, n, 2)``."""
    x, states = th.randn(n, 2, generator=th.Generator().manual_seed(0)), []
    with th.no_grad():
        velocity = model.policy.velocity(network, th.zeros(n, 1))
        for k in range(FLOW_STEPS):
            states.append(x)
            x = x + velocity(x, th.full((n, 1), k / FLOW_STEPS)) / FLOW_STEPS
    return th.stack([*states, x]).numpy()


def draw(panel: Any, title: str, actions: np.ndarray, ways: np.ndarray | None = None) -> None:
    """Plot actions, with a marker for each mode, and the paths of some of them from noise."""
    better = nearer_way(actions).astype(bool)
    if ways is not None:
        for path in ways.transpose(1, 0, 2)[:60]:
            panel.plot(*path.T, color=GRAY, linewidth=0.4, alpha=0.6, zorder=1)
        panel.plot([], [], color=GRAY, linewidth=0.8, label="paths from noise, in ten inner steps")
        panel.scatter(*ways[0, :60].T, s=6, facecolor="white", edgecolor=GRAY, zorder=1, label="noise")
    panel.scatter(*actions[~better].T, s=5, marker="v", color=ORANGE, zorder=2, label="actions at the worse mode")
    panel.scatter(*actions[better].T, s=5, color=BLUE, zorder=2, label="actions at the better mode")
    panel.set(title=f"{title}\n{better.mean():.0%} at the better mode", xlim=(-2, 2), ylim=(-2, 2), aspect="equal")
    panel.set(xlabel="action 1", ylabel="action 2")
    panel.add_patch(plt.Rectangle((-1, -1), 2, 2, fill=False, linestyle=":", label="bounds of actions"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=1500, help="updates of each variant")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--file", default="two_modes.png")
    arguments = parser.parse_args()
    data, updates = make_data(10_000, arguments.seed), arguments.updates

    first = make_model(data, updates, arguments.seed, fm_coef=100.0)
    first.learn(updates - updates // 3)
    drawn = {"DF-dir": [paths(first, first.policy.flow, 1000)]}
    first.fm_coef = 0.2
    first.learn(updates // 3, reset_num_timesteps=False)
    drawn["DF-dir"].append(paths(first, first.policy.flow, 1000))
    second = make_model(data, updates, arguments.seed, variant="div", beta=0.5)
    second.learn(updates)
    drawn["DF-div"] = [paths(second, network, 1000) for network in (second.policy.bc_flow, second.policy.flow)]

    figure, ((of_data, *first_row), (explained, *second_row)) = plt.subplots(2, 3, figsize=(10.5, 7), layout="constrained")
    draw(of_data, "data", data["actions"][:1000])
    for row, (variant, flows) in zip((first_row, second_row), drawn.items(), strict=True):
        for panel, name, ways in zip(row, ("fitted", "improved"), flows, strict=True):
            title, actions = f"{variant}, {name}", ways[-1].clip(-1, 1)
            draw(panel, title, actions, ways)
            print(f"{title}: {nearer_way(actions).mean():.2f}")
    explained.legend(*first_row[0].get_legend_handles_labels(), loc="center", markerscale=2)
    explained.axis("off")
    figure.savefig(arguments.file, dpi=110)


if __name__ == "__main__":
    main()
