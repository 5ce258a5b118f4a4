"""Resuming of a run from a checkpoint."""

from __future__ import annotations

import pathlib
from typing import Any, TypeVar

import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import unwrap_vec_normalize

from sb3_flow.common.checkpoints.callback_state import set_callback_state
from sb3_flow.common.checkpoints.layout import MODEL, STATE, STATISTICS, find_checkpoint, part, read_part
from sb3_flow.common.checkpoints.monitors import set_monitor_state
from sb3_flow.common.checkpoints.random_state import check_random_state, set_random_state
from sb3_flow.common.checkpoints.run import Resumable, Run
from sb3_flow.common.checkpoints.statistics import load_statistics
from sb3_flow.common.checkpoints.training_checkpoint import STATE_KIND, restart_episodes
from sb3_flow.common.environments import register_environment
from sb3_flow.common.files import as_folder

Algorithm = TypeVar("Algorithm", bound=Resumable)


def resume(
    cls: type[Algorithm],
    folder: str | pathlib.Path,
    env: GymEnv | str | None,
    dataset: Any,
    trusted: bool,
    kwargs: dict[str, Any],
) -> Algorithm:
    """Load the model of the latest checkpoint and prepare it for ``learn``; see ``OfflineAlgorithm.resume``."""
    checkpoint = find_checkpoint(as_folder(folder, f"{cls.__name__}.resume(folder, env)"))
    state = read_part(part(checkpoint, STATE), STATE_KIND, trusted, check=check_state)
    if isinstance(env, str):
        register_environment(env)
        env = gym.make(env)
    if dataset is not None:
        kwargs = {**kwargs, "dataset": dataset}
    # `load` must not reset: that would change the statistics of VecNormalize. New episodes start in `learn`.
    model = cls.load(checkpoint / MODEL, env, force_reset=False, trusted=trusted, **kwargs)
    model.require_environment()
    require_same_environment(model, state, checkpoint)
    normalized = unwrap_vec_normalize(model.env)  # type: ignore[arg-type]
    if normalized is not None:  # before the dataset is set, which would fill empty statistics
        load_statistics(normalized, part(checkpoint, STATISTICS), trusted)
    require_same_dataset(model, state, checkpoint)
    model.load_run(checkpoint, trusted)
    assert model.env is not None
    set_monitor_state(model.env, state["monitors"], checkpoint.parent)
    # Before version 0.2, `started_at` was saved in the model.
    started_at = state["run"]["started_at"] if "run" in state else vars(model).pop("learn_started_at", 0)
    model.run = Run(started_at, resumed_state=state)
    return model


def check_state(state: dict[str, Any]) -> None:
    """
    Check the state in a checkpoint.

    :param state: The state
    :raises ValueError: If a part of it is missing or malformed.
    """
    monitors, run = state.get("monitors"), state.get("run", {"started_at": 0})  # version 0.1 has no `run`
    forms = {
        "run": isinstance(run, dict) and isinstance(run.get("started_at"), int),
        "random": isinstance(state.get("random"), dict),
        "callbacks": _is_callback_state(state.get("callbacks")),
        "monitors": isinstance(monitors, dict)
        and isinstance(monitors.get("sizes"), dict)
        and all(isinstance(name, str) and isinstance(size, int) and size >= 0 for name, size in monitors["sizes"].items())
        and isinstance(monitors.get("t_start"), list)
        and all(isinstance(start, int | float) for start in monitors["t_start"]),
        "n_envs": isinstance(state.get("n_envs"), int),
        "vec_normalize": isinstance(state.get("vec_normalize"), bool),
        "n_transitions": isinstance(state.get("n_transitions", ""), int | None),
    }
    for name, valid in forms.items():
        if not valid:
            raise ValueError(f"its `{name}` is missing or malformed")
    check_random_state(state["random"])


def _is_callback_state(state: Any) -> bool:
    keys = isinstance(state, dict) and all(isinstance(key, tuple) and len(key) == 2 for key in state)
    return keys and all(
        isinstance(attributes, dict) and all(isinstance(name, str) for name in attributes) for attributes in state.values()
    )


def go_on(model: Resumable, root: BaseCallback, state: dict[str, Any]) -> None:
    """
    Restore callbacks and random generators, immediately before training continues.

    :param model: The resumed model
    :param root: The callback that contains all others
    :param state: The state in the checkpoint
    """
    set_callback_state(root, state["callbacks"])
    set_random_state(model, state["random"])
    restart_episodes(model, root)


def require_same_environment(model: Resumable, state: dict[str, Any], checkpoint: pathlib.Path) -> None:
    """
    Check that the number of environments and their normalization are those of the checkpoint.

    :param model: The model of the checkpoint
    :param state: The state in the checkpoint
    :param checkpoint: Its folder, for messages
    :raises ValueError: If they differ.
    """
    now = model.describe_run()
    if now["n_envs"] != state["n_envs"]:
        raise ValueError(
            f"`env` has {now['n_envs']} environments; it must have {state['n_envs']}, as in the run of {checkpoint}."
        )
    if now["vec_normalize"] != state["vec_normalize"]:
        before, today = ("with", "without") if state["vec_normalize"] else ("without", "with")
        raise ValueError(
            f"{checkpoint} was written {before} `VecNormalize`, but `env` is {today} it. Wrap the environment as before."
        )


def require_same_dataset(model: Resumable, state: dict[str, Any], checkpoint: pathlib.Path) -> None:
    """
    Set the dataset of the model, and check that it is that of the checkpoint.

    :param model: The model of the checkpoint
    :param state: The state in the checkpoint
    :param checkpoint: Its folder, for messages
    :raises ValueError: If it is missing, or differs.
    """
    if state["n_transitions"] is None:
        return
    if model.dataset is None:
        raise ValueError(
            f"{checkpoint} trains on {model.dataset_name!r}, which is not saved in it. Pass it: `resume(..., dataset=...)`."
        )
    model.set_dataset(model.dataset)
    now = model.describe_run()
    if now["n_transitions"] != state["n_transitions"]:
        raise ValueError(
            f"The dataset has {now['n_transitions']} transitions; {checkpoint} trains on {model.dataset_name!r} with "
            f"{state['n_transitions']} transitions. Pass the dataset of the run."
        )
    if state.get("digest") not in (None, now["digest"]):
        raise ValueError(
            f"The dataset has as many transitions as {model.dataset_name!r} of {checkpoint}, but other values. Pass the "
            f"dataset of the run. To train on other data, start a new run by `load({str(checkpoint / MODEL)!r}, "
            "dataset=...)`."
        )
