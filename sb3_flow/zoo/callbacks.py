"""Callbacks for runs of RL Zoo."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from stable_baselines3.common import callbacks
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import CallbackList, EventCallback

from sb3_flow.common.files import atomic_write
from sb3_flow.common.warn import warn


class EvalCallback(callbacks.EvalCallback):
    """
    Stable-Baselines3's ``EvalCallback``, which also records the numbers in ``info["measures"]`` at the last step of each
    episode, as ``measure_NAME`` in ``evaluations.npz``, with the shape of ``results``. It warns if a return is not finite.

    :param args: As for Stable-Baselines3's callback
    :param kwargs: As for Stable-Baselines3's callback
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Measures of each episode of the current evaluation, and of previous evaluations by name.
        self._measured: list[dict[str, float]] = []
        self.evaluations_measures: dict[str, list[list[float]]] = {}

    @classmethod
    def like(cls, other: callbacks.EvalCallback) -> "EvalCallback":
        """Create a callback with the settings of another one, which has not started."""
        return cls(
            other.eval_env,
            callback_on_new_best=other.callback_on_new_best,
            callback_after_eval=other.callback,
            n_eval_episodes=other.n_eval_episodes,
            eval_freq=other.eval_freq,
            log_path=None if other.log_path is None else str(Path(other.log_path).parent),
            best_model_save_path=other.best_model_save_path,
            deterministic=other.deterministic,
            render=other.render,
            verbose=other.verbose,
            warn=other.warn,
        )

    def _log_success_callback(self, locals_: dict[str, Any], globals_: dict[str, Any]) -> None:
        super()._log_success_callback(locals_, globals_)
        if locals_["done"] and "measures" in locals_["info"]:
            self._measured.append({name: float(value) for name, value in locals_["info"]["measures"].items()})

    def _on_step(self) -> bool:
        go_on = super()._on_step()
        if self.eval_freq > 0 and self.n_calls % self.eval_freq == 0 and not np.isfinite(self.last_mean_reward):
            warn(
                f"The mean return of the evaluation after {self.num_timesteps} timesteps is {self.last_mean_reward}: a reward "
                "of the evaluation environment is not finite. The best model is not replaced."
            )
        if self._measured:
            for name in self._measured[0]:
                self.evaluations_measures.setdefault(name, []).append([measures[name] for measures in self._measured])
            self._measured = []
            if self.log_path is not None:
                arrays = {f"measure_{name}": np.array(values) for name, values in self.evaluations_measures.items()}
                add_arrays(f"{self.log_path}.npz", arrays)
        return go_on


class SamplerEvalCallback(EvalCallback):
    """
    Evaluate another sampler of the same policy, such as the BC flow of FQL.

    :param sampler: Its name, see ``FlowPolicy.samplers``
    :param args: As for ``EvalCallback``
    :param kwargs: As for ``EvalCallback``
    """

    def __init__(self, sampler: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sampler = sampler

    def _init_callback(self) -> None:
        super()._init_callback()
        self.check(self.model)

    def check(self, model: BaseAlgorithm) -> None:
        """
        Check that the policy of a model has the sampler.

        :param model: The model
        :raises ValueError: If it has not.
        """
        policy: Any = model.policy
        if not hasattr(policy, "with_sampler"):
            raise ValueError(
                f"{type(model).__name__} has no samplers, so `{self.sampler}` cannot be evaluated. Remove it from "
                "--eval-samplers."
            )
        policy.with_sampler(self.sampler)  # raises if there is no such sampler

    def _on_step(self) -> bool:
        policy: Any = self.model.policy
        usual, policy.sampler = policy.sampler, self.sampler
        try:
            return super()._on_step()
        finally:
            policy.sampler = usual


class TrainingClock(EventCallback):
    """
    Call evaluations, and add the seconds of training to their files: ``seconds`` in ``evaluations.npz``, in addition to
    ``timesteps``. The time of evaluations is not included, the time of checkpoints is. A resumed run continues from the
    seconds of its checkpoint; without them, the seconds are NaN from then on. Evaluations without a recorded time have NaN.

    :param evaluations: Evaluation callbacks with a ``log_path``, in their order
    """

    def __init__(self, evaluations: Sequence[callbacks.EvalCallback]) -> None:
        super().__init__(CallbackList([*evaluations]))
        self.evaluations = tuple(evaluations)
        #: Seconds of training so far, and at the timestep of each evaluation; both are saved in checkpoints.
        self.seconds = 0.0
        self.seconds_at: dict[int, float] = {}
        self._watch: _Watch | None = None

    def _on_training_start(self) -> None:
        super()._on_training_start()
        self._watch = _Watch()
        if self.num_timesteps > 0 and not self.seconds:
            self.seconds = float("nan")  # unless the checkpoint, which is read next, has them

    def stop(self) -> float:
        """
        Stop the clock at the end of training.

        :return: Seconds of training in all processes of the run. NaN if the clock did not run in an earlier one.
        """
        self._read()
        self._watch = None
        return self.seconds

    def _read(self) -> None:
        if self._watch is not None:
            self.seconds += self._watch.lap()

    def _on_step(self) -> bool:
        self._read()
        start = time.monotonic()
        done = [len(evaluation.evaluations_timesteps) for evaluation in self.evaluations]
        go_on = self._on_event()
        for before, evaluation in zip(done, self.evaluations, strict=True):
            if len(evaluation.evaluations_timesteps) > before:
                self.seconds_at[self.num_timesteps] = self.seconds
                self._write(evaluation)
        _Watch.stopped += time.monotonic() - start
        return go_on

    def _write(self, evaluation: callbacks.EvalCallback) -> None:
        """Add the array to the file of the evaluation."""
        seconds = [self.seconds_at.get(int(timestep), float("nan")) for timestep in evaluation.evaluations_timesteps]
        add_arrays(f"{evaluation.log_path}.npz", {"seconds": np.array(seconds)})


def add_arrays(file: str, arrays: dict[str, np.ndarray]) -> None:
    """
    Add arrays to an ``.npz`` file.

    :param file: The file
    :param arrays: Arrays by name
    """
    with np.load(file) as before:
        content: dict[str, Any] = {**before, **arrays}
    with atomic_write(file) as stream:
        np.savez(stream, **content)


class _Watch:
    """A clock of this process. It is an object and not a number, so that checkpoints do not include it."""

    #: Seconds of all evaluations in this process, during which the clocks of all trainings in it stop.
    stopped: ClassVar[float] = 0.0

    def __init__(self) -> None:
        self.start = self._now()

    def _now(self) -> float:
        return time.monotonic() - _Watch.stopped

    def lap(self) -> float:
        """Seconds since the last call, without evaluations."""
        before, self.start = self.start, self._now()
        return self.start - before
