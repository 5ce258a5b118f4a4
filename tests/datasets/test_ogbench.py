"""OGBench's datasets by name: rewards as OGBench's own loader gives them, and helpful refusals."""

import shutil

import gymnasium as gym
import numpy as np
import pytest

from sb3_flow.datasets import DatasetError, load_dataset, unpack

ogbench = pytest.importorskip("ogbench")

pytestmark = pytest.mark.filterwarnings("ignore")  # Gymnasium has much to say about the environments


@pytest.fixture(scope="module")
def target():
    """Where the second task wants the cube."""
    env = gym.make("cube-single-singletask-task2-v0")
    env.reset()
    return env.unwrapped._data.mocap_pos[0].copy()


@pytest.fixture
def cube_directory(cube_file, target, tmp_path):
    """A data directory with cube data, in which every tenth state solves the second task."""
    folder = tmp_path / "ogbench"
    folder.mkdir()
    for suffix in ("", "-val"):
        arrays = dict(np.load(cube_file.with_name(f"{cube_file.stem}{suffix}.npz")))
        arrays["qpos"][::10, 14:17] = target
        np.savez(folder / f"cube-single-play-v0{suffix}.npz", **arrays)
    return folder


@pytest.mark.slow
def test_rewards_equal_those_of_ogbench(cube_directory):
    path = cube_directory / "cube-single-play-v0.npz"
    name = "cube-single-play-singletask-task2-v0"
    _, expected, _ = ogbench.make_env_and_datasets(name, dataset_path=str(path), compact_dataset=True)
    env_id = "cube-single-singletask-task2-v0"
    sources = {
        "name": (name, None),
        "prefix": (f"ogbench:{name}", None),
        "default task": ("cube-single-play-singletask-v0", env_id),
        "environment": ("cube-single-play-v0", env_id),
        "file": (path, env_id),
        "folder": (unpack(path, cube_directory / "folder"), env_id),
    }
    for label, (source, environment) in sources.items():
        dataset = load_dataset(source, environment)
        np.testing.assert_array_equal(dataset.rewards, expected["rewards"], err_msg=label)
        np.testing.assert_array_equal(dataset.terminations, expected["masks"] == 0, err_msg=label)
        np.testing.assert_array_equal(dataset.valids, expected["valids"] == 1, err_msg=label)
        np.testing.assert_array_equal(dataset.ends, expected["terminals"] == 1, err_msg=label)
        np.testing.assert_array_equal(dataset.observations, expected["observations"], err_msg=label)
        assert 20 <= dataset.terminations.sum() < 201

    other = load_dataset("cube-single-play-singletask-task3-v0")
    assert not np.array_equal(other.rewards, expected["rewards"])
    assert load_dataset("cube-single-play-v0").rewards is None
    assert load_dataset("cube-single-play-v0", "Pendulum-v1").rewards is None


def test_maze_rewards_equal_those_of_ogbench(maze_file):
    name = "pointmaze-medium-stitch-singletask-task4-v0"
    _, expected, _ = ogbench.make_env_and_datasets(name, dataset_path=str(maze_file), compact_dataset=True)
    np.random.seed(0)
    following = np.random.uniform()
    np.random.seed(0)
    dataset = load_dataset(maze_file, "pointmaze-medium-singletask-task4-v0")
    assert np.random.uniform() == following  # OGBench's reset draws numbers; reading leaves the generator as it was
    assert dataset.terminations.any()
    np.testing.assert_array_equal(dataset.rewards, expected["rewards"])
    np.testing.assert_array_equal(dataset.terminations, expected["masks"] == 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "env_id", "message"),
    [
        ("cube-single-play-singletask-task1-v0", "cube-single-singletask-task2-v0", "has the rewards of"),
        ("cube-single-play-v0", "cube-double-singletask-task2-v0", "not of the environment"),
        ("cube-single-play-singletask-task9-v0", None, "no environment of OGBench"),
        ("ogbench:sphere-play-v0", None, "no dataset of OGBench"),
        ("FILE", "cube-double-singletask-task2-v0", "`qpos` has shape"),
    ],
)
def test_wrong_tasks_are_refused(cube_directory, source, env_id, message):
    path = cube_directory / "cube-single-play-v0.npz"
    with pytest.raises(DatasetError, match=message):
        load_dataset(path if source == "FILE" else source, env_id)


def test_what_is_missing_can_be_had():
    with pytest.raises(DatasetError, match=r"`sb3-flow datasets collect cube-single-play-v0`.*download_datasets"):
        load_dataset("cube-single-play-singletask-task2-v0")
    with pytest.raises(DatasetError, match=r"No scripted expert can collect it; download it: .*antmaze-large-navigate-v0"):
        load_dataset("antmaze-large-navigate-v0")


def test_truncated_file(cube_file, tmp_path):
    (tmp_path / "ogbench").mkdir()
    target = tmp_path / "ogbench" / "cube-single-play-v0.npz"
    shutil.copy(cube_file, target)
    target.write_bytes(target.read_bytes()[:-100])
    with pytest.raises(DatasetError, match=r"cube-single-play-v0\.npz"):
        load_dataset("cube-single-play-v0")


def test_files_without_positions_have_a_row_for_each_state(tmp_path):
    """Powderworld's files have no `qpos`; the name tells what `terminals` means in them."""
    (tmp_path / "ogbench").mkdir()
    last = np.arange(8) % 4 == 3
    columns = {"observations": np.zeros((8, 4, 4, 3), np.uint8), "actions": np.zeros((8, 2), np.float32), "terminals": last}
    np.savez(tmp_path / "ogbench" / "powderworld-easy-play-v0.npz", **columns)
    data = load_dataset("powderworld-easy-play-v0")
    assert len(data) == 6 and not data.terminations.any() and data.final_states.tolist() == last.tolist()
