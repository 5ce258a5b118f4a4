"""Readers of .npz files, of folders, and of D4RL's files; names of every dialect; damaged files."""

import pickle
import zipfile

import numpy as np
import pytest

from sb3_flow.datasets import DatasetError, OfflineDataset, load_dataset, unpack


def test_gymnasium_names(tmp_path, transitions):
    np.savez(tmp_path / "log.npz", **transitions())
    dataset = load_dataset(tmp_path / "log.npz")
    assert len(dataset) == 7 and dataset.n_trajectories == 2
    assert dataset.terminations.tolist() == [False, False, True, False, False, False, False]
    assert dataset.ends.tolist() == [False, False, True, False, False, False, True]
    assert dataset.valids.all()
    np.testing.assert_array_equal(dataset.next_observations, transitions()["next_observations"])


def test_without_next_observations_a_truncated_trajectory_loses_its_last_row(tmp_path, transitions):
    columns = transitions()
    del columns["next_observations"]
    np.savez(tmp_path / "log.npz", **columns)
    dataset = load_dataset(str(tmp_path / "log.npz"))
    assert dataset.valids.tolist() == [True] * 6 + [False]
    assert dataset.has_action.all() and np.flatnonzero(dataset.ends).tolist() == [2, 6]  # its action was demonstrated


def test_ogbench_layout(tmp_path):
    # Two trajectories of 3 and 2 transitions; the last state of each has a row of its own.
    terminals = np.array([0, 0, 0, 1, 0, 0, 1], dtype=bool)
    observations = np.arange(14, dtype=np.float64).reshape(7, 2)
    np.savez(tmp_path / "log.npz", observations=observations, actions=np.zeros((7, 1)), terminals=terminals, qpos=observations)
    dataset = load_dataset(tmp_path / "log.npz")
    assert len(dataset) == 5 and dataset.n_trajectories == 2
    assert dataset.valids.tolist() == [True, True, True, False, True, True, False]
    assert (dataset.ends & dataset.valids).tolist() == [False, False, True, False, False, True, False]
    assert not dataset.terminations.any() and dataset.rewards is None and dataset.next_observations is None
    assert dataset.observations.dtype == np.float32 and dataset.actions.dtype == np.float32


def test_images_stay_bytes(tmp_path):
    images = np.full((4, 8, 8, 3), 200, dtype=np.uint8)
    np.savez(tmp_path / "log.npz", observations=images, actions=np.zeros((4, 1)), terminals=np.array([0, 0, 0, 1]))
    assert load_dataset(tmp_path / "log.npz").observations.dtype == np.uint8


def test_d4rl_names_in_npz_mean_terminations(tmp_path, transitions):
    columns = transitions()
    columns["terminals"], columns["timeouts"] = columns.pop("terminations"), columns.pop("truncations")
    np.savez(tmp_path / "log.npz", **columns)
    dataset = load_dataset(tmp_path / "log.npz")
    assert dataset.terminations[2] and not dataset.terminations[6] and dataset.ends[6]


def test_dictionary_observations(tmp_path, transitions):
    columns = transitions()
    for field in ("observations", "next_observations"):
        column = columns.pop(field)
        columns[f"{field}/position"], columns[f"{field}/goal"] = column, column[:, :1]
    np.savez(tmp_path / "log.npz", **columns)
    for source in (tmp_path / "log.npz", unpack(tmp_path / "log.npz", tmp_path / "folder")):
        dataset = load_dataset(source)
        assert dataset.observations.keys() == dataset.next_observations.keys() == {"position", "goal"}
        assert dataset.observations["goal"].shape == (7, 1)


def test_folder_is_memory_mapped_and_equal_to_its_file(tmp_path, transitions):
    np.savez_compressed(tmp_path / "log.npz", **transitions())
    folder = unpack(tmp_path / "log.npz", tmp_path / "deep" / "folder")
    mapped, loaded = load_dataset(folder), load_dataset(tmp_path / "log.npz")
    assert isinstance(mapped.observations, np.memmap) and isinstance(mapped.actions, np.memmap)
    for (field, column), (_, expected) in zip(mapped.columns(), loaded.columns(), strict=True):
        np.testing.assert_array_equal(column, expected, err_msg=field)
    with pytest.raises(FileExistsError, match="folder exists"):
        unpack(tmp_path / "log.npz", folder)


def test_unpack_stays_in_its_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "log.npz", "w") as archive, archive.open("../outside.npy", "w") as member:
        np.save(member, np.zeros(3))
    with pytest.raises(DatasetError, match="leads out of the folder"):
        unpack(tmp_path / "log.npz", tmp_path / "sub" / "folder")
    assert not (tmp_path / "sub" / "outside.npy").exists() and not (tmp_path / "sub" / "folder").exists()


def test_hdf5(tmp_path, transitions):
    h5py = pytest.importorskip("h5py")
    columns = transitions()
    columns["terminals"], columns["timeouts"] = columns.pop("terminations"), columns.pop("truncations")
    del columns["next_observations"]
    with h5py.File(tmp_path / "log.hdf5", "w") as file:
        for field, column in columns.items():
            file[field] = column
        file["infos/qpos"] = np.zeros((7, 3))
        file["metadata/algorithm"] = "SAC"
        file["note"] = "a text"
    dataset = load_dataset(tmp_path / "log.hdf5")
    assert len(dataset) == 6 and dataset.n_trajectories == 2
    assert dataset.terminations[2] and not dataset.terminations[5]
    np.testing.assert_array_equal(dataset.rewards, columns["rewards"])


@pytest.mark.parametrize("suffix", ["npz", "hdf5"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "foreign"])
def test_damaged_files_are_named(tmp_path, transitions, suffix, damage):
    path = tmp_path / f"log.{suffix}"
    if suffix == "npz":
        np.savez(path, **transitions())
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            for field, column in transitions().items():
                file[field] = column
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "truncated": whole[: len(whole) // 2], "foreign": b"text, not data"}[damage])
    with pytest.raises(DatasetError, match=f"log.{suffix}"):
        load_dataset(path)


def test_a_damaged_field_is_named(tmp_path, transitions):
    columns = transitions()
    np.savez(tmp_path / "log.npz", **columns)
    data = bytearray((tmp_path / "log.npz").read_bytes())
    data[data.index(columns["rewards"].tobytes(), data.index(b"rewards.npy")) + 4] ^= (
        255  # the checksum of this member no longer fits
    )
    (tmp_path / "log.npz").write_bytes(data)
    with pytest.raises(DatasetError, match=r"log\.npz: `rewards` cannot be read"):
        load_dataset(tmp_path / "log.npz")


def test_pickles_are_not_executed(tmp_path, transitions):
    class Surprise:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    objects = np.empty(7, dtype=object)
    objects[0] = Surprise()
    np.savez(tmp_path / "log.npz", **{**transitions(), "rewards": objects})
    with pytest.raises(DatasetError, match="rewards"):
        load_dataset(tmp_path / "log.npz")
    (tmp_path / "raw.npz").write_bytes(pickle.dumps(Surprise()))
    with pytest.raises(DatasetError, match="raw"):
        load_dataset(tmp_path / "raw.npz")
    assert not (tmp_path / "executed").exists()


def test_a_single_array_is_no_dataset(tmp_path):
    np.save(tmp_path / "log.npy", np.zeros(3))
    (tmp_path / "log.npy").rename(tmp_path / "log.npz")
    with pytest.raises(DatasetError, match="single array"):
        load_dataset(tmp_path / "log.npz")


def test_a_folder_of_recordings(tmp_path):
    (tmp_path / "a.npz").touch()
    with pytest.raises(DatasetError, match=r"To join the \.npz files in it, write '.*/\*\.npz'"):
        load_dataset(tmp_path)


def test_a_folder_without_arrays(tmp_path):
    with pytest.raises(DatasetError, match=r"no \.npy file"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("actions", None, "`actions` is missing"),
        ("observations", None, "`observations` is missing"),
        ("rewards", lambda column: column[:-1], "`rewards` has 6 rows"),
        ("terminations", lambda column: column[:-1], "`terminations` has 6 rows"),
        ("terminations", lambda column: column + 0.5, "`terminations` row 0 is 0.5"),
        ("rewards", lambda column: np.where(column == 3, np.nan, column), "`rewards` row 3 has the value nan"),
        ("observations", lambda column: np.where(column == 9, np.inf, column), "`observations` row 4 .* inf"),
    ],
)
def test_wrong_fields_are_named(tmp_path, transitions, field, change, message):
    columns = transitions()
    column = columns.pop(field)
    if change is not None:
        columns[field] = change(column)
    np.savez(tmp_path / "log.npz", **columns)
    with pytest.raises(DatasetError, match=rf"log\.npz: {message}"):
        load_dataset(tmp_path / "log.npz")


def test_actions_outside_the_space_are_named(transitions):
    dataset = OfflineDataset.from_dict(transitions(), "log")
    low, high = np.array([-1.0]), np.array([1.0])
    dataset.check_actions(low, high)
    with pytest.raises(DatasetError, match="log: `actions` row 0 is"):
        dataset.check_actions(low / 2, high / 2)


def test_other_things_are_no_dataset(tmp_path):
    for source in ("no-such-thing", tmp_path / "log.csv", 3, None):
        with pytest.raises(DatasetError, match="Expected a name"):
            load_dataset(source)
    with pytest.raises(DatasetError, match="no transition"):
        load_dataset({"observations": np.zeros((0, 2)), "actions": np.zeros((0, 1))})
