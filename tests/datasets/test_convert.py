"""``sb3-flow datasets convert``: any format becomes a memory-mapped folder with the same data, in constant memory."""

from __future__ import annotations

import json
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dialects import DIALECTS, joined, random_episodes

from sb3_flow import FQL
from sb3_flow.cli import main
from sb3_flow.common import progress
from sb3_flow.common.lock import Lock
from sb3_flow.datasets import DatasetError, OfflineDataset, convert, converted, load_dataset

WRITTEN = Path(__file__).parent / "written"
#: Bytes of the observations with which memory is measured, and what may be allocated.
LARGE, ALLOWED = 128 * 2**20, 64 * 2**20


def assert_same(first: OfflineDataset, second: OfflineDataset) -> None:
    columns, others = dict(first.columns()), dict(second.columns())
    assert columns.keys() == others.keys()
    for name, column in columns.items():
        assert column.dtype == others[name].dtype, name
        np.testing.assert_array_equal(column, others[name], err_msg=name)
    for name in ("evidence", "understood", "remarks"):
        assert getattr(first, name) == getattr(second, name)


def check(source: Any, folder: Path, env_id: str | None = None) -> None:
    """The folder has the same data, and nothing of it is in memory."""
    before = load_dataset(source, env_id)
    after = load_dataset(convert(source, folder, env_id, progress=False))
    assert_same(before, after)
    assert all(isinstance(column, np.memmap) for name, column in after.columns())
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect(tmp_path: Path, name: str) -> None:
    dialect = DIALECTS[name]
    for package in dialect.needs:
        pytest.importorskip(package)
    (tmp_path / "source").mkdir()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="minari")
        source = dialect.write(random_episodes(1, dialect.goes_on), tmp_path / "source")
    if isinstance(source, (str, Path, dict, list)) or type(source).__module__.startswith("pandas"):
        check(source, tmp_path / "folder")


@pytest.mark.parametrize("name", ["d3rlpy.h5", "robomimic.zip", "robomimic.zip#train", "lerobot.zip", "lerobot_0.4.4.zip"])
def test_files_of_other_packages(tmp_path: Path, name: str) -> None:
    """Files that d3rlpy, robomimic and LeRobot wrote; those of LeRobot have images."""
    for package in ("h5py",) if "lerobot" not in name else ("pyarrow", "PIL"):
        pytest.importorskip(package)
    file, _, part = name.partition("#")
    source = WRITTEN / file
    if source.suffix == ".zip":
        with zipfile.ZipFile(source) as archive:
            archive.extractall(tmp_path / "source")
        source = tmp_path / "source"
        source = source / "robomimic.hdf5" if "robomimic" in name else source
    check(f"{source}#{part}" if part else source, tmp_path / "folder")


def test_rewards_of_ogbench(tmp_path: Path, cube_file: Path) -> None:
    check(cube_file, tmp_path / "folder", "cube-single-singletask-task2-v0")


@pytest.mark.nightly
def test_rewards_of_another_task_of_ogbench(tmp_path: Path, cube_file: Path) -> None:
    """A folder cannot be relabeled, because it has no positions of the simulator."""
    first, second, default = (f"cube-single-singletask-{task}v0" for task in ("task1-", "task2-", ""))
    folder = convert(cube_file, tmp_path / "folder", first, progress=False)
    with pytest.raises(
        DatasetError, match=f"has the rewards of {first}, not of {second}. Convert the source again with --env"
    ):
        load_dataset(folder, second)
    folder = convert(cube_file, tmp_path / "other", second, progress=False)
    assert len(load_dataset(folder, default)) > 0
    folder = convert(cube_file, tmp_path / "without", progress=False)
    with pytest.raises(ValueError, match=f"it has no rewards, because it was converted without --env {first}"):
        FQL("FlowPolicy", first, dataset=str(folder), policy_kwargs={"net_arch": [4]}, device="cpu")


def test_weights_and_transforms(tmp_path: Path, transitions: Callable[..., dict[str, Any]]) -> None:
    parts = [{"source": transitions(), "weight": 2.0, "rewards": {"shift": -1}}, {"source": transitions(), "weight": 1.0}]
    check(parts, tmp_path / "folder")


# Memory.


def write_large(path: Path) -> Any:
    """Compressed observations of ``LARGE`` bytes, in episodes of 10,000 steps."""
    n = LARGE // 256
    rows = {"observations": np.zeros((n, 64), np.float32), "actions": np.zeros((n, 2), np.float32)}
    rows["observations"] += np.arange(n, dtype=np.float32)[:, None]
    ends = np.arange(1, n // 10_000 + 1) * 10_000
    rows = {name: column[: ends[-1]] for name, column in rows.items()}
    episode = np.repeat(np.arange(len(ends)), 10_000)
    if path.suffix == ".npz":
        np.savez(path, **rows, episode=episode)
    elif path.suffix == ".zarr":
        zarr = pytest.importorskip("zarr")
        root = zarr.open_group(str(path), mode="w", zarr_format=2)
        for name, column in {"data/state": rows["observations"], "data/action": rows["actions"]}.items():
            root.create_array(name, data=column, chunks=(10_000, column.shape[1]))
        root.create_array("meta/episode_ends", data=ends)
    elif path.suffix == ".parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        lists = {name: pa.FixedSizeListArray.from_arrays(col.reshape(-1), col.shape[1]) for name, col in rows.items()}
        pq.write_table(pa.table({**lists, "episode": episode}), path, row_group_size=20_000)
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            for number, start in enumerate(range(0, len(episode), 10_000) if path.stem == "groups" else [0]):
                group, stop = ("/", None) if path.stem == "file" else (f"data/demo_{number}", start + 10_000)
                for name, column in rows.items():
                    file.create_dataset(f"{group}/{name}", data=column[start:stop], chunks=True, compression="lzf")
                if stop is None:
                    file["episode"] = episode
                else:
                    file[f"{group}/dones"] = np.arange(10_000) == 9_999
    return path


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["file.hdf5", "groups.hdf5", "log.zarr", "log.parquet"])
def test_reading_takes_no_memory(tmp_path: Path, name: str) -> None:
    path = write_large(tmp_path / name)
    assert peak(lambda: load_dataset(path)) < ALLOWED


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "file.hdf5",
        pytest.param("groups.hdf5", marks=pytest.mark.nightly),
        pytest.param("log.zarr", marks=pytest.mark.nightly),
        pytest.param("log.parquet", marks=pytest.mark.nightly),
        pytest.param("log.npz", marks=pytest.mark.nightly),
    ],
)
def test_conversion_takes_no_memory(tmp_path: Path, name: str) -> None:
    path = write_large(tmp_path / name)
    assert peak(lambda: convert(path, tmp_path / "folder", progress=False)) < ALLOWED


def peak(run: Callable[[], Any]) -> int:
    """Bytes that a function allocates at most."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# The command.


@pytest.fixture
def source(tmp_path: Path) -> Path:
    columns = joined(random_episodes(3))
    fields = ("observations", "actions", "rewards", "terminations", "truncations")
    np.savez(tmp_path / "log.npz", **{name: columns[name] for name in fields})
    return tmp_path / "log.npz"


def test_command(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = source.with_name("folder")
    assert main(["datasets", "convert", str(source), str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"Reading {source}: 1 megabytes") and lines[-1] == f"Wrote {folder}"
    assert lines[1].startswith(f"Writing {folder}: 1 of 1 megabytes (100 %)") and len(lines) == 3
    assert_same(load_dataset(source), load_dataset(folder))


def test_a_line_per_interval(source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    monkeypatch.setattr(converted, "MEGABYTE", 50)
    size = sum(column.nbytes for _, column in load_dataset(source).columns())
    convert(source, source.with_name("folder"))
    written = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Writing")]
    assert len(written) > 5 and f": {-(-size // 50):,} of {-(-size // 50):,} megabytes (100 %)" in written[-1]


def test_an_existing_folder_is_replaced_by_force_only(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = source.with_name("folder")
    command = ["datasets", "convert", str(source), str(folder), "--no-progress"]
    assert main(command) == 0
    (folder / "old.npy").write_bytes(b"")
    assert main(command) == 2 and "replace it with --force" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0 and not (folder / "old.npy").exists()
    assert_same(load_dataset(source), load_dataset(folder))
    (folder / converted.DESCRIPTION).unlink()
    assert main([*command, "--force"]) == 2 and "is no converted dataset" in capsys.readouterr().err
    assert (folder / "actions.npy").exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_of_an_interrupted_conversion(
    source: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    folder = source.with_name("folder")
    convert(source, folder, progress=False)
    before = load_dataset(folder)
    write, calls = np.lib.format.write_array_header_1_0, []

    def failing(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 3:
            raise error
        write(*args)

    source.with_name(".folder.convert-killed").mkdir()
    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", failing)
    for target in (folder, source.with_name("new")):
        calls.clear()
        with pytest.raises(type(error)):
            convert(source, target, progress=False, overwrite=True)
    assert sorted(path.name for path in source.parent.iterdir()) == ["folder", "log.npz"]
    assert_same(before, load_dataset(folder))


def test_two_conversions_at_a_time(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = source.with_name("folder")
    lock = Lock(folder.with_name(".folder.lock"), folder)
    lock.acquire()
    try:
        assert main(["datasets", "convert", str(source), str(folder)]) == 2
    finally:
        lock.release()
    assert "is in use by process" in capsys.readouterr().err and not folder.exists()


# Damaged folders.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "ends.npy").unlink(), "a column of .* is missing or unknown"),
        (lambda folder: (folder / "more.npy").write_bytes((folder / "ends.npy").read_bytes()), "missing or unknown"),
        (lambda folder: (folder / "ends.npy").write_bytes(b"x"), "`ends` cannot be read"),
        (lambda folder: (folder / converted.DESCRIPTION).write_text("{"), "is damaged"),
        (lambda folder: (folder / converted.DESCRIPTION).write_text("[]"), "is damaged"),
        (lambda folder: change_format(folder), "has the format 2; this version reads 1"),
    ],
)
def test_damaged_folders(source: Path, change: Callable[[Path], Any], message: str) -> None:
    folder = convert(source, source.with_name("folder"), progress=False)
    change(folder)
    with pytest.raises(DatasetError, match=message):
        load_dataset(folder)


def change_format(folder: Path) -> None:
    path = folder / converted.DESCRIPTION
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
