"""
Train a robot arm to move a cube from logged data: FQL and behavior cloning, in a few minutes on a laptop.

Collect data with the scripted expert of OGBench's cube-single task (the arm moves the cube to random positions, with noisy
actions, and not to the goal of the task), train FQL offline on it, and compare FQL with behavior cloning. Print a table, and
write the table, a learning curve, the paths and the trained model.

    python examples/fql_cube_demo.py [--seed 0] [--folder runs/demo] [--quick]
"""

import argparse
import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv

from sb3_flow import FQL
from sb3_flow.common.environments import make_env
from sb3_flow.datasets import collect
from sb3_flow.plots.style import BLUE, GRAY, ORANGE, VERMILION

# Other packages warn in each process about a missing display and rounded bounds, which do not matter here.
os.environ.setdefault("PYTHONWARNINGS", "ignore")
warnings.simplefilter("ignore")

ENV_ID = "cube-single-singletask-task2-v0"
DATASET = "cube-single-noisy-v0"

#: Small networks, fast targets and a decaying learning rate, for minutes of training on two CPU cores. The published settings
#: are in `zoo_configs/fql.yml`.
SETTINGS: dict[str, Any] = dict(
    learning_rate=LinearSchedule(1e-3, 0.0, 1.0),
    tau=0.02,
    alpha=100.0,
    gamma=0.99,
    flow_steps=5,
    normalize_observations=True,
    policy_kwargs=dict(net_arch=[256, 256]),
)


def success_rate(policy: Any, envs: VecEnv, n_episodes: int, seed: int, deterministic: bool) -> float:
    """The fraction of successful episodes."""
    successes = []

    def note(local: dict[str, Any], _: dict[str, Any]) -> None:
        if local["done"]:
            successes.append(bool(local["info"]["is_success"]))

    envs.seed(seed)
    evaluate_policy(policy, envs, n_episodes, deterministic=deterministic, callback=note)
    return float(np.mean(successes))


def roll_out(policy: Any, seed: int) -> dict[str, np.ndarray]:
    """Run one episode: paths of gripper and cube, and the goal of the cube, in meters."""
    env = make_env(ENV_ID)
    observation, info = env.reset(seed=seed)
    goal = env.unwrapped._data.mocap_pos[0].copy()  # type: ignore[attr-defined]
    gripper, cube, done, state = [], [], False, None
    while not done:
        gripper.append(info["proprio/effector_pos"].copy())
        cube.append(info["privileged/block_0_pos"].copy())
        action, state = policy.predict(observation, state)
        observation, _, terminated, truncated, info = env.step(action)
        done = terminated or truncated
    env.close()
    return {"gripper": np.array(gripper), "cube": np.array(cube), "goal": goal}


def plot_learning_curve(folder: Path, behavior: float) -> None:
    """Plot success rates over offline updates, from EvalCallback's `evaluations.npz`, and that of the final BC policy."""
    evaluations = np.load(folder / "evaluations.npz")
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.plot(evaluations["timesteps"], evaluations["successes"].mean(axis=1), marker="o", label="FQL")
    axes.axhline(behavior, color="gray", linestyle="--", label="behavior cloning (BC flow)")
    axes.set(xlabel="offline updates", ylabel="success rate (sampled)", ylim=(-0.03, 1.03), title=ENV_ID)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(folder / "learning_curve.png", dpi=120)
    plt.close(figure)


def plot_paths(folder: Path, policies: dict[str, Any], seeds: range) -> None:
    """Plot paths of gripper and cube from above, for a few episodes of each policy."""
    figure, all_axes = plt.subplots(len(policies), 1, figsize=(8, 6), layout="constrained", sharex=True, sharey=True)
    for axes, (name, policy) in zip(all_axes, policies.items(), strict=True):
        for seed in seeds:
            path = roll_out(policy, seed)
            label = seed == seeds[0]  # one legend entry for all episodes
            axes.plot(*across(path["gripper"]), color=GRAY, alpha=0.5, lw=1, label="gripper" if label else None)
            axes.plot(*across(path["cube"]), color=BLUE, lw=2, label="cube" if label else None)
            axes.plot(*across(path["cube"][:1]), "s", color=ORANGE, ms=9, label="start of the cube" if label else None)
        axes.plot(*across(path["goal"][None]), "*", color=VERMILION, ms=16, label="goal of the cube")
        axes.set(title=f"{name}, {len(seeds)} episodes", ylabel="x [m]", aspect="equal")
        axes.grid(alpha=0.3)
    all_axes[-1].set_xlabel("y [m]")
    all_axes[0].legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    figure.savefig(folder / "paths.png", dpi=120)
    plt.close(figure)


def across(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the plot from above, with y to the right."""
    return positions[:, 1], positions[:, 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs/demo"))
    parser.add_argument("--transitions", type=int, default=100_000, help="number of transitions to collect")
    parser.add_argument("--updates", type=int, default=15_000, help="number of updates")
    parser.add_argument("--episodes", type=int, default=50, help="number of episodes to evaluate each policy")
    parser.add_argument("--quick", action="store_true", help="a minute: little data and training, to see it work")
    arguments = parser.parse_args()
    if arguments.quick:
        parser.set_defaults(transitions=10_000, updates=1_000, episodes=5, folder=Path("runs/quick_demo"))
        arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()

    print(f"1/3  Collecting {arguments.transitions:,} transitions of {DATASET} with the scripted expert")
    data = folder / f"{DATASET}.npz"
    if not data.exists():
        data = collect(DATASET, transitions=arguments.transitions, seed=arguments.seed, directory=folder)

    print(f"2/3  Training FQL offline for {arguments.updates:,} updates, with evaluations")
    envs = make_vec_env(lambda: make_env(ENV_ID), n_envs=2, vec_env_cls=SubprocVecEnv)
    every = max(arguments.updates // 5, 1)
    evaluation = EvalCallback(
        envs,
        n_eval_episodes=min(20, arguments.episodes),
        eval_freq=every,
        log_path=str(folder),
        deterministic=False,
        verbose=0,
    )
    model = FQL("FlowPolicy", ENV_ID, dataset=str(data), seed=arguments.seed, **SETTINGS)
    model.learn(arguments.updates, callback=evaluation, progress_bar=True)
    model.save(folder / "fql_cube")

    print(f"3/3  Evaluating both policies for {arguments.episodes} episodes each, sampled (as in papers) and deterministic")
    policies = {"FQL": model.policy, "behavior cloning (BC flow)": model.policy.with_sampler("bc_flow")}
    rates: dict[str, dict[str, float]] = {name: {} for name in policies}
    print(f"\n{'success rate':<30} {'sampled':>8} {'deterministic':>13}")
    for name, policy in policies.items():
        print(f"{name:<30}", end="", flush=True)
        for mode, width in (("sampled", 9), ("deterministic", 14)):
            seed = 1_000 + arguments.seed
            rates[name][mode] = success_rate(policy, envs, arguments.episodes, seed, deterministic=mode == "deterministic")
            print(f"{rates[name][mode]:>{width}.2f}", end="", flush=True)
        print()
    envs.close()
    results = {"seed": arguments.seed, "updates": arguments.updates, "episodes": arguments.episodes, "success_rate": rates}
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    plot_learning_curve(folder, rates["behavior cloning (BC flow)"]["sampled"])
    plot_paths(folder, policies, seeds=range(min(3, arguments.episodes)))
    minutes = (time.monotonic() - start) / 60
    print(f"\nDone in {minutes:.1f} minutes. Look at {folder / 'learning_curve.png'} and {folder / 'paths.png'}.")
    print(f"Use the policy: FQL.load({str(folder / 'fql_cube')!r})")
    if arguments.quick:
        print("With so few updates, policies hardly succeed. Without --quick, they are trained until they do.")


if __name__ == "__main__":
    main()
