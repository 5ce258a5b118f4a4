"""What a sweep shows while it runs: a table that is drawn anew where there is a terminal, and plain lines elsewhere."""

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

from sb3_flow.tables.grid import Run
from sb3_flow.tables.supervisor import LOG

#: How often plain lines say how far the running runs are, in seconds.
LINE_INTERVAL = 60.0
#: How much of the end of a log is read, in bytes.
TAIL = 16_384


@dataclass
class State:
    """
    Where a run is.

    :param run: The run
    :param status: ``"waiting"``, ``"running"``, ``"done"`` or ``"failed"``
    :param attempts: How often it was started
    :param message: Why it failed, or was started again
    """

    run: Run
    status: str = "waiting"
    attempts: int = 0
    message: str = ""


def last_lines(folder: Path, count: int) -> list[str]:
    """
    Read the end of what a run has printed.

    :param folder: The folder of the run
    :param count: Number of lines
    :return: At most so many lines
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
    Read how far a run is from its evaluations and its log.

    :param folder: The folder of the run
    :return: The latest timestep, if there is one yet, and the last score in words
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
        pass  # there is none yet, or it is being written
    logged = re.findall(r"total_timesteps\s*\|\s*(\d+)", "\n".join(last_lines(folder, TAIL)))
    if logged:
        timestep = max(int(logged[-1]), timestep or 0)
    return timestep, score


def duration(seconds: float) -> str:
    """
    Write a duration as hours, minutes and seconds.

    :param seconds: The duration
    :return: For instance ``"1:02:03"``
    """
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


class Display:
    """
    Shows the states of all runs. It is a context manager.

    :param states: The states; the sweep changes them
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
            self._live.stop()  # what it showed last stays

    def say(self, message: str) -> None:
        """Print a line that stays."""
        if self._live is not None:
            self._live.console.print(message, markup=False, highlight=False)
        else:
            print(message, flush=True)

    def update(self) -> None:
        """Show how far the running runs are; where there is no terminal, now and then."""
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
        elif time.monotonic() - self._last_line >= LINE_INTERVAL:
            self._last_line = time.monotonic()
            self.say(self.summary())
            for row in self._rows():
                self.say("  " + "  ".join(filter(None, row)))

    def summary(self) -> str:
        """All runs in one line."""
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
