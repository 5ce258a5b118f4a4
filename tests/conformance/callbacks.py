"""Callbacks that write down what they see."""

from collections.abc import Callable
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback


class Recorder(BaseCallback):
    """
    Records each step.

    :param stop_at: The clock at which to stop training, if any
    :param look: What else to record at each step, from the callback itself
    """

    def __init__(self, stop_at: int | None = None, look: Callable[[BaseCallback], Any] | None = None) -> None:
        super().__init__()
        self.stop_at, self.look = stop_at, look
        self.clock: list[int] = []
        #: ``n_offline_updates`` and ``n_env_steps``
        self.counts: list[tuple[int, int]] = []
        self.seen: list[Any] = []
        self.starts = self.ends = 0
        self.total_timesteps: int | None = None

    def _on_training_start(self) -> None:
        self.starts += 1
        self.total_timesteps = self.locals["total_timesteps"]

    def _on_step(self) -> bool:
        self.clock.append(self.num_timesteps)
        self.counts.append((self.model.n_offline_updates, self.model.n_env_steps))
        if self.look is not None:
            self.seen.append(self.look(self))
        return self.stop_at is None or self.num_timesteps < self.stop_at

    def _on_training_end(self) -> None:
        self.ends += 1


class Raising(Recorder):
    """
    Raises at a given time.

    :param at: The clock
    :param error: What to raise
    """

    def __init__(self, at: int, error: type[BaseException]) -> None:
        super().__init__()
        self.at, self.error = at, error

    def _on_step(self) -> bool:
        super()._on_step()
        if self.num_timesteps >= self.at:
            raise self.error("from the callback")
        return True
