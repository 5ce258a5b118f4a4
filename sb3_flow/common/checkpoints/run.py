"""The protocol of algorithms whose runs can be checkpointed and resumed."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

SelfResumable = TypeVar("SelfResumable", bound="Resumable")


@dataclass
class Run:
    """
    The state of a run. It is saved in checkpoints, not in models.

    :param started_at: ``num_timesteps`` at the start of the current or last ``learn``
    :param resumed_state: Between ``resume`` and ``learn``: the state that ``learn`` restores; see ``resume.go_on``
    :param episodes_are_stale: Whether environments must be reset before they are used
    """

    started_at: int = 0
    resumed_state: dict[str, Any] | None = None
    episodes_are_stale: bool = False

    def begin(self, num_timesteps: int, reset_num_timesteps: bool) -> dict[str, Any] | None:
        """
        Start ``learn``.

        :param num_timesteps: The timesteps of the algorithm
        :param reset_num_timesteps: Whether the timesteps are reset to zero
        :return: The state to restore, if this ``learn`` resumes an interrupted one
        """
        state, self.resumed_state = self.resumed_state, None
        if state is None:
            self.started_at = 0 if reset_num_timesteps else num_timesteps
        return state


@runtime_checkable
class Resumable(Protocol):
    """
    The protocol between an algorithm and its checkpoints. Each method is documented in ``OfflineAlgorithm``.

    The algorithm calls ``write_due`` between updates or rollouts, and ``go_on`` at the start of a resumed ``learn``.
    """

    run: Run
    env: VecEnv | None
    dataset: Any
    dataset_name: str | None
    device: th.device
    observation_space: spaces.Space[Any]
    action_space: spaces.Box

    @property
    def timesteps_done(self) -> int: ...

    @classmethod
    def load(
        cls: type[SelfResumable], path: Any, env: Any = None, *, force_reset: bool = True, trusted: bool = False, **kwargs: Any
    ) -> SelfResumable: ...

    def set_dataset(self, dataset: Any) -> None: ...

    def require_environment(self) -> None: ...

    def save_run(self, folder: pathlib.Path) -> None: ...

    def load_run(self, folder: pathlib.Path, trusted: bool = False) -> None: ...

    def describe_run(self) -> dict[str, Any]: ...

    def check_next_update(self) -> None: ...

    def restart_seed(self) -> int: ...
