"""Locks of folders, so that two processes do not write into one."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import filelock

from sb3_flow.common.warn import warn

#: Name of the lock in a folder. A file with the suffix ``.json`` beside it names the process that has acquired it.
LOCK = ".sb3_flow.lock"


class BusyError(OSError):
    """Another process has acquired a lock."""


class Lock:
    """
    Lock of a file or folder. The operating system releases it when the process ends, even if it is killed.

    :param file: The lock file
    :param guarded: The locked file or folder, for messages
    """

    def __init__(self, file: str | os.PathLike[str], guarded: str | os.PathLike[str]) -> None:
        self.file, self.guarded = pathlib.Path(file), guarded
        self.owner = self.file.with_name(f"{self.file.name}.json")
        self._lock = filelock.FileLock(self.file, timeout=0)

    def acquire(self) -> None:
        """
        Acquire the lock, or raise an error at once.

        :raises BusyError: If another process has acquired it. The message names the process and its host.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise BusyError(
                f"{self.guarded} is in use by {self._holder()}. Wait until it ends, stop it, or use another folder. If that "
                f"process does not exist, delete {self.file} and start again."
            ) from None
        except NotImplementedError:
            return warn(f"The file system of {self.file} has no locks: make sure that no other process uses {self.guarded}.")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        self.owner.write_text(json.dumps(holder), "utf-8")

    def _holder(self) -> str:
        try:
            holder: dict[str, Any] = json.loads(self.owner.read_text("utf-8"))
            return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
        except (OSError, ValueError, KeyError):
            return "another process"

    def release(self) -> None:
        """Release the lock and delete its files."""
        if not self._lock.is_locked:
            return
        for file in (self.owner, self.file):
            with contextlib.suppress(OSError):  # Windows does not delete an open file
                file.unlink()
        self._lock.release()


@contextlib.contextmanager
def locked(file: str | os.PathLike[str], guarded: str | os.PathLike[str]) -> Iterator[None]:
    """
    Context manager that acquires a lock and releases it.

    :param file: The lock file
    :param guarded: The locked file or folder, for messages
    :raises BusyError: If another process has acquired it.
    """
    lock = Lock(file, guarded)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()
