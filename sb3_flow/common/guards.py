"""Checks of devices, observations, rewards and action noise."""

import copy
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.vec_env import VecNormalize

from sb3_flow.common.arguments import checked_value
from sb3_flow.common.checkpoints.callback_state import all_callbacks
from sb3_flow.common.encoders import choices, is_scaled_image, subspaces
from sb3_flow.common.warn import warn

#: The largest number of single precision.
LARGEST = float(np.finfo(np.float32).max)


def check_device(device: th.device | str, name: str = "`device`") -> None:
    """
    Check that a device exists. Without CUDA, ``"cuda"`` means the CPU, as in Stable-Baselines3, with a warning.

    :param device: The device, or ``"auto"``
    :param name: Name of the argument in messages
    :raises ValueError: If PyTorch does not know the device, or it does not exist on this machine.
    """
    if device == "auto":
        return
    try:
        kind = th.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{name} is {device!r}; it must be 'auto', 'cpu', 'cuda' or another device of PyTorch.") from error
    if kind.type == "cuda" and not th.cuda.is_available():
        return warn(f"{name} is {str(device)!r}, but CUDA is not available: the CPU is used.")
    try:
        th.empty(0, device=kind)
    except Exception as error:  # each kind of device has its own errors
        raise ValueError(f"{name} is {device!r}, which cannot be used here: {str(error).splitlines()[0]}") from error


def check_learn(total_timesteps: Any, callback: Any, log_interval: Any) -> tuple[Any, Any]:
    """
    Check the arguments of ``learn``.

    :param total_timesteps: Number of timesteps, or None
    :param callback: A callback, a function, a list of callbacks, or None
    :param log_interval: Number of episodes between two log entries, or None
    :return: ``total_timesteps`` and ``log_interval``, converted to int
    :raises TypeError: If one of them has another type.
    :raises ValueError: If a number is too small.
    """
    if total_timesteps is not None:
        total_timesteps = checked_value("total_timesteps", total_timesteps, int)
        if total_timesteps < 0:
            raise ValueError(f"`total_timesteps` is {total_timesteps}; it must be at least 0.")
    if log_interval is not None:
        log_interval = checked_value("log_interval", log_interval, int)
        if log_interval < 1:
            raise ValueError(f"`log_interval` is {log_interval}; it must be at least 1, or None for no log.")
    check_callback(callback)
    return total_timesteps, log_interval


def check_callback(callback: Any) -> None:
    """
    Check the callback of ``learn``.

    :param callback: A callback, a function, a list of callbacks, or None
    :raises TypeError: If it is something else.
    :raises ValueError: If an ``EvalCallback`` has no episodes.
    """
    if callback is None or (callable(callback) and not isinstance(callback, type)):
        return
    for each in callback if isinstance(callback, list) else [callback]:
        if not isinstance(each, BaseCallback):
            raise TypeError(
                f"`callback` has {each!r}; it must be a callback, such as CheckpointCallback(1000, 'models'), or a list of "
                "these."
            )
        for evaluation in all_callbacks(each):
            if isinstance(evaluation, EvalCallback) and evaluation.n_eval_episodes < 1:
                raise ValueError(
                    f"`n_eval_episodes` of `EvalCallback` is {evaluation.n_eval_episodes}; it must be at least 1."
                )


def check_state(state: Any, episode_start: Any, n: int) -> None:
    """
    Check what ``predict`` of a policy with state is given besides observations.

    :param state: As returned by the previous call, or None
    :param episode_start: Where an episode begins, ``(n,)``, or None
    :param n: Number of observations
    :raises TypeError: If the state is not that of a policy.
    :raises ValueError: If the state, or ``episode_start``, is for another number of environments, or ``episode_start`` has
        other values than 0 and 1.
    """
    if state is not None and not (isinstance(state, (tuple, list)) and state and np.ndim(state[0])):
        raise TypeError(f"`state` is {state!r}; it must be None, or what `predict` returned before.")
    if episode_start is not None and np.asarray(episode_start).dtype != bool and not np.isin(episode_start, (0, 1)).all():
        raise ValueError(f"`episode_start` is {episode_start!r}; expected True or False for each environment.")
    for name, length in (("state", None if state is None else len(state[0])), ("episode_start", _length(episode_start))):
        if length not in (None, n):
            raise ValueError(f"`{name}` is for {length} environments, and there are {n} observations; pass one for each.")


def check_parts(observations: Any) -> None:
    """
    :param observations: A batch of observations as tensors, or a dictionary of these
    :raises ValueError: If the parts of a dictionary have different numbers of observations.
    """
    lengths = {key: len(part) for key, part in observations.items()} if isinstance(observations, dict) else {}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"The parts of the observation have {lengths} observations; expected as many of each.")


def _length(array: Any) -> int | None:
    return len(array) if np.ndim(array) else None


def check_observation(
    observation: Any, space: spaces.Space[Any], where: str = "The observation", of_environments: bool = False
) -> None:
    """
    :param observation: One observation or a batch of them, as arrays
    :param space: Observation space
    :param where: Name of the observation in messages
    :param of_environments: Whether it is a batch with one observation per environment; messages name the environment
    :raises ValueError: If it is a tuple, as returned by Gymnasium's ``reset``; if it has other parts than the space; if a
        number is not finite, or too large for single precision; if a choice is not one of the space; if it is an image of
        floats in [0, 1] but the space is uint8, or an image of bytes but the space is [0, 1].
    """
    if isinstance(observation, tuple):
        raise ValueError(
            f"{where} is a tuple. Gymnasium's `reset` returns a tuple `(observation, info)`, SB3's vectorized environments an "
            "observation: pass `observation`."
        )
    wanted = subspaces(space)
    parts = observation if isinstance(observation, dict) else {"": observation}
    if isinstance(observation, dict) and isinstance(space, spaces.Dict) and parts.keys() != wanted.keys():
        raise ValueError(f"{where} has the parts {sorted(map(str, parts))}; expected {sorted(wanted)}.")
    if not isinstance(observation, dict) and isinstance(space, spaces.Dict):
        raise ValueError(
            f"{where} is of the type {type(observation).__name__}; expected a dictionary with the parts {sorted(wanted)}."
        )
    for key, part in parts.items():
        if fits_single_precision(part) and _is_continuous(wanted.get(key)):
            continue  # the common case, in few microseconds
        array = part.numpy(force=True) if isinstance(part, th.Tensor) else np.asarray(part)
        name = f"{where}, part {key!r}," if key else where
        if array.dtype.kind not in "fiub":
            raise ValueError(
                f"{name} is {array.flat[0] if array.size else part!r} of the type {array.dtype}; expected numbers."
            )
        with np.errstate(over="ignore"):  # networks and replay buffers have single precision
            finite = np.isfinite(array.astype(np.float32, copy=False)) if array.dtype.kind == "f" else np.True_
        if not finite.all():
            value = array[~finite].flat[0]
            if of_environments:
                index = np.argwhere(~finite)[0][0]
                name = f"{where} of environment {index}" + (f", part {key!r}," if key else "")
            reason = ", which is too large for single precision" if np.isfinite(value) else ""
            raise ValueError(f"{name} has the value {value}{reason}. Observations must be finite: check sensors and wrappers.")
        if key not in wanted:
            continue  # is refused later, with a better message
        if (values := choices(wanted[key])) is not None:
            _check_choices(array, wanted[key], *values, name)
        elif wanted[key].dtype == np.uint8 and len(wanted[key].shape or ()) == 3:
            _check_image(array, wanted[key], name)
        elif array.dtype == np.uint8 and is_scaled_image(wanted[key]) and array.max() > 1:
            raise ValueError(f"{name} is an image of bytes, but the observation space is [0, 1]. Pass image / 255.")


def fits_single_precision(array: Any) -> bool:
    """Whether it is an array of floats that has numbers, and all of them are finite and within single precision."""
    return (
        type(array) is np.ndarray
        and array.dtype.kind == "f"
        and array.size > 0
        and float(np.abs(array).max()) <= LARGEST  # False for NaN; `LARGEST` is infinite in half precision
    )


def _is_continuous(space: spaces.Space[Any] | None) -> bool:
    return isinstance(space, spaces.Box) and space.dtype != np.uint8


def _check_choices(array: np.ndarray, space: spaces.Space[Any], start: Any, count: Any, name: str) -> None:
    """
    :param array: One observation or a batch of them
    :param space: A discrete space
    :param start: Smallest value of each element
    :param count: Number of values of each element
    :param name: Name of the observation in messages
    :raises ValueError: If a number is not one of the choices of the space.
    """
    shape = space.shape or ()
    if array.shape[max(array.ndim - len(shape), 0) :] != shape:
        return  # is refused later, with a better message
    wrong = (array < start) | (array >= start + count) | (array != np.floor(array))
    if wrong.any():
        raise ValueError(f"{name} has the value {array[wrong].flat[0]}; expected whole numbers of the space {space}.")


def _check_image(array: np.ndarray, space: spaces.Space[Any], name: str) -> None:
    """
    :param array: One image or a batch of them
    :param space: Space of bytes
    :param name: Name of the image in messages
    :raises ValueError: If it has other values than bytes, or seems to be scaled to [0, 1].
    """
    if array.dtype == np.uint8:
        return
    if array.ndim not in (3, 4):
        raise ValueError(f"{name} has the shape {array.shape}; expected an image, or a batch of images: {space.shape}.")
    if array.size and (array.min() < 0 or array.max() > 255):
        raise ValueError(f"{name} is an image with values from {array.min():g} to {array.max():g}; expected 0 to 255.")
    if array.dtype.kind in "fb" and array.size and 0 < array.max() <= 1:
        kind = "floats in [0, 1]" if array.dtype.kind == "f" else "True and False"
        raise ValueError(
            f"{name} is an image of {kind}, but the observation space is uint8 in [0, 255], which the policy divides by 255. "
            "Pass (255 * image).astype(numpy.uint8)."
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
    check_observation(observations, space, where, of_environments=True)
    for i, info in enumerate(infos):
        if info.get("terminal_observation") is not None:
            check_observation(info["terminal_observation"], space, f"{where} of environment {i} at the end of the episode")
    if fits_single_precision(rewards):
        return
    with np.errstate(over="ignore"):  # as the replay buffer stores them
        finite = np.isfinite(np.asarray(rewards, dtype=np.float32))
    if not finite.all():
        index = int(np.flatnonzero(~finite)[0])
        value = np.asarray(rewards)[index]
        reason = " in single precision" if np.isfinite(value) else ""
        raise ValueError(
            f"After {n_steps} environment steps, the reward of environment {index} is {value}. Rewards must be "
            f"finite{reason}. This step is not stored. Check the reward function."
        )


@contextmanager
def named_returns(model: Any) -> Iterator[None]:
    """Errors of SB3's ``DummyVecEnv`` and ``Monitor`` about what an environment returned say so."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if not traceback.extract_tb(error.__traceback__)[-1].filename.endswith(("dummy_vec_env.py", "monitor.py")):
            raise
        raise type(error)(
            f"After {model.n_env_steps} environment steps, what an environment returned cannot be stored: {error}. It must "
            f"return observations of {model.observation_space}, and rewards that are numbers."
        ) from error


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
            f"After {n_steps} environment steps, an action with `action_noise` has the value {value}. It is not executed. "
            "Check the mean and the standard deviation of `action_noise`."
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


@contextmanager
def before_normalization(env: VecNormalize | None) -> Iterator[list[dict[str, Any]]]:
    """
    Keep what ``VecNormalize`` replaces in the infos of a step: it clips the last observations of episodes.

    :param env: The environment; None: there is none
    :return: A list that has the infos of the latest step, one for each environment
    """
    infos: list[dict[str, Any]] = []
    if env is None:
        yield infos
        return
    step_wait = env.venv.step_wait

    def step_and_keep() -> Any:
        step = step_wait()
        infos[:] = (dict(info) for info in step[-1])
        return step

    env.venv.step_wait = step_and_keep  # type: ignore[method-assign]
    try:
        yield infos
    finally:
        env.venv.step_wait = step_wait  # type: ignore[method-assign]


def check_action_noise(noise: ActionNoise | None, space: spaces.Box, n_envs: int) -> None:
    """
    :param noise: The noise that is added to actions, or None
    :param space: Action space
    :param n_envs: Number of environments
    :raises ValueError: If its shape is not that of actions.
    """
    if noise is None:
        return
    if not isinstance(noise, ActionNoise):
        raise TypeError(
            f"`action_noise` is {noise!r}; it must be an `ActionNoise` of Stable-Baselines3, such as "
            "NormalActionNoise(mean, sigma)."
        )
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
