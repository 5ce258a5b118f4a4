"""
The same random episodes, written in every dialect, are the same data: transitions, n-step returns, chunks, windows, masks,
successors and statistics, equal to a reference that follows the episodes step by step.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from dialects import DIALECTS, gymnasium, joined, kept, random_episodes
from reference import GAMMA, check_everything, expected_return, places

from sb3_flow import FQL
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.datasets import DatasetError, load_dataset


def read(source: Any) -> OfflineDataset:
    if isinstance(source, (str, Path, dict, list)) or type(source).__module__.startswith("pandas"):
        return load_dataset(source)
    return OfflineDataset.from_replay_buffer(source, lambda actions: actions)


@pytest.mark.slow
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
    last_observation = dialect.last_observation or not dialect.last_action
    check_everything(data, kept(written, dialect), last_observation, dialect.rewards)


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
