"""Normalization and checks of rewards."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch as th
from stable_baselines3.common.vec_env import VecNormalize

from sb3_flow.common.data.columns import DatasetError


def reward_normalizer(env: VecNormalize | None) -> Callable[[th.Tensor], th.Tensor] | None:
    """
    The reward normalization of ``VecNormalize`` as a function of tensors.

    :param env: The wrapper, or None
    :return: Function that divides each reward by the spread of returns and clips it; None if rewards are not normalized
    """
    if env is None or not env.norm_reward:
        return None

    def normalize(rewards: th.Tensor) -> th.Tensor:
        return th.as_tensor(env.normalize_reward(rewards.numpy()), dtype=rewards.dtype)

    return normalize


def check_sparse(rewards: np.ndarray, name: str, rows: np.ndarray | None = None) -> None:
    """
    Check that rewards can be made sparse: they must be minus the number of remaining subtasks.

    :param rewards: ``(N,)``
    :param name: Name of their source for messages
    :param rows: The rows to check, ``(N,)`` of bool; None: all
    :raises DatasetError: If a reward is above 0. Replacing it by -1 would punish success.
    """
    wrong = rewards > 0
    if rows is not None:
        wrong &= rows
    if wrong.any():
        row = int(wrong.argmax())
        raise DatasetError(
            f"{name}: `rewards` row {row} is {rewards[row]:g}. `sparse_rewards=True` is for rewards of 0 where all is done "
            "and below 0 elsewhere, and makes each of these -1; a reward above 0 would be punished. Rewards of 0 and 1: leave "
            "out `sparse_rewards`, or subtract 1 (`{'source': ..., 'rewards': {'shift': -1}}`)."
        )
