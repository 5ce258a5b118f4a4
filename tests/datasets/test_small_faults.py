"""Small faults of reading data: each test states the right value."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_flow.common.data.fields import Meaning, resolve
from sb3_flow.common.data.follow import follow_environment
from sb3_flow.common.data.hindsight import Hindsight
from sb3_flow.common.data.offline_buffer import OfflineBuffer
from sb3_flow.common.data.statistics import ranges
from sb3_flow.datasets import DatasetError, load_dataset

PART = spaces.Box(-np.inf, np.inf, (1,), np.float32)


def recording(length: int = 4, **columns: Any) -> dict[str, Any]:
    """One episode, whose terminations mark no row."""
    states = np.arange(length, dtype=np.float32)[:, None]
    return {
        "observations": states,
        "actions": states / 10,
        "rewards": np.zeros(length),
        "terminations": np.zeros(length),
        **columns,
    }


@pytest.mark.slow
def test_ranges_are_computed_block_by_block(tmp_path: Path) -> None:
    """A column of 256 MiB in a file; less than a quarter of it is in memory at a time."""
    path = tmp_path / "column.npy"
    column = np.lib.format.open_memmap(path, "w+", np.float32, (2**22, 16))
    column[123, 3], column[-1, 5] = -7, 9
    rows = np.ones(len(column), dtype=bool)
    tracemalloc.start()
    low, high = ranges(column, rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (low[3], high[5], low[5], high[3]) == (-7, 9, 0, 0)
    assert peak < column.nbytes / 4


def test_a_list_of_files_is_a_list_of_episodes(tmp_path: Path) -> None:
    """As a list of dictionaries is: terminations that mark no row do not make a file ambiguous."""
    paths = []
    for number in range(2):
        paths.append(str(tmp_path / f"{number}.npz"))
        np.savez(paths[-1], **recording())
    with pytest.raises(DatasetError, match=r"nothing says where episodes end.*pass it in a list"):
        load_dataset(paths[0])
    data = load_dataset(paths)
    assert (
        data.trajectory_lengths().tolist() == load_dataset([recording(), recording()]).trajectory_lengths().tolist() == [4, 4]
    )


def test_states_of_a_simulator_are_information() -> None:
    assert {field.name: field.meaning for field in resolve(["obs", "actions", "states"])}["states"] == Meaning.INFORMATION


def test_a_short_trajectory_is_not_the_end_of_the_one_before() -> None:
    """With four steps joined to one, a trajectory of two steps is left out; what precedes it ends where its task ended."""
    first, second = recording(4), recording(2)
    data = {key: np.concatenate([first[key], second[key]]) for key in first}
    data["terminations"][3], data["truncations"] = 1, np.isin(np.arange(6), [5])
    read = load_dataset({"source": data, "frame_skip": {"steps": 4, "actions": "last"}})
    assert read.valids.tolist() == [True, False] and read.final_states.tolist() == [False, False]


def test_relabeled_rewards_above_zero_are_refused_where_rewards_are_sparse() -> None:
    """A reward of 1 for success would become -1."""
    parts = ("observation", "achieved_goal", "desired_goal")
    states = np.arange(4, dtype=np.float32)[:, None]
    data = load_dataset([recording(observations=dict.fromkeys(parts, states), rewards=np.zeros(4))])
    buffer = OfflineBuffer(
        data, spaces.Dict(dict.fromkeys(parts, PART)), spaces.Box(-1, 1, (1,)), th.device("cpu"), sparse_rewards=True
    )
    for best, message in ((1.0, "compute_reward: `rewards` row . is 1"), (0.0, None)):
        hindsight = Hindsight(
            4, lambda achieved, goals, best=best: (achieved == goals)[:, 0] + best - 1.0, th.Generator().manual_seed(0)
        )  # type: ignore[misc]
        if message is None:
            assert set(buffer.draw(th.zeros(50, dtype=th.int64), hindsight=hindsight).rewards.tolist()) == {-1.0, 0.0}
        else:
            with pytest.raises(DatasetError, match=message):
                buffer.draw(th.zeros(50, dtype=th.int64), hindsight=hindsight)


class Rendered(gym.Env[np.ndarray, np.ndarray]):
    observation_space, action_space = spaces.Box(-1, 1, (2,), np.float32), PART
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    render_mode = "rgb_array"

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        return np.zeros(2, np.float32), {}

    def render(self) -> Any:
        return np.zeros((8, 8, 3), np.uint8)


def test_pictures_of_the_environment_are_no_part_of_the_data() -> None:
    """``AddRenderObservation`` would give each row the picture of the environment as it is now."""
    env = DummyVecEnv([lambda: gym.wrappers.AddRenderObservation(Rendered(), render_only=True)])
    with pytest.raises(DatasetError, match="recorded without the wrapper AddRenderObservation"):
        follow_environment(load_dataset([recording(observations=np.zeros((4, 2)))]), env.observation_space, env)


def wrapped(wrapper: Any) -> DummyVecEnv:
    return DummyVecEnv([lambda: gym.wrappers.TimeLimit(wrapper(Rendered()), 5)])


@pytest.mark.parametrize(
    ("wrapper", "message"),
    [
        (gym.wrappers.NormalizeObservation, "with the wrapper NormalizeObservation .*`VecNormalize`"),
        (lambda env: gym.wrappers.TransformObservation(env, np.sin, None), "TransformObservation .*change its observations"),
        (lambda env: gym.wrappers.RescaleObservation(env, np.float32(0), np.float32(1)), "the wrapper RescaleObservation"),
        (lambda env: gym.wrappers.TransformReward(env, float), "TransformReward .*change its rewards .*'rewards': {"),
        (gym.wrappers.NormalizeReward, "NormalizeReward .*change its rewards"),
    ],
)
def test_wrappers_that_keep_the_shape_are_warned_of(wrapper: Any, message: str) -> None:
    """The data may have been recorded with them, or without them: it is not changed."""
    env, data = wrapped(wrapper), load_dataset([recording(observations=np.zeros((4, 2)))])
    with pytest.warns(UserWarning, match=message):
        assert follow_environment(data, env.observation_space, env) is data


def test_other_wrappers_are_not_warned_of(recwarn: pytest.WarningsRecorder) -> None:
    env = wrapped(lambda env: gym.wrappers.FlattenObservation(gym.wrappers.ClipAction(env)))
    follow_environment(load_dataset([recording(observations=np.zeros((4, 2)))]), env.observation_space, env)
    env, data = wrapped(gym.wrappers.NormalizeReward), load_dataset([recording(observations=np.zeros((4, 2)), rewards=None)])
    follow_environment(data, env.observation_space, env)
    assert [warning for warning in recwarn if "the wrapper" in str(warning.message)] == []


@pytest.mark.parametrize(("shape", "stacked"), [((4, 2), True), ((8,), True), ((3,), False), ((1,), False)])
def test_stacked_frames_that_were_not_recorded(shape: tuple[int, ...], stacked: bool) -> None:
    space = spaces.Box(-1, 1, shape, np.float32)
    with pytest.raises(DatasetError, match=r"has the shape \(2,\) per row") as caught:
        OfflineBuffer(load_dataset([recording(observations=np.zeros((4, 2)))]), space, PART)
    assert ("`VecFrameStack`" in str(caught.value)) == stacked


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"speed": np.zeros(4), "actions": np.zeros(4)}, r"to `observations`, or to `observations/NAME` if there are several"),
        (recording(rewards=np.zeros((4, 5))), r"\(5,\) per row; expected one value\. .*one dictionary for each episode"),
        (recording(rewards=np.zeros((4, 5, 6))), r"\(5, 6\) per row; expected one value\.$"),
        ([recording(observations=[{"joints": 0.0}] * 4)], r"object values; expected numbers; stack its rows"),
        ([recording(actions=["left"] * 4)], r"<U4 values; expected numbers\.$"),
        ("log.csv", r"pandas\.read_csv"),
    ],
)
def test_messages_say_how_data_is_passed(source: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load_dataset(source)


def test_names_of_tianshou() -> None:
    states, flags = np.arange(5, dtype=np.float32)[:, None], np.arange(5) == 4
    columns = {
        "obs": states,
        "act": states / 10,
        "rew": np.arange(5.0),
        "obs_next": states + 1,
        "truncated": flags,
        "done": flags,
    }
    data = load_dataset({**columns, "terminated": np.zeros(5)})
    assert np.array_equal(data.actions, states / 10) and data.rewards.tolist() == [0, 1, 2, 3, 4]
    assert data.valids.all() and data.next_observations is not None and np.array_equal(data.next_observations, states + 1)


def test_episodes_at_the_top_of_a_file_are_named(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "log.h5", "w") as file:
        file["traj_0/observations"] = np.zeros((4, 1))
    with pytest.raises(DatasetError, match=r"log\.h5, traj_0: `actions` is missing"):
        load_dataset(str(tmp_path / "log.h5"))


def test_a_saved_replay_buffer_is_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "buffer.pkl").touch()
    with pytest.raises(DatasetError, match=r"load_replay_buffer\(path\)` and `dataset=model\.replay_buffer`"):
        load_dataset(str(tmp_path / "buffer.pkl"))
    with pytest.raises(DatasetError, match=r"no such file or folder"):
        load_dataset(str(tmp_path / "none.pkl"))


def test_files_of_d3rlpy_have_no_parts() -> None:
    pytest.importorskip("h5py")
    path = Path(__file__).parent / "written" / "d3rlpy.h5"
    with pytest.raises(DatasetError, match=r"d3rlpy\.h5#arm: a file of d3rlpy has no parts of observations"):
        load_dataset(f"{path}#arm")
