"""``sb3-flow datasets info``: how a dataset was understood, and what is suspicious."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sb3_flow.cli import main
from sb3_flow.datasets import OfflineDataset, load_dataset
from sb3_flow.datasets.info import describe, suspicions

N = 60


def log(**columns: Any) -> dict[str, Any]:
    """A random walk of three episodes of 20 steps, one of which ends with the end of the task."""
    rng = np.random.default_rng(0)
    row = np.arange(N)
    data = {
        "observations": np.cumsum(rng.normal(size=(N, 3)), axis=0),
        "actions": rng.uniform(-1, 1, (N, 2)),
        "rewards": rng.normal(size=N),
        "terminations": row == 19,
        "truncations": (row == 39) | (row == 59),
    }
    return {**data, **columns}


def suspicious(*arguments: Any, **columns: Any) -> list[str]:
    return suspicions(load_dataset(log(**columns)), *arguments)


def test_nothing_is_suspicious_in_a_sound_log() -> None:
    assert suspicious() == []


def test_what_is_suspicious() -> None:
    data = log()
    moved = data["observations"] + np.where(np.arange(N) < 10, 0, 500)[:, None]
    assert suspicious(observations=moved) == [
        "the observations jump inside of episodes, after row 9: is the end of an episode missing?"
    ]
    constant = data["actions"] * [1, 0]
    assert suspicious(actions=constant) == ["`actions` never changes in the elements 1"]
    still = data["observations"] * [0, 1, 1] + [5, 0, 0]
    assert suspicious(observations=still) == ["`observations` never changes in the elements 0"]
    assert suspicious(rewards=np.zeros(N)) == ["all rewards are 0"]
    no_end, every_end = np.zeros(N, dtype=bool), np.isin(np.arange(N), [19, 39, 59])
    assert suspicious(terminations=no_end, truncations=every_end) == [
        "no transition ends the task: right if episodes end by time limits only"
    ]
    assert suspicious(terminations=every_end, truncations=no_end) == [
        "every episode ends with the end of the task: are time limits among them?"
    ]


def test_rewards_on_another_scale_than_those_of_the_environment() -> None:
    """Random actions in Pendulum have rewards down to about -16."""
    data = log(observations=np.random.default_rng(0).normal(size=(N, 3)), actions=np.random.default_rng(1).normal(size=(N, 1)))
    dense = -16 * np.random.default_rng(2).random(N)
    assert suspicions(load_dataset({**data, "rewards": dense}), "Pendulum-v1") == []
    (scaled,) = suspicions(load_dataset({**data, "rewards": dense / 100}), "Pendulum-v1")
    assert scaled.startswith("rewards go from -0.15") and scaled.endswith("are they on another scale?")


def test_padding_is_not_described() -> None:
    data = log()
    data["valids"] = np.arange(N) < 50
    data["actions"][50:], data["rewards"][50:] = 1e6, 1e6
    lines = describe(load_dataset(data))
    assert lines["transitions"] == "48" and lines["trajectories"] == "3"  # two are cut, without what followed
    assert lines["actions"].endswith(f"to {data['actions'][:50].max():.4g}")
    assert float(lines["rewards"].split()[3].rstrip(",")) < 10
    assert lines["lengths"] == "10 to 20 steps, median 20"


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    clock = np.arange(N) * 0.1 + (np.arange(N) > 5) * 0.1
    np.savez(tmp_path / "log.npz", **log(rewards=np.zeros(N)), timestamp=clock, weather=np.zeros(N))
    with pytest.warns(UserWarning, match="not used: `weather`"):
        assert main(["datasets", "info", str(tmp_path / "log.npz")]) == 0
    text = capsys.readouterr().out
    for line in (
        "transitions:    58",
        "trajectories:   3",
        "lengths:        20 to 20 steps, median 20",
        "ends known by:  `truncations`, `terminations`",
        "Fields:",
        "  truncations: 1 at the last row of an episode that was cut, for instance by a time limit",
        "  weather: not used",
        "Remarks:",
        "  Row 5: the next row is late, by `timestamp` (frames were lost?)",
        "Suspicious:",
        "  all rewards are 0",
    ):
        assert line in text.splitlines(), f"{line!r} is not in\n{text}"


def test_a_dataset_without_transitions_for_reinforcement_learning() -> None:
    """Recordings of one step: imitation has them."""
    data = OfflineDataset.from_dict({"observations": np.zeros((3, 1)), "actions": np.zeros((3, 1)), "episode": np.arange(3)})
    lines = describe(data)
    assert lines["transitions"] == "0" and lines["trajectories"] == "3"
