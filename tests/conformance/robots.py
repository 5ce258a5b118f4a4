"""Plans of several robots: algorithms that are for their environments alone."""

from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th

from conformance.case import AlgorithmCase
from conformance.environments import Watched
from sb3_flow import FlowOpt
from sb3_flow.baselines.diffusion_opt import DiffusionOpt
from sb3_flow.planning import observations
from sb3_flow.planning.expert import solve
from sb3_flow.planning.safety_filter import SafetyFilter

MOST_ROBOTS = 3
TINY: dict[str, Any] = {"width": 16, "depth": 1, "attention_heads": 2, "initialiser_width": 16, "initialiser_depth": 1}
SMALL_PLANS: dict[str, Any] = {
    "batch_size": 16,
    "initialiser_batch_size": 4,
    "imitated_iterations": 5,
    "unrolled_iterations": 3,
    "policy_kwargs": {**TINY, "best_of_n": 2},
    "device": "cpu",
    "seed": 0,
}


def scenes() -> gym.Env:
    """Two or three robots, and two obstacles; watched."""
    return Watched(gym.make("sb3_flow/MultiRobot2D-v0", num_robots=(2, MOST_ROBOTS), num_obstacles=2))


@cache
def plans() -> dict[str, Any]:
    """Plans of the expert for 30 scenes."""
    env: Any = scenes().unwrapped
    problems = env.scenes.sample(np.random.default_rng(0), 30)
    solved = solve(problems, SafetyFilter(env.limits), 2, th.Generator().manual_seed(0), polish_rounds=1)
    problems = problems.select(solved.problem)
    rows = len(solved.y)
    return {
        "observations": observations.observation(problems, env.limits),
        "actions": observations.actions(solved.y, env.limits, problems.robot_mask).numpy(),
        "terminations": np.ones(rows, dtype=bool),
        "truncations": np.zeros(rows, dtype=bool),
    }


PLANNERS = [
    AlgorithmCase(cls, small=SMALL_PLANS, online=False, environment=scenes, data=plans, starts=5)
    for cls in (FlowOpt, DiffusionOpt)
]
