"""Checkpoints of a whole run: one that was killed goes on as if nothing had happened."""

from __future__ import annotations

import os
import pathlib
import pickle
import shutil
from typing import TYPE_CHECKING, Any, TypeVar

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.monitor import Monitor, get_monitor_files
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv

from sb3_flow.common.callback_state import all_callbacks, get_callback_state, set_callback_state
from sb3_flow.common.environments import register_environment
from sb3_flow.common.files import atomic_write, sync_folder
from sb3_flow.common.random_state import get_random_state, seed_from, set_random_state

if TYPE_CHECKING:
    from sb3_flow.common.algorithm import OfflineToOnlineAlgorithm

Algorithm = TypeVar("Algorithm", bound="OfflineToOnlineAlgorithm")

PREFIX = "checkpoint_"
MODEL, BUFFER, STATISTICS, STATE = "model.zip", "replay_buffer.pkl", "vecnormalize.pkl", "training.pkl"


class TrainingCheckpoint(BaseCallback):
    """
    Saves all that ``resume`` needs to go on with a run that was killed: the model with its optimiser and counters, what was
    collected online, the statistics of ``VecNormalize``, the state of all random generators, and what the callbacks remember.

    A checkpoint is a folder ``checkpoint_<timesteps>``, which has its name only once it is complete and on the disk; then
    older ones are deleted. It is written between two updates, or between two rollouts, after all callbacks had their turn.
    Online, new episodes begin at each checkpoint, because the state of an environment cannot be saved.

    None is written that could not be gone on with, because the next loss would not be finite.

    :param folder: Folder of the run
    :param save_freq: How many calls of the callback lie between two checkpoints, as for ``CheckpointCallback``: with several
        environments, each call is as many timesteps.
    :param keep: How many checkpoints to keep, at least 1
    :param verbose: 1: say when one is written
    """

    model: OfflineToOnlineAlgorithm

    def __init__(self, folder: str | pathlib.Path, save_freq: int, keep: int = 1, verbose: int = 0) -> None:
        super().__init__(verbose)
        for name, value in (("save_freq", save_freq), ("keep", keep)):
            if value < 1:
                raise ValueError(f"`{name}` is {value}; it must be at least 1.")
        self.folder, self.save_freq, self.keep = pathlib.Path(folder), save_freq, keep

    def _init_callback(self) -> None:
        if not hasattr(self.model, "checkpoints_due"):
            raise ValueError(f"TrainingCheckpoint is for the algorithms of sb3_flow, and not for {type(self.model).__name__}.")

    def _on_training_start(self) -> None:
        latest = latest_checkpoint(self.folder)
        if latest is not None and _number(latest) > _timesteps(self.model):
            raise ValueError(
                f"{latest} is of a run that is ahead of this model, which has {_timesteps(self.model)} timesteps. Go on with "
                f"it by `{type(self.model).__name__}.resume({str(self.folder)!r}, env)`, or take another folder, or remove it."
            )

    def _on_step(self) -> bool:
        if self.n_calls % self.save_freq == 0:
            self.model.checkpoints_due.append(self)
        return True

    def write(self, root: BaseCallback) -> None:
        """
        Write a checkpoint now. The algorithm calls this where nothing is half done.

        :param root: The callback that holds all others
        :raises ValueError: If the next loss, or a parameter, is not finite.
        """
        model = self.model
        target = self.folder / f"{PREFIX}{_timesteps(model)}"
        if target.exists():
            return
        require_finite_loss(model)
        for leftover in self.folder.glob(f".{PREFIX}*"):
            shutil.rmtree(leftover)
        partial = self.folder / f".{target.name}.partial"
        partial.mkdir(parents=True)
        model.save(partial / MODEL)
        if len(model.replay_buffer) > 0:
            model.save_replay_buffer(partial / BUFFER)
        statistics = model.get_vec_normalize_env()
        if statistics is not None:
            with atomic_write(partial / STATISTICS) as file:
                pickle.dump(statistics, file)
        with atomic_write(partial / STATE) as file:
            pickle.dump(_get_state(model, root, self.folder), file)
        sync_folder(partial)
        partial.rename(target)
        sync_folder(self.folder)
        for older in checkpoints(self.folder)[: -self.keep]:
            hidden = older.rename(self.folder / f".{older.name}.old")  # so that no half of it is taken for one
            shutil.rmtree(hidden)
        if self.verbose >= 1:
            print(f"Saved {target}")


def checkpoints(folder: str | pathlib.Path) -> list[pathlib.Path]:
    """The complete checkpoints in a folder, the latest last."""
    found = [path for path in pathlib.Path(folder).glob(f"{PREFIX}*") if path.name[len(PREFIX) :].isdigit() and path.is_dir()]
    return sorted(found, key=_number)


def latest_checkpoint(folder: str | pathlib.Path) -> pathlib.Path | None:
    """
    The checkpoint that ``resume`` would go on from.

    :param folder: Folder of the run
    :return: Its folder; None if there is no complete one
    """
    found = checkpoints(folder)
    return found[-1] if found else None


def resume(
    cls: type[Algorithm], folder: str | pathlib.Path, env: GymEnv | str, dataset: Any, kwargs: dict[str, Any]
) -> Algorithm:
    """The model of the latest checkpoint, ready to go on; see ``OfflineToOnlineAlgorithm.resume``."""
    checkpoint = _find_checkpoint(pathlib.Path(folder))
    state = _read(checkpoint / STATE)
    if isinstance(env, str):
        register_environment(env)
        env = gym.make(env)
    if dataset is not None:
        kwargs = {**kwargs, "dataset": dataset}
    # Not reset by `load`: that would change the statistics of VecNormalize. New episodes begin in `learn`.
    model = cls.load(checkpoint / MODEL, env, force_reset=False, **kwargs)
    _require_same_run(model, state, checkpoint)
    model._require_dataset()
    if (checkpoint / BUFFER).exists():
        model.load_replay_buffer(checkpoint / BUFFER)
    statistics = model.get_vec_normalize_env()
    if statistics is not None:
        saved = _read(checkpoint / STATISTICS)
        statistics.ret_rms = saved.ret_rms
        if statistics.norm_obs:
            statistics.obs_rms = saved.obs_rms
    assert model.env is not None
    _set_monitor_state(model.env, state["monitors"], checkpoint.parent)
    model.resumed_state = state
    return model


def go_on(model: OfflineToOnlineAlgorithm, root: BaseCallback, state: dict[str, Any]) -> None:
    """
    Put callbacks and random generators back, as the last thing before training goes on.

    :param model: The model that was resumed
    :param root: The callback that holds all others
    :param state: The state in the checkpoint
    """
    set_callback_state(root, state["callbacks"])
    set_random_state(model, state["random"])
    begin_anew(model, root)


def write_due(model: OfflineToOnlineAlgorithm, root: BaseCallback) -> None:
    """
    Write what is due, between two updates or two rollouts, when nothing is half done.

    :param model: The model
    :param root: The callback that holds all others
    """
    if model.checkpoints_due:
        for checkpoint in model.checkpoints_due:
            checkpoint.write(root)
        model.checkpoints_due = []
        begin_anew(model, root)


def begin_anew(model: OfflineToOnlineAlgorithm, root: BaseCallback) -> None:
    """
    What happens at a checkpoint, and again after it was resumed: environments begin new episodes when they are used next,
    with seeds that follow from the state of training.

    :param model: The model
    :param root: The callback that holds all others
    """
    model.episodes_are_stale = True
    evaluations = [callback.eval_env for callback in all_callbacks(root) if isinstance(callback, EvalCallback)]
    seed = seed_from(model.host_generator)
    for i, env in enumerate(evaluations):
        env.seed(seed + 2**12 * (i + 1))


def begin_episodes(model: OfflineToOnlineAlgorithm) -> None:
    """
    Reset the environments, between two rollouts, with seeds that follow from the state of training.

    :param model: The model
    """
    assert model.env is not None
    model.env.seed(seed_from(model.host_generator))
    model._last_obs = model.env.reset()  # type: ignore[assignment]
    model._last_episode_starts = np.ones(model.env.num_envs, dtype=bool)
    if model._vec_normalize_env is not None:
        model._last_original_obs = model._vec_normalize_env.get_original_obs()
    if model.action_noise is not None:
        model.action_noise.reset()
    model.replay_buffer.cut()
    model._policy_state = None
    model.episodes_are_stale = False


def require_finite_loss(model: OfflineToOnlineAlgorithm) -> None:
    """
    See that the next update would be possible. Parameters can be lost before they, or the loss so far, stop being finite.

    :param model: The model
    :raises ValueError: If the loss is not finite.
    """
    if model._n_updates == 0:
        return
    random_state = model.random_state()
    model.policy.set_training_mode(False)
    loss, _ = model.loss(model.sample_batch(model.batch_size), model.draw_noise(model.batch_size))
    model.set_random_state(random_state)
    if not bool(th.isfinite(loss)):
        raise ValueError(
            f"The loss after update {model._n_updates} is {loss.item()}, so no checkpoint is written. Go back to the last "
            "one, with a lower learning rate or other data."
        )


def _timesteps(model: OfflineToOnlineAlgorithm) -> int:
    """The timesteps over all calls of ``learn``: ``num_timesteps`` starts anew with each."""
    return model.n_offline_updates + model.n_env_steps


def _number(checkpoint: pathlib.Path) -> int:
    return int(checkpoint.name[len(PREFIX) :])


def _get_state(model: OfflineToOnlineAlgorithm, root: BaseCallback, folder: pathlib.Path) -> dict[str, Any]:
    assert model.env is not None
    return {
        "random": get_random_state(model),
        "callbacks": get_callback_state(root),
        "monitors": _get_monitor_state(model.env, folder),
        "n_envs": model.env.num_envs,
        "n_transitions": None if model.offline_buffer is None else len(model.offline_buffer),
        "vec_normalize": model.get_vec_normalize_env() is not None,
    }


def _find_checkpoint(folder: pathlib.Path) -> pathlib.Path:
    if folder.is_file():
        raise ValueError(f"{folder} is a file. Give the folder that `TrainingCheckpoint` wrote to; `load` reads files.")
    if not folder.exists():
        raise FileNotFoundError(f"There is no folder {folder}. Check the path; it counts from {pathlib.Path.cwd()}.")
    if (folder / STATE).is_file():  # a checkpoint itself, not the folder of the run
        return folder
    checkpoint = latest_checkpoint(folder)
    if checkpoint is None:
        unfinished = ", only one that was not finished" if list(folder.glob(f".{PREFIX}*")) else ""
        raise FileNotFoundError(
            f"{folder} holds no checkpoint{unfinished}. Start the run anew, with a `TrainingCheckpoint({str(folder)!r}, ...)` "
            "among its callbacks."
        )
    return checkpoint


def _read(path: pathlib.Path) -> Any:
    try:
        with open(path, "rb") as file:
            return pickle.load(file)
    except FileNotFoundError:
        raise
    except Exception as error:  # damaged pickles can raise anything
        raise ValueError(
            f"{path} is damaged, or was written by another version ({error}). Resume from another checkpoint, if there is one."
        ) from error


def _require_same_run(model: OfflineToOnlineAlgorithm, state: dict[str, Any], checkpoint: pathlib.Path) -> None:
    """See that environment and data are as they were."""
    assert model.env is not None
    if model.env.num_envs != state["n_envs"]:
        raise ValueError(f"{checkpoint} was made with {state['n_envs']} environments; `env` has {model.env.num_envs}.")
    if (model.get_vec_normalize_env() is not None) != state["vec_normalize"]:
        before, now = ("with", "without") if state["vec_normalize"] else ("without", "with")
        raise ValueError(f"{checkpoint} was made {before} `VecNormalize`, and `env` is {now} it. Wrap it as it was.")
    if state["n_transitions"] is None:
        return
    if model.dataset is None:
        raise ValueError(
            f"{checkpoint} trains on {model.dataset_name!r}, which is no part of it. Pass it: `resume(..., dataset=...)`."
        )
    model._require_dataset()
    assert model.offline_buffer is not None
    if len(model.offline_buffer) != state["n_transitions"]:
        raise ValueError(
            f"{checkpoint} trains on {model.dataset_name!r} with {state['n_transitions']} transitions; the data given now has "
            f"{len(model.offline_buffer)}. Resume with the data that the run began with."
        )


def _get_monitor_state(env: VecEnv, folder: pathlib.Path) -> dict[str, Any]:
    sizes = {os.path.basename(file): os.path.getsize(file) for file in get_monitor_files(str(folder))}
    return {"sizes": sizes, "t_start": env.get_attr("t_start") if all(env.env_is_wrapped(Monitor)) else []}


def _set_monitor_state(env: VecEnv, state: dict[str, Any], folder: pathlib.Path) -> None:
    """Cut what was logged after the checkpoint from the run's ``monitor.csv``, and let their clocks run on."""
    for name, size in state["sizes"].items():
        if (folder / name).exists() and (folder / name).stat().st_size > size:
            os.truncate(folder / name, size)
    if state["t_start"] and all(env.env_is_wrapped(Monitor)):
        for i, t_start in enumerate(state["t_start"]):
            env.env_method("set_wrapper_attr", "t_start", t_start, indices=[i])
