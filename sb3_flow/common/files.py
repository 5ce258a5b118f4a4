"""Files that are never seen half-written, and what is wrong with those that cannot be read."""

from __future__ import annotations

import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

#: What reading a file raises that was cut, changed, or made by something else.
DAMAGE = (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """
    Write a file that appears under its name only when it is complete and on the disk.

    :param path: The file; an older one is replaced, and folders are made.
    :return: The open file
    """
    target = pathlib.Path(os.path.realpath(path))  # through a link, to the file that it stands for
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(unfinished, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def sync_folder(folder: pathlib.Path) -> None:
    """Have the names in a folder on the disk, where the system lets one ask for that."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_path(path: Any) -> bool:
    """Whether this is the path of a file, not an open file."""
    return isinstance(path, (str, pathlib.Path))


def file_to_write(path: str | pathlib.Path, suffix: str) -> pathlib.Path:
    """
    Where Stable-Baselines3 would write: a path without a suffix gets one.

    :param path: As the user gave it
    :param suffix: Without the dot
    :raises ValueError: If there is a folder of that name.
    """
    file = pathlib.Path(path)
    if not file.suffix:
        file = pathlib.Path(f"{file}.{suffix}")
    if file.is_dir():
        raise ValueError(f"{file} is a folder. Give the path of a file, such as {file / f'name.{suffix}'}.")
    return file


def file_to_read(path: str | pathlib.Path, suffix: str, kind: str) -> pathlib.Path:
    """
    The file that Stable-Baselines3 would read.

    :param path: With or without its suffix
    :param suffix: Without the dot
    :param kind: What it is to be, for messages: ``"saved model"``
    :return: A file that is there and not empty
    :raises FileNotFoundError: If there is none.
    :raises ValueError: If it is a folder, or empty.
    """
    file, longer = pathlib.Path(path), pathlib.Path(f"{path}.{suffix}")
    if not file.is_file() and longer.exists():
        file = longer
    if file.is_dir():
        raise ValueError(f"{file} is a folder, not a {kind}. Give the path of a file; `resume` takes folders of checkpoints.")
    if not file.exists():
        names = f"{file}" if file.suffix == f".{suffix}" else f"{file} or {longer}"
        raise FileNotFoundError(f"There is no {kind} {names}. Check the path; it counts from {pathlib.Path.cwd()}.")
    if file.stat().st_size == 0:
        raise ValueError(f"{file} is empty, so it is no {kind}. Use an earlier copy.")
    return file


def name_of(file: Any) -> str:
    """What to call a file in a message."""
    return str(file) if is_path(file) else "The open file"


def read_settings(file: Any) -> dict[str, Any]:
    """
    See that a file is a complete model as Stable-Baselines3 writes it, and read its settings without building anything.

    :param file: A path, or an open file, which is left at its beginning
    :return: The settings; those that are no plain values are still packed.
    :raises ValueError: If it is damaged, or something else.
    """
    name = name_of(file)
    try:
        with zipfile.ZipFile(file) as archive:
            # PyTorch jumps about in its files, so that nobody compares the check sums unless it is done here.
            damaged = archive.testzip()
            missing = {"data", "policy.pth"} - set(archive.namelist())
            settings = None if damaged or missing else json.loads(archive.read("data"))
    except DAMAGE as error:
        if _beginning(file).startswith(b"PK"):
            raise ValueError(f"{name} is damaged, perhaps cut short ({error}). Use an earlier copy.") from error
        raise ValueError(f"{name} is no saved model ({error}). Give a file that `save` wrote.") from error
    if damaged:
        raise ValueError(f"{name} is damaged: its part {damaged!r} is not what was written. Use an earlier copy.")
    if missing and _beginning(file)[30:34] == b"data":
        # There are archives in the archive: the last complete one of them was found.
        raise ValueError(f"{name} is damaged: it begins as a saved model and was cut short. Use an earlier copy.")
    if not isinstance(settings, dict):
        raise ValueError(f"{name} is a zip archive, but no saved model: it lacks {', '.join(sorted(missing)) or 'settings'}.")
    if not is_path(file):
        file.seek(0)
    return settings


def _beginning(file: Any) -> bytes:
    """The header of an archive's first part, and the part's name."""
    if is_path(file):
        with open(file, "rb") as opened:
            return opened.read(34)
    file.seek(0)
    return bytes(file.read(34))
