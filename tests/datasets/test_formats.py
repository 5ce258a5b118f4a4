"""What formats can hold beyond vectors: cameras, videos, tasks, codecs, nested groups, spaces that are no boxes."""

from __future__ import annotations

import io
import itertools
import json
import sys
import warnings
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from dialects import in_groups, joined, lerobot_table, random_episodes, robomimic, states
from gymnasium import spaces

from sb3_flow.common.data import columns as columns_module
from sb3_flow.datasets import DatasetError, collect_with_policy, load_dataset, unpack
from sb3_flow.datasets.from_lerobot import _image
from sb3_flow.datasets.hdf5_columns import Hdf5Columns

EPISODES = [episode for episode in random_episodes(3) if len(episode) > 1][:3]
ROWS = sum(map(len, EPISODES))
#: The shade of the image of each row.
SHADES = np.linspace(20, 235, ROWS).astype(np.uint8)


# LeRobot.


def video(path: Path, shades: np.ndarray, rate: int = 10) -> None:
    """Frames of one shade each."""
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate, options={"qscale": "1"})
        stream.width = stream.height = 32
        for shade in shades:
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), shade, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def lerobot_folder(folder: Path, version: str, table: Any = None) -> Path:
    """Two cameras as videos: one for each episode (2.1), or several episodes in a file (3.0)."""
    pq = pytest.importorskip("pyarrow.parquet")
    pa = pytest.importorskip("pyarrow")
    table = lerobot_table(EPISODES) if table is None else table
    lengths = [len(episode) for episode in EPISODES]
    starts = np.cumsum([0, *lengths])
    cameras = {"observation.images.top": SHADES, "observation.images.wrist": SHADES[::-1]}
    info: dict[str, Any] = {"codebase_version": version, "fps": 10, "chunks_size": 1000}
    info["features"] = {name: {"dtype": "video", "shape": [32, 32, 3]} for name in cameras}
    meta = folder / "meta"
    (folder / "data" / "chunk-000").mkdir(parents=True)
    (meta / "episodes" / "chunk-000").mkdir(parents=True)
    pq.write_table(table, folder / "data" / "chunk-000" / "file-000.parquet")
    if version == "v2.1":
        info["video_path"] = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
        for name, shades in cameras.items():
            for number, (start, stop) in enumerate(itertools.pairwise(starts)):
                video(folder / f"videos/chunk-000/{name}/episode_{number:06d}.mp4", shades[start:stop])
    else:
        info["video_path"] = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        places: dict[str, Any] = {"episode_index": np.arange(len(EPISODES))}
        for name, shades in cameras.items():
            video(folder / f"videos/{name}/chunk-000/file-000.mp4", shades)
            places[f"videos/{name}/chunk_index"] = places[f"videos/{name}/file_index"] = np.zeros(len(EPISODES), int)
            places[f"videos/{name}/from_timestamp"] = starts[:-1] / 10
        pq.write_table(pa.table(places), meta / "episodes" / "chunk-000" / "file-000.parquet")
    (meta / "info.json").write_text(json.dumps(info))
    return folder


@pytest.mark.parametrize("decoder", ["av", "cv2"])
@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_videos_of_lerobot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, decoder: str) -> None:
    folder = lerobot_folder(tmp_path, version)
    if decoder == "cv2":
        pytest.importorskip("cv2")
        monkeypatch.setitem(sys.modules, "av", None)  # as if it were not installed
    data = load_dataset(folder)
    assert isinstance(data.observations, dict)
    assert sorted(data.observations) == ["agent_pos", "pixels_top", "pixels_wrist"]
    for key, shades in (("pixels_top", SHADES), ("pixels_wrist", SHADES[::-1])):
        images = data.observations[key]
        assert images.shape == (ROWS, 32, 32, 3) and images.dtype == np.uint8
        assert np.abs(images.astype(int) - shades[:, None, None, None]).max() <= 4  # half of the distance of two frames
    only = load_dataset(f"{folder}#pixels_wrist")
    assert isinstance(only.observations, dict) and list(only.observations) == ["pixels_wrist"]


def test_videos_that_are_missing_or_short(tmp_path: Path) -> None:
    folder = lerobot_folder(tmp_path, "v3.0")
    path = folder / "videos" / "observation.images.top" / "chunk-000" / "file-000.mp4"
    video(path, SHADES[:-3])
    with pytest.raises(DatasetError, match=r"file-000\.mp4: there is no frame at"):
        load_dataset(folder)
    path.write_bytes(b"no video")
    with pytest.raises(DatasetError, match="this is no video, or it is damaged"):
        load_dataset(folder)
    path.unlink()
    with pytest.raises(DatasetError, match="there is no such video, which the dataset names"):
        load_dataset(folder)


def test_tasks_of_lerobot(tmp_path: Path) -> None:
    """Two tasks that the observations do not tell apart: said; one can be taken, or the policy sees which it is."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = lerobot_table(EPISODES)
    numbers = (joined(EPISODES)["episode"] == 1).astype(np.int64)
    table = table.set_column(table.schema.get_field_index("task_index"), "task_index", pa.array(numbers))
    (tmp_path / "data").mkdir()
    (tmp_path / "meta").mkdir()
    pq.write_table(table, tmp_path / "data" / "file.parquet")
    pq.write_table(pa.table({"task_index": [0, 1], "task": ["walk", "run"]}), tmp_path / "meta" / "tasks.parquet")
    with pytest.warns(UserWarning, match=r"it has 2 tasks, 0 \('walk'\), 1 \('run'\), and the observations do not tell"):
        load_dataset(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for task in ("1", "run"):
            data = load_dataset(f"{tmp_path}#task={task}")
            np.testing.assert_array_equal(data.actions, EPISODES[1].actions)
        told = load_dataset(f"{tmp_path}#agent_pos,task")
    assert isinstance(told.observations, dict)
    np.testing.assert_array_equal(told.observations["task"], np.eye(2)[numbers])
    with pytest.raises(DatasetError, match=r"there is no task 'fly'; there: 0 \('walk'\), 1 \('run'\)"):
        load_dataset(f"{tmp_path}#task=fly")
    with pytest.raises(DatasetError, match="one task can be chosen, not walk, run; for several, pass a list of paths"):
        load_dataset(f"{tmp_path}#task=walk,task=run")


def test_a_task_of_lerobot_that_is_not_recorded(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "data").mkdir()
    pq.write_table(lerobot_table(EPISODES).drop_columns("task_index"), tmp_path / "data" / "file.parquet")
    with pytest.raises(DatasetError, match="the observations have no part task; there: agent_pos"):
        load_dataset(f"{tmp_path}#agent_pos,task")


def test_depths_are_no_images_of_bytes() -> None:
    """They would be cut off at 255."""
    image = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    image.fromarray(np.full((4, 4), 1000, np.uint16)).save(file, "PNG")
    with pytest.raises(DatasetError, match=r"camera has images of the mode I;?1?6?, which 8 bits cannot hold"):
        _image({"bytes": file.getvalue()}, "camera", None)


# zarr.


def test_images_of_zarr_in_jpeg_2000(tmp_path: Path) -> None:
    """Diffusion Policy's robomimic data: images behind a codec that imagecodecs has."""
    zarr = pytest.importorskip("zarr")
    numcodecs = pytest.importorskip("imagecodecs.numcodecs")
    images = np.random.default_rng(0).integers(0, 256, (ROWS, 16, 16, 3), dtype=np.uint8)
    numcodecs.register_codecs(verbose=False)
    root = zarr.open_group(str(tmp_path / "log.zarr"), mode="w", zarr_format=2)
    group, meta = root.create_group("data"), root.create_group("meta")
    group.create_array("action", data=joined(EPISODES)["actions"])
    group.create_array("robot0_eef_pos", data=joined(EPISODES)["observations"])
    meta.create_array("episode_ends", data=np.cumsum(joined(EPISODES)["lengths"]))
    codec = numcodecs.Jpeg2k(reversible=True)
    array = group.create_array("image", shape=images.shape, chunks=(1, 16, 16, 3), dtype=np.uint8, compressors=codec)
    array[:] = images
    data = load_dataset(tmp_path / "log.zarr")
    assert isinstance(data.observations, dict) and sorted(data.observations) == ["image", "robot0_eef_pos"]
    np.testing.assert_array_equal(data.observations["image"], images)
    only = load_dataset(f"{tmp_path / 'log.zarr'}#robot0_eef_pos")
    assert isinstance(only.observations, dict) and list(only.observations) == ["robot0_eef_pos"]


def test_a_codec_that_is_missing_is_said_only_where_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("imagecodecs")
    test_images_of_zarr_in_jpeg_2000(tmp_path)
    path = tmp_path / "log.zarr" / "data" / "image" / ".zarray"
    path.write_text(path.read_text().replace("imagecodecs_jpeg2k", "imagecodecs_other"))
    monkeypatch.setitem(sys.modules, "imagecodecs.numcodecs", None)
    assert load_dataset(f"{tmp_path / 'log.zarr'}#robot0_eef_pos").has_action.all()
    with pytest.raises(
        ImportError, match=r"reading the compressed images in `image` needs.*pip install 'sb3_flow\[datasets\]'"
    ):
        load_dataset(f"{tmp_path / 'log.zarr'}#image")


# HDF5.


def robot_log() -> dict[str, Any]:
    """One episode of a robot with two cameras, as ALOHA stores it: groups within groups, and what is no array."""
    rng = np.random.default_rng(0)
    return {
        "observations/qpos": rng.normal(size=(9, 4)).astype(np.float32),
        "observations/images/top": rng.integers(0, 256, (9, 8, 8, 3), dtype=np.uint8),
        "observations/images/wrist": rng.integers(0, 256, (9, 8, 8, 3), dtype=np.uint8),
        "action": rng.uniform(-1, 1, (9, 2)).astype(np.float32),
        "infos/notes": np.array([b"a"] * 9),
        "sim": True,
    }


def test_cameras_in_hdf5(tmp_path: Path) -> None:
    columns = robot_log()
    path = in_groups(tmp_path / "episode.hdf5", {"/": columns})
    with pytest.raises(DatasetError, match=r"One recording alone: pass it in a list, `dataset=\[...\]`"):
        load_dataset(path)
    data = load_dataset([path])
    assert isinstance(data.observations, dict)
    for key in ("qpos", "images/top", "images/wrist"):
        np.testing.assert_array_equal(data.observations[key], columns[f"observations/{key}"])
    assert data.has_action.all() and data.n_trajectories == 1
    for source in ([f"{path}#qpos,images/top"], f"{tmp_path}/*.hdf5#qpos,images/top"):
        chosen = load_dataset(source)
        assert isinstance(chosen.observations, dict) and sorted(chosen.observations) == ["images/top", "qpos"]
    with pytest.raises(DatasetError, match="the observations have no part images/left; there:"):
        load_dataset([f"{path}#images/left"])
    folder = unpack(path, tmp_path / "folder")
    unpacked = load_dataset([folder])
    assert isinstance(unpacked.observations, dict)
    np.testing.assert_array_equal(unpacked.observations["images/top"], columns["observations/images/top"])


@pytest.mark.parametrize("group", ["", "data/demo_0/"])
def test_texts_of_hdf5_are_left_out_with_a_word(tmp_path: Path, group: str) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "log.hdf5", "w") as file:
        for name in ("observations", "actions", "rewards", "dones"):
            file[f"{group}{name}"] = np.zeros((4, 1)) if name.endswith("ions") else np.arange(4) == 3
        file[f"{group}instruction"] = ["walk"] * 4
        file[f"{group}infos/mood"] = ["good"] * 4
        file[f"{group}version"] = "1"
    if not group:
        with h5py.File(tmp_path / "log.hdf5", "a") as file:
            file.move("dones", "terminals")
    with pytest.warns(UserWarning, match=r"log.hdf5: not used, because they are not numbers: `instruction`\.$"):
        assert len(load_dataset(tmp_path / "log.hdf5")) == 4


def test_what_lies_in_one_piece_is_memory_mapped(tmp_path: Path) -> None:
    path = in_groups(tmp_path / "episode.hdf5", {"/": robot_log()})
    data = load_dataset([path])
    assert isinstance(data.observations, dict)
    assert all(isinstance(column, np.memmap) for column in data.observations.values())


def test_what_is_compressed_goes_to_a_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    h5py = pytest.importorskip("h5py")
    monkeypatch.setattr(columns_module, "SPOOL_BYTES", 1000)
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    with h5py.File(tmp_path / "log.hdf5", "w") as file:
        file.create_dataset("observations", data=images, chunks=(7, 8, 8, 3), compression="gzip")
        file["actions"], file["truncations"] = np.zeros((50, 1)), np.arange(50) % 10 == 9
    data = load_dataset(tmp_path / "log.hdf5")
    assert isinstance(data.observations, np.memmap)
    np.testing.assert_array_equal(data.observations, images)
    columns = Hdf5Columns(tmp_path / "log.hdf5")
    for _ in range(3):  # each one is copied once
        np.testing.assert_array_equal(columns["observations"], images)


def test_nested_observations_of_robomimic(tmp_path: Path) -> None:
    path = robomimic(EPISODES, tmp_path)
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "a") as file:
        file["mask/few"] = np.array([b"demo_1"])
        for number, episode in enumerate(EPISODES):
            for field in ("obs", "next_obs"):
                file[f"data/demo_{number}/{field}/cameras/front"] = np.full((len(episode), 4, 4, 3), number, np.uint8)
    data = load_dataset(f"{path}#few")
    assert isinstance(data.observations, dict) and sorted(data.observations) == ["cameras/front", "eef", "object"]
    assert len(data) == len(EPISODES[1]) and (data.observations["cameras/front"] == 1).all()
    assert isinstance(load_dataset(f"{path}#few,eef").observations, dict)
    assert list(load_dataset(f"{path}#eef").observations) == ["eef"]
    with h5py.File(path, "a") as file:
        file["mask/none"] = np.array([b"demo_99"])
    with pytest.raises(DatasetError, match="no episode is in none"):
        load_dataset(f"{path}#none")


def test_episodes_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    episodes = [*random_episodes(0), *random_episodes(1), *random_episodes(2)]
    assert len(episodes) > 10
    data = load_dataset(robomimic(episodes, tmp_path))
    np.testing.assert_array_equal(data.actions, joined(episodes)["actions"])


# Minari.


class Parts(gym.Env[Any, Any]):
    """Observations of many kinds."""

    observation_space = spaces.Dict(
        {
            "box": spaces.Box(-1, 1, (2,), np.float64),
            "mode": spaces.Discrete(4, start=1),
            "lights": spaces.MultiBinary(3),
            "dials": spaces.MultiDiscrete([3, 4]),
            "pair": spaces.Tuple((spaces.Box(0, 255, (2,), np.uint8), spaces.Discrete(2))),
            "words": spaces.Text(5),
        }
    )
    action_space = spaces.Box(-1, 1, (1,), np.float32)


def test_parts_of_minari_that_are_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari")
    pytest.importorskip("h5py")
    from minari.data_collector import EpisodeBuffer

    space = Parts.observation_space
    space.seed(0)
    rows = [space.sample() for _ in range(8)]

    def column(part: Any, *path: Any) -> Any:
        """Parts of rows as arrays, as Minari's collector gives them."""
        if isinstance(part, spaces.Dict):
            return {key: column(inner, *path, key) for key, inner in part.spaces.items()}
        if isinstance(part, spaces.Tuple):
            return tuple(column(inner, *path, number) for number, inner in enumerate(part.spaces))
        values = []
        for row in rows:
            for key in path:
                row = row[key]
            values.append(row)
        return values if isinstance(part, spaces.Text) else np.array(values)

    actions = np.linspace(-1, 1, 7, dtype=np.float32)[:, None]
    buffer = EpisodeBuffer(
        id=0,
        observations=column(space),
        actions=actions,
        rewards=[0.0] * 7,
        terminations=[False] * 7,
        truncations=[False] * 6 + [True],
        infos={},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers("demo/parts-v0", [buffer], observation_space=space, action_space=Parts.action_space)
    with pytest.warns(UserWarning, match=r"not used, because it cannot be encoded: `observations\[words\]` \(Text\)"):
        data = load_dataset("minari:demo/parts-v0")
    assert isinstance(data.observations, dict)
    for key, value in data.observations.items():
        expected = column(space)
        for name in key.split("/"):
            expected = expected[int(name)] if isinstance(expected, tuple) else expected[name]
        np.testing.assert_allclose(value, expected, rtol=1e-6, err_msg=key)
    assert sorted(data.observations) == ["box", "dials", "lights", "mode", "pair/0", "pair/1"]


# Collection into Minari.


class Camera(gym.Env[np.ndarray, np.ndarray]):
    """Images of noise, which no lossy compression keeps. Registered with the class, it has no specification to write down."""

    observation_space = spaces.Box(0, 255, (36, 36, 3), np.uint8)
    action_space = spaces.Box(-1, 1, (1,), np.float32)
    images: ClassVar[list[np.ndarray]] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self._see(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self._see(), 0.0, False, False, {}

    def _see(self) -> np.ndarray:
        self.images.append(self.np_random.integers(0, 256, (36, 36, 3), dtype=np.uint8))
        return self.images[-1]


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> str:
    spec = gym.envs.registration.EnvSpec("demo/Camera-v0", entry_point=Camera, max_episode_steps=10)
    monkeypatch.setitem(gym.registry, spec.id, spec)
    monkeypatch.setattr(Camera, "images", [])
    return spec.id


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_collected_images_are_exact(camera: str) -> None:
    pytest.importorskip("minari")
    from stable_baselines3 import SAC

    model = SAC("MlpPolicy", Camera(), buffer_size=10, policy_kwargs={"net_arch": [4]}, device="cpu")
    Camera.images.clear()
    name = collect_with_policy(camera, model, 10, "demo/camera-v0", progress=False)
    data = load_dataset(name)
    np.testing.assert_array_equal(data.observations, Camera.images)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["camera", "demo/camera", "demo/camera-v", "demo/camera-v0/"])
def test_names_are_checked_before_the_first_step(camera: str, name: str) -> None:
    minari = pytest.importorskip("minari")
    from stable_baselines3 import SAC

    model = SAC("MlpPolicy", Camera(), buffer_size=10, policy_kwargs={"net_arch": [4]}, device="cpu")
    Camera.images.clear()
    with pytest.raises(ValueError, match="is no name for a Minari dataset; expected NAMESPACE/NAME-v0, with a version"):
        collect_with_policy(camera, model, 10, name, progress=False)
    assert not Camera.images and minari.list_local_datasets() == {}


# RLDS and tables.


def test_texts_of_rlds_are_left_out_with_a_word() -> None:
    columns = states(EPISODES[:1])
    steps = [
        {
            "observation": {"state": columns["observations"][row], "instruction": "walk"},
            "action": columns["actions"][row],
            "reward": columns["rewards"][row],
            "is_first": columns["first"][row],
            "is_last": columns["last"][row],
            "is_terminal": False,
        }
        for row in range(len(columns["actions"]))
    ]
    with pytest.warns(UserWarning, match="not used: `observation/instruction`"):
        data = load_dataset({"steps": steps})
    assert len(data) == len(EPISODES[0]) and not data.terminations.any()
    with pytest.raises(DatasetError, match="it has no transition"):
        load_dataset({"steps": []})


@pytest.mark.parametrize("change", ["another field", "another shape"])
def test_steps_of_rlds_that_differ(change: str) -> None:
    step: dict[str, Any] = {"observation": np.zeros(2), "action": np.zeros(1), "reward": 0.0, "is_last": False}
    other = {**step, "mood": 1.0} if change == "another field" else {**step, "observation": np.zeros(3)}
    with pytest.raises(DatasetError, match=r"The steps of an episode have different fields or shapes: .*, and later .*"):
        load_dataset({"steps": [step, step, other]})


def test_steps_of_rlds_without_fields() -> None:
    with pytest.raises(DatasetError, match="episode 0: its steps have no fields; expected `observation` and `action`"):
        load_dataset({"steps": [{}, {}]})


def test_tables_with_parts_of_observations(tmp_path: Path) -> None:
    """Columns of observations are the parts of a dictionary if one of them has arrays, else the elements of a vector."""
    pd = pytest.importorskip("pandas")
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)
    joints = np.arange(12, dtype=np.float32).reshape(6, 2)
    rest = {"actions": list(joints), "rewards": np.zeros(6), "episode": np.repeat([0, 1], 3)}
    frame = pd.DataFrame({"obs/camera": list(images), "obs/joints": list(joints), "obs/force": joints[:, 0], **rest})
    observations = load_dataset(frame).observations
    assert isinstance(observations, dict) and observations.keys() == {"camera", "joints", "force"}
    for key, expected in (("camera", images), ("joints", joints), ("force", joints[:, 0])):
        np.testing.assert_array_equal(observations[key], expected)
    np.testing.assert_array_equal(load_dataset(frame[["obs/force", *rest]]).observations, joints[:, :1])
    with pytest.raises(DatasetError, match="`action/left` has arrays; expected numbers"):
        load_dataset(frame.rename(columns={"actions": "action/left"}))
    pytest.importorskip("pyarrow")
    frame.drop(columns="obs/camera").to_parquet(tmp_path / "log.parquet")
    observations = load_dataset(tmp_path / "log.parquet").observations
    assert isinstance(observations, dict)
    np.testing.assert_array_equal(observations["joints"], joints)
    np.testing.assert_array_equal(observations["force"], joints[:, 0])


def test_times_of_tables_since_1970(tmp_path: Path) -> None:
    """Single precision would give all rows of two minutes the same time, and hide the interruption between two episodes."""
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    times = 1.7e9 + np.array([0.0, 0.1, 0.2, 60.0, 60.1, 60.2])
    states = np.arange(6, dtype=np.float32)[:, None]
    frame = pd.DataFrame(
        {"observations": list(states), "actions": list(states), "rewards": 0.0, "terminated": False, "timestamp": times}
    )
    frame.to_parquet(tmp_path / "log.parquet")
    assert load_dataset(tmp_path / "log.parquet").trajectory_lengths().tolist() == [3, 3]


@pytest.mark.parametrize(
    ("names", "meaning"),
    [
        (["obs_x", "obs/x"], r"observations\[x\]"),
        (["obs_x", "observations"], "observations"),
        (["observations", "observations"], "observations"),
    ],
)
def test_columns_of_tables_with_the_same_meaning(names: list[str], meaning: str) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(np.zeros((6, 4)), columns=[*names, "actions", "rewards"])
    with pytest.raises(DatasetError, match=f"Several columns of the table are read as `{meaning}`; rename or remove"):
        load_dataset(frame.assign(episode=0))


def test_numbered_columns_in_the_order_of_texts() -> None:
    """Tools that sort columns by name put obs_10 before obs_2."""
    pd = pytest.importorskip("pandas")
    rest = pd.DataFrame({"actions": np.zeros(6), "rewards": 0.0, "episode": np.repeat([0, 1], 3)})
    for names, warned in ((["obs_1", "obs_10", "obs_2"], True), (["obs_0", "obs_1", "obs_2"], False)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            load_dataset(pd.DataFrame(np.zeros((6, 3)), columns=names).join(rest))
        assert any("in the order of the table, 1, 10, 2, ..., not in" in str(each.message) for each in caught) == warned


def test_next_observations_of_tables_have_the_order_of_the_observations() -> None:
    pd = pytest.importorskip("pandas")
    states = np.arange(12, dtype=np.float32).reshape(6, 2)
    names = {"obs_x": states[:, 0], "obs_y": states[:, 1], "next_obs_y": states[:, 1] + 2, "next_obs_x": states[:, 0] + 2}
    frame = pd.DataFrame({**names, "actions": 0.0, "rewards": 0.0, "episode": np.repeat([0, 1], 3)})
    np.testing.assert_array_equal(load_dataset(frame).next_observations, states + 2)
    with pytest.raises(DatasetError, match="have the elements x, y, and the next observations y: x is only in one"):
        load_dataset(frame.drop(columns="next_obs_x"))


def test_a_numbered_column_that_is_missing() -> None:
    pd = pytest.importorskip("pandas")
    rest = pd.DataFrame({"actions": np.zeros(6), "rewards": 0.0, "episode": np.repeat([0, 1], 3)})
    with pytest.warns(UserWarning, match="have the numbers 0, 2, ...; 1 is missing"):
        load_dataset(pd.DataFrame(np.zeros((6, 2)), columns=["obs_0", "obs_2"]).join(rest))


def test_a_table_as_text_says_how_to_read_it(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("obs,action\n", "utf-8")
    with pytest.raises(DatasetError, match=r"Read the table by `pandas\.read_csv\(PATH\)`"):
        load_dataset(tmp_path / "log.csv")


def test_tables_that_cannot_be_read(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    columns = joined(EPISODES)
    frame = pd.DataFrame(
        {
            "observations": list(columns["observations"]),
            "actions": list(columns["actions"]),
            "reward": columns["rewards"],
            "terminated": columns["terminations"],
            "episode": [f"run {number}" for number in columns["episode"]],
        }
    )
    data = load_dataset(frame)
    assert data.n_trajectories == len(EPISODES)
    np.testing.assert_array_equal(data.observations, columns["observations"])
    with pytest.raises(DatasetError, match="`rewards` row 1 has the value nan"):
        load_dataset(frame.assign(reward=[0.0, np.nan, *columns["rewards"][2:]]))
    ragged = frame.assign(observations=[np.zeros(2), *list(columns["observations"])[1:]])
    with pytest.raises(DatasetError, match="`observations` has arrays of different shapes"):
        load_dataset(ragged)
    with pytest.raises(DatasetError, match=r"`actions` is missing\. Found: episode, observations, reward, terminated"):
        load_dataset(frame.drop(columns="actions"))
    pytest.importorskip("pyarrow")
    frame.to_parquet(tmp_path / "log.parquet")
    np.testing.assert_array_equal(load_dataset(tmp_path / "log.parquet").actions, columns["actions"])


def test_a_file_with_many_episodes_takes_few_handles(tmp_path: Path) -> None:
    """An operating system allows about a thousand open files, and robomimic's files have an array per field and episode."""
    resource = pytest.importorskip("resource")
    episodes = [episode for seed in range(20) for episode in random_episodes(seed)]
    path = robomimic(episodes, tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 50, limits[1]))
    try:
        data = load_dataset(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    np.testing.assert_array_equal(data.actions, joined(episodes)["actions"])
