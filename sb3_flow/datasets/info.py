"""Summary of a dataset before training."""

from __future__ import annotations

import warnings

import gymnasium as gym
import numpy as np

from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.jumps import jumps_inside
from sb3_flow.common.data.statistics import moments, ranges
from sb3_flow.common.environments import make_env

#: Elements with a standard deviation below this share of the largest one, or of 1, are constant.
CONSTANT = 1e-6
#: Largest accepted ratio between rewards of the data and of the environment, and its inverse.
SCALE = 5.0
#: Number of random steps in the environment, which measure the scale of its rewards.
RANDOM_STEPS = 200


def describe(dataset: OfflineDataset) -> dict[str, str]:
    """
    Describe a dataset.

    :param dataset: The dataset
    :return: Texts by label, in the order of printing
    """
    lengths = dataset.trajectory_lengths()
    lines = {
        "name": dataset.name,
        "transitions": f"{len(dataset):,}",
        "trajectories": f"{len(lengths):,}",
        "lengths": f"{lengths.min():,} to {lengths.max():,} steps, median {np.median(lengths):,.0f}",
        "ends known by": dataset.evidence,
    }
    for field, column in dataset.columns():
        if field.startswith("observations"):
            lines[field] = f"{column.shape[1:]} {column.dtype}"
    actions = dataset.actions
    low, high = ranges(actions, dataset.has_action)
    lines["actions"] = f"{actions.shape[1:]} {actions.dtype}, from {low.min():.4g} to {high.max():.4g}"
    if dataset.rewards is None:
        lines["rewards"] = "none (data of OGBench takes them from an environment: --env)"
    elif dataset.valids.any():
        rewards = dataset.rewards[dataset.valids]
        lines["rewards"] = f"from {rewards.min():.4g} to {rewards.max():.4g}, mean {rewards.mean():.4g}"
    successes = np.count_nonzero(dataset.terminations & dataset.valids)
    lines["terminations"] = f"{successes:,} (transitions after which the task had ended; OGBench's successes)"
    size = sum(column.nbytes for _, column in dataset.columns())
    mapped = any(isinstance(column, np.memmap) for _, column in dataset.columns())
    lines["memory"] = f"{size / 1e6:,.3g} MB{' (on disk, memory-mapped)' if mapped else ''}"
    return lines


def suspicions(dataset: OfflineDataset, env_id: str | None = None) -> list[str]:
    """
    Find possible mistakes in a dataset.

    :param dataset: The dataset
    :param env_id: Id of the environment of the data, for a comparison of rewards
    :return: Messages; empty if nothing is suspicious
    """
    found = []
    if (jumps := jumps_inside(dataset.observations, dataset.has_action & ~dataset.ends)) is not None:
        found.append(f"{jumps}: is the end of an episode missing?")
    for field, column in dataset.columns():
        rows = {"actions": dataset.has_action}.get(field, dataset.observation_rows())
        if (field == "actions" or field.startswith("observations")) and column.ndim == 2:
            spread = np.sqrt(moments(column, rows)[1])
            constant = np.flatnonzero(spread <= CONSTANT * max(spread.max(), 1.0))
            if len(constant):
                found.append(f"`{field}` never changes in the elements {', '.join(map(str, constant))}")
    found += _about_ends(dataset)
    if dataset.rewards is not None and dataset.valids.any():
        rewards = dataset.rewards[dataset.valids]
        if rewards.min() == rewards.max():
            found.append(f"all rewards are {rewards[0]:g}")
        elif env_id is not None:
            found += _about_scale(rewards, env_id)
    return found


def _about_ends(dataset: OfflineDataset) -> list[str]:
    if dataset.rewards is None:
        return []
    ended = dataset.terminations & dataset.valids
    last = dataset.ends & dataset.has_action
    if not ended.any():
        return ["no transition ends the task: right if episodes end by time limits only"]
    if ended[last].all() and not (ended & ~last).any() and np.count_nonzero(last) > 1:
        return ["every episode ends with the end of the task: are time limits among them?"]
    return []


def _about_scale(rewards: np.ndarray, env_id: str) -> list[str]:
    """Compare the rewards with those of random actions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = make_env(env_id)
    if not isinstance(env.action_space, gym.spaces.Box):
        return []
    env.reset(seed=0)
    env.action_space.seed(0)
    seen = []
    for _ in range(RANDOM_STEPS):
        _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        seen.append(float(reward))
        if terminated or truncated:
            env.reset()
    env.close()
    ours, theirs = np.abs(rewards).max(), np.abs(seen).max()
    if theirs > 0 and not 1 / SCALE <= ours / theirs <= SCALE:
        return [
            f"rewards go from {rewards.min():.4g} to {rewards.max():.4g}, those of random actions in {env_id} from "
            f"{min(seen):.4g} to {max(seen):.4g}: are they on another scale?"
        ]
    return []
