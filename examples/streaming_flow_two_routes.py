"""
Two routes through a maze: a streaming flow policy learns from demonstrations of both routes.

Collect the demonstrations (this needs OGBench, but no download), train, and plot demonstrations and learned trajectories.

    python examples/streaming_flow_two_routes.py [--episodes 200] [--updates 6000] [--file routes.png] [--stochastic]
"""

import argparse
import tempfile
from collections import Counter

import gymnasium as gym
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from stable_baselines3.common.env_util import make_vec_env

from sb3_flow import StreamingFlow
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.datasets import collect, load_dataset
from sb3_flow.plots.style import BLACK, BLUE, GREEN, ORANGE

ID = "sb3_flow/TwoRoutes-v0"
#: Color of the trajectories of each route; None: neither route.
COLORS = {"west": BLUE, "east": ORANGE, None: BLACK}


def train(data: OfflineDataset, updates: int, stochastic: bool) -> StreamingFlow:
    """Train a small network. A step is a fortieth of half the maze, and so is the initial width of the tube."""
    model = StreamingFlow(
        "FlowPolicy",
        gym.make(ID),
        dataset=data,
        learning_rate=1e-3,
        stochastic=stochastic,
        start_from=[0, 1],
        sigma_0=0.025,
        **({"sigma_1": 0.1, "k": 0.0} if stochastic else {}),
        normalize_observations=True,
        policy_kwargs={"net_arch": [256, 256, 256]},
        seed=0,
        device="cpu",
    )
    return model.learn(updates, progress_bar=True)


def walk(model: StreamingFlow, episodes: int) -> list[tuple[str | None, bool, np.ndarray]]:
    """Run episodes: route, success and trajectory of each."""
    env = make_vec_env(ID, n_envs=10, seed=0)
    observations, state, starts = env.reset(), None, np.ones(env.num_envs, bool)
    ways: list[list[np.ndarray]] = [[] for _ in range(env.num_envs)]
    walks: list[tuple[str | None, bool, np.ndarray]] = []
    while len(walks) < episodes:
        for way, observation in zip(ways, observations, strict=True):
            way.append(observation)
        actions, state = model.predict(observations, state, starts)
        observations, _, starts, infos = env.step(actions)
        for i in np.flatnonzero(starts):
            walks.append((infos[i]["route"], infos[i]["is_success"], np.array(ways[i])))
            ways[i] = []
    return walks[:episodes]


def draw(axes: plt.Axes, walks: list[tuple[str | None, bool, np.ndarray]], title: str) -> None:
    """Plot trajectories in the maze."""
    env = gym.make(ID).unwrapped
    for row, column in np.argwhere(env.maze.maze_map == 1):
        x, y = env.maze.ij_to_xy((row, column))
        axes.add_patch(plt.Rectangle((x - 2, y - 2), 4, 4, color="0.85"))
    for route, _, way in walks:
        axes.plot(*way.T, color=COLORS[route], linewidth=0.6, alpha=0.6, label=route or "neither route")
    axes.plot(*env.reset()[0], "ks", markersize=5, label="start")
    axes.add_patch(plt.Circle(tuple(env.maze.cur_goal_xy), 1, color=GREEN, alpha=0.5, label="goal"))
    axes.set(xlim=(-2, 18), ylim=(6, 22), aspect="equal", xlabel="x in m", ylabel="y in m", title=title)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=200, help="demonstrations, half of them for each route")
    parser.add_argument("--updates", type=int, default=6_000)
    parser.add_argument("--walks", type=int, default=100, help="evaluated episodes; 40 are plotted")
    parser.add_argument("--stochastic", action="store_true", help="the stochastic variant")
    parser.add_argument("--file", default="routes.png")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        path = collect("two-routes", episodes=arguments.episodes, directory=folder, progress=False)
        routes, data = np.load(path)["episode_route"], load_dataset(path)
    ends = np.flatnonzero(data.ends) + 1
    shown = [
        (("west", "east")[route], True, data.observations[start:end])
        for route, start, end in zip(routes, [0, *ends[:-1]], ends, strict=True)
    ]
    model = train(data, arguments.updates, arguments.stochastic)
    walks = walk(model, arguments.walks)
    counts = Counter(route for route, success, _ in walks if success)
    print(
        f"{sum(counts.values())} of {len(walks)} reach the goal: {counts['west']} by the west, {counts['east']} by the east."
    )

    figure, axes = plt.subplots(1, 2, figsize=(9, 4.5), layout="compressed")
    draw(axes[0], shown[:40], f"{min(len(shown), 40)} demonstrations")
    draw(axes[1], walks[:40], f"the policy: {counts['west']} west, {counts['east']} east of {len(walks)}")
    entries = {label: part for panel in axes for part, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    legend = figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=5)
    for line in legend.get_lines():
        line.set(linewidth=2, alpha=1)
    figure.savefig(arguments.file, dpi=90)


if __name__ == "__main__":
    main()
