"""Where episodes end, which rows are transitions, and what is refused: small logs written out."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_flow import FQL, StreamingFlow
from sb3_flow.common.data.offline_buffer import OfflineBuffer
from sb3_flow.datasets import DatasetError, OfflineDataset, load_dataset

N = 6
#: Six rows that move evenly; the reward of row i is i.
BARE: dict[str, Any] = {
    "observations": np.arange(N, dtype=np.float32)[:, None],
    "actions": np.linspace(-1, 1, N, dtype=np.float32)[:, None],
    "rewards": np.arange(N, dtype=np.float32),
}
NEXT = {"next_observations": BARE["observations"] + 1}


def flags(*rows: int) -> np.ndarray:
    return np.isin(np.arange(N), rows)


def rows(flagged: np.ndarray) -> list[int]:
    return np.flatnonzero(flagged).tolist()


#: Columns, the last steps of episodes, those where the task ended, and the rows that are no transitions.
LOGS: dict[str, tuple[dict[str, Any], list[int], list[int], list[int]]] = {
    "terminations and truncations": ({"terminations": flags(2), "truncations": flags(5)}, [2, 5], [2], [5]),
    "both at once": ({"terminals": flags(2), "timeouts": flags(2, 5)}, [2, 5], [2], [5]),
    "a file that stops in the midst": ({"terminals": flags(1), "timeouts": flags(3)}, [1, 3, 5], [1], [3, 5]),
    "next observations": ({"terminals": flags(2), "timeouts": flags(5), **NEXT}, [2, 5], [2], []),
    "masks beside dones": ({"masks": ~flags(2), "dones": flags(2, 5)}, [2, 5], [2], [5]),
    "masks beside dones_float": ({"masks": ~flags(2), "dones_float": flags(2, 5)}, [2, 5], [2], [5]),
    "play goes on after success": ({"masks": ~flags(1, 2), "terminals": flags(5), **NEXT}, [5], [1, 2], []),
    "masks without a termination": ({"masks": np.ones(N), "dones": flags(2, 5)}, [2, 5], [], [2, 5]),
    "dones with limits among them": ({"dones": flags(2, 5), "timeouts": flags(5)}, [2, 5], [2], [5]),
    "dones without limits among them": ({"dones": flags(2), "timeouts": flags(5)}, [2, 5], [2], [5]),
    "dones and limits at once": ({"dones": flags(2), "timeouts": flags(2, 5)}, [2, 5], [2], [5]),
    "dones beside numbers of episodes": ({"dones": flags(2), "episode_id": [0, 0, 0, 1, 1, 1]}, [2, 5], [2], [5]),
    "a task that ends where the observations go on": ({"terminations": flags(2), **NEXT}, [2, 5], [2], []),
    "last steps with what followed": (
        {"is_last": flags(2, 5), "is_terminal": flags(2), "rewards": np.zeros(N), **NEXT},
        [2, 5],
        [2],
        [],
    ),
    "numbers of episodes": ({"terminals": flags(), "episode_id": [7, 7, 7, 3, 3, 3]}, [2, 5], [], [2, 5]),
    "names of episodes": ({"terminals": flags(2), "episode": list("aaabbb")}, [2, 5], [2], [5]),
    "first rows": ({"terminals": flags(2), "is_first": flags(0, 3)}, [2, 5], [2], [5]),
    "ends of episodes": ({"terminals": flags(2), "episode_ends": [3, 6]}, [2, 5], [2], [5]),
    "lengths": ({"terminals": flags(2), "traj_lengths": [3, 3]}, [2, 5], [2], [5]),
    "counters": ({"terminals": flags(), "step": [0, 1, 2, 0, 1, 2]}, [2, 5], [], [2, 5]),
    "clocks that start anew": ({"terminals": flags(), "timestamp": [0, 0.1, 0.2, 0, 0.1, 0.2]}, [2, 5], [], [2, 5]),
    "a clock that goes on": ({"terminals": flags(), "timestamp": [0, 0.1, 0.2, 60, 60.1, 60.2]}, [2, 5], [], [2, 5]),
    "dates": (
        {"terminals": flags(), "timestamp": np.array([0, 1, 2, 600, 601, 602], "datetime64[s]")},
        [2, 5],
        [],
        [2, 5],
    ),
    "a counter with a gap": ({"truncations": flags(5), "step": [0, 1, 2, 4, 5, 6]}, [2, 5], [], [2, 5]),
    "rlds": ({"is_last": flags(2, 5), "is_terminal": flags(2), "rewards": [0, 1, 0, 0, 1, 0]}, [1, 4], [1], [2, 5]),
    "rlds that stops in the midst": (
        {"is_first": flags(0, 3), "is_last": flags(2), "is_terminal": flags(2), "rewards": [0, 1, 0, 0, 1, 0]},
        [1, 5],
        [1],
        [2, 5],
    ),
    "rlds with rewards at the last steps": ({"is_last": flags(2, 5), "is_terminal": flags(2)}, [2, 5], [2], [5]),
    "valids as in OGBench": ({"terminals": flags(2, 5), "masks": ~flags(1), "valids": ~flags(2, 5)}, [1, 4], [1], [2, 5]),
    "padding": ({"terminals": flags(1), "masks": ~flags(1), "valids": ~flags(2, 3)}, [1, 5], [1], [2, 3, 5]),
    "padding of one row": ({"terminations": flags(), "valids": ~flags(2)}, [1, 5], [], [1, 2, 5]),
    "columns of one value a row": (
        {"terminations": flags(2)[:, None], "truncations": flags(5)[:, None] * 1.0},
        [2, 5],
        [2],
        [5],
    ),
}


@pytest.mark.parametrize("log", LOGS)
def test_logs(log: str) -> None:
    columns, ends, terminations, invalid = LOGS[log]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_dataset({**BARE, **columns})
    assert rows(data.ends & data.has_action) == ends, data.evidence
    assert rows(data.terminations & data.valids) == terminations
    assert rows(~data.valids) == invalid


def test_successors_tell_ends_where_nothing_else_does() -> None:
    """Three trajectories without flags: a return of three steps must not cross into the next one (17, and not 1017)."""
    states = np.array([0, 1, 2, 10, 11, 20, 21, 22], dtype=np.float32)[:, None]
    rewards = np.array([5, 6, 6, 1000, 1, 2, 3, 4], dtype=np.float32)
    data = load_dataset({"observations": states, "actions": states / 100, "rewards": rewards, "next_observations": states + 1})
    assert rows(data.ends) == [2, 4, 7] and data.valids.all()
    assert data.evidence == "`next_observations`, which is not the next row's observation there"
    space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    batch = OfflineBuffer(data, space, spaces.Box(-1, 1, (1,), np.float32)).draw(th.tensor([0]), n_steps=4, gamma=1.0)
    assert batch.rewards.item() == 17


def test_an_end_that_the_flags_forget_is_found_by_the_successors() -> None:
    following = BARE["observations"] + 1
    following[3] = 99
    data = load_dataset({**BARE, "next_observations": following, "terminations": flags(), "truncations": flags(5)})
    assert rows(data.ends) == [3, 5]
    assert any("Row 3" in remark and "the episode is cut there" in remark for remark in data.remarks)


def test_lost_frames_are_said() -> None:
    data = load_dataset({**BARE, "terminals": flags(5), "timestamp": [0, 0.1, 0.2, 0.4, 0.5, 0.6]})
    assert rows(data.ends) == [5]
    assert any("Row 2: the next row is late, by `timestamp`" in remark for remark in data.remarks)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "nothing says where episodes end. Seen: no column about episodes. Add `truncations`"),
    "terminals that mark nothing": ({"terminals": flags()}, "Seen: `terminals`, which marks no row"),
    "a coarse clock": ({"terminals": flags(), "timestamp": [0, 0, 1, 1, 2, 2]}, "`timestamp`, which marks no row"),
    "dones alone": ({"dones": flags(2, 5)}, "`dones` does not say whether the task ended there"),
    "dones that say no more than the numbers": (
        {"dones": flags(2, 5), "episode_id": [0, 0, 0, 1, 1, 1]},
        "`dones` does not say whether the task ended there",
    ),
    "mask": ({"mask": np.ones(N), "truncations": flags(5)}, "`mask` does not say which rows are transitions"),
    "state": ({"observations": None, "state": BARE["observations"]}, "`state` does not say whether it is what the policy"),
    "two names": ({"obs": BARE["observations"], "truncations": flags(5)}, "`observations` and `obs` are names of the same"),
    "ends that are too few": ({"episode_ends": [3, 5]}, r"`episode_ends` is \[3 5\]; expected rising numbers, the last one"),
    "lengths that are too many": ({"lengths": [3, 4]}, "expected lengths that sum up to the number of rows, 6"),
    "flags of two": ({"truncations": np.arange(N)}, "`truncations` row 2 is 2; expected 0 or 1"),
    "flags that are short": ({"truncations": flags()[:3]}, "`truncations` has 3 rows, but `actions` has 6"),
    "an end inside": (
        {"truncations": flags(1, 5), "episode_id": [0, 0, 0, 1, 1, 1]},
        "`truncations` ends an episode at row 1",
    ),
    "two numberings": ({"episode_id": [0, 0, 0, 1, 1, 1], "is_first": flags(0, 2)}, "contradict each other about where"),
    "episodes that are mixed": ({"episode_id": [0, 1, 0, 1, 0, 1]}, "the rows of an episode are not together"),
    "texts": ({"truncations": ["no"] * 6}, "expected 0 or 1"),
    "next observations that are the observations": (
        {"truncations": flags(2, 5), "next_observations": BARE["observations"]},
        "`next_observations` is `observations` in each row",
    ),
    "a counter of rows that are shuffled": (
        {"frame_index": [3, 1, 5, 2, 4, 0]},
        "not in the order of time: `frame_index` goes",
    ),
    "a clock of rows that are shuffled": ({"timestamp": [3.5, 1, 5, 2, 4, 0]}, "not in the order of time: `timestamp` goes"),
    "a counter named steps": ({"steps": np.arange(N), "terminals": flags()}, "Seen: `steps`, `terminals`, which marks no row"),
    "numbers of episodes that are missing": ({"episode_id": [0, 0, 0, 1, 1, np.nan]}, "`episode_id` row 5 is nan; expected a"),
    "names of episodes that are missing": ({"episode": [*"aaabb", None]}, "`episode` row 5 is None; expected a value"),
    "masked values": (
        {"truncations": flags(5), "rewards": np.ma.masked_array(np.zeros(N), mask=flags(3))},
        "`rewards` row 3 is masked; fill masked values",
    ),
    "tensors with gradients": (
        {"truncations": flags(5), "rewards": th.zeros(N, requires_grad=True)},
        "`rewards` is no array of numbers .*requires grad",
    ),
    "a dictionary": ({"truncations": {"a": 1}}, "`truncations` is a dictionary with the keys"),
}


@pytest.mark.parametrize("log", REFUSED)
def test_refused_logs(log: str) -> None:
    columns, message = REFUSED[log]
    with pytest.raises(DatasetError, match=message) as raised:
        load_dataset({**BARE, **columns})
    assert len(str(raised.value)) < 600 and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"truncations": flags(5), "next_observations": BARE["observations"] + 0.5},
            "in most rows, although these belong to one",
        ),
        ({"next_observations": BARE["observations"] + 0.5}, "nearly each row is an episode of its own"),
        ({"terminals": flags(2, 5), "timeouts": flags(2, 5)}, r"the task ended at each time limit \(`timeouts`\)"),
    ],
    ids=["another next row", "no next row", "limits that are ends of the task"],
)
def test_doubtful_logs(columns: dict[str, Any], message: str) -> None:
    with pytest.warns(UserWarning, match=message):
        data = load_dataset({**BARE, **columns})
    assert any(re.search(message, remark) for remark in data.remarks)


def test_logs_without_doubt() -> None:
    """Observations that stay until the episode ends, and episodes of one step."""
    stays = {"observations": np.repeat([[0.0], [1.0]], 3, axis=0), "next_observations": np.repeat([[0.0], [1.0]], 3, axis=0)}
    single = {"next_observations": BARE["observations"], "terminals": np.ones(N), "steps": np.zeros(N)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rows(load_dataset({**BARE, **stays, "truncations": flags(2, 5)}).ends) == [2, 5]
        assert rows(load_dataset({**BARE, **single}).ends) == [*range(N)]
        assert rows(load_dataset({**BARE, "terminals": flags(), "steps": [0, 1, 0, 1, 0, 1]}).ends) == [1, 3, 5]


def test_unknown_fields_are_said() -> None:
    with pytest.warns(UserWarning, match="not used: `weather`, `mood`"):
        load_dataset(
            {**BARE, "truncations": flags(5), "weather": flags(), "mood": flags(), "infos": np.zeros(N), "log_probs": None}
        )


def test_a_jump_is_warned_about_where_only_the_end_of_the_task_tells() -> None:
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(size=(60, 3)), axis=0) + np.where(np.arange(60) < 30, 0, 500)[:, None]
    data = {"observations": walk, "actions": np.zeros((60, 1)), "terminals": np.arange(60) == 59, "rewards": np.zeros(60)}
    with pytest.warns(
        UserWarning, match="the observations jump inside of episodes, after row 29. Only the end of the task tells"
    ):
        load_dataset(data)
    with pytest.warns(UserWarning, match="after row 29. Only the end of the recording tells"):
        load_dataset({**data, "terminals": np.zeros(60), "timeouts": np.zeros(60)})


def test_jumps_of_short_episodes_are_warned_about() -> None:
    """Episodes of eight steps, of which every third one ends the task: more than 5 % of the steps are jumps."""
    rng = np.random.default_rng(0)
    joints = rng.uniform(-1, 1, (60, 1, 3)) + np.cumsum(rng.uniform(-0.1, 0.1, (60, 8, 3)), axis=1)
    row = np.arange(480)
    data = {
        "observations": joints.reshape(480, 3),
        "actions": np.zeros((480, 1)),
        "rewards": np.zeros(480),
        "terminals": row % 24 == 23,
    }
    with pytest.warns(UserWarning, match=r"jump inside of episodes, after row .* Only the end of the task .*truncations"):
        load_dataset(data)
    quick = np.repeat(np.where(np.arange(60) % 10 == 9, 1.0, 0.01), 8)[:, None] * rng.uniform(-0.1, 0.1, (480, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_dataset({**data, "truncations": row % 8 == 7})
        load_dataset({**data, "observations": np.cumsum(quick, axis=0)})  # slow, and quick for eight steps


def test_episodes_that_are_longer_than_the_environment_allows(tmp_path: Path) -> None:
    columns = {"observations": np.zeros((300, 3)), "actions": np.zeros((300, 1)), "rewards": np.zeros(300)}
    np.savez(tmp_path / "log.npz", **columns, terminals=np.arange(300) == 299)
    with pytest.raises(
        DatasetError, match=r"an episode has 300 steps, but Pendulum-v1 ends at 200\. Only the end of the task"
    ):
        load_dataset(tmp_path / "log.npz", "Pendulum-v1")
    np.savez(tmp_path / "log.npz", **columns, terminals=np.arange(300) == 299, timeouts=np.arange(300) == 149)
    assert load_dataset(tmp_path / "log.npz", "Pendulum-v1").n_trajectories == 2


@pytest.mark.filterwarnings("ignore:There is no environment")
def test_last_rewards_are_not_lost_without_a_word() -> None:
    """The best rewards are those of rows that are no transitions."""
    data = {**BARE, "truncations": flags(2, 5), "rewards": flags(2, 5) * 1.0}
    with pytest.warns(UserWarning, match="2 last steps of episodes are no transitions.*rewards from 1 to 1 are lost"):
        model = FQL("FlowPolicy", dataset=data, policy_kwargs={"net_arch": [8]}, device="cpu")
        model.set_dataset(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="There is no environment")
        model.set_dataset({**data, **NEXT})  # then nothing is lost
        model.set_dataset({**data, "rewards": np.zeros(N)})  # there is nothing to be lost


@pytest.mark.filterwarnings("ignore:There is no environment", "ignore:dataset. no trajectory has 16 steps")
def test_imitation_uses_the_last_actions_of_dictionaries() -> None:
    data = {key: BARE[key] for key in ("observations", "actions")} | {"truncations": flags(2, 5)}
    model = StreamingFlow("FlowPolicy", dataset=data, device="cpu", policy_kwargs={"net_arch": [8]})
    model.set_dataset(data)
    assert len(model.offline_buffer) == N
    assert (model.offline_buffer.window(th.tensor([5]), 1, 1).actions == 1).all()


def test_padding_counts_nowhere() -> None:
    """Rows of padding hold anything: the range of actions, statistics and returns come from the other ones."""
    padded = {
        "observations": np.array([[0.0], [1.0], [np.nan], [2.0], [3.0], [np.inf]]),
        "actions": np.array([[0.1], [-0.2], [9.0], [0.3], [0.1], [np.nan]]),
        "rewards": np.array([1.0, 1.0, np.nan, 1.0, 1.0, 1e9]),
        "valids": ~flags(2, 5),
        "terminations": flags(1, 4),
    }
    with pytest.warns(UserWarning, match=r"Actions are in \[\[-0.2\], \[0.3\]\]"):
        model = FQL("FlowPolicy", dataset=padded, policy_kwargs={"net_arch": [8]}, device="cpu", normalize_observations=True)
    model.set_dataset(padded)
    assert len(model.offline_buffer) == 4
    mean, std = model.policy.normalizer.mean_0, model.policy.normalizer.std_0
    assert mean.item() == pytest.approx(1.5) and std.item() == pytest.approx(np.std([0, 1, 2, 3]), rel=1e-5)
    assert model.draw_batch(100).rewards.max() == 1


@pytest.mark.filterwarnings("ignore:There is no environment")
def test_chunks_that_fit_nowhere() -> None:
    data = {**BARE, **NEXT, "truncations": flags(1, 3, 5)}
    arguments: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu"}
    with (
        pytest.warns(UserWarning, match="There is no environment"),
        pytest.raises(DatasetError, match="nothing can be learned"),
    ):
        FQL("FlowPolicy", dataset=data, horizon_length=3, **arguments).set_dataset(data)
    data["truncations"] = flags(0, 1, 2, 5)
    with pytest.warns(UserWarning, match="only 17 % of the transitions begin a chunk of 3 actions"):
        FQL("FlowPolicy", dataset=data, horizon_length=3, **arguments).set_dataset(data)
    with pytest.warns(UserWarning, match="no trajectory has 5 steps, which `n_steps` asks for; the longest has 3"):
        FQL("FlowPolicy", dataset=data, n_steps=5, **arguments).set_dataset(data)


def test_none_is_no_dataset() -> None:
    with pytest.raises(TypeError, match="`policy` is None"):
        FQL(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="There is neither an environment nor a dataset"):
        FQL("FlowPolicy", dataset=None)
    huge = {f"field_{i}": np.zeros(3) for i in range(1000)}
    with pytest.raises(DatasetError) as raised:
        load_dataset(huge)
    assert len(str(raised.value)) < 600


def made(ends: np.ndarray, valids: np.ndarray) -> OfflineDataset:
    """A dataset that was not read, but made of its columns."""
    return OfflineDataset(*(np.float32(BARE[key]) for key in ("observations", "actions", "rewards")), flags(), ends, valids)


def test_rows_that_are_no_transitions_part_trajectories() -> None:
    assert made(flags(5), ~flags(2, 5)).trajectory_lengths().tolist() == [2, 2]


def test_joined_datasets_do_not_run_into_each_other() -> None:
    """Also where the last row of the first one is not marked as an end."""
    one = made(flags(), ~flags(5))
    data = load_dataset([one, one])
    space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    batch = OfflineBuffer(data, space, spaces.Box(-1, 1, (1,), np.float32)).draw(th.tensor([4, 9]), n_steps=3, gamma=1.0)
    assert data.n_trajectories == 2 and data.ends[5]
    assert batch.rewards.tolist() == [4, 4]
