"""Checks of observations, rewards and action noise."""

import copy
import warnings
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.vec_env import VecNormalize

from sb3_flow.common.encoders import subspaces


def check_observation(observation: Any, space: spaces.Space[Any], where: str = "The observation") -> None:
    """
    :param observation: One observation or a batch of them, as arrays
    :param space: Observation space
    :param where: Name of the observation in messages
    :raises ValueError: If it is a tuple, as returned by Gymnasium's ``reset``; if a number is not finite; if it is an image of
        floats in [0, 1] but the space is uint8.
    """
    if isinstance(observation, tuple):
        raise ValueError(
            f"{where} is a tuple. Gymnasium's `reset` returns a tuple `(observation, info)`, SB3's vectorized environments an "
            "observation: pass `observation`."
        )
    wanted = subspaces(space)
    parts = observation if isinstance(observation, dict) else {"": observation}
    for key, part in parts.items():
        array = np.asarray(part)
        if array.dtype.kind != "f":
            continue
        name = f"{where}, part {key!r}," if key else where
        if not np.isfinite(array).all():
            value = array[~np.isfinite(array)].flat[0]
            raise ValueError(f"{name} has the value {value}. Observations must be finite: check sensors and wrappers.")
        of_bytes = key in wanted and wanted[key].dtype == np.uint8 and len(wanted[key].shape or ()) == 3
        if of_bytes and 0 < array.max() <= 1:
            raise ValueError(
                f"{name} is an image of floats in [0, 1], but the observation space is uint8 in [0, 255], which the policy "
                "divides by 255. Pass (255 * image).astype(numpy.uint8)."
            )


def check_step(
    observations: Any, rewards: np.ndarray, infos: list[dict[str, Any]], space: spaces.Space[Any], n_steps: int
) -> None:
    """
    Check one step of the environments before it is stored.

    :param observations: The new observations, ``(n_envs, *shape)`` or a dictionary of these
    :param rewards: ``(n_envs,)``
    :param infos: One dictionary per environment; ``terminal_observation`` is checked, too
    :param space: Observation space
    :param n_steps: Number of environment steps so far, for messages
    :raises ValueError: If observations do not match the space, or a number is not finite.
    """
    where = f"After {n_steps} environment steps, the observation"
    parts = observations if isinstance(observations, dict) else {"": observations}
    wanted = subspaces(space)
    for key, part in parts.items():
        if key in wanted and np.shape(part)[1:] != wanted[key].shape:
            name = f"{where}, part {key!r}," if key else where
            raise ValueError(
                f"{name} of each environment has the shape {np.shape(part)[1:]}, but the observation space has "
                f"{wanted[key].shape}."
            )
    check_observation(observations, space, where)
    for info in infos:
        if info.get("terminal_observation") is not None:
            check_observation(info["terminal_observation"], space, f"{where} at the end of the episode")
    if not np.isfinite(rewards).all():
        index = int(np.flatnonzero(~np.isfinite(rewards))[0])
        raise ValueError(
            f"After {n_steps} environment steps, the reward of environment {index} is {np.asarray(rewards)[index]}. Rewards "
            "must be finite. This step is not stored. Check the reward function."
        )


def check_explored(actions: np.ndarray, n_steps: int) -> None:
    """
    Check actions with noise before the environments execute them.

    :param actions: The actions, ``(n_envs, *shape)``
    :param n_steps: Number of environment steps so far, for messages
    :raises ValueError: If an action is not finite.
    """
    if not np.isfinite(actions).all():
        value = not_finite(actions)
        raise ValueError(
            f"After {n_steps} environment steps, an action with `action_noise` has the value {value}. It is not executed."
        )


def not_finite(value: Any) -> float | None:
    """
    Find a number that is not finite.

    :param value: An array, a tensor, or nested dictionaries and sequences of these; other values are ignored
    :return: The first such number; None if there is none
    """
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        return next((found for found in map(not_finite, value) if found is not None), None)
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        value = th.from_numpy(value)
    if not isinstance(value, th.Tensor) or not value.is_floating_point() or bool(value.isfinite().all()):
        return None
    return float(value[~value.isfinite()][0])


def statistics_of(env: VecNormalize | None) -> list[np.ndarray]:
    """
    The statistics of ``VecNormalize``.

    :param env: The environment; None: there are no statistics
    :return: Means and variances
    """
    if env is None:
        return []
    observations = [] if not env.norm_obs else env.obs_rms.values() if isinstance(env.obs_rms, dict) else [env.obs_rms]
    return [np.asarray(part) for statistics in (env.ret_rms, *observations) for part in (statistics.mean, statistics.var)]


def check_action_noise(noise: ActionNoise | None, space: spaces.Box, n_envs: int) -> None:
    """
    :param noise: The noise that is added to actions, or None
    :param space: Action space
    :param n_envs: Number of environments
    :raises ValueError: If its shape is not that of actions.
    """
    if noise is None:
        return
    state = np.random.get_state()
    shape = np.shape(copy.deepcopy(noise)())
    np.random.set_state(state)  # the noise of Stable-Baselines3 draws from the global generator
    if shape not in ((), space.shape, (n_envs, *(space.shape or ()))):
        raise ValueError(
            f"`action_noise` has the shape {shape}, but actions have {space.shape}. Pass a mean and a standard deviation per "
            "action dimension."
        )


def warn_about_memory(needed: int) -> None:
    """
    Warn if a full replay buffer of images needs more memory than is available.

    :param needed: Needed memory in bytes
    """
    available = available_memory()
    if available is not None and needed > available:
        warnings.warn(
            f"The images of a full replay buffer need up to {needed / 2**30:,.1f} GiB of memory, and "
            f"{available / 2**30:,.1f} GiB are available. Pass a smaller `buffer_size`.",
            stacklevel=4,
        )


def available_memory() -> int | None:
    """Available memory in bytes; None if unknown."""
    try:
        import psutil

        return int(psutil.virtual_memory().available)
    except ImportError:
        pass
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
