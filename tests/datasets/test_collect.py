"""Collection with scripted experts: reproducible, resumable, atomic, and readable by OGBench."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from python_process import PythonProcess

from sb3_flow.datasets import RECIPES, collect, load_dataset, local_datasets
from sb3_flow.datasets.collect.manipulation import cube_is_visible
from sb3_flow.datasets.collect.maze import cells_at, free_cells, is_hallway
from sb3_flow.datasets.collect.store import PartialCollection, atomic_write, join_episodes, write_episode
from sb3_flow.datasets.collect.worker import make_expert

pytestmark = pytest.mark.slow

ogbench = pytest.importorskip("ogbench")


def content(path):
    return path.read_bytes(), path.with_name(f"{path.stem}-val.npz").read_bytes()


@pytest.mark.parametrize(
    "name", [pytest.param("cube-single-play-v0", marks=pytest.mark.nightly), "pointmaze-medium-stitch-v0"]
)
def test_the_number_of_workers_does_not_matter(name, tmp_path, request):
    one = request.getfixturevalue("cube_file" if name.startswith("cube") else "maze_file")
    transitions = 199 if name.startswith("cube") else 2201  # rounded up to as many episodes
    two = collect(name, transitions=transitions, directory=tmp_path, workers=2, progress=False)
    assert content(one) == content(two)
    assert sorted(path.name for path in tmp_path.glob("*")) == [f"{name}-val.npz", f"{name}.npz"]


def test_the_seed_matters(tmp_path, maze_file):
    other = collect("pointmaze-medium-stitch-v0", transitions=400, directory=tmp_path, seed=1, workers=1, progress=False)
    first = np.load(maze_file)["observations"]
    assert not np.array_equal(np.load(other)["observations"], first[:402])
    # Neither are validation episodes those of training, nor episodes each other's.
    validation = np.load(maze_file.with_name(f"{maze_file.stem}-val.npz"))["observations"]
    starts = np.concatenate([first[::201], validation[::201]])
    assert len(np.unique(starts, axis=0)) == 13


#: Names whose recipes share their code with those of others.
AT_NIGHT = (
    "cube-single-noisy-v0",
    "scene-play-v0",
    "puzzle-3x3-play-v0",
    "puzzle-3x3-noisy-v0",
    "pointmaze-teleport-navigate-v0",
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [
        "cube-double-play-v0",
        "pointmaze-large-navigate-v0",
        *(pytest.param(name, marks=pytest.mark.nightly) for name in ("scene-noisy-v0", *AT_NIGHT)),
    ],
)
def test_an_episode_depends_on_its_seed_alone(name):
    recipe = dataclasses.replace(RECIPES[name], states=61)
    first, other = np.random.SeedSequence(0), np.random.SeedSequence(1)
    expert = make_expert(recipe)
    episode = expert.record(first)
    between = expert.record(other)
    again, anew = expert.record(first), make_expert(recipe).record(first)
    for field, column in episode.items():
        assert column.tobytes() == again[field].tobytes() == anew[field].tobytes(), field
    assert not np.array_equal(episode["actions"], between["actions"])
    assert np.flatnonzero(episode["terminals"]).tolist() == [60]
    assert episode["observations"].dtype == episode["actions"].dtype == episode["qpos"].dtype == np.float32
    assert ("button_states" in episode) == name.startswith(("scene", "puzzle"))
    assert np.abs(episode["actions"]).max() <= 1


@pytest.mark.filterwarnings("ignore")
def test_the_cube_is_moved(cube_file):
    heights = np.load(cube_file)["qpos"][:, 16]
    assert heights.max() > 0.1  # meters; it lies at 0.02


def test_the_maze_expert_reaches_its_goals(maze_file):
    # Four cells of four meters in 200 steps of 0.2 meters or so: all episodes get far from where they began.
    positions = np.load(maze_file)["observations"].reshape(12, 201, 2)
    distance = np.abs(positions[:, -1] - positions[:, 0]).sum(axis=1)
    assert np.median(distance) > 8


def test_ogbench_reads_it(cube_file):
    train, validation = ogbench.make_env_and_datasets(
        "cube-single-play-v0", dataset_path=str(cube_file), dataset_only=True, add_info=True
    )
    assert train["observations"].shape == train["next_observations"].shape == (200, 28)
    assert validation["actions"].shape == (200, 5)
    assert train["qpos"].shape == (200, 21) and train["qvel"].shape == (200, 20)
    assert train["terminals"].sum() == 1 and train["terminals"][-1] == 1
    ours = load_dataset(cube_file)
    np.testing.assert_array_equal(ours.observations[ours.valids], train["observations"])
    np.testing.assert_array_equal(ours.actions[ours.valids], train["actions"])


def test_a_killed_run_goes_on(tmp_path, maze_file):
    name = maze_file.stem
    command = ["-m", "sb3_flow.cli", "datasets", "collect", name]
    process = PythonProcess(*command, "--transitions", 2400, "--workers", 1, "--no-progress", "--directory", tmp_path)
    partial = tmp_path / f"{name}.partial"
    deadline = time.monotonic() + 300
    while len(list(partial.glob("train-*.npz"))) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    assert not list(tmp_path.glob("*.npz"))
    finished = sorted(partial.glob("*.npz"))
    finished[0].write_bytes(finished[0].read_bytes()[:1000])  # as if the disk had lost the end
    kept = finished[1].stat().st_mtime_ns

    # Other settings are refused; the folder stays.
    with pytest.raises(ValueError, match="seed: 0 there, 5 now"):
        collect(name, transitions=2400, seed=5, directory=tmp_path, workers=1, progress=False)
    removed = []
    original = PartialCollection.remove
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            PartialCollection, "remove", lambda store: removed.append(finished[1].stat().st_mtime_ns) or original(store)
        )
        path = collect(name, transitions=2400, directory=tmp_path, workers=2, progress=False)
    assert content(path) == content(maze_file)
    assert removed == [kept]  # the finished episode was not recorded again


@pytest.mark.nightly
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are looked up in Linux's /proc")
def test_workers_do_not_outlive_their_parent(tmp_path):
    name = "pointmaze-medium-stitch-v0"
    command = [sys.executable, "-m", "sb3_flow.cli", "datasets", "collect", name, "--workers", "1", "--no-progress"]
    process = subprocess.Popen([*command, "--directory", str(tmp_path)])
    partial = tmp_path / f"{name}.partial"
    deadline = time.monotonic() + 300
    while not list(partial.glob("train-*.npz")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    children = [Path("/proc", child) for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    assert children
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while any(child.exists() and "Z" not in (child / "stat").read_text().split()[2] for child in children):
        assert time.monotonic() < deadline, "a worker still runs"
        time.sleep(0.1)


def test_an_existing_file_is_not_replaced_unasked(tmp_path):
    name = "pointmaze-medium-stitch-v0"
    target = tmp_path / f"{name}.npz"
    target.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="--overwrite"):
        collect(name, transitions=200, directory=tmp_path, workers=1, progress=False)
    assert target.read_bytes() == b"precious"
    collect(name, transitions=200, directory=tmp_path, workers=1, progress=False, overwrite=True)
    assert len(load_dataset(target)) == 200


def test_local_datasets(maze_file, monkeypatch):
    monkeypatch.setenv("OGBENCH_DATA_DIR", str(maze_file.parent))
    assert local_datasets() == {maze_file.stem: maze_file}
    assert load_dataset(maze_file.stem).name == maze_file.stem


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "cube-sngle-play-v0"}, "Names that are known: cube-single-play-v0"),
        ({"name": "antmaze-large-navigate-v0"}, "No scripted expert"),
        ({"name": "cube-single-play-v0", "transitions": 0}, "transitions is 0"),
        ({"name": "cube-single-play-v0", "workers": 0}, "workers is 0"),
        ({"name": "cube-single-play-v0", "seed": -1}, "seed is -1"),
    ],
)
def test_wrong_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        collect(directory=tmp_path, progress=False, **arguments)
    assert not list(tmp_path.iterdir())


def test_no_half_file(tmp_path):
    good = {"observations": np.zeros((3, 2), dtype=np.float32), "terminals": np.array([False, False, True])}
    write_episode(tmp_path / "0.npz", good)
    (tmp_path / "1.npz").write_bytes(b"broken")
    with pytest.raises(ValueError):
        join_episodes(tmp_path / "all.npz", [tmp_path / "0.npz", tmp_path / "1.npz"], tmp_path)
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "other.npz"):
        raise KeyboardInterrupt
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.npz", "1.npz"]


def test_joined_episodes_are_what_numpy_writes(tmp_path):
    rng = np.random.default_rng(0)
    episodes = [{"observations": rng.random((3, 2)).astype(np.float32), "terminals": np.arange(3) == 2} for _ in range(4)]
    paths = [tmp_path / f"{index}.npz" for index in range(4)]
    for path, episode in zip(paths, episodes, strict=True):
        write_episode(path, episode)
    join_episodes(tmp_path / "all.npz", paths, tmp_path)
    joined = np.load(tmp_path / "all.npz")
    for field in episodes[0]:
        np.testing.assert_array_equal(joined[field], np.concatenate([episode[field] for episode in episodes]))
        assert joined[field].dtype == episodes[0][field].dtype


def test_maze_cells():
    maze = np.array([[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 1, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]])
    assert [cell for cell in free_cells(maze) if is_hallway(maze, cell)] == [(1, 2), (2, 3), (3, 2)]
    assert cells_at(maze, (1, 1), 4) == [(3, 3)] and cells_at(maze, (1, 1), 7) == []


def test_the_cube_must_be_visible():
    qpos = np.zeros((3, 25))
    assert cube_is_visible(qpos)
    for y, z, visible in ((0.3, 0.02, False), (-0.31, 0.02, False), (-0.31, 0.07, True), (-0.29, 0.2, True)):
        qpos[1, 15:17] = y, z
        assert cube_is_visible(qpos) is visible


@pytest.mark.nightly
def test_a_script_without_a_main_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from sb3_flow.datasets import collect\n"
        "collect('pointmaze-medium-navigate-v0', 1000, directory='data', workers=1, progress=False)\n"
    )
    result = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert result.returncode == 1 and "ChildProcessError: A worker died: see its message above" in result.stderr
    assert "RuntimeError: `collect` starts worker processes" in result.stderr and "BusyError" not in result.stderr
