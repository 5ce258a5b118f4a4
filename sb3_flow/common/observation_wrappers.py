"""What SB3's wrappers do to an observation between the environment and the policy: normalization, layout of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecMonitor, VecNormalize, VecTransposeImage

from sb3_flow.common.data.no_environment import WithinSpaces
from sb3_flow.common.encoders import subspaces

#: Key of an observation that is not a dictionary.
OBSERVATION = "observation"
#: What a wrapper does: it normalizes, or moves the channels of images, from one space to another.
Step = VecNormalize | tuple[spaces.Space[Any], spaces.Space[Any]]


def preparation(
    space: spaces.Space[Any], env: VecEnv | None, before: spaces.Space[Any] | None = None
) -> tuple[spaces.Space[Any], list[Step]]:
    """
    What happens between the environment of a model and its policy.

    :param space: The observation space of the policy
    :param env: The environment, or None
    :param before: The observation space of the environment, if ``env`` is None; None: that of the policy
    :return: The observation space of the environment, without SB3's wrappers; and what these wrappers do, in their order.
        Without an environment that is the layout of images; the statistics of ``VecNormalize`` are part of the environment.
    """
    if env is not None:
        return before_wrappers(env)
    before = space if before is None else before
    return before, [(before, space)]


def prepare(observations: dict[str, th.Tensor], steps: Sequence[Step]) -> dict[str, th.Tensor]:
    """
    Do to observations what the wrappers do.

    :param observations: As the environment returns them, ``(B, *shape)``, by key, or by ``OBSERVATION``
    :param steps: Second value of ``preparation``
    :return: Observations as the policy takes them
    """
    for step in steps:
        observations = normalize(observations, step) if isinstance(step, VecNormalize) else transpose(observations, *step)
    return observations


def before_wrappers(env: VecEnv) -> tuple[spaces.Space[Any], list[Step]]:
    """
    :param env: The environment of a model
    :return: The observation space of the environment without the wrappers that are part of an exported policy; and what these
        wrappers do, in the order of their application
    """
    steps: list[Step] = []
    while isinstance(env, VecNormalize | VecTransposeImage | VecMonitor | WithinSpaces):
        if isinstance(env, VecNormalize):
            steps.insert(0, env)
        elif isinstance(env, VecTransposeImage):
            steps.insert(0, (env.venv.observation_space, env.observation_space))
        env = env.venv
    return env.observation_space, steps


def normalize(observations: dict[str, th.Tensor], env: VecNormalize) -> dict[str, th.Tensor]:
    """Normalize observations by the statistics of ``VecNormalize``."""
    if not env.norm_obs:
        return observations
    by_key = env.obs_rms if isinstance(env.obs_rms, dict) else {OBSERVATION: env.obs_rms}
    parts = dict(observations)
    for key, statistics in by_key.items():
        std = th.as_tensor(np.sqrt(statistics.var + env.epsilon))
        centered = parts[key].double() - th.as_tensor(statistics.mean)
        parts[key] = (centered / std).clamp(-env.clip_obs, env.clip_obs).float()
    return parts


def transpose(observations: dict[str, th.Tensor], before: spaces.Space[Any], after: spaces.Space[Any]) -> dict[str, th.Tensor]:
    """Move the channels of images to the front, as ``VecTransposeImage`` does, where the shapes before and after differ."""
    inside, outside = subspaces(before), subspaces(after)
    changed = {key or OBSERVATION for key in inside if inside[key].shape != outside[key].shape}
    return {key: part.movedim(-1, -3) if key in changed else part for key, part in observations.items()}
