"""
Why FQL may miss the goal of a maze: values and actions around it, and the positions in the data.

Train FQL as `examples/fql_maze_demo.py --seed 1` does, and draw the values of its actions in the whole maze and in the goal's
cell, its mean actions, the positions in the data, and failed episodes. Takes two minutes.

    python examples/maze_values.py [--seed 1] [--folder runs/maze_values] [--episodes 12]
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch as th
from fql_maze_demo import DATASET, ENV_ID, SETTINGS, draw_walls, walk
from matplotlib.axes import Axes

from sb3_flow import FQL
from sb3_flow.common.environments import make_env
from sb3_flow.datasets import collect
from sb3_flow.plots.style import BLUE, ORANGE, VERMILION

#: Noise samples for each mean.
SAMPLES = 32


@th.no_grad()
def means(model: FQL, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean value and mean action of the policy at positions, ``(n, 2)``: ``(n,)`` and ``(n, 2)``."""
    policy = model.policy
    observations = th.as_tensor(points, dtype=th.float32).repeat_interleave(SAMPLES, dim=0)
    actions = policy.act_one_step(observations, th.randn(len(observations), policy.action_dim)).clamp(-1, 1)
    values = policy.q_values(policy.critic, observations, actions).mean(dim=0)
    return values.view(-1, SAMPLES).mean(dim=1).numpy(), actions.view(-1, SAMPLES, 2).mean(dim=1).numpy()


def grid(low: np.ndarray, high: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of a square grid, ``(n, n)`` each."""
    x, y = np.meshgrid(np.linspace(low[0], high[0], n), np.linspace(low[1], high[1], n))
    return x, y


def draw_values(axes: Axes, model: FQL, low: np.ndarray, high: np.ndarray, n: int) -> Any:
    """Color a square by the values of the policy. Values above 0 are impossible: the reward of each step is -1."""
    x, y = grid(low, high, n)
    values, _ = means(model, np.stack([x.ravel(), y.ravel()], axis=1))
    bound = max(abs(values.min()), values.max())
    shown = axes.pcolormesh(x, y, values.reshape(x.shape), cmap="PuOr", vmin=-bound, vmax=bound, shading="nearest")
    axes.contour(x, y, values.reshape(x.shape), levels=[0], colors="black", linewidths=1)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal", xticks=[], yticks=[])
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("runs/maze_values"), help="a model that is there is used")
    parser.add_argument("--transitions", type=int, default=100_000, help="number of transitions to collect")
    parser.add_argument("--updates", type=int, default=4_000, help="number of updates")
    parser.add_argument("--episodes", type=int, default=12)
    arguments = parser.parse_args()
    file, saved = arguments.folder / f"{DATASET}.npz", arguments.folder / "fql_maze.zip"
    if not file.exists():
        collect(DATASET, transitions=arguments.transitions, seed=arguments.seed, directory=arguments.folder)
    if not saved.exists():
        trained = FQL("FlowPolicy", ENV_ID, dataset=str(file), seed=arguments.seed, **SETTINGS)
        trained.learn(arguments.updates, progress_bar=True).save(saved)
    model = FQL.load(saved, device="cpu")
    data = np.load(file)["observations"][:, :2]
    env = make_env(ENV_ID)
    maze: Any = env.unwrapped
    walks = [walk(model.policy, env, seed) for seed in range(arguments.episodes)]
    goal, side = np.array(maze.cur_goal_xy), maze._maze_unit
    rows, columns = maze.maze_map.shape
    corners = np.array([maze.ij_to_xy((0, 0)), maze.ij_to_xy((rows - 1, columns - 1))])

    figure, (whole, cell) = plt.subplots(1, 2, figsize=(11.5, 4.6), layout="constrained")
    shown = draw_values(whole, model, corners.min(axis=0), corners.max(axis=0), 60)
    draw_walls(whole, maze)
    whole.set_title("Values of the policy's actions")
    figure.colorbar(shown, ax=whole, shrink=0.8, label="Q; the line is 0, the largest possible value")

    draw_values(cell, model, goal - side / 2, goal + side / 2, 60)
    cell.plot(*data.T, ".", color="black", ms=2, alpha=0.35, label="positions in the data")
    x, y = grid(goal - 1.8, goal + 1.4, 9)
    _, actions = means(model, np.stack([x.ravel(), y.ravel()], axis=1))
    cell.quiver(x.ravel(), y.ravel(), *actions.T, color=BLUE, scale=18, width=0.005, label="mean action")
    cell.add_patch(plt.Circle(goal, maze._goal_tol, fill=False, color=VERMILION, lw=2, label="goal"))  # type: ignore[attr-defined]
    failed = [path for path, success in walks if not success]
    for number, path in enumerate(failed[:4]):
        cell.plot(*path.T, color=ORANGE, lw=1.5, label=None if number else "failed episodes")
    cell.set_title(f"The goal's cell; {len(failed)} of {len(walks)} episodes failed")
    cell.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    picture = arguments.folder / "values.png"
    figure.savefig(picture, dpi=100)
    print(f"Wrote {picture}: {len(failed)} of {len(walks)} episodes failed.")


if __name__ == "__main__":
    main()
