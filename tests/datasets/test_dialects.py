"""
The same random episodes, written in every dialect, are the same data: transitions, n-step returns, chunks, windows, masks,
successors and statistics, equal to a reference that follows the episodes step by step.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from dialects import DIALECTS, Dialect, Episode, gymnasium, joined, kept, random_episodes
from gymnasium import spaces

from sb3_flow import FQL
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.no_environment import NoEnvironment
from sb3_flow.common.data.offline_buffer import OfflineBuffer
from sb3_flow.common.data.statistics import discounted_returns, moments, ranges
from sb3_flow.datasets import DatasetError, load_dataset

GAMMA = 0.9
ACTIONS = spaces.Box(-1.0, 1.0, (2,), np.float32)


def read(source: Any) -> OfflineDataset:
    if isinstance(source, (str, Path, dict, list)) or type(source).__module__.startswith("pandas"):
        return load_dataset(source)
    return OfflineDataset.from_replay_buffer(source, lambda actions: actions)


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


# The reference.


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


def check_statistics(data: OfflineDataset, episodes: list[Episode], reference: list[Place], dialect: Dialect) -> None:
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
    np.testing.assert_array_equal(data.trajectory_lengths(), [len(episode) for episode in episodes])
    if dialect.rewards:
        running = []
        for place in reference:
            before = running[-1] if place.step > 0 else 0.0
            running.append(GAMMA * before + float(place.episode.rewards[place.step]))
        np.testing.assert_allclose(discounted_returns(data, GAMMA), running, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_is_the_same_data(tmp_path: Path, name: str, seed: int) -> None:
    dialect = DIALECTS[name]
    for package in dialect.needs:
        pytest.importorskip(package)
    written = random_episodes(seed, dialect.goes_on)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", module="minari")
        data = read(dialect.write(written, tmp_path))
    episodes = kept(written, dialect)
    reference = places(episodes, dialect.last_observation or not dialect.last_action)
    buffer = buffer_of(data)
    for n_steps, chunk_length in ((1, 1), (3, 1), (1, 3), (1, 5)):
        check_draws(buffer, reference, n_steps, chunk_length)
    check_windows(buffer_of(data, imitation=True), episodes)
    check_statistics(data, episodes, reference, dialect)


def test_nothing_is_guessed() -> None:
    """Where the columns that tell the ends of episodes are taken away, nothing is guessed."""
    episodes = random_episodes(4)
    columns = joined(episodes)
    bare = {name: columns[name] for name in ("observations", "actions", "rewards")}
    with pytest.raises(DatasetError, match="nothing says where episodes end"):
        load_dataset(bare)
    with pytest.raises(DatasetError, match="`dones` does not say"):
        load_dataset({**bare, "dones": columns["last"]})


#: Columns that name every end, made of the episodes.
WHOLE = {
    "episode_starts": lambda columns: columns["first"],
    "episode_index": lambda columns: columns["episode"],
    "episode_ends": lambda columns: np.cumsum(columns["lengths"]),
    "episode_lengths": lambda columns: columns["lengths"],
}


@pytest.mark.parametrize("first", WHOLE)
@pytest.mark.parametrize("second", [*WHOLE, "truncations"])
def test_columns_that_contradict_each_other_are_refused(first: str, second: str) -> None:
    """Two columns of the same episodes agree; two of which one has an end that the other does not have are refused."""
    if first == second:
        return
    episodes = [episode for episode in random_episodes(5) if len(episode) > 2]
    columns = joined(episodes)
    bare = {name: columns[name] for name in ("observations", "actions", "rewards", "terminations")}
    agreeing = {first: WHOLE[first](columns), second: WHOLE.get(second, lambda columns: columns["truncations"])(columns)}
    assert load_dataset({**bare, **agreeing}).n_trajectories == len(episodes)
    moved = np.append(columns["last"][1:], True)  # each episode ends one row too early
    others = {
        "first": np.append(True, moved[:-1]),
        "episode": np.append(0, np.cumsum(moved)[:-1]),
        "lengths": np.diff(np.flatnonzero(moved), prepend=-1),
        "truncations": moved,
    }
    wrong = WHOLE.get(second, lambda columns: columns["truncations"])(others)
    with pytest.raises(DatasetError, match=f"`{first}`.*Leave out the column that is wrong|`{second}`.*Leave out the column"):
        load_dataset({**bare, first: agreeing[first], second: wrong})


def test_terminations_and_masks_that_contradict_each_other_are_refused() -> None:
    data = gymnasium(random_episodes(1), Path())
    assert len(load_dataset({**data, "masks": ~data["terminations"]})) == len(data["actions"])
    wrong = ~data["terminations"]
    wrong[0] = not wrong[0]
    with pytest.raises(DatasetError, match="contradict each other about where the task ended, at row 0"):
        load_dataset({**data, "masks": wrong})


def test_the_dataset_of_a_model_is_that_of_its_reader() -> None:
    """The rows that a model draws are those of the reader, whatever path led to it."""
    episodes = random_episodes(2)
    source = gymnasium(episodes, Path())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = FQL("FlowPolicy", dataset=source, policy_kwargs={"net_arch": [8]}, n_steps=3, gamma=GAMMA, device="cpu")
    model.set_dataset(source)
    reference = places(episodes, last_observation=True)
    batch = model.draw_from(model.offline_buffer, th.arange(len(reference)))
    expected = [expected_return(place, 3, chunk=False) for place in reference]
    np.testing.assert_allclose(batch.rewards, [row["rewards"] for row in expected], rtol=1e-5, atol=1e-6)
