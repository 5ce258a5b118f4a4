"""Saving and loading of the replay buffer."""

from __future__ import annotations

import io
import pathlib
from contextlib import nullcontext
from typing import Any

from sb3_flow.common.checkpoints.plain import MALFORMED
from sb3_flow.common.checkpoints.plain_files import PickledFile, read_data, write_data
from sb3_flow.common.data.online_buffer import OnlineBuffer
from sb3_flow.common.files import atomic_write, file_to_read, file_to_write, is_path, name_of, reason

#: Kind of the file.
KIND = "replay buffer"


def save_replay_buffer(buffer: OnlineBuffer, path: str | pathlib.Path | io.BufferedIOBase) -> None:
    """
    Save a replay buffer as plain data.

    :param buffer: The replay buffer
    :param path: A path (``.pkl`` is added if it has no suffix, as in Stable-Baselines3), or an open file
    """
    if not isinstance(path, (str, pathlib.Path)):
        return write_data(path, KIND, buffer.state())  # type: ignore[arg-type]
    with atomic_write(file_to_write(path, "pkl")) as file:
        write_data(file, KIND, buffer.state())


def load_replay_buffer(path: Any, own: OnlineBuffer, algorithm: str, trusted: bool = False) -> OnlineBuffer:
    """
    Load a replay buffer.

    :param path: A path, or an open file
    :param own: The replay buffer that the loaded one replaces
    :param algorithm: Name of the algorithm, for messages
    :param trusted: Whether a pickle is read, which runs any code that it contains
    :return: The loaded replay buffer
    :raises FileNotFoundError: If there is no such file.
    :raises ValueError: If it is not a replay buffer, has other spaces or numbers that are not finite, or is a pickle that is
        not trusted.
    """
    if is_path(path):
        path = file_to_read(path, "pkl", "saved replay buffer")
    name = name_of(path)
    try:
        with open(path, "rb") if is_path(path) else nullcontext(path) as file:
            saved = read_data(file, KIND, trusted)
        buffer = OnlineBuffer.from_state(saved) if isinstance(saved, dict) and "columns" in saved else saved
    except PickledFile as error:
        raise ValueError(f"{name} {error}") from error
    except MALFORMED as error:
        raise ValueError(
            f"{name} is not a replay buffer, or it is damaged ({reason(error)}). Pass a file that `save_replay_buffer` wrote."
        ) from error
    if not isinstance(buffer, OnlineBuffer):
        raise ValueError(
            f"{name} contains a {type(buffer).__module__}.{type(buffer).__qualname__}; {algorithm} needs a "
            f"{OnlineBuffer.__name__}. Load it with its own algorithm, and pass `model.replay_buffer` as `dataset`."
        )
    for what in ("observation_space", "action_space", "n_envs"):
        if getattr(buffer, what) != getattr(own, what):
            advice = (
                f" Load it with a model of {buffer.n_envs} environments, and pass its `replay_buffer` as `dataset`."
                if what == "n_envs"
                else ""
            )
            raise ValueError(
                f"The `{what}` of {name} is {getattr(buffer, what)}, but that of this model is {getattr(own, what)}.{advice}"
            )
    if (value := buffer.not_finite()) is not None:
        raise ValueError(f"{name} has the value {value}; all numbers of a replay buffer must be finite. Use an earlier file.")
    buffer.device = own.device
    return buffer
