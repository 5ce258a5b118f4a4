"""
Two goals, of which a random one is closed: SAC's Gaussian policy and the flows of FPMD-R and FPMD-M.

A policy that always moves to the same goal succeeds in at most half of the episodes, and so does any Gaussian policy. Train
all three algorithms, print how often each sampler moves to which goal, and its return, and plot the results. This takes a few
minutes for one seed.

    python examples/fpmd_two_goals.py [--seeds 0 1 2] [--file two_goals.png]
"""

import argparse
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch as th
from matplotlib.axes import Axes
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.policies import BasePolicy

from sb3_flow import FPMD
from sb3_flow.envs.two_goals import HALF_WIDTH, OPENING, goal_at, success_probability
from sb3_flow.plots.style import BLUE, GREEN, VERMILION

#: Many environments and a small buffer: the value of an action depends on the recent policy, and critics must not lag behind
#: it. With ReLU the critics learn this bimodal value in 300 updates, with Mish (FPMD's default) not in 1,200.
COMMON = {"learning_rate": 1e-3, "buffer_size": 4000, "learning_starts": 2000, "batch_size": 128, "tau": 0.02}
N_ENVS, NET_ARCH = 64, [128, 128]
#: Only mirror descent: one particle, because the best of several is always at one of the two goals; no sampling with half of
#: the noise, because this increases the more frequent mode; and constant exploration noise (alpha stays at the published 5),
#: which reaches from one goal to the other. The weights select the good actions.
FLOW = {
    "particles": 1,
    "init_noise_scale": 1.0,
    "weight_mode": "temp",
    "temperature": 0.35,
    "reward_scale": 1.0,
    "alpha": 5.0,
    "target_entropy_scale": -0.725,
    "policy_delay": 1,
    "policy_learning_rate": 5e-4,
    "final_policy_learning_rate": 1e-4,
}
VARIANTS = {
    "FPMD-R": {"flow": "rectified", "flow_steps": 10},
    "FPMD-M": {"flow": "mean", "equal_time_probability": 0.25},
}
SAMPLES = 10_000
#: Looks of paths to a goal and to the wall.
THIN: dict[str, Any] = {"linewidth": 0.8, "alpha": 0.6}
TO_GOAL: dict[str, Any] = {**THIN, "color": BLUE, "label": "attempts that reach a goal, open or closed"}
TO_WALL: dict[str, Any] = {**THIN, "color": VERMILION, "linestyle": "--", "label": "attempts at the wall"}


def train(name: str, seed: int, timesteps: int) -> BaseAlgorithm:
    """Train one of the three algorithms; all have networks of the same size."""
    env = make_vec_env("sb3_flow/TwoGoals-v0", n_envs=N_ENVS, seed=seed)
    if name == "SAC":
        return SAC("MlpPolicy", env, **COMMON, seed=seed, policy_kwargs={"net_arch": NET_ARCH}).learn(timesteps)
    policy_kwargs = {"net_arch": NET_ARCH, "activation": "relu"}
    model = FPMD("FlowPolicy", env, **COMMON, **FLOW, **VARIANTS[name], seed=seed, policy_kwargs=policy_kwargs)
    return model.learn(timesteps)


def samplers_of(name: str, model: BaseAlgorithm) -> dict[str, tuple[BasePolicy, bool]]:
    """The samplers of a model: policies, and whether they act deterministically."""
    policy = model.policy
    if name == "SAC":
        return {"SAC": (policy, False), "SAC, mean": (policy, True)}
    if name == "FPMD-R":
        return {"FPMD-R, one step": (policy, False), "FPMD-R, all steps": (policy.with_sampler("flow"), False)}
    return {"FPMD-M, one step": (policy, False)}


def sample(policy: BasePolicy, deterministic: bool) -> np.ndarray:
    """Sample actions, ``(SAMPLES,)``."""
    places, _ = policy.predict(np.ones((SAMPLES, 1), dtype=np.float32), deterministic=deterministic)
    return places[:, 0]


def shares(places: np.ndarray) -> tuple[float, float, float]:
    """Fractions of actions that lead to the left and to the right goal, and the resulting return."""
    goals = np.array([goal_at(place) for place in places])
    left, right = float(np.mean(goals < 0)), float(np.mean(goals > 0))
    return left, right, float(success_probability(left, right))


def draw(histogram: Axes, scene: Axes, name: str, places: np.ndarray) -> None:
    """Plot the distribution of the actions, and paths of the first of them."""
    left, right, success = shares(places)
    histogram.hist(places, bins=81, range=(-1, 1), density=True, color=BLUE)
    text = f"left {left:.2f}, right {right:.2f}, wall {1 - left - right:.2f}"
    histogram.set(title=f"{name}\n{text}\nsuccess {success:.2f}", xlim=(-1.05, 1.05), xlabel="action (position at the wall)")
    for sign in (-1, 1):
        histogram.axvspan(sign * OPENING - HALF_WIDTH, sign * OPENING + HALF_WIDTH, color="0.85", label="openings", zorder=0)
        scene.add_patch(plt.Circle((sign * OPENING, 1.25), 0.15, color=GREEN, label="goals, one of them closed"))
    for place in places[:40]:
        end = 1.25 if goal_at(place) else 1.0
        scene.plot([0, end * place], [0, end], **(TO_GOAL if goal_at(place) else TO_WALL))
    edges = [-1.05, -OPENING - HALF_WIDTH, -OPENING + HALF_WIDTH, OPENING - HALF_WIDTH, OPENING + HALF_WIDTH, 1.05]
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        scene.plot([start, end], [1, 1], color="black", linewidth=4, solid_capstyle="butt", label="wall")
    scene.plot(0, 0, "o", color="black", label="start")
    scene.set(xlim=(-1.05, 1.05), ylim=(-0.1, 1.45), xlabel="x", ylabel="y")
    scene.label_outer()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="the first one is drawn")
    parser.add_argument("--timesteps", type=int, default=160_000)
    parser.add_argument("--file", default="two_goals.png")
    arguments = parser.parse_args()
    th.set_num_threads(1)  # faster for small networks

    print(f"Best possible: {success_probability(0.5, 0.5):.2f}; best Gaussian: {success_probability(1, 0):.2f}")
    print(f"{'':<20}{'seed':>6}{'left':>8}{'right':>8}{'wall':>8}{'success':>10}")
    drawn: dict[str, np.ndarray] = {}
    for seed in arguments.seeds:
        for name in ("SAC", "FPMD-R", "FPMD-M"):
            model = train(name, seed, arguments.timesteps)
            for way, (policy, deterministic) in samplers_of(name, model).items():
                places = sample(policy, deterministic)
                left, right, success = shares(places)
                wall = 1 - left - right
                print(f"{way:<20}{seed:>6}{left:>8.2f}{right:>8.2f}{wall:>8.2f}{success:>10.2f}", flush=True)
                if not deterministic:
                    drawn.setdefault(way, places)

    figure, axes = plt.subplots(2, len(drawn), figsize=(2.9 * len(drawn), 6), squeeze=False, layout="constrained")
    for histogram, scene, (way, places) in zip(*axes, drawn.items(), strict=True):
        draw(histogram, scene, way, places)
    axes[0, 0].set_ylabel("density")
    entries = {label: part for panel in axes.flat for part, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=3)
    figure.savefig(arguments.file, dpi=110)


if __name__ == "__main__":
    main()
