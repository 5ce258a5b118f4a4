"""
Functions that take turns in one process: each runs until it needs what is computed for all of them at once.

Each function has its own thread, and one thread runs at a time. The state of the global random generators and the standard
output belong to the process. They are exchanged at each turn, so that a function runs as in a process of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any

from sb3_flow.common.checkpoints.random_state import get_global_state, set_global_state

#: Waits until all functions have a request, and returns the answer to the request of this one.
Ask = Callable[[Any], Any]


def take_turns(
    functions: Sequence[Callable[[Ask], None]], answer: Callable[[list[Any]], Sequence[Any]]
) -> list[BaseException | None]:
    """
    Run functions until all have returned.

    :param functions: The functions. If one of them raises an error, the others continue.
    :param answer: Answers the requests of all functions that have not returned. Its errors, and interrupts of the process, are
        raised in each of these functions.
    :return: The error of each function; None: it has returned
    """
    outside, turns = get_global_state(), [_Turn(function) for function in functions]
    waiting, answers = turns, list[Any]([None] * len(turns))
    while waiting:
        interrupted = [turn.take(item) for turn, item in zip(waiting, answers, strict=True)]
        waiting = [turn for turn in waiting if not turn.ended]
        try:
            if any(interrupted):
                raise KeyboardInterrupt
            answers = list(answer([turn.request for turn in waiting])) if waiting else []
        except (Exception, KeyboardInterrupt) as error:
            answers = [_Failure(error)] * len(waiting)
    set_global_state(outside)
    return [turn.error for turn in turns]


class _Failure:
    """An error in the place of an answer."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Turn:
    """A function in its thread."""

    def __init__(self, function: Callable[[Ask], None]) -> None:
        self.function = function
        self.request: Any = None
        self.error: BaseException | None = None
        #: Whether the function does not run, and whether it has returned.
        self.waits, self.ended = True, False
        self.answers, self.signals = SimpleQueue[Any](), SimpleQueue[None]()
        self.generators, self.streams = get_global_state(), (sys.stdout, sys.stderr)
        Thread(target=self._run, daemon=True).start()

    def take(self, answer: Any) -> bool:
        """
        Let the function run until it has a request or ends.

        :param answer: The answer to its last request
        :return: Whether the process was interrupted meanwhile, which only the main thread notices
        """
        outside, interrupted = (sys.stdout, sys.stderr), False
        sys.stdout, sys.stderr = self.streams
        set_global_state(self.generators)
        self.waits = False
        self.answers.put(answer)
        while not self.waits:
            try:
                self.signals.get()
            except KeyboardInterrupt:
                interrupted = True
        self.generators, self.streams = get_global_state(), (sys.stdout, sys.stderr)
        sys.stdout, sys.stderr = outside
        return interrupted

    def _run(self) -> None:
        self.answers.get()
        try:
            self.function(self._ask)
        except BaseException as error:
            self.error = error
        self.ended = True
        self._pause()

    def _ask(self, request: Any) -> Any:
        self.request = request
        self._pause()
        answer = self.answers.get()
        if isinstance(answer, _Failure):
            raise answer.error.with_traceback(None)
        return answer

    def _pause(self) -> None:
        self.waits = True
        self.signals.put(None)
