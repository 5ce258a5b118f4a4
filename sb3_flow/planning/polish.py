"""Smoothing of certified plans that keeps them certified."""

from __future__ import annotations

import functools
import time
from dataclasses import replace

import torch as th

from sb3_flow.planning.costs import smoothness
from sb3_flow.planning.filter_settings import FilterSettings
from sb3_flow.planning.problems import Limits, Problems
from sb3_flow.planning.safety_filter import Filtered, SafetyFilter

#: Shrinkage of all modes in a step of 1, and additional shrinkage of stiff modes.
SHRINK, STRAIGHTEN = 0.25, 0.1


def polish(
    filter_: SafetyFilter,
    problems: Problems,
    y: th.Tensor,
    safe: th.Tensor,
    rounds: int = 6,
    deadline: float | None = None,
) -> Filtered:
    """
    Make certified plans smoother.

    Each round shrinks the modes of the plan, stiff modes (``stiffness`` of the basis) more than others, and filters the result
    with a small penalty::

        y_j <- (1 - step / 4) / (1 + step / 10 stiffness_j / stiffness_1) y_j

    The result replaces the plan if it is certified and smoother. Otherwise the step, initially 1, is halved. This is our
    choice: the filter returns the first certified plan, which is far from the smoothest.

    :param filter_: The filter that made the plans
    :param problems: ``B`` problems
    :param y: The plans, ``(B, N, D, m)``
    :param safe: Which of them are certified, ``(B,)``, bool. The others are not changed.
    :param rounds: Number of rounds
    :param deadline: Value of ``time.perf_counter`` after which no round starts; None: no deadline
    :return: Plans with their certificates, and the iterations of all rounds
    """
    certified = filter_.certificate.certify(problems, y)
    safe = safe & certified.safe
    margin, y = certified.margin.clone(), y.clone()
    iterations = th.zeros(len(y), dtype=th.int64, device=y.device)
    violation = th.where(safe, 0.0, th.inf).to(y)
    rows = safe.nonzero().squeeze(1)
    if len(rows):
        gentle = gentle_filter(filter_.limits, filter_.settings, y.dtype, y.device)
        mine, step = problems.select(rows), y.new_ones(len(rows), 1, 1, 1)
        stiffness = (filter_.basis.stiffness / filter_.basis.stiffness[0]).to(y)
        cost = smoothness(mine, y[rows], filter_.basis)
        for _ in range(rounds):
            if deadline is not None and time.perf_counter() >= deadline:
                break
            smaller = (1 - SHRINK * step) / (1 + STRAIGHTEN * step * stiffness) * y[rows]
            result = gentle(mine, smaller, deadline=deadline)
            new_cost = smoothness(mine, result.y, filter_.basis)
            better = result.safe & (new_cost < cost)
            accepted = rows[better]
            y[accepted], margin[accepted], cost[better] = result.y[better], result.margin[better], new_cost[better]
            step[~better] /= 2
            iterations[rows] += result.iterations
    return Filtered(y, safe, margin, iterations, violation)


@functools.lru_cache(maxsize=8)
@th.inference_mode(False)  # also usable in training
def gentle_filter(limits: Limits, settings: FilterSettings, dtype: th.dtype, device: th.device) -> SafetyFilter:
    """
    A filter for plans that are nearly feasible: its penalty does not grow, and it stops sooner.

    :param limits: Limits of the plans
    :param settings: Settings of the filter that made the plans
    :param dtype: Floating-point type
    :param device: The device
    :return: The filter
    """
    penalty = settings.penalty[0], settings.penalty[0]
    settings = replace(settings, penalty=penalty, margin=(0.04, 0.02), margin_iterations=30, max_iterations=30)
    return SafetyFilter(limits, settings, dtype).to(device)
