"""Datasets of plans of several robots: collected in processes, killed, resumed, read by name, and replayed."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from sb3_flow.cli import main
from sb3_flow.datasets import DatasetError, collect_multi_robot, load_dataset, local_datasets
from sb3_flow.datasets.collect import multi_robot
from sb3_flow.datasets.collect.multi_robot import file_name, read_metadata, record
from sb3_flow.planning import observations
from sb3_flow.planning.problems import Limits
from sb3_flow.planning.scenes import Scenes

pytestmark = pytest.mark.slow

#: Three blocks of scenes of two or three robots, which takes a second, beside starting processes.
ARGUMENTS = {"robots": (2, 3), "scenes": 17, "obstacles": 1, "layout": "circle", "proposals": 8, "seed": 3}
NAME = "multirobot2d-2to3-v0"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the command line has written a dataset, with one process."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SB3_FLOW_DATA_DIR", str(folder))
        options = "--robots 2-3 --scenes 17 --obstacles 1 --layout circle --seed 3 --workers 1 --no-progress"
        assert main(["datasets", "collect", "multirobot2d", *options.split()]) == 0
    return folder


@pytest.fixture
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SB3_FLOW_DATA_DIR", str(home))
    return home


def test_it_is_found_by_its_name(at_home: Path, capsys: pytest.CaptureFixture) -> None:
    assert [path.name for path in at_home.iterdir()] == [f"{NAME}.npz"]  # nothing is left of the collection
    assert local_datasets()[NAME] == at_home / f"{NAME}.npz"
    assert len(load_dataset(NAME)) == len(load_dataset(at_home / f"{NAME}.npz")) > 17
    main(["datasets", "info", NAME])
    assert "observations[robot_mask]" in capsys.readouterr().out
    with pytest.raises(DatasetError, match="datasets collect multirobot3d --robots 4-8`"):
        load_dataset("multirobot3d-4to8-v0")


def test_every_plan_does_in_the_environment_what_the_data_says(home: Path) -> None:
    path = home / f"{NAME}.npz"
    data, arrays = load_dataset(path), dict(np.load(path))
    env = gym.make("sb3_flow/MultiRobot2D-v0", num_robots=(2, 3), num_obstacles=1)
    data.check_actions(env.action_space.low, env.action_space.high)
    assert data.terminations.all() and data.n_trajectories == len(data)
    assert isinstance(data.observations, dict) and data.rewards is not None
    size = env.get_wrapper_attr("limits").size
    for row in range(0, len(data), 5):
        observation = {name: column[row] for name, column in data.observations.items()}
        assert env.observation_space.contains(observation)
        scene = {name: size * observation[name] for name in ("start", "goal")}
        scene = {name: values[observation["robot_mask"] > 0] for name, values in scene.items()}
        shown, _ = env.reset(options={"scene": {**scene, "obstacles": size * observation["obstacles"]}})
        assert all(np.array_equal(shown[name], observation[name]) for name in shown)
        _, reward, _, _, info = env.step(data.actions[row])
        assert reward == pytest.approx(data.rewards[row], abs=1e-6)
        assert info["is_success"] and info["certified"]
        assert info["certificate_margin"] == pytest.approx(arrays["certificate_margin"][row])
        assert info["smoothness"] == pytest.approx(arrays["cost"][row])


def test_plans_of_a_scene_are_several_and_different(home: Path) -> None:
    arrays = dict(np.load(home / f"{NAME}.npz"))
    scenes, counts = np.unique(arrays["scene_id"], return_counts=True)
    assert scenes.tolist() == np.flatnonzero(arrays["scene_certified"]).tolist() and len(scenes) >= 16
    assert counts.max() > 1 and (counts <= arrays["scene_certified"][scenes]).all()
    starts = arrays["observations/start"]
    for scene in scenes:
        rows = arrays["scene_id"] == scene
        assert (starts[rows] == starts[rows][0]).all()
        assert len(np.unique(arrays["actions"][rows], axis=0)) == rows.sum()
    assert len(np.unique(starts.reshape(len(starts), -1), axis=0)) == len(scenes)
    assert set(arrays["observations/robot_mask"].sum(axis=1)) == {2, 3}


def test_metadata_says_how_it_was_made(home: Path) -> None:
    about, arrays = read_metadata(home / f"{NAME}.npz"), np.load(home / f"{NAME}.npz")
    assert about["seed"] == 3 and about["scenes"] == 17 and about["plans"] == len(arrays["actions"])
    assert about["distribution"]["limits"] == {
        "dimensions": 2, "size": 4.0, "radius": 0.2, "v_max": 2.5, "a_max": 2.0, "horizon": 10.0
    }  # fmt: skip
    assert about["distribution"]["robots"] == [2, 3] and about["distribution"]["layout"] == "circle"
    assert about["filter"]["basis_degree"] == 12 and about["filter"]["samples"] == 64
    assert about["feasibility_rate"] == arrays["scene_certified"].sum() / (17 * 8)
    assert about["solved_rate"] == (arrays["scene_certified"] > 0).mean()
    assert {"sb3_flow", "torch", "numpy"} < set(about)


def test_a_collection_that_was_stopped_goes_on(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And gives the same file, byte for byte, with two processes."""
    in_processes, called = multi_robot.in_processes, []

    def stopped(function, calls, workers, update, folder) -> None:
        update(function(*calls[0]))
        raise KeyboardInterrupt

    def watched(function, calls, *arguments) -> None:
        called.extend(calls)
        in_processes(function, calls, *arguments)

    monkeypatch.setattr(multi_robot, "in_processes", stopped)
    with pytest.raises(KeyboardInterrupt):
        collect_multi_robot(**ARGUMENTS, directory=tmp_path, progress=False)
    monkeypatch.setattr(multi_robot, "in_processes", watched)
    with pytest.raises(ValueError, match=r"unfinished collection with other settings \(seed: 3 there, 4 now\)"):
        collect_multi_robot(**{**ARGUMENTS, "seed": 4}, directory=tmp_path, progress=False)
    path = collect_multi_robot(**ARGUMENTS, directory=tmp_path, workers=2, progress=False)
    assert [call[1] for call in called] == [1, 2]  # the first block was there
    assert path.read_bytes() == (home / f"{NAME}.npz").read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    with pytest.raises(FileExistsError, match="--overwrite"):
        collect_multi_robot(**ARGUMENTS, directory=tmp_path)


def test_scenes_have_seeds_of_their_own(tmp_path: Path) -> None:
    """A scene is the same however many there are, and another with another seed."""
    scenes = Scenes(Limits(size=4.0), 2, 1, "random")

    def starts(count: int, seed: int) -> dict[int, np.ndarray]:
        record(scenes, 0, count, 2, seed, tmp_path / "block.npz")
        arrays = np.load(tmp_path / "block.npz")
        return dict(zip(arrays["scene_id"].tolist(), arrays["observations/start"], strict=True))

    few, many, other = starts(2, 0), starts(4, 0), starts(2, 1)
    assert set(few) == {0, 1} and set(many) == {0, 1, 2, 3}
    assert all(np.array_equal(few[scene], many[scene]) and not np.array_equal(few[scene], other[scene]) for scene in few)


def test_plans_that_an_action_cannot_say_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With actions that reach eight centimeters, most plans are cut off, and no longer safe."""
    path, scenes = tmp_path / "block.npz", Scenes(Limits(size=4.0), 4, 6, "circle")

    def margins() -> np.ndarray:
        record(scenes, 0, 4, 4, 0, path)
        return np.load(path)["certificate_margin"]

    whole = margins()
    monkeypatch.setattr(observations, "REACH", 0.02)
    monkeypatch.setattr(observations, "_scale_on", observations._scale_on.__wrapped__)  # without its cache
    cut = margins()
    assert len(cut) < len(whole) and (cut > 0).all() and (whole > 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "multirobot4d"}, "'multirobot2d' or 'multirobot3d'"),
        ({"scenes": 0}, "scenes is 0"),
        ({"proposals": 0}, "proposals is 0"),
        ({"workers": 0}, "workers is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"robots": (4, 2)}, "`robots` is"),
        ({"layout": "square"}, "`layout` is 'square'"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        collect_multi_robot(**arguments, directory=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_options_that_do_not_go_together_are_refused(capsys: pytest.CaptureFixture) -> None:
    for options, message in [
        ("multirobot2d --transitions 5", "--transitions does not go"),
        ("cube-single-play-v0 --robots 4", "--robots goes with multirobot2d"),
        ("multirobot2d --robots 4 --policy model.zip", "--robots goes with multirobot2d"),
        ("multirobot2d --episodes 5", "--episodes does not go with plans of several robots"),
        ("multirobot2d --algo sac", "--algo goes with --policy"),
    ]:
        assert main(["datasets", "collect", *options.split()]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["datasets", "collect", "multirobot2d", "--robots", "four"])
    assert "'four' is neither a number, such as 8, nor a range" in capsys.readouterr().err


def test_names_say_how_many_robots_there_are() -> None:
    assert file_name("multirobot3d", 16) == "multirobot3d-16-v0"
    assert file_name("multirobot2d", (4, 8)) == "multirobot2d-4to8-v0"
