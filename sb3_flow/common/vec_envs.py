"""
Attributes of vectorized environments, for all implementations.

Simulators and game engines support few of these methods, and a worker of ``SubprocVecEnv`` crashes if an attribute does not
exist or cannot be pickled. So only necessary attributes are read, and an unsupported method is not an error.
"""

import re
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, VecFrameStack, VecNormalize

from sb3_flow.common.data.observation_store import SLACK
from sb3_flow.common.encoders import image_keys, subspaces


def env_id_of(env: VecEnv) -> str | None:
    """
    :param env: Any vectorized environment
    :return: The id of the first environment; None if it is unknown
    """
    base = env.unwrapped
    if isinstance(base, DummyVecEnv):
        return None if base.envs[0].spec is None else base.envs[0].spec.id
    try:
        # The `spec` may not be picklable; the string of an environment ends with its id.
        text = str(env.env_method("__str__", indices=[0])[0])
    except Exception:  # other implementations may raise anything
        return None
    found = re.search(r"<([^<>\s]+)>+$", text)
    return found.group(1) if found else None


def attributes(env: VecEnv, name: str) -> list[Any] | None:
    """
    :param env: Any vectorized environment
    :param name: Name of an attribute
    :return: Its value in each environment; None if it does not exist or cannot be read
    """
    try:
        values = env.get_attr(name) if env.has_attr(name) else None
    except Exception:  # other implementations may raise anything
        return None
    return values if isinstance(values, list) and len(values) == env.num_envs else None


def all_monitored(env: VecEnv) -> bool:
    """Whether each environment is wrapped in a ``Monitor``."""
    try:
        return all(env.env_is_wrapped(Monitor))
    except Exception:  # other implementations may raise anything
        return False


def forbids_early_resets(env: VecEnv) -> bool:
    """Whether a ``Monitor`` raises an error if an environment is reset during an episode."""
    return all_monitored(env) and not all(attributes(env, "allow_early_resets") or [True])


def wrappers_of(env: VecEnv) -> list[VecEnv]:
    """A vectorized environment and all environments that it wraps, the outermost first."""
    found = [env]
    while isinstance(found[-1], VecEnvWrapper):
        found.append(found[-1].venv)
    return found


def check_wrapper_order(env: VecEnv) -> None:
    """
    :param env: Environments to train in
    :raises ValueError: If ``VecNormalize`` is used twice, or a wrapper around it changes the shape of observations. Replay
        buffers store the inputs of ``VecNormalize``.
    """
    found = wrappers_of(env)
    if sum(isinstance(wrapper, VecNormalize) for wrapper in found) > 1:
        raise ValueError("The environment has `VecNormalize` twice, so observations would be normalized twice: use it once.")
    for i, wrapper in enumerate(found):
        if isinstance(wrapper, VecNormalize) and shapes(wrapper.observation_space) != shapes(env.observation_space):
            around = [type(outer).__name__ for outer in found[:i]]
            raise ValueError(
                f"{' and '.join(around)} changes the shape of observations around `VecNormalize`. Replay buffers store the "
                f"inputs of `VecNormalize`, so it must be outermost: VecNormalize({around[-1]}(venv, ...), ...)."
            )


def shapes(space: spaces.Space[Any]) -> dict[str, tuple[int, ...] | None]:
    """The shape of each part of an observation space."""
    return {key: part.shape for key, part in subspaces(space).items()}


def images_memory(env: VecEnv, buffer_size: int) -> int:
    """
    :param env: Environments to train in
    :param buffer_size: Capacity of the replay buffer, in transitions
    :return: Memory of the images in a full replay buffer, in bytes. Frames that ``VecFrameStack`` repeats are stored once.
    """
    n_stacked = next((wrapper.stacked_obs.n_stack for wrapper in wrappers_of(env) if isinstance(wrapper, VecFrameStack)), 1)
    parts = subspaces(env.observation_space)
    pixels = sum(int(spaces.flatdim(parts[key])) for key in image_keys(env.observation_space))
    return int(pixels * buffer_size / n_stacked * (1 + SLACK))
