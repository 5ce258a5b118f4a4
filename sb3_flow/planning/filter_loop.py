"""The safety filter and the polishing as loops of tensor operations, which can be exported."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch as th

from sb3_flow.planning.costs import smoothness
from sb3_flow.planning.polish import SHRINK, STRAIGHTEN
from sb3_flow.planning.problems import Problems
from sb3_flow.planning.safety_filter import SafetyFilter, State

Tensors = tuple[th.Tensor, ...]


def filter_loop(
    filter_: SafetyFilter, problems: Problems, proposals: th.Tensor, y_0: th.Tensor, lambda_0: th.Tensor, skip: th.Tensor
) -> tuple[th.Tensor, th.Tensor]:
    """
    As ``SafetyFilter.forward`` without a deadline. The plans are the same, but all problems are iterated until the last one is
    certified, and certified after each iteration, because a graph cannot select problems.

    :param filter_: The filter
    :param problems: ``B`` problems
    :param proposals: Plans to stay close to, ``(B, N, D, m)``
    :param y_0: Initial plans, ``(B, N, D, m)``
    :param lambda_0: Initial multipliers, ``(B, N, D, m)``
    :param skip: Problems that are not filtered, ``(B,)``, bool
    :return: The plans, ``(B, N, D, m)``: the first certified iterate, or else the one with the smallest violation; and whether
        they are certified, ``(B,)``, bool
    """
    settings = filter_.settings
    scene, state, violation = filter_.begin(problems, proposals, y_0, lambda_0)

    def certified(y: th.Tensor, violation: th.Tensor) -> th.Tensor:
        return (violation <= 0) & filter_.certificate.certify(problems, y).safe

    def unsolved(k: th.Tensor, solved: th.Tensor, *rest: th.Tensor) -> th.Tensor:
        return (k < settings.max_iterations) & ~solved.all()

    def iterate(k: th.Tensor, solved: th.Tensor, least: th.Tensor, best: th.Tensor, *state: th.Tensor) -> Tensors:
        penalty, margin = filter_.schedule.index_select(0, k.reshape(1)).squeeze(0).unbind()
        after, violation = filter_.iterate(scene, State(*state), penalty, margin)
        safe = certified(after.ahead, violation)
        better = ~solved & (safe | (violation < least))
        best = th.where(better[:, None, None, None], after.ahead, best)
        return k + 1, solved | safe, th.where(better, violation, least), best, *after

    solved = certified(state.ahead, violation)
    first = [th.zeros((), dtype=th.int64), solved | skip, violation, state.ahead.clone(), *(part.clone() for part in state)]
    _, solved, _, best, *_ = while_loop(unsolved, iterate, first)
    return best, solved & ~skip


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

    def more(k: th.Tensor, *rest: th.Tensor) -> th.Tensor:
        return k < rounds

    def smoothen(k: th.Tensor, y: th.Tensor, cost: th.Tensor, step: th.Tensor) -> Tensors:
        smaller = (1 - SHRINK * step) / (1 + STRAIGHTEN * step * stiffness) * y
        new, certified = filter_loop(gentle, problems, smaller, smaller, th.zeros_like(smaller), ~safe)
        new_cost = smoothness(problems, new, basis)
        better = certified & (new_cost < cost)
        rows = better[:, None, None, None]
        return k + 1, th.where(rows, new, y), th.where(better, new_cost, cost), th.where(rows, step, step / 2)

    first = [th.zeros((), dtype=th.int64), y.clone(), smoothness(problems, y, basis), th.ones_like(y[:, :1, :1, :1])]
    return while_loop(more, smoothen, first)[1]


def while_loop(go_on: Callable[..., th.Tensor], body: Callable[..., Tensors], first: Sequence[th.Tensor]) -> Tensors:
    """
    ``torch.while_loop``. By PyTorch 2.13, what its functions use from outside must not be views of one tensor, ``.mT`` of a
    tensor counts as such a view, and they cannot create tensors from lists.
    """
    return th.while_loop(go_on, body, tuple(first))  # type: ignore[no-any-return,no-untyped-call]
