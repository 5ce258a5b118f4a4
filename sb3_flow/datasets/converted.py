"""Conversion of any dataset to a folder of ``.npy`` files, which is memory-mapped when it is read."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sb3_flow.common.data.columns import DatasetError, blocks, reading
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.sources import read_dataset
from sb3_flow.common.lock import locked
from sb3_flow.common.progress import progress_bar
from sb3_flow.datasets.arrays import ArrayFile, into_files
from sb3_flow.datasets.relabel import is_single_task, same_task

#: File in a converted folder that has what is no array.
DESCRIPTION = "dataset.json"
#: Part of the description. It is increased when folders have another layout.
FORMAT = 1
MEGABYTE = 10**6
#: Suffixes by which readers recognize files.
FILES = (".npz", ".hdf5", ".h5", ".hdf", ".zarr", ".parquet")


def convert(
    source: Any,
    directory: str | os.PathLike[str],
    env_id: str | None = None,
    progress: bool = True,
    overwrite: bool = False,
) -> Path:
    """
    Convert a dataset to a folder with one ``.npy`` file for each column of ``OfflineDataset``. The folder gives the same
    dataset, is memory-mapped when it is read, and opens without the packages of the source.

    The data is read and written in blocks: memory does not grow with it, except for a few bytes per row. Large columns of the
    source are decoded into temporary files in ``$TMPDIR``. The folder appears only when it is complete.

    :param source: Any source of ``dataset=``, except for replay buffers
    :param directory: The folder
    :param env_id: Id of the environment of the data. OGBench's data gets the rewards of this environment; the folder has no
        others.
    :param progress: Whether to show the progress
    :param overwrite: Whether to replace a folder that was converted before
    :return: The folder, for the argument ``dataset``
    :raises DatasetError: If the source cannot be read.
    :raises ValueError: If the folder has the suffix of a file format.
    :raises FileExistsError: If the folder exists, and ``overwrite`` is not set or it has other files.
    :raises BusyError: If another process writes to it.
    """
    target = Path(directory).expanduser()
    if target.suffix in FILES:
        raise ValueError(f"{target} has the suffix of a file; expected the name of a folder.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.with_name(f".{target.name}.lock"), target):
        _check_target(target, overwrite)
        name = source if isinstance(source, str | os.PathLike) else "the dataset"
        with _counted(f"Reading {name}", 0, progress) as count:
            tokens = reading.set(count), into_files.set(True)
            try:
                data = read_dataset(source, env_id)
            finally:
                reading.reset(tokens[0])
                into_files.reset(tokens[1])
        prefix = f".{target.name}.convert-"
        for path in target.parent.iterdir():
            if path.name.startswith(prefix):  # of a conversion that was killed, because this one has the lock
                shutil.rmtree(path)
        scratch = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
        try:
            size = sum(column.nbytes for _, column in data.columns())
            with _counted(f"Writing {target}", size, progress) as count:
                _write(data, scratch / "new", count, env_id if relabeled(data, env_id) else None)
            if target.exists():
                target.replace(scratch / "old")
            (scratch / "new").replace(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return target


def relabeled(data: OfflineDataset, env_id: str | None) -> bool:
    """Whether data has the rewards of a single-task environment of OGBench."""
    return env_id is not None and is_single_task(env_id) and data.rewards is not None


def read_converted(path: Path, env_id: str | None = None) -> OfflineDataset:
    """
    Read a folder that ``convert`` wrote.

    :param path: The folder
    :param env_id: Id of the environment of the data
    :return: The dataset, memory-mapped
    :raises DatasetError: If a file is missing or damaged, the folder is of a later version, or has the rewards of another
        single-task environment of OGBench.
    """
    try:
        description = json.loads((path / DESCRIPTION).read_text("utf-8"))
        version, name = description["format"], description["name"]
        evidence, understood, remarks = description["evidence"], dict(description["understood"]), description["remarks"]
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path / DESCRIPTION} is damaged ({error!r}). Convert the source again.") from error
    if version != FORMAT:
        raise DatasetError(f"{path} has the format {version!r}; this version reads {FORMAT}. Convert the source again.")
    task = description.get("task")
    if env_id is not None and is_single_task(env_id) and task is not None and not same_task(task, env_id):
        raise DatasetError(f"{path} has the rewards of {task}, not of {env_id}. Convert the source again with --env {env_id}.")
    columns: dict[str, Any] = {}
    for field, column in ArrayFile(path).items():
        group, slash, key = field.partition("/")
        if slash:
            columns.setdefault(group, {})[key] = column
        else:
            columns[field] = column
    if env_id is not None and is_single_task(env_id) and "rewards" not in columns:
        remarks = [*remarks, f"it has no rewards, because it was converted without --env {env_id}"]
    try:
        return OfflineDataset(
            **{"rewards": None, **columns}, name=str(path), evidence=evidence, understood=understood, remarks=tuple(remarks)
        )
    except TypeError as error:
        raise DatasetError(f"{path}: a column of {name} is missing or unknown ({error}). Convert it again.") from error


def _check_target(target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{target} exists. Use it as it is, or replace it with --force (overwrite=True).")
    if not (target / DESCRIPTION).is_file():
        raise FileExistsError(f"{target} is no converted dataset, so it is not replaced. Name another folder, or remove it.")


def _write(data: OfflineDataset, folder: Path, count: Callable[[int], None], task: str | None) -> None:
    """Write all columns, and the description last, with the environment whose rewards the data has."""
    folder.mkdir()
    for field, column in data.columns():
        name = field.removesuffix("]").replace("[", "/", 1)
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise DatasetError(f"{data.name}: the name {name!r} of a column leads out of the folder.")
        file = folder / f"{name}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as stream:
            header = {"descr": np.lib.format.dtype_to_descr(column.dtype), "fortran_order": False, "shape": column.shape}
            np.lib.format.write_array_header_1_0(stream, header)
            for _, block in blocks(column):
                stream.write(np.ascontiguousarray(block).data)
                count(block.nbytes)
    description = {
        "format": FORMAT,
        "name": data.name,
        "task": task,
        "evidence": data.evidence,
        "understood": dict(data.understood),
        "remarks": list(data.remarks),
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2), "utf-8")


@contextmanager
def _counted(what: str, n_bytes: int, progress: bool) -> Iterator[Callable[[int], None]]:
    """Context manager that shows a progress bar in megabytes, and gives a function that counts bytes."""
    done = 0
    with progress_bar(-(-n_bytes // MEGABYTE), desc=what, unit="megabyte", disable=not progress) as bar:

        def count(more: int) -> None:
            nonlocal done
            before, done = done, done + more
            bar.update(done // MEGABYTE - before // MEGABYTE)

        yield count
        if done % MEGABYTE:
            bar.update(1)
