"""Worker processes, which end when their parent ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import current_process
from pathlib import Path
from typing import Any

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def prepare() -> None:
    """Prepare a worker process. It is called once in each process."""
    # Ctrl-C reaches all processes of the terminal; the parent lets workers finish their current task.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def require_main_guard(function: str) -> None:
    """
    Raise an error in a worker process that imports the user's script again and so calls a function that starts workers.

    :param function: Name of the function, for the message
    :raises RuntimeError: If the script has no ``if __name__ == "__main__":``.
    """
    if getattr(current_process(), "_inheriting", False):  # as multiprocessing itself checks, but later
        raise RuntimeError(
            f"`{function}` starts worker processes, and each of them imports this script again. Put its code in a "
            'function `main`, and call it by `if __name__ == "__main__": main()`.'
        )


def in_processes(
    function: Callable[..., int],
    calls: Sequence[tuple[Any, ...]],
    workers: int,
    update: Callable[[int], Any],
    folder: Path,
    initializer: Callable[..., None] = prepare,
    initargs: tuple[Any, ...] = (),
) -> None:
    """
    Call a function in new processes, with one thread each.

    :param function: The function; it stores its results and returns the progress.
    :param calls: Arguments of each call
    :param workers: Maximum number of processes
    :param update: Called with the return value of each call
    :param folder: Folder of finished results, for messages
    :param initializer: Called once in each process; it calls ``prepare``.
    :param initargs: Its arguments
    :raises ChildProcessError: If a process dies.
    """
    context = multiprocessing.get_context("spawn")  # forked copies of a process with threads may hang
    pool = ProcessPoolExecutor(min(workers, len(calls)), context, initializer=initializer, initargs=initargs)
    with _one_thread_each():
        try:
            futures = [pool.submit(function, *call) for call in calls]
            for future in as_completed(futures):
                update(future.result())
        except BrokenProcessPool as error:
            raise ChildProcessError(
                "A worker died: see its message above. If there is none, memory may have run out: try fewer workers. "
                f"Finished results are in {folder}; the same call continues from there."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Context manager that limits new workers to one thread: libraries read these variables when a process starts."""
    before = {variable: os.environ.get(variable) for variable in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for variable, value in before.items():
            if value is None:
                del os.environ[variable]
            else:
                os.environ[variable] = value


def _exit_with_parent() -> None:
    # A parent that was killed cannot stop its workers.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
