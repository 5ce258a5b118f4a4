"""Rewards: what is made of them when they are read, and when they are drawn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch as th
from stable_baselines3.common.vec_env import VecNormalize

from sb3_flow.common.data.columns import DatasetError


def reward_normalizer(env: VecNormalize | None) -> Callable[[th.Tensor], th.Tensor] | None:
    """
    What ``VecNormalize`` does to rewards, as a function of tensors.

    :param env: The wrapper, or None
    :return: Divides by the spread of returns and clips, each reward by itself; None where rewards stay as they are
    """
    if env is None or not env.norm_reward:
        return None

    def normalize(rewards: th.Tensor) -> th.Tensor:
        return th.as_tensor(env.normalize_reward(rewards.numpy()), dtype=rewards.dtype)

    return normalize


def check_sparse(rewards: np.ndarray, name: str, rows: np.ndarray | None = None) -> None:
    """
    Check that rewards can be made sparse: minus the number of things left to do.

    :param rewards: ``(N,)``
    :param name: Whose they are
    :param rows: Which rows count, ``(N,)`` of bool; None: all
    :raises DatasetError: If a reward is above 0: then not 0 is the best, and -1 in its place would punish success.
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
