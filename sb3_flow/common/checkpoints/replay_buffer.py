"""Saving and loading of the replay buffer."""

from __future__ import annotations

import io
import pathlib
from typing import Any

from stable_baselines3.common.save_util import load_from_pkl

from sb3_flow.common.checkpoints import compact
from sb3_flow.common.checkpoints.old_files import moved_modules
from sb3_flow.common.data.online_buffer import OnlineBuffer
from sb3_flow.common.files import atomic_write, file_to_read, file_to_write, is_path, name_of


def save_replay_buffer(buffer: OnlineBuffer, path: str | pathlib.Path | io.BufferedIOBase) -> None:
    """
    Save a replay buffer.

    :param buffer: The replay buffer
    :param path: A path (``.pkl`` is added if it has no suffix), or an open file
    """
    if not isinstance(path, (str, pathlib.Path)):
        return compact.dump(buffer, path)  # type: ignore[arg-type]
    with atomic_write(file_to_write(path, "pkl")) as file:
        compact.dump(buffer, file)


def load_replay_buffer(path: Any, own: OnlineBuffer, algorithm: str) -> OnlineBuffer:
    """
    Load a replay buffer.

    :param path: A path, or an open file
    :param own: The replay buffer that the loaded one replaces
    :param algorithm: Name of the algorithm, for messages
    :return: The loaded replay buffer
    :raises FileNotFoundError: If there is no such file.
    :raises ValueError: If it is not a replay buffer, or has other spaces.
    """
    if is_path(path):
        path = file_to_read(path, "pkl", "saved replay buffer")
    name = name_of(path)
    try:
        with moved_modules():
            buffer = load_from_pkl(path)
    except Exception as error:  # damaged pickles can raise anything
        raise ValueError(
            f"{name} is not a replay buffer, or it is damaged ({error}). Pass a file that `save_replay_buffer` wrote."
        ) from error
    if not isinstance(buffer, OnlineBuffer):
        raise ValueError(
            f"{name} contains a {type(buffer).__module__}.{type(buffer).__qualname__}; {algorithm} needs a "
            f"{OnlineBuffer.__name__}. Pass the replay buffer of another algorithm as `dataset`."
        )
    for what in ("observation_space", "action_space", "n_envs"):
        if getattr(buffer, what) != getattr(own, what):
            raise ValueError(
                f"The `{what}` of {name} is {getattr(buffer, what)}, but that of this model is {getattr(own, what)}. If only "
                "the number of environments differs, pass it as `dataset`."
            )
    buffer.device = own.device
    return buffer
