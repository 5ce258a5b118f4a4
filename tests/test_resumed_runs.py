"""What else a resumed run needs: the same data, a TensorBoard without repeated steps, and monitor files that can be read."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from conformance.environments import collect, pendulum
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.monitor import Monitor, load_results

from sb3_flow import FQL
from sb3_flow.common.checkpoints import TrainingCheckpoint
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.digest import digest

SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}, "batch_size": 8, "device": "cpu", "seed": 0}
ONLINE: dict[str, Any] = {**SMALL, "buffer_size": 500, "learning_starts": 5}


class Leveled(gym.Wrapper):
    """Its info has a number of its own."""

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated, {**info, "level": 3}


def test_other_data_of_the_same_length_is_refused(tmp_path: Path) -> None:
    """Even if it differs in its rewards only. The same data in another precision is the same."""
    data = collect(pendulum)
    FQL("FlowPolicy", pendulum(), dataset=data, **SMALL).learn(4, callback=TrainingCheckpoint(tmp_path, 4))
    with pytest.raises(ValueError, match=r"as many transitions as 'dataset' of .*checkpoint_4, but other values"):
        FQL.resume(tmp_path, pendulum(), dataset={**data, "rewards": data["rewards"] + 1})
    wide = {name: column.astype(np.float64) if column.dtype == np.float32 else column for name, column in data.items()}
    assert FQL.resume(tmp_path, pendulum(), dataset=wide, device="cpu").learn(6).num_timesteps == 6


@pytest.mark.slow
def test_a_digest_reads_few_rows() -> None:
    """It depends on shapes and values, and reads at most 256 rows of a column."""

    class Counting(np.ndarray):
        read = 0

        def __getitem__(self, rows: Any) -> Any:
            Counting.read += len(rows)
            return np.asarray(self)[rows]

    data = OfflineDataset.from_dict(collect(pendulum, 10_000))
    assert digest(data) == digest(OfflineDataset.from_dict(collect(pendulum, 10_000)))
    assert digest(data) != digest(OfflineDataset.from_dict(collect(pendulum, 10_000, seed=1)))
    object.__setattr__(data, "observations", data.observations.view(Counting))
    digest(data)
    assert Counting.read == 256


def test_tensorboard_has_no_step_twice(tmp_path: Path) -> None:
    """Steps that an interrupted run logged after its last checkpoint are hidden when they are logged again."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def steps() -> list[int]:
        events = EventAccumulator(str(tmp_path / "logs" / "FQL_1"))
        events.Reload()
        return [event.step for event in events.Scalars("train/critic_loss")]

    data = collect(pendulum)
    kwargs = {**SMALL, "dataset": data, "offline_log_interval": 2, "tensorboard_log": str(tmp_path / "logs")}
    FQL("FlowPolicy", pendulum(), **kwargs).learn(10, callback=TrainingCheckpoint(tmp_path / "run", 6))
    assert steps() == [2, 4, 6, 8, 10]
    model = FQL.resume(tmp_path / "run", pendulum(), dataset=data)
    model.learn(12, callback=TrainingCheckpoint(tmp_path / "run", 6))
    assert steps() == [2, 4, 6, 8, 10, 12]


def test_monitor_files_that_are_continued_have_a_header(tmp_path: Path) -> None:
    """``Monitor(override_existing=False)`` writes none, and Stable-Baselines3 cannot read the file."""
    pytest.importorskip("pandas")

    def make() -> Monitor:
        return Monitor(Leveled(pendulum()), str(tmp_path / "monitor.csv"), override_existing=False, info_keywords=("level",))

    model = FQL("FlowPolicy", make(), **ONLINE)
    model.learn(45, callback=TrainingCheckpoint(tmp_path, 30))
    model.env.close()
    assert len(load_results(str(tmp_path))) == 4
    FQL.resume(tmp_path, make()).learn(65, callback=TrainingCheckpoint(tmp_path, 30))
    results = load_results(str(tmp_path))
    assert len(results) == 6 and list(results["l"]) == [10] * 6
    assert list(results["level"]) == [3] * 6


def test_checkpoints_within_episodes_are_warned_of(tmp_path: Path) -> None:
    """Each checkpoint starts new episodes; if none has ended in between, none ever ends."""
    with pytest.warns(UserWarning, match=r"No episode ended in the 6 environment steps.*`save_freq`, now 6"):
        FQL("FlowPolicy", pendulum(), **ONLINE).learn(13, callback=TrainingCheckpoint(tmp_path / "short", 6))


def test_checkpoints_after_episodes_are_not(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    FQL("FlowPolicy", pendulum(), **ONLINE).learn(41, callback=TrainingCheckpoint(tmp_path / "long", 20))
    FQL("FlowPolicy", pendulum(), dataset=collect(pendulum), **SMALL).learn(
        9, callback=TrainingCheckpoint(tmp_path / "off", 2)
    )
    assert not [warning for warning in recwarn if "No episode ended" in str(warning.message)]


def test_a_monitor_that_forbids_early_resets_is_found_at_once(tmp_path: Path) -> None:
    """Not at the first checkpoint, which may be hours later."""
    env = Monitor(TimeLimit(pendulum().unwrapped, 10), allow_early_resets=False)
    model = FQL("FlowPolicy", env, **ONLINE)
    with pytest.raises(ValueError, match="allow_early_resets=True"):
        model.learn(30, callback=TrainingCheckpoint(tmp_path, 25))
    assert model.num_timesteps == 0


def test_a_folder_that_is_a_file_is_found_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    model = FQL("FlowPolicy", pendulum(), **ONLINE)
    with pytest.raises(ValueError, match="is a file; TrainingCheckpoint needs a folder"):
        model.learn(30, callback=TrainingCheckpoint(tmp_path / "file", 25))
    assert model.num_timesteps == 0
