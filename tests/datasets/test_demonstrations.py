"""Readers of demonstrations: zarr files of Diffusion Policy and parquet files of LeRobot, written here in their formats."""

import io
import json
import sys

import numpy as np
import pytest

from sb3_flow.common.data.columns import DatasetError
from sb3_flow.datasets import load_dataset

#: Number of rows of two episodes, and the ends of the episodes.
LENGTHS = (3, 4)
ROWS = sum(LENGTHS)


@pytest.fixture
def recording():
    """Fields of the recorded Push-T demonstrations: images in [0, 255] as single precision."""
    rng = np.random.default_rng(0)
    return {
        "action": rng.uniform(0, 512, size=(ROWS, 2)).astype(np.float32),
        "img": rng.integers(0, 256, size=(ROWS, 96, 96, 3)).astype(np.float32),
        "keypoint": rng.uniform(0, 512, size=(ROWS, 9, 2)).astype(np.float32),
        "n_contacts": np.zeros((ROWS, 1), dtype=np.float32),
        "state": rng.uniform(0, 512, size=(ROWS, 5)).astype(np.float32),
    }


def write_zarr(path, recording, ends=(3, 7)):
    """Version 2 of the format, in chunks, as ``pusht_cchi_v7_replay.zarr`` is; in a zip archive if the name says so."""
    zarr = pytest.importorskip("zarr")
    packed = path.suffix == ".zip"
    store = zarr.storage.ZipStore(str(path), mode="w") if packed else str(path)
    root = zarr.open_group(store, mode="w", zarr_format=2)
    for field, column in recording.items():
        root.create_array(f"data/{field}", data=column, chunks=(5, *column.shape[1:]))
    root.create_array("meta/episode_ends", data=np.array(ends, dtype=np.int64), chunks=(2,))
    if packed:
        store.close()
    return path


@pytest.fixture
def zarr_path(tmp_path, recording):
    return write_zarr(tmp_path / "pusht_cchi_v7_replay.zarr", recording)


@pytest.mark.filterwarnings("ignore::UserWarning")  # zarr writes some names twice into an archive
@pytest.mark.parametrize("name", ["replay.zarr", "replay.zarr.zip"])
def test_zarr(tmp_path, recording, name):
    path = write_zarr(tmp_path / name, recording)
    assert name.endswith(".zip") or json.loads((path / ".zgroup").read_text())["zarr_format"] == 2
    data = load_dataset(path)
    np.testing.assert_array_equal(data.observations, recording["state"])
    np.testing.assert_array_equal(data.actions, recording["action"])
    assert data.rewards is None and data.next_observations is None
    assert np.flatnonzero(data.ends).tolist() == [2, 6] and not data.terminations.any()
    # Imitation uses the last actions. Their next observations were not recorded, so they are no transitions.
    assert data.has_action.all() and np.flatnonzero(~data.valids).tolist() == [2, 6] and data.n_trajectories == 2


def test_images_of_zarr(zarr_path, recording):
    data = load_dataset(f"{zarr_path}#pixels")
    assert data.observations["pixels"].dtype == np.uint8
    np.testing.assert_array_equal(data.observations["pixels"], recording["img"].astype(int))
    np.testing.assert_array_equal(data.observations["agent_pos"], recording["state"][:, :2])
    assert list(data.observations) == ["pixels", "agent_pos"] and data.has_action.sum() == ROWS


def test_images_that_are_not_bytes(tmp_path, recording):
    path = write_zarr(tmp_path / "a.zarr", {**recording, "img": recording["img"] / 255})
    with pytest.raises(DatasetError, match=r"goes from 0.0 to 1.0; expected values from 0 to 255"):
        load_dataset(f"{path}#pixels")
    assert load_dataset(path).has_action.sum() == ROWS  # without the images


@pytest.mark.parametrize("ends", [(3, 6), (3, 3, 7), (7, 3), ()])
def test_wrong_ends_in_zarr(tmp_path, recording, ends):
    with pytest.raises(DatasetError, match="episode_ends"):
        load_dataset(write_zarr(tmp_path / "a.zarr", recording, ends))


def test_broken_zarr(tmp_path, recording, zarr_path):
    with pytest.raises(DatasetError, match="no such file"):
        load_dataset(tmp_path / "nothing.zarr")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(DatasetError, match="no zarr file"):
        load_dataset(tmp_path / "empty.zarr")
    (tmp_path / "broken.zarr.zip").write_bytes(b"broken")
    with pytest.raises(DatasetError, match="no zarr file"):
        load_dataset(tmp_path / "broken.zarr.zip")
    del recording["action"]
    with pytest.raises(DatasetError, match="`data/action` is missing"):
        load_dataset(write_zarr(tmp_path / "without.zarr", recording))
    chunk = zarr_path / "data" / "state" / "0.0"
    chunk.write_bytes(chunk.read_bytes()[:10])
    with pytest.raises(DatasetError, match="damaged"):
        load_dataset(zarr_path)


# LeRobot.


def png(image):
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, format="png")
    return {"bytes": file.getvalue(), "path": "frame.png"}


def columns_of(recording, *observations):
    """The columns that LeRobot's Push-T has."""
    columns = {
        "observation.state": recording["state"][:, :2].tolist(),
        "action": recording["action"].tolist(),
        "episode_index": [0] * LENGTHS[0] + [1] * LENGTHS[1],
        "frame_index": [*range(LENGTHS[0]), *range(LENGTHS[1])],
        "timestamp": [0.1 * row for row in range(ROWS)],
        "next.reward": [0.1 * row for row in range(ROWS)],
        "next.done": [row in (2, 6) for row in range(ROWS)],
        "next.success": [row == 2 for row in range(ROWS)],
        "index": list(range(ROWS)),
        "task_index": [0] * ROWS,
    }
    if "image" in observations:
        columns["observation.image"] = [png(image) for image in recording["img"].astype(np.uint8)]
    if "keypoints" in observations:
        columns["observation.environment_state"] = recording["keypoint"][:, :8].reshape(ROWS, 16).tolist()
    return columns


def write_parquet(path, columns, rows=slice(None)):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    types = {"action": arrow.list_(arrow.float32(), 2), "observation.state": arrow.list_(arrow.float32(), 2)}
    types |= {"next.reward": arrow.float32(), "observation.environment_state": arrow.list_(arrow.float32(), 16)}
    arrays = {name: arrow.array(column[rows], types.get(name)) for name, column in columns.items()}
    parquet.write_table(arrow.table(arrays), path)
    return path


def test_lerobot_with_one_file_for_each_episode(tmp_path, recording):
    """Version 2; the order of the names is that of the numbers."""
    columns = columns_of(recording, "image")
    write_parquet(tmp_path / "data" / "chunk-000" / "episode_000000.parquet", columns, slice(0, 3))
    write_parquet(tmp_path / "data" / "chunk-000" / "episode_000001.parquet", columns, slice(3, 7))
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text(json.dumps({"codebase_version": "v2.1"}))
    data = load_dataset(tmp_path)
    np.testing.assert_array_equal(data.observations["pixels"], recording["img"].astype(np.uint8))
    np.testing.assert_array_equal(data.observations["agent_pos"], recording["state"][:, :2])
    np.testing.assert_array_equal(data.actions, recording["action"])
    np.testing.assert_allclose(data.rewards, 0.1 * np.arange(ROWS), rtol=1e-6)
    assert np.flatnonzero(data.ends).tolist() == np.flatnonzero(data.terminations).tolist() == [2, 6]
    assert len(data) == ROWS and data.actions.dtype == np.float32
    assert "1 times `next.done` is set without `next.success`, which counts as the end of the task" in data.remarks


def test_lerobot_with_several_episodes_in_a_file(tmp_path, recording):
    """Version 3. Rows are put in order by their numbers."""
    columns = columns_of(recording, "keypoints")
    order = [4, 0, 6, 2, 1, 5, 3]
    shuffled = {name: [column[row] for row in order] for name, column in columns.items()}
    path = write_parquet(tmp_path / "data" / "chunk-000" / "file-000.parquet", shuffled)
    for data in (load_dataset(tmp_path), load_dataset(path)):
        assert list(data.observations) == ["environment_state", "agent_pos"]
        np.testing.assert_array_equal(data.observations["environment_state"], recording["keypoint"][:, :8].reshape(ROWS, 16))
        np.testing.assert_array_equal(data.actions, recording["action"])
        assert np.flatnonzero(data.ends).tolist() == [2, 6]


def test_broken_lerobot(tmp_path, recording):
    with pytest.raises(DatasetError, match="no such file"):
        load_dataset(tmp_path / "nothing.parquet")
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"broken")
    with pytest.raises(DatasetError, match="no parquet file"):
        load_dataset(broken)
    with pytest.raises(DatasetError, match="the observations have no part top; there: agent_pos"):
        load_dataset(f"{write_parquet(tmp_path / 'a.parquet', columns_of(recording))}#top")
    columns = columns_of(recording, "keypoints")
    with pytest.raises(DatasetError, match="`action` is missing"):
        load_dataset(write_parquet(tmp_path / "b.parquet", {name: columns[name] for name in columns if name != "action"}))
    named = {**columns, "observation.image": [{"bytes": None, "path": "frame.png"}] * ROWS}
    with pytest.raises(DatasetError, match="names of files"):
        load_dataset(write_parquet(tmp_path / "c.parquet", named))
    write_parquet(tmp_path / "data" / "0.parquet", columns)
    write_parquet(tmp_path / "data" / "1.parquet", columns_of(recording))
    with pytest.raises(DatasetError, match="not all of its files"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(("module", "name"), [("zarr", "a.zarr"), ("pyarrow", "a.parquet")])
def test_a_missing_package_is_named(tmp_path, monkeypatch, module, name):
    (tmp_path / name).touch()
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    monkeypatch.setitem(sys.modules, f"{module}.parquet", None)
    with pytest.raises(ImportError, match=r"pip install 'sb3_flow\[datasets\]'"):
        load_dataset(tmp_path / name)
