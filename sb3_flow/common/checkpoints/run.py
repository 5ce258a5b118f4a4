"""What an algorithm gives so that its runs can be checkpointed and resumed."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch as th
from gymnasium import spaces


@dataclass
class Run:
    """
    Where a run stands. It is part of checkpoints, not of saved models.

    :param started_at: ``num_timesteps`` when the current, or last, ``learn`` began
    :param resumed_state: Between ``resume`` and ``learn``: the state that ``learn`` puts back; see ``resume.go_on``
    :param episodes_are_stale: Whether new episodes must begin before the environments are used
    """

    started_at: int = 0
    resumed_state: dict[str, Any] | None = None
    episodes_are_stale: bool = False

    def begin(self, num_timesteps: int, reset_num_timesteps: bool) -> dict[str, Any] | None:
        """
        Called where ``learn`` begins.

        :param num_timesteps: The clock of the algorithm
        :param reset_num_timesteps: Whether the clock starts from zero
        :return: The state to put back, where this ``learn`` is the rest of one that was interrupted
        """
        state, self.resumed_state = self.resumed_state, None
        if state is None:
            self.started_at = 0 if reset_num_timesteps else num_timesteps
        return state


@runtime_checkable
class Resumable(Protocol):
    """
    The protocol between an algorithm and its checkpoints. Each method is documented in ``OfflineAlgorithm``.

    The algorithm calls ``write_due`` where nothing is half done, and ``go_on`` where a resumed ``learn`` begins.
    """

    run: Run
    device: th.device
    action_space: spaces.Box

    @property
    def timesteps_done(self) -> int: ...

    def save_run(self, folder: pathlib.Path) -> None: ...

    def load_run(self, folder: pathlib.Path) -> None: ...

    def describe_run(self) -> dict[str, Any]: ...

    def check_next_update(self) -> None: ...

    def restart_seed(self) -> int: ...
