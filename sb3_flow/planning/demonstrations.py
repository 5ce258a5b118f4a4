"""Plans of the expert as transitions: what a policy of several robots imitates."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch as th

from sb3_flow.planning import observations
from sb3_flow.planning.expert import solve
from sb3_flow.planning.filter_settings import FilterSettings
from sb3_flow.planning.measures import measure
from sb3_flow.planning.problems import Limits, Problems
from sb3_flow.planning.rewards import rewards
from sb3_flow.planning.safety_filter import SafetyFilter


class Demonstrations(NamedTuple):
    """
    Episodes of one step, each a certified plan: ``K`` of them.

    :param observations: As the environment shows the problems, arrays ``(K, ...)``
    :param actions: The plans in [-1, 1], ``(K, N D m)``
    :param rewards: As the environment gives them, ``(K,)``
    :param problem: Which problem each plan is for, ``(K,)``
    :param cost: Mean square acceleration in m^2/s^4, ``(K,)``
    :param margin: What the distances have to spare, in metres, ``(K,)``
    :param certified: How many of each problem's proposals became certified plans, ``(B,)``
    """

    observations: dict[str, np.ndarray]
    actions: np.ndarray
    rewards: np.ndarray
    problem: np.ndarray
    cost: np.ndarray
    margin: np.ndarray
    certified: np.ndarray


def demonstrate(
    problems: Problems, limits: Limits, proposals: int, generator: th.Generator, degree: int = 12
) -> Demonstrations:
    """
    Solve problems.

    :param problems: The problems, ``B`` of them
    :param limits: What plans keep to
    :param proposals: Proposals of each problem
    :param generator: Where their noise comes from
    :param degree: Degree of the polynomials
    :return: The plans that are certified as an environment carries them out: rounded, and clipped
    """
    shown = observations.observation(problems, limits)
    problems = observations.problems({key: th.from_numpy(column) for key, column in shown.items()}, limits)
    filter_ = SafetyFilter(limits, FilterSettings(basis_degree=degree, samples=observations.solver_samples(limits)))
    expert = solve(problems, filter_, proposals, generator)
    rows = problems.select(expert.problem)
    actions = observations.actions(expert.y, limits, rows.robot_mask)
    y = observations.plans(actions, limits, degree)
    certified, measures = filter_.certificate.certify(rows, y), measure(rows, y, limits)
    safe = certified.safe.numpy()
    index = expert.problem.numpy()[safe]
    return Demonstrations(
        {key: column[index] for key, column in shown.items()},
        actions.numpy()[safe],
        rewards(rows, y, measures, limits).float().numpy()[safe],
        index,
        measures.smoothness.numpy()[safe],
        certified.margin.numpy()[safe],
        expert.certified.numpy(),
    )
