"""
Resident memory of reading each format of datasets, of training on it, and of converting it.

Each is measured in a separate process: the growth of its resident memory at the peak (Linux), from the moment at which all
packages are imported and a small model has been trained. It counts the mapped part of the data, which the kernel reclaims when
memory is needed. The goal is the size of the data plus 256 MiB.

    python benchmarks/memory_of_formats.py [--mebibytes 160] [--updates 500] [--directory FOLDER] [--formats hdf5 zarr]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from memory import columns, make_model, status

from sb3_flow import FQL
from sb3_flow.datasets import convert

#: What may be resident beside the data, in MiB.
ALLOWED = 256


def hdf5(path: Path, data: dict[str, np.ndarray], **layout: Any) -> Path:
    import h5py

    with h5py.File(path / "log.hdf5", "w") as file:
        for name, column in data.items():
            file.create_dataset(name, data=column, **layout)
    return path / "log.hdf5"


def robomimic(path: Path, data: dict[str, np.ndarray]) -> Path:
    """One group for each episode, compressed."""
    import h5py

    with h5py.File(path / "log.hdf5", "w") as file:
        for number, start in enumerate(range(0, len(data["rewards"]), 1000)):
            part = {name: column[start : start + 1000] for name, column in data.items()}
            group = file.create_group(f"data/demo_{number}")
            group.create_dataset("obs/state", data=part["observations"], compression="gzip", compression_opts=1)
            group.create_dataset("next_obs/state", data=part["next_observations"], compression="gzip", compression_opts=1)
            group["actions"], group["rewards"] = part["actions"], part["rewards"]
            group["dones"] = part["truncations"].astype(np.int64)
    return path / "log.hdf5"


def zarr(path: Path, data: dict[str, np.ndarray]) -> Path:
    import zarr

    root = zarr.open_group(str(path / "log.zarr"), mode="w", zarr_format=2)
    n = len(data["rewards"])
    for name, column in {"data/state": data["observations"], "data/action": data["actions"]}.items():
        root.create_array(name, data=column, chunks=(10_000, column.shape[1]))
    root.create_array("data/reward", data=data["rewards"])
    root.create_array("meta/episode_ends", data=np.append(np.arange(1000, n, 1000), n))
    return path / "log.zarr"


def table(data: dict[str, np.ndarray], names: dict[str, str]) -> Any:
    """A table of Arrow; rows of several numbers are lists."""
    import pyarrow

    arrays = {}
    for name, new in names.items():
        column = data[name]
        flat = pyarrow.array(column.reshape(-1))
        arrays[new] = flat if column.ndim == 1 else pyarrow.FixedSizeListArray.from_arrays(flat, column.shape[1])
    return pyarrow.table(arrays)


def parquet(path: Path, data: dict[str, np.ndarray]) -> Path:
    from pyarrow import parquet

    parquet.write_table(table(data, {name: name for name in data}), path / "log.parquet", row_group_size=50_000)
    return path / "log.parquet"


def lerobot(path: Path, data: dict[str, np.ndarray]) -> Path:
    from pyarrow import parquet

    n = len(data["rewards"])
    data = {**data, "episode": np.arange(n) // 1000, "step": np.arange(n) % 1000}
    names = {"observations": "observation.state", "actions": "action", "rewards": "next.reward", "terminations": "next.done"}
    file = path / "data" / "chunk-000" / "file-000.parquet"
    file.parent.mkdir(parents=True)
    parquet.write_table(table(data, {**names, "episode": "episode_index", "step": "frame_index"}), file)
    return path


def npz(path: Path, data: dict[str, np.ndarray]) -> Path:
    np.savez(path / "log.npz", **data)  # type: ignore[arg-type]
    return path / "log.npz"


FORMATS: dict[str, Callable[[Path, dict[str, np.ndarray]], Path]] = {
    "hdf5": hdf5,
    "hdf5, compressed": lambda path, data: hdf5(path, data, chunks=True, compression="gzip", compression_opts=1),
    "robomimic": robomimic,
    "zarr": zarr,
    "parquet": parquet,
    "lerobot": lerobot,
    "npz": npz,
}


def growth(run: Callable[[], Any]) -> float:
    """By how much resident memory grows at most, in MiB."""
    make_model(columns(1000), [128] * 3).train(10, 256)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = status()["VmRSS"]
    run()
    return status()["VmHWM"] - before


def train(source: Path, updates: int) -> FQL:
    model = make_model(source, [128] * 3)
    model.train(updates, 256)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=float, default=160, help="size of the data")
    parser.add_argument("--updates", type=int, default=500)
    parser.add_argument("--directory", type=Path, help="folder for the temporary data")
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=list(FORMATS))
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        task, source = options.worker
        target = Path(source).parent / "converted"
        runs = {"train": lambda: train(Path(source), options.updates), "convert": lambda: convert(source, target)}
        print(json.dumps(growth(runs[task])))
        return
    row = sum(column[:1].nbytes for column in columns(1).values())
    data = columns(int(options.mebibytes * 2**20 / row) // 1000 * 1000)
    size = sum(column.nbytes for column in data.values()) / 2**20
    print(f"{len(data['rewards']):,} transitions, {size:.0f} MiB with next observations; growth of resident memory in MiB")
    print(f"{'':18}{'file':>8}{'training':>10}{'converting':>12}   goal: at most {size + ALLOWED:.0f}")
    for name in options.formats:
        with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
            source = FORMATS[name](Path(scratch), data)
            files = [source] if source.is_file() else source.rglob("*")
            stored = sum(file.stat().st_size for file in files if file.is_file()) / 2**20
            grown = {}
            for task in ("train", "convert"):
                command = [sys.executable, __file__, "--worker", task, str(source), "--updates", str(options.updates)]
                grown[task] = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
            print(f"{name:18}{stored:>8.0f}{grown['train']:>10.0f}{grown['convert']:>12.0f}", flush=True)


if __name__ == "__main__":
    main()
