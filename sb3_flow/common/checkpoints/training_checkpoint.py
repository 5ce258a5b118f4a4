"""The callback that writes checkpoints of a run."""

from __future__ import annotations

import pathlib
import shutil
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback

from sb3_flow.common.arguments import checked_value
from sb3_flow.common.checkpoints.callback_state import all_callbacks, get_callback_state
from sb3_flow.common.checkpoints.layout import PREFIX, STATE, checkpoints, latest_checkpoint, number
from sb3_flow.common.checkpoints.monitors import get_monitor_state, write_missing_headers
from sb3_flow.common.checkpoints.plain import to_plain
from sb3_flow.common.checkpoints.plain_files import write_data
from sb3_flow.common.checkpoints.random_state import get_random_state
from sb3_flow.common.checkpoints.run import Resumable
from sb3_flow.common.files import as_folder, atomic_write, sync_folder
from sb3_flow.common.lock import LOCK, Lock
from sb3_flow.common.vec_envs import forbids_early_resets
from sb3_flow.common.warn import warn

#: Kind of the file with the state of the run.
STATE_KIND = "state of a run"


class TrainingCheckpoint(BaseCallback):
    """
    Save everything that ``resume`` needs to continue an interrupted run: the model with its optimizers and counters, the
    replay buffer, the statistics of ``VecNormalize``, the state of all random generators, and the state of the callbacks.

    A checkpoint is a folder ``checkpoint_<timesteps>``. It gets its name when it is complete and flushed to disk; then older
    checkpoints are deleted. It is written between two updates or two rollouts, after all callbacks were called. In the online
    phase, new episodes start at each checkpoint, because the state of environments cannot be saved.

    No checkpoint is written if the next loss would not be finite.

    :param folder: Folder of the run
    :param save_freq: Number of calls of the callback between two checkpoints, as for ``CheckpointCallback``: each call counts
        ``n_envs`` timesteps
    :param keep: Number of checkpoints to keep, at least 1
    :param lock: Whether to lock the folder during ``learn``, so that no other process writes into it
    :param verbose: 1: print a message for each checkpoint
    """

    model: Any

    def __init__(self, folder: str | pathlib.Path, save_freq: int, keep: int = 1, verbose: int = 0, lock: bool = True) -> None:
        super().__init__(verbose)
        self.folder = as_folder(folder, "TrainingCheckpoint(folder, save_freq)")
        save_freq, keep = checked_value("save_freq", save_freq, int), checked_value("keep", keep, int)
        for name, value in (("save_freq", save_freq), ("keep", keep)):
            if value < 1:
                raise ValueError(f"`{name}` is {value}; it must be at least 1.")
        self.save_freq, self.keep = save_freq, keep
        self.lock, self._held = lock, Lock(self.folder / LOCK, self.folder)
        #: Environment steps at the last checkpoint, and whether an episode has ended since then.
        self._steps_before, self._episode_ended = 0, True
        #: Whether the algorithm must write a checkpoint.
        self.due = False

    def _init_callback(self) -> None:
        if not isinstance(self.model, Resumable):
            raise ValueError(f"TrainingCheckpoint is for the algorithms of sb3_flow, not for {type(self.model).__name__}.")

        if forbids_early_resets(self.training_env):
            raise ValueError(
                "TrainingCheckpoint resets the environments after each checkpoint, but their `Monitor` does not allow early "
                "resets. Pass `allow_early_resets=True` to `Monitor`."
            )

        to_plain([self.model.observation_space, self.model.action_space], name="space")  # raises now, not after hours

    def _on_training_start(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder} is a file; TrainingCheckpoint needs a folder.")
        if self.lock:
            self._held.acquire()
        try:
            self._require_no_later_checkpoint()
            write_missing_headers(self.training_env, self.folder)
        except Exception:
            self._on_training_end()
            raise
        self._steps_before, self._episode_ended = self.model.n_env_steps, False

    def _on_training_end(self) -> None:
        self._held.release()

    def _require_no_later_checkpoint(self) -> None:
        latest, done = latest_checkpoint(self.folder), self.model.timesteps_done
        if latest is not None and number(latest) > done:
            raise ValueError(
                f"{latest} belongs to a run that is ahead of this model, which has {done} timesteps. Resume that run by "
                f"`{type(self.model).__name__}.resume({str(self.folder)!r}, env)`, or use another folder, or delete it."
            )

    def _on_step(self) -> bool:
        self.due = self.due or self.n_calls % self.save_freq == 0
        self._episode_ended = self._episode_ended or bool(np.any(self.locals.get("dones", False)))
        return True

    def write(self, root: BaseCallback) -> None:
        """
        Write a checkpoint. The algorithm calls this between updates or rollouts.

        :param root: The callback that contains all others
        :raises ValueError: If the next loss, or a parameter, is not finite.
        """
        self.due = False
        self._warn_about_unfinished_episodes()
        model: Resumable = self.model
        target = self.folder / f"{PREFIX}{model.timesteps_done}"
        if target.exists():
            return
        model.check_next_update()
        for leftover in self.folder.glob(f".{PREFIX}*"):
            shutil.rmtree(leftover)
        partial = self.folder / f".{target.name}.partial"
        partial.mkdir(parents=True)
        model.save_run(partial)
        state = {
            "run": {"started_at": model.run.started_at},
            "random": get_random_state(model),
            "callbacks": get_callback_state(root),
            "monitors": get_monitor_state(self.training_env, self.folder),
            **model.describe_run(),
        }
        with atomic_write(partial / STATE) as file:
            write_data(file, STATE_KIND, state)
        sync_folder(partial)
        partial.rename(target)
        sync_folder(self.folder)
        for older in checkpoints(self.folder)[: -self.keep]:
            hidden = older.rename(self.folder / f".{older.name}.old")  # so that a partly deleted one is not used
            shutil.rmtree(hidden)
        if self.verbose >= 1:
            print(f"Saved {target}")

    def _warn_about_unfinished_episodes(self) -> None:
        """Warn if episodes are longer than the steps between two checkpoints: then none of them ever ends."""
        steps, self._steps_before = self.model.n_env_steps - self._steps_before, self.model.n_env_steps
        if steps > 0 and not self._episode_ended:
            warn(
                f"No episode ended in the {steps:,} environment steps before this checkpoint, and a checkpoint starts "
                f"new episodes: later parts of episodes are never seen. Choose `save_freq`, now {self.save_freq:,}, above the "
                "length of an episode."
            )
        self._episode_ended = False


def write_due(model: Resumable, root: BaseCallback) -> None:
    """
    Write the checkpoints that are due. The algorithm calls this between updates or rollouts.

    :param model: The algorithm
    :param root: The callback that contains all others
    """
    due = [callback for callback in all_callbacks(root) if isinstance(callback, TrainingCheckpoint) and callback.due]
    for checkpoint in due:
        checkpoint.write(root)
    if due:
        restart_episodes(model, root)


def restart_episodes(model: Resumable, root: BaseCallback) -> None:
    """
    Start new episodes, at a checkpoint and after it was resumed. Environments are reset before they are used next, with seeds
    that are derived from the state of training.

    :param model: The algorithm
    :param root: The callback that contains all others
    """
    model.run.episodes_are_stale = True
    evaluations = [callback.eval_env for callback in all_callbacks(root) if isinstance(callback, EvalCallback)]
    seed = model.restart_seed()
    for i, env in enumerate(evaluations):
        env.seed(seed + 2**12 * (i + 1))
