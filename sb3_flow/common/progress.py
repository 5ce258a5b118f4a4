"""Progress as lines of text, for logs, notebooks and background jobs, where progress bars are not visible."""

import sys
import time
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from sb3_flow.common.optional import require

#: Largest number of seconds between two lines.
INTERVAL = 10.0


class ProgressLines:
    """
    Print how much is done: one line per ``INTERVAL``, and one at the end. It has the methods of ``tqdm`` that are used here.

    :param total: Number of units; 0: it is not known
    :param initial: Number of units that are already done
    :param desc: Name of the task
    :param unit: Name of a unit
    """

    def __init__(self, total: int, initial: int = 0, desc: str = "", unit: str = "step") -> None:
        self.total, self.n, self.desc, self.unit = total, initial, desc, unit
        self.initial = initial
        self.start = self.last = time.monotonic()

    def __enter__(self) -> "ProgressLines":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:  # not before an error message
            self.close()

    def update(self, n: int = 1) -> None:
        """Count ``n`` more units."""
        self.n += n
        if time.monotonic() - self.last >= INTERVAL:
            self.show()

    def show(self) -> None:
        """Print a line."""
        self.last = time.monotonic()
        rate = (self.n - self.initial) / max(self.last - self.start, 1e-9)
        share = f" ({100 * self.n / self.total:.0f} %)" if self.total else ""
        left = f", {duration((self.total - self.n) / rate)} left" if 0 < rate and self.n < self.total else ""
        done = f"{self.n:,} of {self.total:,}" if self.total else f"{self.n:,}"
        print(f"{self.desc}: {done} {self.unit}s{share}, {rate:.3g} per second{left}", flush=True)

    def close(self) -> None:
        """Print the last line."""
        self.show()


class ProgressLinesCallback(BaseCallback):
    """Print the progress of ``learn``, instead of the progress bar of Stable-Baselines3."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: ProgressLines | None = None

    def _on_training_start(self) -> None:
        total = self.locals["total_timesteps"]
        self.lines = ProgressLines(total, self.num_timesteps, type(self.model).__name__, "timestep")

    def _on_step(self) -> bool:
        assert self.lines is not None
        self.lines.update(self.num_timesteps - self.lines.n)
        return True

    def _on_training_end(self) -> None:
        if self.lines is not None:
            self.lines.close()


def progress_bar(total: int, *, initial: int = 0, desc: str = "", unit: str = "step", disable: bool = False) -> Any:
    """
    A progress bar in a terminal, else lines of text.

    :param total: Number of units; 0: it is not known
    :param initial: Number of units that are already done
    :param desc: Name of the task
    :param unit: Name of a unit
    :param disable: Whether to show nothing
    :return: A context manager with ``update(n)`` and ``close()``
    """
    if disable or sys.stderr.isatty():
        tqdm = require("tqdm", "datasets", "A progress bar").tqdm
        return tqdm(total=total or None, initial=initial, desc=desc, unit=unit, disable=disable)
    return ProgressLines(total, initial, desc, unit)


def duration(seconds: float) -> str:
    """
    Format a duration as hours, minutes and seconds.

    :param seconds: The duration
    :return: For instance ``"1:02:03"``
    """
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
