"""
Values of intermediate points of the flow in reversal Q-learning (RQL), and the actions that it learns from them.

One-step episodes with one action, and data with two modes, of which the better one is rarer. The first panel has the value
``V(s, x, f)`` of intermediate points, and actions of the data that were followed back along the flow. The second panel has
``V`` along these paths: it should be the reward of the action at all times. The third panel has the actions of the policy.

    python examples/rql_reversal.py [--updates 2000] [--file reversal.png]
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

from sb3_flow import RQL
from sb3_flow.plots.style import BLACK, BLUE, ORANGE, VALUES
from sb3_flow.rql.reversal import reverse

#: The two modes, their frequencies in the data, and their rewards.
WAYS, SHARES, REWARDS = np.array([-0.5, 0.5]), [0.7, 0.3], np.array([0.0, 1.0])
SPREAD = 0.12
FLOW_STEPS = 10


class TwoWays(gym.Env[np.ndarray, np.ndarray]):
    """One step: the reward is that of the closest mode, reduced by the distance to it."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), float(reward_of(action)[0]), True, False, {}


def reward_of(actions: np.ndarray) -> np.ndarray:
    """Reward of the closest mode, minus four times the squared distance to it."""
    way = (actions > 0).astype(int)
    rewards: np.ndarray = REWARDS[way] - 4 * np.square(actions - WAYS[way])
    return rewards


def make_data(n: int, seed: int) -> dict[str, np.ndarray]:
    """Episodes of one step."""
    rng = np.random.default_rng(seed)
    actions = np.clip(WAYS[rng.choice(2, size=n, p=SHARES)] + SPREAD * rng.normal(size=n), -1, 1)
    rewards = reward_of(actions) + 0.1 * rng.normal(size=n)
    return {"observations": np.zeros((n, 1)), "actions": actions[:, None], "rewards": rewards, "terminations": np.ones(n)}


def train(data: dict[str, np.ndarray], alpha: float, updates: int, seed: int) -> RQL:
    """A small model."""
    model = RQL(
        "FlowPolicy",
        TwoWays(),
        dataset=data,
        alpha=alpha,
        flow_steps=FLOW_STEPS,
        learning_rate=lambda remaining: 3e-3 * remaining,
        tau=0.02,
        ema=0.99,
        policy_kwargs={"net_arch": [64, 64], "n_critics": 2},
        offline_log_interval=updates,
        seed=seed,
        device="cpu",
    )
    return model.learn(updates)


def value(model: RQL, x: np.ndarray, f: np.ndarray) -> np.ndarray:
    """Mean of the critics' values of intermediate points ``x`` at times ``f``, both ``(n,)``."""
    points, times = (th.as_tensor(part, dtype=th.float32)[:, None] for part in (x, f))
    with th.no_grad():
        return model.policy.value(model.policy.critic, th.zeros(len(x), 1))(points, times).mean(dim=0).numpy()  # type: ignore[no-any-return]


def reversed_paths(model: RQL, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points and times of actions followed back by 0, 0.1, ... and 1, ``(11, n)`` each."""
    finished, points, times = th.as_tensor(actions, dtype=th.float32)[:, None], [], []
    with th.no_grad():
        velocity = model.policy.velocity(model.policy.actor, th.zeros(len(actions), 1))
        for d in np.linspace(0, 1, 11):
            x, f = reverse(velocity, finished, th.full_like(finished, float(d)), FLOW_STEPS)
            points.append(x[:, 0].numpy())
            times.append(f[:, 0].numpy())
    return np.stack(points), np.stack(times)


def samples(model: RQL, n: int) -> np.ndarray:
    """Actions of the policy."""
    noise = th.randn(n, 1, generator=th.Generator().manual_seed(0))
    with th.no_grad():
        return model.policy.act(th.zeros(n, 1), noise)[:, 0].numpy()  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=2000, help="updates of each model")
    parser.add_argument("--alpha", type=float, default=0.5, help="weight of behavior cloning")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--file", default="reversal.png")
    arguments = parser.parse_args()
    data = make_data(10_000, arguments.seed)
    clone = train(data, 100.0, arguments.updates, arguments.seed)
    model = train(data, arguments.alpha, arguments.updates, arguments.seed)

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    f, x = np.meshgrid(np.linspace(0, 1, 101), np.linspace(-2.5, 2.5, 201))
    values = value(model, x.ravel(), f.ravel()).reshape(x.shape)
    image = left.pcolormesh(f, x, values, cmap=VALUES, vmin=-0.5, vmax=1, rasterized=True)
    figure.colorbar(image, ax=left, label="V(s, x, f)", extend="min")
    chosen = np.quantile(data["actions"][:, 0], (np.arange(20) + 0.5) / 20)
    points, times = reversed_paths(model, chosen)
    for path, time in zip(points.T, times.T, strict=True):
        left.plot(time, path, color="white", linewidth=0.9)
    left.plot([], [], color="white", label="reversed paths of the data's actions")
    left.legend(loc="lower right", fontsize=8, facecolor="dimgray", labelcolor="white")
    left.set(title="values of intermediate points", xlabel="time f (0: noise, 1: action)", ylabel="intermediate point x")
    left.set(xlim=(0, 1), ylim=(-2.5, 2.5))

    along = value(model, points.ravel(), times.ravel()).reshape(points.shape)
    for i, action in enumerate(chosen):
        color, style = (BLUE, "-") if action > 0 else (ORANGE, "--")
        middle.plot(times[:, i], along[:, i], color=color, linestyle=style, linewidth=0.9)
    middle.scatter(np.ones(len(chosen)), reward_of(chosen), s=14, color=BLACK, zorder=3, clip_on=False)
    middle.plot([], [], BLUE, label="V along paths to the better mode")
    middle.plot([], [], ORANGE, linestyle="--", label="V along paths to the other mode")
    middle.scatter([], [], s=14, color=BLACK, label="reward of the action")
    middle.legend(loc="center left", fontsize=8)
    middle.set(title="values along reversed paths", xlabel="time f (0: noise, 1: action)", ylabel="V(s, x, f)", xlim=(0, 1))

    bins = np.linspace(-1, 1, 61)
    shown = {"data": data["actions"][:, 0], "RQL, alpha 100": samples(clone, 10_000)}
    shown[f"RQL, alpha {arguments.alpha:g}"] = samples(model, 10_000)
    for (name, actions), color, style in zip(shown.items(), (BLACK, ORANGE, BLUE), (":", "--", "-"), strict=True):
        right.hist(actions, bins, density=True, histtype="step", color=color, linestyle=style, linewidth=1.5, label=name)
        print(f"{name}: {(actions > 0).mean():.0%} at the better mode, mean reward {reward_of(actions).mean():.2f}")
    right.legend(loc="upper right", fontsize=8)
    right.set(title="actions", xlabel="action", ylabel="density")
    figure.savefig(arguments.file, dpi=110)


if __name__ == "__main__":
    main()
