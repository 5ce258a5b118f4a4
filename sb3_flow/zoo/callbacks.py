"""Callbacks for runs of RL Zoo."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import CallbackList, EvalCallback, EventCallback

from sb3_flow.common.files import atomic_write


class HeadEvalCallback(EvalCallback):
    """
    Evaluates another way to act of the same policy, such as the behaviour-cloned flow within FQL.

    :param head: Its name, see ``FlowPolicy.heads``
    :param args: As those of ``EvalCallback``, like ``kwargs``
    """

    def __init__(self, head: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.head = head

    def _init_callback(self) -> None:
        super()._init_callback()
        policy: Any = self.model.policy
        if not hasattr(policy, "with_head"):
            raise ValueError(f"{type(self.model).__name__} acts in one way only, so there is no {self.head!r} to evaluate.")
        policy.with_head(self.head)  # raises if there is none of that name

    def _on_step(self) -> bool:
        policy: Any = self.model.policy
        usual, policy.head = policy.head, self.head
        try:
            return super()._on_step()
        finally:
            policy.head = usual


class TrainingClock(EventCallback):
    """
    Calls evaluations, and writes into their files how many seconds of training there had been: ``seconds`` in
    ``evaluations.npz``, beside ``timesteps``. The evaluations themselves do not count, checkpoints do. A run that is resumed
    goes on from the seconds of its checkpoint; evaluations that were made without a clock have nan.

    :param evaluations: Evaluations with a ``log_path``, in their order
    """

    def __init__(self, evaluations: Sequence[EvalCallback]) -> None:
        super().__init__(CallbackList([*evaluations]))
        self.evaluations = tuple(evaluations)
        #: Seconds of training so far, and by the timestep of each evaluation; a checkpoint has them.
        self.seconds = 0.0
        self.seconds_at: dict[int, float] = {}
        self._watch = _Watch()

    def _on_training_start(self) -> None:
        super()._on_training_start()
        self._watch = _Watch()

    def _on_step(self) -> bool:
        self.seconds += self._watch.lap()
        done = [len(evaluation.evaluations_timesteps) for evaluation in self.evaluations]
        go_on = self._on_event()
        for before, evaluation in zip(done, self.evaluations, strict=True):
            if len(evaluation.evaluations_timesteps) > before:
                self.seconds_at[self.num_timesteps] = self.seconds
                self._write(evaluation)
        self._watch.lap()
        return go_on

    def _write(self, evaluation: EvalCallback) -> None:
        """Add the array to the file that the evaluation has just written."""
        file = f"{evaluation.log_path}.npz"
        with np.load(file) as arrays:
            content: dict[str, Any] = dict(arrays)
        seconds = [self.seconds_at.get(int(timestep), float("nan")) for timestep in content["timesteps"]]
        with atomic_write(file) as stream:
            np.savez(stream, **content, seconds=np.array(seconds))


class _Watch:
    """Time by a clock that only this process has: it is no plain number, so that no checkpoint takes it along."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def lap(self) -> float:
        """Seconds since the last call."""
        before, self.start = self.start, time.monotonic()
        return self.start - before
