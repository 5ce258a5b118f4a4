"""Several runs of the safety filter as one loop of tensor operations, which can be exported."""

from __future__ import annotations

from collections.abc import Callable

import torch as th

from sb3_flow.planning.costs import smoothness
from sb3_flow.planning.polish import SHRINK, STRAIGHTEN
from sb3_flow.planning.problems import Problems
from sb3_flow.planning.safety_filter import SafetyFilter, State

Tensors = tuple[th.Tensor, ...]


def filter_loop(
    filter_: SafetyFilter,
    problems: Problems,
    memory: Tensors,
    more: Callable[[th.Tensor, Tensors], th.Tensor],
    propose: Callable[[th.Tensor, Tensors], Tensors],
    note: Callable[[th.Tensor, Tensors, th.Tensor, th.Tensor], Tensors],
    skip: th.Tensor,
) -> Tensors:
    """
    Filter proposals as ``SafetyFilter.forward`` does without a deadline, one set after the other. The plans are the same. A graph
    cannot select problems: all are iterated until the last one is certified. It cannot have a loop within a loop, either, by
    the exporter of PyTorch 2.13: all runs share one.

    :param filter_: The filter
    :param problems: ``B`` problems
    :param memory: Tensors that the next three arguments use
    :param more: ``(run, memory) -> whether there is another run``; both are tensors without dimensions, int64 and bool
    :param propose: ``(run, memory) -> proposals, y_0, lambda_0``, each ``(B, N, D, m)``
    :param note: ``(run, memory, y, safe) -> memory`` after a run: the plans ``y`` are the first certified iterates, or else those
        with the smallest violation; ``safe``, ``(B,)``, says which are certified.
    :param skip: Problems that are not filtered, ``(B,)``, bool
    :return: The memory after the last run
    """
    settings = filter_.settings
    limit = int(settings.max_iterations)
    # Of iteration k: the penalty that leads to it, and the margin.
    penalties = problems.start.new_tensor([settings.penalty_at(max(k - 1, 0)) for k in range(limit + 1)])
    margins = problems.start.new_tensor([settings.margin_at(k) for k in range(limit + 1)])
    zeros = problems.start.new_zeros(*problems.start.shape, filter_.basis.n_modes)
    scene = filter_.scene(problems, zeros)

    def go_on(run: th.Tensor, k: th.Tensor, solved: th.Tensor, least: th.Tensor, *rest: th.Tensor) -> th.Tensor:
        return more(run, rest[6:])

    def iterate(run: th.Tensor, k: th.Tensor, solved: th.Tensor, least: th.Tensor, *rest: th.Tensor) -> Tensors:
        (best, anchor, *state), memory, starts = rest[:6], rest[6:], k == 0
        robots = problems.robot_mask[..., None, None]
        penalty, margin = (values.index_select(0, k.reshape(1)).reshape(()) for values in (penalties, margins))

        proposals, y_0, lambda_0 = (th.where(robots, part, 0.0) for part in propose(run, memory))
        anchor = th.where(starts, filter_.matching(proposals), anchor)
        y, multiplier = filter_.step(scene._replace(anchor=anchor), State(*state), penalty)
        ahead = th.where(starts, y_0, y + settings.momentum * (y - state[0]))
        y, multiplier = th.where(starts, y_0, y), th.where(starts, lambda_0, multiplier)
        push, violation = filter_.look(scene, ahead, margin)

        safe = (violation <= 0) & filter_.certificate.certify(problems, ahead).safe
        solved = select(starts, skip, solved)
        better = ~solved & (safe | (violation < least)) | starts
        best, least = th.where(better[:, None, None, None], ahead, best), th.where(better, violation, least)
        solved = solved | safe
        ends = solved.all() | (k == limit)
        noted = note(run, memory, best, solved & ~skip)
        memory = tuple(select(ends, after, before) for after, before in zip(noted, memory, strict=True))
        return run + ends, th.where(ends, 0, k + 1), solved, least, best, anchor, y, ahead, multiplier, push, *memory

    count, least = th.zeros((), dtype=th.int64), zeros[:, 0, 0, 0]
    state = [zeros.clone() for _ in range(6)]
    first = count, count.clone(), skip.clone(), least.clone(), *state, *memory
    return th.while_loop(go_on, iterate, first)[10:]  # type: ignore[no-any-return]


def select(condition: th.Tensor, first: th.Tensor, second: th.Tensor) -> th.Tensor:
    """``where``, which ONNX Runtime does not have for bool."""
    return condition & first | ~condition & second if first.dtype == th.bool else th.where(condition, first, second)


def polish_loop(gentle: SafetyFilter, problems: Problems, y: th.Tensor, safe: th.Tensor, rounds: int) -> th.Tensor:
    """
    As ``polish`` without a deadline.

    :param gentle: The filter of ``gentle_filter``
    :param problems: ``B`` problems
    :param y: The plans, ``(B, N, D, m)``
    :param safe: Which of them are certified, ``(B,)``, bool. The others are not changed.
    :param rounds: Number of rounds
    :return: The plans, ``(B, N, D, m)``
    """
    basis = gentle.basis
    stiffness = (basis.stiffness / basis.stiffness[0]).to(y)

    def more(run: th.Tensor, memory: Tensors) -> th.Tensor:
        return run < rounds

    def propose(run: th.Tensor, memory: Tensors) -> Tensors:
        y, _, step = memory
        smaller = (1 - SHRINK * step) / (1 + STRAIGHTEN * step * stiffness) * y
        return smaller, smaller, th.zeros_like(smaller)

    def note(run: th.Tensor, memory: Tensors, new: th.Tensor, certified: th.Tensor) -> Tensors:
        y, cost, step = memory
        new_cost = smoothness(problems, new, basis)
        better = certified & (new_cost < cost)
        rows = better[:, None, None, None]
        return th.where(rows, new, y), th.where(better, new_cost, cost), th.where(rows, step, step / 2)

    memory = y.clone(), smoothness(problems, y, basis), th.ones_like(y[:, :1, :1, :1])
    return filter_loop(gentle, problems, memory, more, propose, note, ~safe)[0]
