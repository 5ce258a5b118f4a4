"""Progress of a sweep: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sb3_flow.common.progress import duration
from sb3_flow.tables.grid import Run
from sb3_flow.tables.supervisor import LOG

#: Interval of plain lines in seconds.
LINE_INTERVAL = 10.0
#: Number of bytes to read at the end of a log.
TAIL = 16_384


@dataclass
class State:
    """
    The state of a run.

    :param run: The run
    :param status: ``"waiting"``, ``"running"``, ``"done"`` or ``"failed"``
    :param attempts: Number of starts
    :param message: Reason of a failure or of another start
    """

    run: Run
    status: str = "waiting"
    attempts: int = 0
    message: str = ""


def last_lines(folder: Path, count: int) -> list[str]:
    """
    Read the end of the log of a run.

    :param folder: The folder of the run
    :param count: Number of lines
    :return: At most ``count`` lines
    """
    try:
        with (folder / LOG).open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - TAIL))
            return stream.read().decode("utf-8", "replace").splitlines()[-count:]
    except FileNotFoundError:
        return []


def progress_of(folder: Path) -> tuple[int | None, str]:
    """
    Read the progress of a run from its evaluations and its log.

    :param folder: The folder of the run
    :return: The latest timestep (None before the first), and the last score as text
    """
    timestep, score = None, ""
    try:
        with np.load(folder / "evaluations.npz") as evaluations:
            timestep = int(evaluations["timesteps"][-1])
            if "successes" in evaluations:
                score = f"success {100 * np.mean(evaluations['successes'][-1]):.0f} %"
            else:
                score = f"return {np.mean(evaluations['results'][-1]):.1f}"
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile):
        pass  # there is no evaluation yet, or it is being written
    logged = re.findall(r"total_timesteps\s*\|\s*(\d+)", "\n".join(last_lines(folder, TAIL)))
    if logged:
        timestep = max(int(logged[-1]), timestep or 0)
    return timestep, score


class Display:
    """
    Context manager that shows the states of all runs.

    :param states: The states; the sweep updates them
    """

    def __init__(self, states: Sequence[State]) -> None:
        self.states = states
        self.start = time.monotonic()
        self._last_line = self.start
        self._live: Any = None
        if sys.stdout.isatty() and importlib.util.find_spec("rich") is not None:
            from rich.live import Live

            self._live = Live(auto_refresh=False)

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        self.update()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is None:
            print(self.summary(), flush=True)
        else:
            self.update()
            self._live.stop()  # the last table stays on the terminal

    def say(self, message: str) -> None:
        """Print a line."""
        if self._live is not None:
            self._live.console.print(message, markup=False, highlight=False)
        else:
            print(message, flush=True)

    def update(self) -> None:
        """Show the progress of the running runs; without a terminal, only once per interval."""
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
        elif time.monotonic() - self._last_line >= LINE_INTERVAL:
            self._last_line = time.monotonic()
            self.say(self.summary())
            for row in self._rows():
                self.say("  " + "  ".join(filter(None, row)))

    def summary(self) -> str:
        """Summary of all runs in one line."""
        counts = {status: sum(state.status == status for state in self.states) for status in ("done", "running", "failed")}
        numbers = f"{counts['done']} of {len(self.states)} runs done, {counts['running']} running, {counts['failed']} failed"
        return f"{numbers}, {duration(time.monotonic() - self.start)} elapsed"

    def _rows(self) -> list[tuple[str, str, str, str]]:
        rows = []
        for state in self.states:
            if state.status != "running":
                continue
            timestep, score = progress_of(state.run.folder)
            total = f" / {state.run.timesteps:,}" if state.run.timesteps else ""
            again = f"start {state.attempts}" if state.attempts > 1 else ""
            rows.append((str(state.run), "starting" if timestep is None else f"{timestep:,}{total}", score, again))
        return rows

    def _table(self) -> Any:
        from rich.console import Group
        from rich.table import Table

        table = Table()
        for header in ("running", "timestep", "last score", ""):
            table.add_column(header, justify="right" if header == "timestep" else "left")
        for row in self._rows():
            table.add_row(*row)
        return Group(self.summary(), *([table] if table.row_count else []))
