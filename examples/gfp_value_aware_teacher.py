"""
The effect of guidance in GFP: data with four equally frequent modes, of which one is good.

Train GFP with and without guidance on one-step episodes, and plot the data and the actions of teacher and actor.

    python examples/gfp_value_aware_teacher.py [--updates 1500] [--file value_aware_teacher.png]
"""

import argparse
from typing import Any

import gymnasium as gym
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.utils import LinearSchedule

from sb3_flow import GFP
from sb3_flow.plots.style import VALUES

#: The four modes and their rewards. The second best mode has a similar value as the best, but is far from it.
WAYS = np.array([[0.6, 0.6], [-0.6, 0.6], [-0.6, -0.6], [0.6, -0.6]])
REWARDS = np.array([1.0, 0.0, 0.5, 0.0])
SPREAD = 0.12


class FourWays(gym.Env[np.ndarray, np.ndarray]):
    """One step: the reward is that of the closest mode, reduced by the distance to it."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), float(reward_of(action[None])[0]), True, False, {}


def reward_of(actions: np.ndarray) -> np.ndarray:
    """Reward of the closest mode, minus the distance to it."""
    distances = np.linalg.norm(actions[:, None] - WAYS, axis=2)
    rewards: np.ndarray = REWARDS[distances.argmin(axis=1)] - distances.min(axis=1)
    return rewards


def make_data(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Episodes of one step, with equally frequent modes."""
    rng = np.random.default_rng(seed)
    actions = np.clip(WAYS[rng.integers(len(WAYS), size=n)] + SPREAD * rng.normal(size=(n, 2)), -1, 1).astype(np.float32)
    return {
        "observations": np.zeros((n, 1), np.float32),
        "actions": actions,
        "rewards": reward_of(actions),
        "terminations": np.ones(n, dtype=bool),
        "truncations": np.zeros(n, dtype=bool),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=1500)
    parser.add_argument("--file", default="value_aware_teacher.png")
    arguments = parser.parse_args()

    data = make_data(4000)
    names = {"no guidance (eta = 0)": 0.0, "guidance (eta = 0.05)": 0.05}
    figure, ((of_data, *first_row), (scale, *second_row)) = plt.subplots(2, 3, figsize=(10, 7), layout="constrained")
    panels = {"data": of_data}
    drawn = {"data": data["actions"][:2000]}
    for (name, eta), row in zip(names.items(), (first_row, second_row), strict=True):
        model = GFP(
            "FlowPolicy",
            FourWays(),
            dataset=data,
            learning_rate=LinearSchedule(2e-3, 1e-4, 1.0),
            tau=0.02,
            alpha=1.0,
            eta=eta,
            policy_kwargs={"net_arch": [64, 64]},
            seed=0,
            device="cpu",
        )
        model.learn(arguments.updates, progress_bar=False)
        observations = np.zeros((2000, 1), np.float32)
        for panel, sampler, title in zip(row, ("vabc", "one_step"), ("teacher", "actor"), strict=True):
            panels[f"{title}, {name}"] = panel
            drawn[f"{title}, {name}"] = model.policy.with_sampler(sampler).predict(observations)[0]
    for title, actions in drawn.items():
        rewards = reward_of(actions)
        points = panels[title].scatter(*actions.T, c=rewards, s=5, cmap=VALUES, vmin=-0.4, vmax=1.0)
        panels[title].set(title=f"{title}\nmean reward {rewards.mean():.2f}", aspect="equal")
        panels[title].set(xlabel="action 1", ylabel="action 2", xlim=(-1.1, 1.1), ylim=(-1.1, 1.1))
        print(f"{title}: {rewards.mean():.2f}")
    figure.colorbar(points, ax=scale, location="top", fraction=0.1, label="color: reward of an action")
    scale.axis("off")
    figure.savefig(arguments.file, dpi=110)


if __name__ == "__main__":
    main()
