"""A reference for datasets: episodes followed step by step, and what a buffer must draw of them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch as th
from dialects import Episode, joined
from gymnasium import spaces

from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.no_environment import NoEnvironment
from sb3_flow.common.data.offline_buffer import OfflineBuffer
from sb3_flow.common.data.statistics import discounted_returns, moments, ranges

GAMMA = 0.9
ACTIONS = spaces.Box(-1.0, 1.0, (2,), np.float32)


def buffer_of(data: OfflineDataset, imitation: bool = False) -> OfflineBuffer:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        space = NoEnvironment.of(data).observation_space
        return OfflineBuffer(data, space, ACTIONS, imitation=imitation)


def vectors(observations: Any) -> np.ndarray:
    """Observations as vectors, the parts of dictionaries in their order by name."""
    if isinstance(observations, dict):
        return np.concatenate([np.asarray(observations[key]) for key in sorted(observations)], axis=-1)
    return np.asarray(observations)


@dataclass
class Place:
    """A step, and the steps from it to the last one whose successor is known."""

    episode: Episode
    step: int
    stop: int


def places(episodes: list[Episode], last_observation: bool) -> list[Place]:
    """All transitions: a step whose successor is known, or that ended the task."""
    found = []
    for episode in episodes:
        stop = len(episode) if last_observation or episode.terminations[-1] else len(episode) - 1
        found += [Place(episode, step, stop) for step in range(stop)]
    return found


def expected_return(place: Place, n_steps: int, chunk: bool) -> dict[str, Any]:
    """Sum rewards step by step; a chunk goes on after the end of the task, an n-step return does not."""
    reward, mask, discount, step = 0.0, 1.0, 1.0, place.step
    taken = 0
    while taken < n_steps and step < place.stop:
        reward += discount * float(place.episode.rewards[step])
        discount *= GAMMA
        taken += 1
        step += 1
        if place.episode.terminations[step - 1]:
            mask = 0.0
            if not chunk:
                break
    return {
        "rewards": reward,
        "masks": mask,
        "discounts": discount,
        "valids": float(taken == n_steps) if chunk else 1.0,
        "next_observations": place.episode.observations[step],
        "action_valids": [float(i < taken) for i in range(n_steps if chunk else 1)],
        "actions": place.episode.actions[place.step : place.step + (taken if chunk else 1)].reshape(-1),
    }


def check_draws(buffer: OfflineBuffer, reference: list[Place], n_steps: int, chunk_length: int) -> None:
    """All transitions at once, in their order."""
    assert len(buffer) == len(reference)
    batch = buffer.draw(th.arange(len(buffer)), n_steps, GAMMA, chunk_length)
    length = max(n_steps, chunk_length)
    expected = [expected_return(place, length, chunk_length > 1) for place in reference]
    np.testing.assert_array_equal(vectors(batch.observations), [place.episode.observations[place.step] for place in reference])
    for field in ("rewards", "masks", "discounts", "valids", "action_valids"):
        np.testing.assert_allclose(
            getattr(batch, field), [row[field] for row in expected], rtol=1e-5, atol=1e-6, err_msg=field
        )
    following = vectors(batch.next_observations)
    for row, item in enumerate(expected):
        if item["masks"]:  # where the task ended nothing is bootstrapped, and some formats do not have what followed
            np.testing.assert_array_equal(following[row], item["next_observations"])
        np.testing.assert_allclose(batch.actions[row, : len(item["actions"])], item["actions"], atol=1e-6)


def check_windows(buffer: OfflineBuffer, episodes: list[Episode]) -> None:
    """Imitation draws every step; histories and chunks of actions are repeated at the ends of episodes."""
    steps = [(episode, step) for episode in episodes for step in range(len(episode))]
    assert len(buffer) == len(steps)
    window = buffer.window(th.arange(len(buffer)), 3, 4)
    observations = vectors(window.observations).reshape(len(steps), 3, 3)
    for row, (episode, step) in enumerate(steps):
        past = [max(step - age, 0) for age in (2, 1, 0)]
        coming = [min(step + ahead, len(episode) - 1) for ahead in range(4)]
        np.testing.assert_array_equal(observations[row], episode.observations[past])
        np.testing.assert_allclose(window.actions[row], episode.actions[coming], atol=1e-6)
        assert bool(window.has_previous[row]) == (step > 0)
        if step > 0:
            np.testing.assert_allclose(window.previous_actions[row], episode.actions[step - 1], atol=1e-6)
    np.testing.assert_allclose(buffer.first_actions(), [episode.actions[0] for episode in episodes], atol=1e-6)


def check_statistics(data: OfflineDataset, episodes: list[Episode], reference: list[Place], rewards: bool = True) -> None:
    """Only rows that were steps count, and last observations that were seen."""
    columns = joined(episodes)
    low, high = ranges(data.actions, data.has_action)
    np.testing.assert_array_equal(low, columns["actions"].min(axis=0))
    np.testing.assert_array_equal(high, columns["actions"].max(axis=0))
    low, high = ranges(data.actions, data.has_action, quantile=0.1)
    np.testing.assert_allclose(low, np.quantile(columns["actions"], 0.1, axis=0), rtol=1e-6)
    np.testing.assert_allclose(high, np.quantile(columns["actions"], 0.9, axis=0), rtol=1e-6)
    once = data.next_observations is None and data.final_states.any()
    seen = np.concatenate([episode.observations[: len(episode) + once] for episode in episodes])
    rows = data.observation_rows()
    observed = data.observations if isinstance(data.observations, dict) else {"": data.observations}
    mean, variance = (
        np.concatenate(parts) for parts in zip(*(moments(observed[key], rows) for key in sorted(observed)), strict=True)
    )
    np.testing.assert_allclose(mean, seen.mean(axis=0, dtype=np.float64), atol=1e-6)
    np.testing.assert_allclose(variance, seen.var(axis=0, dtype=np.float64), atol=1e-6)
    lengths = [len(episode) for episode in episodes]
    np.testing.assert_array_equal(data.trajectory_lengths(), lengths)
    # Which of the steps are the last ones.
    np.testing.assert_array_equal(np.flatnonzero(data.ends[data.has_action]) + 1, np.cumsum(lengths))
    if rewards:
        running = []
        for place in reference:
            before = running[-1] if place.step > 0 else 0.0
            running.append(GAMMA * before + float(place.episode.rewards[place.step]))
        np.testing.assert_allclose(discounted_returns(data, GAMMA), running, rtol=1e-5, atol=1e-6)


def check_everything(data: OfflineDataset, episodes: list[Episode], last_observation: bool, rewards: bool = True) -> None:
    """
    Check a dataset against the episodes that it was written from.

    :param data: The dataset
    :param episodes: What was written
    :param last_observation: Whether it has what followed the last action of an episode that was cut
    :param rewards: Whether it has rewards
    """
    reference = places(episodes, last_observation)
    for n_steps, chunk_length in ((1, 1), (3, 1), (1, 3), (1, 5)):
        check_draws(buffer_of(data), reference, n_steps, chunk_length)
    check_windows(buffer_of(data, imitation=True), episodes)
    check_statistics(data, episodes, reference, rewards)
