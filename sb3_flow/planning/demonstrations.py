"""Plans of the expert as transitions, for imitation."""

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
    ``K`` episodes of one step, each with a certified plan as action.

    :param observations: Observations of the environment, arrays ``(K, ...)``
    :param actions: The plans in [-1, 1], ``(K, N D m)``
    :param rewards: Rewards of the environment, ``(K,)``
    :param problem: Index of the problem of each plan, ``(K,)``
    :param cost: Mean square acceleration in m^2/s^4, ``(K,)``
    :param margin: Smallest slack of the distances, in meters, ``(K,)``
    :param certified: Number of proposals of each problem that became certified plans, ``(B,)``
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
    Solve problems with the expert.

    :param problems: ``B`` problems
    :param limits: Limits of the plans
    :param proposals: Number of proposals for each problem
    :param generator: Random generator of the proposals
    :param degree: Degree of the polynomials
    :return: The plans that are certified as the environment executes them: rounded and clipped
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
