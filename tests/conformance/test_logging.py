"""What the logger gets, when, and under which names. Logs of both phases: see `test_whole_run.py`."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.logger import configure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from conformance.case import AlgorithmCase
from conformance.environments import collect, pendulum
from sb3_flow.common.flow_algorithm import FlowAlgorithm
from sb3_flow.common.type_aliases import Metrics


def _log_to_csv(model: FlowAlgorithm, folder: Path) -> None:
    model.set_logger(configure(str(folder), ["csv"]))


def _rows(folder: Path) -> list[dict[str, float]]:
    with (folder / "progress.csv").open() as file:
        return [{key: float(value) for key, value in row.items() if value != ""} for row in csv.DictReader(file)]


@pytest.mark.one_variant
def test_offline_log_interval(offline_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """A line every so many updates, with the speed in updates; it claims no step of an environment."""
    model = offline_algorithm.make(pendulum(), dataset=collect(pendulum), offline_log_interval=2)
    _log_to_csv(model, tmp_path)
    model.learn(7)
    rows = _rows(tmp_path)
    assert [row["time/total_timesteps"] for row in rows] == [2, 4, 6]
    assert [row["time/offline_updates"] for row in rows] == [row["train/n_updates"] for row in rows] == [2, 4, 6]
    assert all(row["time/env_steps"] == 0 and row["time/updates_per_second"] > 0 for row in rows)
    assert not any(key.startswith("rollout/") for key in rows[0])
    assert rows[0]["train/learning_rate"] == pytest.approx(model.lr_schedule(1))


def test_logged_losses_are_means_over_the_interval(
    offline_algorithm: AlgorithmCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each metric of ``update`` is logged under ``train/``, averaged over those updates since the last line that had it."""
    interval = offline_algorithm.stages + 3
    model = offline_algorithm.make(pendulum(), dataset=collect(pendulum), offline_log_interval=interval)
    _log_to_csv(model, tmp_path)
    seen: list[dict[str, float]] = []
    update = model.update

    def recorded(*args: Any) -> Metrics:
        metrics = update(*args)
        seen.append({name: value.item() for name, value in metrics.items()})
        return metrics

    monkeypatch.setattr(model, "update", recorded)
    model.learn(2 * interval)
    for row, updates in zip(_rows(tmp_path), (seen[:interval], seen[interval:]), strict=True):
        for name in set().union(*updates):
            values = [metrics[name] for metrics in updates if name in metrics]
            assert row[f"train/{name}"] == pytest.approx(np.mean(values), rel=1e-4), name


@pytest.mark.one_variant
def test_online_log(online_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """A line every ``log_interval`` episodes, under the names of Stable-Baselines3."""
    model = online_algorithm.make(pendulum(episode_length=3), learning_starts=4)
    _log_to_csv(model, tmp_path)
    model.learn(14, log_interval=2)
    rows = _rows(tmp_path)
    assert [row["time/episodes"] for row in rows] == [2, 4]
    assert [row["time/env_steps"] for row in rows] == [row["time/total_timesteps"] for row in rows] == [6, 12]
    assert rows[0]["rollout/ep_len_mean"] == 3 and rows[0]["rollout/ep_rew_mean"] < 0
    assert rows[0]["time/fps"] >= 0 and rows[0]["time/time_elapsed"] >= 0
    assert rows[1]["train/n_updates"] == 11 - 4, "the line is written before the update of its step"


@pytest.mark.one_variant
def test_tensorboard(two_phase_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """Runs are numbered under the algorithm's name, and the axis of both phases is the clock."""

    def events(run: str) -> EventAccumulator:
        accumulator = EventAccumulator(str(tmp_path / run))
        accumulator.Reload()
        return accumulator

    model = two_phase_algorithm.make(
        pendulum(episode_length=2),
        dataset=collect(pendulum),
        offline_steps=4,
        offline_log_interval=2,
        tensorboard_log=str(tmp_path),
    )
    model.learn(12, log_interval=1)
    name = two_phase_algorithm.cls.__name__
    scalars = events(f"{name}_1")
    assert [event.step for event in scalars.Scalars("time/offline_updates")] == [2, 4, 6, 8, 10, 12]
    assert [event.step for event in scalars.Scalars("rollout/ep_rew_mean")] == [6, 8, 10, 12]
    assert [event.value for event in scalars.Scalars("time/env_steps")] == [0, 0, 2, 4, 6, 8]
    assert "train/n_updates" not in scalars.Tags()["scalars"]
    model.learn(6, reset_num_timesteps=False, log_interval=1)
    # Sorted: TensorBoard reads a run's files by their names, which end in a number that is not padded.
    assert sorted(event.step for event in events(f"{name}_1").Scalars("rollout/ep_rew_mean")) == list(range(6, 19, 2))
    model.learn(2, tb_log_name="other", log_interval=1)
    assert (tmp_path / "other_1").is_dir()
