"""
FlowOpt for robots that cross at the same time. It learns from an expert's plans and plans for a circle of robots.

Write an animation of the plan, and a plot of certified plans for one scene that pass on different sides.

    python examples/flow_opt_crossing.py [--robots 16] [--scenes 60] [--updates 600] [--film crossing.gif] [--file plans.png]

`--model` loads a trained model, which also defines the number of robots.
"""

import argparse

import gymnasium as gym
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch as th

from sb3_flow import FlowOpt
from sb3_flow.envs.multi_robot_drawing import colors as robot_colors
from sb3_flow.flow_opt.plans import Plan
from sb3_flow.planning.measures import winding_angles
from sb3_flow.planning.motion import motion
from sb3_flow.plots import write_gif

#: Frames per second, and duration of the last frame in seconds.
RATE, REST = 12, 1.0


def train(env: gym.Env, scenes: int, updates: int) -> FlowOpt:
    """Train a small model."""
    model = FlowOpt(
        "FlowPolicy",
        env,
        learning_rate=1e-3,
        tau=0.01,
        batch_size=64,
        initializer_batch_size=8,
        expert_scenes=scenes,
        policy_kwargs={
            "width": 64,
            "depth": 2,
            "attention_heads": 4,
            "initializer_width": 32,
            "initializer_depth": 1,
            "polish_rounds": 6,
        },
        seed=0,
        verbose=1,
        device="cpu",
    )
    return model.learn(updates, progress_bar=True)


def film(env: gym.Env, action: np.ndarray, file: str) -> None:
    """Execute a plan, and write an animation."""
    env.step(action)
    horizon = env.unwrapped.limits.horizon
    pictures = [env.unwrapped.picture(time) for time in np.linspace(0, horizon, int(horizon * RATE) // 2)]
    write_gif(pictures, file, [1 / RATE] * (len(pictures) - 1) + [REST])


def draw(env: gym.Env, model: FlowOpt, observation: dict[str, np.ndarray], plan: Plan, file: str) -> int:
    """Plot up to four certified plans; in any two of them, some robots pass on different sides."""
    limits = env.unwrapped.limits
    problems = model.policy.problems({key: th.as_tensor(value)[None] for key, value in observation.items()})
    candidates = plan.candidates.y[0][plan.candidates.feasible[0]]
    times = th.linspace(0, limits.horizon, 200, dtype=th.float64)
    kept: list[tuple[th.Tensor, th.Tensor]] = []
    for y in candidates:
        ways = motion(problems, y[None], limits.horizon, times)[0, 0]
        angles = winding_angles(ways)
        if all(bool(((angles - other).abs() > th.pi).any()) for _, other in kept):
            kept.append((ways, angles))
    n_shown = min(len(kept), 4)
    figure, axes = plt.subplots(1, n_shown, figsize=(3.4 * n_shown, 4.2), squeeze=False, layout="compressed")
    colors = robot_colors(int(problems.robot_mask[0].sum()))  # as in the animation
    for ax, (ways, _) in zip(axes[0], kept, strict=False):
        for x, y_, radius in problems.obstacles[0, problems.obstacle_mask[0]].tolist():
            ax.add_patch(plt.Circle((x, y_), radius, color="0.6"))
        for way, color in zip(ways[problems.robot_mask[0]], colors, strict=False):
            ax.plot(*way.numpy(), color=color, linewidth=1)
            ax.add_patch(plt.Circle(tuple(way[:, -1].tolist()), limits.radius, color=color, alpha=0.5))
        ax.set(xlim=(-limits.size, limits.size), ylim=(-limits.size, limits.size), aspect="equal")
        ax.set(xlabel="x in m", ylabel="y in m")
        ax.label_outer()
    figure.suptitle(
        f"{n_shown} of {len(candidates)} certified plans: in any two of them, some robots pass on different sides\n"
        "one color for each robot, as in the animation; discs: robots at their goals; gray: obstacles",
        fontsize="medium",
    )
    figure.savefig(file, dpi=110)
    return len(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robots", type=int, default=16)
    parser.add_argument("--scenes", type=int, default=60, help="random scenes that the expert solves")
    parser.add_argument("--updates", type=int, default=600)
    parser.add_argument("--samples", type=int, default=8, help="number of proposed plans")
    parser.add_argument("--model", help="a saved model, instead of a new one")
    parser.add_argument("--film", default="crossing.gif")
    parser.add_argument("--file", default="plans.png")
    arguments = parser.parse_args()

    def make(layout: str) -> gym.Env:
        return gym.make("sb3_flow/MultiRobot2D-v0", num_robots=arguments.robots, layout=layout, render_mode="rgb_array")

    if arguments.model:
        model = FlowOpt.load(arguments.model, device="cpu")
        arguments.robots = model.policy.max_robots
    else:
        model = train(make("mixed"), arguments.scenes, arguments.updates)
    env = make("circle")
    observation, _ = env.reset(seed=3)
    plan = model.plan(observation, k=arguments.samples, deterministic=True)
    print(
        f"{int(plan.candidates.feasible.sum())} of {plan.candidates.feasible.shape[1]} plans are certified, in "
        f"{plan.time_ms:.0f} ms; the best has a margin of {float(plan.margin):.3f} m."
    )
    print(f"{draw(env, model, observation, plan, arguments.file)} of them pass on different sides.")
    film(env, plan.actions[0].numpy(), arguments.film)


if __name__ == "__main__":
    main()
