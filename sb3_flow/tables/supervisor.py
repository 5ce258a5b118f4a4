"""
The worker of a sweep: it runs one training in a separate process and waits until it ends.

Ray pickles this module by value. It imports only the standard library, so that workers do not load PyTorch.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

#: File in the folder of each run: its command, and whether it has finished.
RECORD = "sweep.json"
#: Output of a run, over all its attempts.
LOG = "log.txt"
#: Lock of the folder, held by the training process.
LOCK = "sweep.lock"
#: Seconds to wait for a training to stop, and for the processes of a killed run to end.
PATIENCE = 20.0
#: Prefixes of arguments that may change between two starts of a run, because results do not depend on them.
MAY_CHANGE = ("--resume", "--log-folder=", "--num-threads=", "--device=", "--log-interval=")


class BusyError(RuntimeError):
    """Another process trains in the folder of a run."""


def supervise(runs: Mapping[str, Sequence[str]], command: Sequence[str], cwd: str, threads: int, sweep: str) -> int:
    """
    Start or resume the runs of one process, and record when they have finished.

    :param runs: The folder of each run, with the command line that trains it alone
    :param command: The command line of the process, after ``sb3-flow``
    :param cwd: Working directory; relative folders are relative to it
    :param threads: Number of threads
    :param sweep: Name of this start of the sweep, for the records
    :return: Exit code of the training: 0 if the runs have finished, negative for the signal that killed it
    :raises BusyError: If another process trains in one of the folders.
    """
    records = {Path(cwd, folder): {"command": list(own), "finished": False} for folder, own in runs.items()}
    for path in records:
        path.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        locks = [stack.enter_context(locked(path / LOCK)) for path in records]
        started = {path: record for path, record in records.items() if not is_finished(path)}
        if not started:
            return 0  # another sweep finished them in the meantime
        host = socket.gethostname()
        logs = []
        for path, record in started.items():
            record.update(sweep=sweep, host=host)
            write_record(path, record)
            logs.append(stack.enter_context((path / LOG).open("ab")))
            logs[-1].write(f"\n==== {time.strftime('%Y-%m-%d %H:%M:%S')} on {host}: sb3-flow {' '.join(command)}\n".encode())
            logs[-1].flush()
        process = subprocess.Popen(
            [sys.executable, "-m", "sb3_flow.zoo", *command],
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=logs[0],
            stderr=subprocess.STDOUT,
            start_new_session=True,  # handle Ctrl-C here: RL Zoo would treat it as the end of the run
            pass_fds=[lock for lock in locks if lock is not None],
            preexec_fn=_dying_with(os.getpid()) if os.name == "posix" else None,
        )
        try:
            for path, record in started.items():
                write_record(path, {**record, "pid": process.pid})
            code = _wait(process)
        finally:
            _stop(process)
        if code == 0:
            for path, record in started.items():
                write_record(path, {**record, "finished": True})
        return code


def read_record(folder: Path) -> dict[str, Any] | None:
    """
    Read the record of a run.

    :param folder: The folder of the run
    :return: The record; None if there is none
    :raises ValueError: If it is damaged, or not a record.
    """
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{folder / RECORD} is damaged ({error}). Move the folder to another place.") from error
    if not isinstance(record, dict) or not isinstance(record.get("command"), list):
        raise ValueError(f"{folder / RECORD} was not written by a sweep. Move it to another place.")
    return record


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """
    Write the record of a run atomically.

    :param folder: The folder of the run
    :param record: Its content
    """
    temporary = folder / f"{RECORD}.{os.getpid()}"
    with temporary.open("w", encoding="utf-8") as stream:
        json.dump(record, stream, indent=2)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(folder / RECORD)


def is_finished(folder: Path) -> bool:
    """
    Whether the run in a folder has finished.

    :param folder: The folder of the run
    :return: True if its training has ended with exit code 0
    """
    record = read_record(folder)
    return record is not None and bool(record.get("finished"))


def what_is_computed(command: Sequence[str]) -> list[str]:
    """
    The arguments of a command on which results depend.

    :param command: The command line of a run
    :return: Its arguments, without those that may change between two starts
    """
    return [argument for argument in command if not argument.startswith(MAY_CHANGE)]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[int | None]:
    """
    Hold the lock of a run. A process that inherits the descriptor keeps the lock.

    :param path: The lock file
    :return: Its descriptor; None on systems without such locks
    :raises BusyError: If another process holds the lock for longer than ``PATIENCE``.
    """
    if sys.platform == "win32":
        yield None
        return
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BusyError(f"Another process trains in {path.parent}. Wait for it, or stop it.") from None
                time.sleep(0.2)
        yield descriptor
    finally:
        os.close(descriptor)


def _wait(process: subprocess.Popen[bytes]) -> int:
    while True:
        try:
            return process.wait(timeout=0.5)  # with a timeout, so that Ray can stop the task by an exception
        except subprocess.TimeoutExpired:
            continue


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a running training, with all processes that it started."""
    if process.poll() is not None:
        return
    group = process.pid  # the leader of its own session
    for stop in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, stop)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=PATIENCE / 2)
            return


def _dying_with(parent: int) -> Any:
    """Function that a training calls first: it ends when its worker ends, and it receives signals."""
    libc = ctypes.CDLL(None, use_errno=True)

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if sys.platform == "linux":
            libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            if os.getppid() != parent:
                os._exit(1)

    return prepare
