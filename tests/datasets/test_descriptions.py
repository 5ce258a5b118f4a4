"""Several datasets as one, and what can be made of a dataset by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from dialects import Episode, corl, gymnasium, gymnasium_without_successors, joined, npz, random_episodes
from gymnasium import spaces
from reference import ACTIONS, GAMMA, buffer_of, check_draws, check_everything, check_windows, places

from sb3_flow import FQL
from sb3_flow.common.data.offline_buffer import OfflineBuffer
from sb3_flow.common.data.statistics import ranges
from sb3_flow.datasets import DatasetError, load_dataset


def with_rewards(episodes: list[Episode], change: Any) -> list[Episode]:
    return [Episode(e.observations, e.actions, np.float32(change(e.rewards)), e.terminations) for e in episodes]


# Lists.


def test_a_list_mixes_dialects(tmp_path: Path) -> None:
    first, second, third = random_episodes(1), random_episodes(2), random_episodes(3)
    (tmp_path / "a").mkdir()
    data = load_dataset([gymnasium(first, tmp_path), npz(second, tmp_path / "a"), corl(third, tmp_path)])
    check_everything(data, first + second + third, last_observation=True)


def test_a_list_of_recordings_with_and_without_successors(tmp_path: Path) -> None:
    """The rows whose successor is unknown stay what they are."""
    first, second = random_episodes(1), random_episodes(2)
    data = load_dataset([gymnasium(first, tmp_path), gymnasium_without_successors(second, tmp_path)])
    reference = [*places(first, last_observation=True), *places(second, last_observation=False)]
    for n_steps, chunk_length in ((1, 1), (3, 1), (1, 3)):
        check_draws(buffer_of(data), reference, n_steps, chunk_length)
    lost = sum(not episode.terminations[-1] for episode in second)
    assert len(data) == sum(map(len, first + second)) - lost
    assert data.n_trajectories == len(first + second)
    assert any(f"{lost} rows are steps without a successor" in remark for remark in data.remarks)


def test_weights_say_how_often_each_dataset_is_drawn(tmp_path: Path) -> None:
    few, many = random_episodes(1)[:2], random_episodes(2) + random_episodes(3)
    described = [
        {"source": gymnasium(few, tmp_path), "weight": 3, "rewards": {"scale": 0, "shift": 1}},
        {"source": gymnasium(many, tmp_path), "weight": 1, "rewards": {"scale": 0}},
    ]
    buffer = OfflineBuffer(load_dataset(described), spaces.Box(-np.inf, np.inf, (3,), np.float32), ACTIONS)
    rewards = buffer.draw(buffer.draw_indices(8000, th.Generator().manual_seed(0)), gamma=GAMMA).rewards
    # 3/4 come from the first dataset, with the standard error of a share of 8000 draws.
    assert abs(float((rewards == 0).float().mean()) - 0.25) < 4 * (0.25 * 0.75 / 8000) ** 0.5
    del described[1]["weight"]
    with pytest.raises(DatasetError, match="`weight` is missing; give one to each dataset, or to none"):
        load_dataset(described)
    described[1]["weight"] = -1
    with pytest.raises(DatasetError, match="expected one number above 0 for each dataset"):
        load_dataset(described)


def test_datasets_that_do_not_fit_are_not_joined(tmp_path: Path) -> None:
    data = gymnasium(random_episodes(1), tmp_path)
    other = {**data, "actions": data["actions"][:, :1]}
    with pytest.raises(
        DatasetError, match=r"cannot be joined: `actions` has the shape \(2,\) per row in the first, and \(1,\)"
    ):
        load_dataset([data, other])
    with pytest.raises(DatasetError, match="The list of datasets is empty"):
        load_dataset([])
    with pytest.raises(DatasetError, match="there is no such file"):
        load_dataset(str(tmp_path / "*.npz"))
    without = {key: column for key, column in data.items() if key != "rewards"}
    joined_data = load_dataset([data, without])
    assert joined_data.rewards is None and any("no rewards, so the joined data has none" in r for r in joined_data.remarks)


def test_a_pattern_may_be_a_path(tmp_path: Path) -> None:
    for number in range(2):
        np.savez(tmp_path / f"{number}.npz", **gymnasium(random_episodes(1), tmp_path))
    assert len(load_dataset(tmp_path / "*.npz")) == len(load_dataset(str(tmp_path / "*.npz")))


def test_observations_of_other_types_are_joined_in_one_that_holds_both(tmp_path: Path) -> None:
    data = gymnasium(random_episodes(1), tmp_path)
    half = {**data, "observations": data["observations"].astype(np.float16)}
    assert load_dataset([half, data]).observations.dtype == np.float32


# Rewards.


CHANGES: dict[str, tuple[Any, Any]] = {
    "shift, then scale": ({"shift": -1, "scale": 10}, lambda r: (r - 1) * 10),
    "scale, then shift": ({"scale": 10, "shift": -1}, lambda r: r * 10 - 1),
    "clip": ({"clip": [-0.5, 0.5]}, lambda r: np.clip(r, -0.5, 0.5)),
    "at least": ({"at_least": 0.5}, lambda r: np.where(r >= 0.5, 0.0, -1.0)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_of_rewards(tmp_path: Path, change: str) -> None:
    how, expected = CHANGES[change]
    episodes = random_episodes(4)
    episodes[0].rewards[0] = 0.5  # a bound itself
    data = load_dataset({"source": gymnasium(episodes, tmp_path), "rewards": how})
    check_everything(data, with_rewards(episodes, expected), last_observation=True)


def test_normalized_returns(tmp_path: Path) -> None:
    """As IQL: the best and the worst return of an episode differ by 1000."""
    episodes = random_episodes(4)
    for how, spread in (("normalize_returns", 1000), ({"normalize_returns": 5}, 5)):
        data = load_dataset({"source": gymnasium(episodes, tmp_path), "rewards": how})
        ends = np.cumsum([len(episode) for episode in episodes])
        returns = [part.sum() for part in np.split(data.rewards, ends[:-1])]
        assert max(returns) - min(returns) == pytest.approx(spread, rel=1e-4)
    constant = [Episode(e.observations, e.actions, e.rewards * 0, e.terminations) for e in episodes]
    with pytest.raises(DatasetError, match="all trajectories have the return 0"):
        load_dataset({"source": gymnasium(constant, tmp_path), "rewards": "normalize_returns"})


# Actions.


def test_relative_and_absolute_actions(tmp_path: Path) -> None:
    data = gymnasium(random_episodes(4), tmp_path)
    relative = load_dataset({"source": data, "actions": {"relative_to": [None, 0, 2]}})
    np.testing.assert_allclose(relative.actions, data["actions"] - data["observations"][:, :2], rtol=1e-6)
    data["observations"] = {"arm": data["observations"][:, :2], "cube": data["observations"][:, 2:]}
    data["next_observations"] = {"arm": data["next_observations"][:, :2], "cube": data["next_observations"][:, 2:]}
    absolute = load_dataset({"source": data, "actions": {"absolute_from": "arm"}})
    np.testing.assert_allclose(absolute.actions, data["actions"] + data["observations"]["arm"], rtol=1e-6)
    with pytest.raises(DatasetError, match="has the shape"):
        load_dataset({"source": data, "actions": {"absolute_from": "cube"}})
    with pytest.raises(DatasetError, match="have no part 'leg'; there: arm, cube"):
        load_dataset({"source": data, "actions": {"absolute_from": "leg"}})


def test_quantiles_are_those_of_the_rows() -> None:
    """Two episodes of actions around 0 and 10: the mean of the quantiles of episodes would leave out half of each."""
    rng = np.random.default_rng(0)
    actions = np.concatenate([rng.normal(0, 1, 500), rng.normal(10, 1, 500)])[:, None].astype(np.float32)
    valids = np.ones(1000, dtype=bool)
    actions[-1], valids[-1] = 1e6, False  # padding does not count
    data = {
        "observations": np.zeros((1000, 1), np.float32),
        "actions": actions,
        "valids": valids,
        "episode_index": np.repeat([0, 1], 500),
    }
    clipped = load_dataset({"source": data, "actions": {"clip_quantiles": 0.01}})
    low, high = ranges(clipped.actions, clipped.has_action)
    expected = np.quantile(actions[:-1], [0.01, 0.99])
    np.testing.assert_allclose([low[0], high[0]], expected, rtol=1e-6)
    assert 15 <= (actions[:-1] < low).sum() + (actions[:-1] > high).sum() <= 25
    with pytest.raises(ValueError, match=r"`quantile` is 0.7; it must be in \[0, 0.5\)"):
        load_dataset({"source": data, "actions": {"clip_quantiles": 0.7}})


# Observations.


def test_chosen_and_flattened_observations(tmp_path: Path) -> None:
    episodes = random_episodes(4)
    data = gymnasium(episodes, tmp_path)
    for field in ("observations", "next_observations"):
        data[field] = {"b": data[field][:, :1], "a": data[field][:, 1:2], "c": data[field][:, 2:]}
    columns = joined(episodes)
    chosen = load_dataset({"source": data, "observations": ["c", "a"]})
    assert list(chosen.observations) == list(chosen.next_observations) == ["c", "a"]
    for flatten, order in ((True, [1, 0, 2]), (["c", "b"], [2, 0])):
        flat = load_dataset({"source": data, "flatten": flatten})
        np.testing.assert_array_equal(flat.observations, columns["observations"][:, order])
        np.testing.assert_array_equal(flat.next_observations, columns["next_observations"][:, order])
    with pytest.raises(DatasetError, match="the observations have no parts d; there: b, a, c"):
        load_dataset({"source": data, "observations": ["d"]})
    with pytest.raises(
        DatasetError, match="The description of a dataset has 'reward'; known: source, weight, frame_skip, rewards"
    ):
        load_dataset({"source": data, "reward": {"shift": 1}})


# Frame skips.


def skipped(episode: Episode, n: int, actions: str) -> Episode:
    """An episode as an environment that repeats each action would have given it; steps that are too few are not there."""
    starts = [start for start in range(0, len(episode), n) if start + n <= len(episode) or episode.terminations[-1]]
    stops = [min(start + n, len(episode)) for start in starts]
    parts = [
        (episode.actions[a:b], episode.rewards[a:b], episode.terminations[a:b]) for a, b in zip(starts, stops, strict=True)
    ]
    return Episode(
        episode.observations[[*starts, *stops[-1:]]] if starts else episode.observations[:1],
        np.array([p[0].sum(axis=0) if actions == "sum" else p[0][-1] for p in parts], np.float32).reshape(-1, 2),
        np.array([p[1].sum() for p in parts], np.float32),
        np.array([p[2].any() for p in parts], dtype=bool),
    )


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_frame_skip(tmp_path: Path, seed: int, n: int) -> None:
    written = [Episode(e.observations, e.actions / n, e.rewards, e.terminations) for e in random_episodes(seed)]
    for actions in ("sum", "last"):
        data = load_dataset({"source": gymnasium(written, tmp_path), "frame_skip": {"steps": n, "actions": actions}})
        expected = [skipped(episode, n, actions) for episode in written]
        check_everything_but_statistics(data, [episode for episode in expected if len(episode)])
    with pytest.raises(DatasetError, match="row 1 has another action than the rows that it is joined with by `frame_skip="):
        long = [episode for episode in written if len(episode) > 1]
        load_dataset({"source": gymnasium(long, tmp_path), "frame_skip": n})


def check_everything_but_statistics(data: Any, episodes: list[Episode]) -> None:
    """Last observations have rows of their own where few steps are left over, so that means over rows differ."""
    for n_steps, chunk_length in ((1, 1), (2, 1), (1, 2)):
        check_draws(buffer_of(data), places(episodes, True), n_steps, chunk_length)
    check_windows(buffer_of(data, imitation=True), episodes)


def test_a_description_is_a_dataset_of_a_model(tmp_path: Path) -> None:
    """It can be written down in a configuration, and it is read again where the model is loaded."""
    path = npz(random_episodes(4), tmp_path)
    with pytest.warns(UserWarning, match="There is no environment"):
        model = FQL(
            "FlowPolicy",
            dataset={"source": str(path), "rewards": {"shift": -5}},
            policy_kwargs={"net_arch": [8]},
            batch_size=8,
            device="cpu",
        )
    model.learn(2)
    assert model.draw_batch(50).rewards.max() < 0


def test_actions_outside_of_the_space_can_be_clipped_as_the_message_says() -> None:
    data = {
        "observations": np.zeros((20, 3), np.float32),
        "actions": np.full((20, 1), 3.0, np.float32),
        "rewards": np.zeros(20, np.float32),
        "truncations": np.arange(20) % 10 == 9,
    }
    small: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu"}
    with pytest.raises(DatasetError, match=r"must be in \[-2, 2\].*'actions': \{'clip': \[low, high\]\}"):
        FQL("FlowPolicy", "Pendulum-v1", dataset=data, **small)
    model = FQL("FlowPolicy", "Pendulum-v1", dataset={"source": data, "actions": {"clip": [-2, 2]}}, **small)
    assert model.offline_buffer is not None and (model.offline_buffer.actions == 2).all()
