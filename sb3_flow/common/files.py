"""Atomic writing of files, and error messages for files that cannot be read."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import sys
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

#: Errors of reading files that are truncated, damaged, or not models.
DAMAGE = (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """
    Write a file that appears under its name only when it is complete and flushed to disk.

    :param path: The file; it is replaced if it exists, and folders are created
    :return: The open file
    :raises OSError: If it cannot be written, for instance because the disk is full; the error names the file.
    """
    handled = sys.exc_info()[1]
    target = pathlib.Path(os.path.realpath(path))  # the target of a link
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(unfinished, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, target)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        origin = _origin(error, handled)
        if isinstance(origin, OSError) and origin.errno is not None and origin.filename is None:
            raise OSError(origin.errno, origin.strerror, str(target)) from error
        if origin is not error:
            raise origin from error
        raise


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Handle Ctrl-C at the end of the block: PyTorch may abort the process if it is interrupted while it writes a file."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    received: list[tuple[int, Any]] = []
    signal.signal(signal.SIGINT, lambda number, frame: received.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if received:
            handler(*received[-1])


def _origin(error: BaseException, handled: BaseException | None) -> BaseException:
    """
    The interrupt or the error of the operating system that led to an error: ``zipfile`` raises others when it closes.

    :param error: The error
    :param handled: An exception that was handled before, which did not lead to it
    """
    origin, earlier = error, error.__context__
    while earlier is not None and earlier is not handled:
        if isinstance(earlier, (KeyboardInterrupt, OSError)):
            origin = earlier
        earlier = earlier.__context__
    return origin


def sync_folder(folder: pathlib.Path) -> None:
    """Flush the names in a folder to disk, if the operating system supports it."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_path(path: Any) -> bool:
    """Whether this is a path, not an open file."""
    return isinstance(path, (str, pathlib.Path))


def as_folder(folder: Any, call: str) -> pathlib.Path:
    """
    :param folder: The path of a folder, as an argument
    :param call: How the function is called, for the message
    :raises TypeError: If it is no path, such as another argument in its place.
    """
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"`folder` is {folder!r}; it must be the path of a folder. Write {call}.")
    return pathlib.Path(folder)


def file_to_write(path: str | pathlib.Path, suffix: str) -> pathlib.Path:
    """
    The path to which Stable-Baselines3 would write: a suffix is added if there is none.

    :param path: The user's path
    :param suffix: The suffix, without the dot
    :raises ValueError: If the path is a folder.
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

    :param path: The user's path, with or without suffix
    :param suffix: The suffix, without the dot
    :param kind: Kind of the file for messages, such as ``"saved model"``
    :return: A file that exists and is not empty
    :raises FileNotFoundError: If there is no such file.
    :raises ValueError: If it is a folder, or empty.
    """
    file, longer = pathlib.Path(path), pathlib.Path(f"{path}.{suffix}")
    if not file.is_file() and longer.exists():
        file = longer
    if file.is_dir():
        raise ValueError(f"{file} is a folder, not a {kind}. Give the path of a file; `resume` takes folders of checkpoints.")
    if not file.exists():
        names = f"{file}" if file.suffix == f".{suffix}" else f"{file} or {longer}"
        raise FileNotFoundError(f"There is no {kind} {names}. Check the path; it is relative to {pathlib.Path.cwd()}.")
    if file.stat().st_size == 0:
        raise ValueError(f"{file} is empty, so it is not a {kind}. Use an earlier copy.")
    return file


def name_of(file: Any) -> str:
    """Name of a file in messages."""
    return str(file) if is_path(file) else "The open file"


def reason(error: BaseException) -> str:
    """The message of an error of another package, as one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]} ..."


def read_settings(file: Any) -> dict[str, Any]:
    """
    Check that a file is a complete saved model, and read its settings without creating the model.

    :param file: A path, or an open file, which is rewound
    :return: The settings; objects are still serialized
    :raises ValueError: If it is damaged, or not a saved model.
    """
    name = name_of(file)
    try:
        with zipfile.ZipFile(file) as archive:
            # Check the checksums here, because PyTorch seeks in its files and does not check them.
            damaged = archive.testzip()
            missing = {"data", "policy.pth"} - set(archive.namelist())
            settings = None if damaged or missing else json.loads(archive.read("data"))
    except DAMAGE as error:
        if _beginning(file).startswith(b"PK"):
            raise ValueError(f"{name} is damaged, perhaps truncated ({reason(error)}). Use an earlier copy.") from error
        raise ValueError(f"{name} is not a saved model ({reason(error)}). Pass a file that `save` wrote.") from error
    if damaged:
        raise ValueError(f"{name} is damaged: the checksum of its part {damaged!r} is wrong. Use an earlier copy.")
    if missing and _beginning(file)[30:34] == b"data":
        # The archive contains archives: the last complete one of them was found.
        raise ValueError(f"{name} is damaged: it is a truncated saved model. Use an earlier copy.")
    if not isinstance(settings, dict):
        raise ValueError(
            f"{name} is a zip archive, but not a saved model: it has no {', '.join(sorted(missing)) or 'settings'}. Pass a "
            "file that `save` wrote."
        )
    if not is_path(file):
        file.seek(0)
    return settings


def _beginning(file: Any) -> bytes:
    """Header and name of an archive's first part."""
    if is_path(file):
        with open(file, "rb") as opened:
            return opened.read(34)
    file.seek(0)
    return bytes(file.read(34))
