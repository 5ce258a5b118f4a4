"""The files of checkpoints. Each is a folder ``checkpoint_<timesteps>`` in the folder of the run."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

from sb3_flow.common.checkpoints.plain_files import PickledFile, read_data
from sb3_flow.common.files import reason

PREFIX = "checkpoint_"
MODEL, BUFFER, STATISTICS, STATE = "model.zip", "replay_buffer.npz", "vecnormalize.npz", "training.npz"


def checkpoints(folder: str | pathlib.Path) -> list[pathlib.Path]:
    """The complete checkpoints in a folder, in the order of their timesteps."""
    found = [path for path in pathlib.Path(folder).glob(f"{PREFIX}*") if path.name[len(PREFIX) :].isdigit() and path.is_dir()]
    return sorted(found, key=number)


def latest_checkpoint(folder: str | pathlib.Path) -> pathlib.Path | None:
    """
    The checkpoint from which ``resume`` would continue.

    :param folder: Folder of the run
    :return: Folder of the checkpoint; None if there is no complete checkpoint
    """
    found = checkpoints(folder)
    return found[-1] if found else None


def number(checkpoint: pathlib.Path) -> int:
    """The timesteps in the name of a checkpoint."""
    return int(checkpoint.name[len(PREFIX) :])


def find_checkpoint(folder: pathlib.Path) -> pathlib.Path:
    """
    The checkpoint to resume from.

    :param folder: Folder of the run, or of a checkpoint
    :return: Folder of the checkpoint
    :raises FileNotFoundError: If there is no complete checkpoint.
    :raises ValueError: If ``folder`` is a file.
    """
    if folder.is_file():
        raise ValueError(f"{folder} is a file. Pass the folder of a `TrainingCheckpoint`; `load` reads files.")
    if not folder.exists():
        raise FileNotFoundError(f"There is no folder {folder}. Check the path; it is relative to {pathlib.Path.cwd()}.")
    if part(folder, STATE).is_file():  # the folder of a checkpoint, not of the run
        return folder
    checkpoint = latest_checkpoint(folder)
    if checkpoint is None:
        unfinished = ", only an unfinished one" if list(folder.glob(f".{PREFIX}*")) else ""
        raise FileNotFoundError(
            f"{folder} has no checkpoint{unfinished}. Start a new run with the callback "
            f"`TrainingCheckpoint({str(folder)!r}, ...)`."
        )
    return checkpoint


def part(checkpoint: pathlib.Path, name: str) -> pathlib.Path:
    """
    The file of a part of a checkpoint.

    :param checkpoint: Folder of the checkpoint
    :param name: ``BUFFER``, ``STATISTICS`` or ``STATE``
    :return: Its path; that of a pickle in a checkpoint of version 0.1
    """
    former = (checkpoint / name).with_suffix(".pkl")
    return former if former.exists() and not (checkpoint / name).exists() else checkpoint / name


def read_part(
    path: pathlib.Path,
    kind: str,
    trusted: bool,
    types: tuple[type, ...] = (dict,),
    check: Callable[[Any], None] | None = None,
) -> Any:
    """
    Read a part of a checkpoint.

    :param path: The file
    :param kind: Its kind, as for ``read_data``
    :param trusted: Whether pickles are read
    :param types: Types that the value may have
    :param check: Raises a ``ValueError`` if the value is malformed
    :raises ValueError: If it is damaged, or a pickle that is not trusted.
    """
    try:
        with open(path, "rb") as file:
            value = read_data(file, kind, trusted)
        if not isinstance(value, types):
            raise ValueError(f"it contains a {type(value).__name__}")
        if check is not None:
            check(value)
        return value
    except PickledFile as error:
        raise ValueError(f"{path} {error}") from error
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged, or was written by another version ({reason(error)}). Resume from another checkpoint if there "
            "is one."
        ) from error
