"""Demonstrations of a robot arm's task: they start and end with the task, and replay in its environment."""

from pathlib import Path

import numpy as np
import pytest

from sb3_flow.common.environments import make_env
from sb3_flow.datasets import RECIPES, collect, load_dataset
from sb3_flow.datasets.collect.worker import make_expert
from sb3_flow.envs.absolute_action import TARGETS, pose

pytest.importorskip("ogbench")
mujoco = pytest.importorskip("mujoco")
pytestmark = pytest.mark.filterwarnings("ignore")

CUBE = slice(19, 22)  # where observations have the cube's position, shifted and in decimeters


def seed(number: int) -> np.random.SeedSequence:
    return np.random.SeedSequence((0, 0, number))


@pytest.mark.slow
@pytest.mark.parametrize("task", [2, pytest.param(5, marks=pytest.mark.nightly)])
def test_it_replays_in_the_environment_that_policies_are_evaluated_in(task: int) -> None:
    expert = make_expert(RECIPES[f"cube-single-expert-task{task}"])
    env = make_env(f"cube-single-singletask-task{task}-v0")
    env.reset(seed=0)
    arm, begin, starts = env.unwrapped, expert.begin, []
    assert np.array_equal(expert.start, arm.cur_task_info["init_xyzs"][0])
    assert np.array_equal(expert.goal, arm.cur_task_info["goal_xyzs"][0])

    def spy():
        answer = begin()
        starts.append(expert.env.unwrapped.data.qpos.copy())
        return answer

    expert.begin = spy
    for number in range(2):
        episode = expert.record(seed(number))
        length = len(episode["actions"])
        assert 30 < length < 100 and np.abs(episode["actions"]).max() <= 1
        assert episode["rewards"].tolist() == [-1] * (length - 1) + [0]
        assert episode["terminations"].tolist() == [False] * (length - 1) + [True]
        start = episode["observations"][0, CUBE] / 10 + [0.425, 0, 0]
        assert np.abs(start - expert.start).max() <= 0.01 + 1e-6
        env.reset(seed=number)
        arm.data.qpos[:], arm.data.qvel[:] = starts[-1], 0
        mujoco.mj_forward(arm.model, arm.data)
        ends = [env.step(action)[2] for action in episode["actions"]]
        assert ends == episode["terminations"].tolist()
    assert not np.array_equal(starts[0], starts[-1])


@pytest.mark.slow
def test_an_episode_depends_on_its_seed_alone() -> None:
    recipe = RECIPES["cube-single-expert-task1"]
    expert = make_expert(recipe)
    first, other = expert.record(seed(0)), expert.record(seed(1))
    again, anew = expert.record(seed(0)), make_expert(recipe).record(seed(0))
    for field, column in first.items():
        assert column.tobytes() == again[field].tobytes() == anew[field].tobytes(), field
    assert first["actions"].tobytes() != other["actions"].tobytes()


@pytest.mark.slow
def test_it_is_read_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SB3_FLOW_DATA_DIR", str(tmp_path))
    name = "cube-single-expert-task2"
    path = collect(name, episodes=2, workers=1, progress=False)
    assert path == tmp_path / f"{name}.npz"
    data = load_dataset(name)
    assert data.terminations.sum() == 2
    targets = load_dataset(f"{name}#absolute")
    position, *_ = pose(data.observations)
    assert TARGETS.contains(targets.actions[0])
    assert np.abs(targets.actions[:, :3] - position).max() < 0.06  # meters: as far as one action reaches
    with pytest.raises(ValueError, match="give --episodes"):
        collect(name, transitions=100, directory=tmp_path, overwrite=True, progress=False)
