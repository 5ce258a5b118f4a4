"""The files of checkpoints. Each is a folder ``checkpoint_<timesteps>`` in the folder of the run."""

from __future__ import annotations

import pathlib
import pickle
from typing import Any

PREFIX = "checkpoint_"
MODEL, BUFFER, STATISTICS, STATE = "model.zip", "replay_buffer.pkl", "vecnormalize.pkl", "training.pkl"


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
    if (folder / STATE).is_file():  # the folder of a checkpoint, not of the run
        return folder
    checkpoint = latest_checkpoint(folder)
    if checkpoint is None:
        unfinished = ", only an unfinished one" if list(folder.glob(f".{PREFIX}*")) else ""
        raise FileNotFoundError(
            f"{folder} has no checkpoint{unfinished}. Start a new run with the callback "
            f"`TrainingCheckpoint({str(folder)!r}, ...)`."
        )
    return checkpoint


def read_pickle(path: pathlib.Path) -> Any:
    """
    Read a pickled part of a checkpoint.

    :param path: The file
    :raises ValueError: If it is damaged.
    """
    try:
        with open(path, "rb") as file:
            return pickle.load(file)
    except FileNotFoundError:
        raise
    except Exception as error:  # damaged pickles can raise anything
        raise ValueError(
            f"{path} is damaged, or was written by another version ({error}). Resume from another checkpoint if there is one."
        ) from error
