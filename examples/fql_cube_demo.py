"""
Train a robot arm to move a cube from logged data: FQL and behavior cloning, in 8 to 14 minutes on a laptop.

Collect data with the scripted expert of OGBench's cube-single task (the arm moves the cube to random positions, with noisy
actions, and not to the goal of the task), train FQL offline on it, and compare FQL with behavior cloning. Print a table, and
write the table, a learning curve, the paths and the trained model.

    python examples/fql_cube_demo.py [--seed 0] [--folder runs/cube] [--quick]
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
from fql_maze_demo import LearningCurve, evaluate
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import SubprocVecEnv

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
    parser.add_argument("--folder", type=Path, default=Path("runs/cube"))
    parser.add_argument("--transitions", type=int, default=100_000, help="number of transitions to collect")
    parser.add_argument("--updates", type=int, default=15_000, help="number of updates")
    parser.add_argument("--episodes", type=int, default=50, help="number of episodes to evaluate each policy")
    parser.add_argument("--quick", action="store_true", help="a minute: little data and training, to see it work")
    arguments = parser.parse_args()
    if arguments.quick:
        parser.set_defaults(transitions=10_000, updates=1_000, episodes=5, folder=Path("runs/quick_cube"))
        arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()

    print(f"1/3  Collecting {arguments.transitions:,} transitions of {DATASET} with the scripted expert", flush=True)
    data = folder / f"{DATASET}.npz"
    if not data.exists():
        data = collect(DATASET, transitions=arguments.transitions, seed=arguments.seed, directory=folder)

    print(f"2/3  Training FQL offline for {arguments.updates:,} updates, with evaluations", flush=True)
    envs = make_vec_env(lambda: make_env(ENV_ID), n_envs=2, vec_env_cls=SubprocVecEnv)
    curve = LearningCurve(envs, max(arguments.updates // 5, 1), min(20, arguments.episodes))
    model = FQL("FlowPolicy", ENV_ID, dataset=str(data), seed=arguments.seed, **SETTINGS)
    model.learn(arguments.updates, callback=curve, progress_bar=True)
    model.save(folder / "fql_cube")

    print(f"3/3  Evaluating both policies for {arguments.episodes} episodes each, sampled (as in papers) and deterministic")
    policies, rates = evaluate(model, envs, arguments.episodes, 1_000 + arguments.seed)
    envs.close()
    results = {"seed": arguments.seed, "updates": arguments.updates, "episodes": arguments.episodes, "success_rate": rates}
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    curve.plot(folder / "learning_curve.png", ENV_ID, rates["behavior cloning (BC flow)"]["sampled"])
    plot_paths(folder, policies, seeds=range(min(3, arguments.episodes)))
    minutes = (time.monotonic() - start) / 60
    print(f"\nDone in {minutes:.1f} minutes. Look at {folder / 'learning_curve.png'} and {folder / 'paths.png'}.")
    print(f"Use the policy: FQL.load({str(folder / 'fql_cube')!r})")
    if arguments.quick:
        print("With so few updates, policies hardly succeed. Without --quick, they are trained until they do.")


if __name__ == "__main__":
    main()
