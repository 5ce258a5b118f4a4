"""Plans of several robots: an environment and a dataset for the algorithms that are for them only."""

from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th

from conformance.environments import Watched
from sb3_flow.planning import observations
from sb3_flow.planning.expert import solve
from sb3_flow.planning.safety_filter import SafetyFilter

MOST_ROBOTS = 3


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
