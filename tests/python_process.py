"""
``python ARGUMENTS``, without the seconds that importing PyTorch takes.

A server process imports this package and what it stands on, once, and is forked for each process that a test asks for.
Otherwise such a process begins as a new interpreter does: nothing has run in it, and its random numbers are its own. Workers
that it starts to collect data are forked, too. What a new interpreter imports by itself is tested with ``subprocess``, and so
are workers that are new interpreters.
"""

import multiprocessing
import os
import runpy
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch as th

from sb3_flow.datasets.collect import pool

#: ``torch._dynamo`` is imported by the first step of an optimizer.
multiprocessing.set_forkserver_preload(["torch._dynamo", "sb3_flow", "matplotlib.pyplot", "ogbench"])
#: How processes are started. Where there is no server (on Windows), each one imports everything itself.
CONTEXT: Any = multiprocessing.get_context(
    "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
)


def start_workers_by(context: Any) -> None:
    """Let ``collect`` start its workers by a context of multiprocessing, and not as new interpreters."""
    parent_process = multiprocessing.parent_process
    pool.multiprocessing = SimpleNamespace(get_context=lambda _: context, parent_process=parent_process)  # type: ignore


class Completed(NamedTuple):
    """A process that has ended."""

    returncode: int
    stdout: str
    stderr: str


class PythonProcess:
    """
    A running ``python ARGUMENTS``.

    :param arguments: ``"-m"`` and a module, or the path of a script; then the arguments of the program
    :param cwd: Its working directory
    :param env: Environment variables beside those of this process
    """

    def __init__(self, *arguments: object, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        environment = {**os.environ, **(env or {})}
        given = [str(argument) for argument in arguments], str(cwd or Path.cwd()), environment, self._folder.name
        self._process = CONTEXT.Process(target=_run, args=given)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """The exit code; None: it still runs."""
        return self._process.exitcode  # type: ignore[no-any-return]

    def output(self, stream: str = "stdout") -> str:
        """What it has written so far."""
        path = Path(self._folder.name, stream)
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def kill(self) -> None:
        """Kill it without warning."""
        self._process.kill()
        self._process.join()

    def wait(self, timeout: float = 300) -> Completed:
        """Wait until it ends."""
        self._process.join(timeout)
        if self.poll() is None:
            self.kill()
            raise TimeoutError(f"It still ran after {timeout} s: {self.output('stderr')}")
        return Completed(self._process.exitcode, self.output(), self.output("stderr"))


def run(*arguments: object, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 300) -> Completed:
    """Run ``python ARGUMENTS`` to its end. The arguments are those of ``PythonProcess``."""
    return PythonProcess(*arguments, cwd=cwd, env=env).wait(timeout)


def _run(arguments: list[str], cwd: str, environment: dict[str, str], folder: str) -> None:
    for descriptor, stream in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(Path(folder, stream), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    np.random.seed()
    th.seed()
    if CONTEXT.get_start_method() == "forkserver":
        start_workers_by(multiprocessing.get_context("fork"))
    if arguments[0] == "-m":
        sys.path.insert(0, cwd)
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(arguments[0]).parent))
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")
