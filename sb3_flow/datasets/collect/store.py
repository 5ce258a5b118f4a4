"""Files of a collection. They are written atomically, so that a run that was killed can continue."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from sb3_flow.datasets.arrays import DAMAGE
from sb3_flow.datasets.collect.expert import Episode


@contextmanager
def atomic_write(path: Path, scratch: Path | None = None) -> Iterator[IO[bytes]]:
    """
    Context manager that writes a file. It appears with its name only when it is complete and on disk.

    :param path: The file; an existing one is replaced.
    :param scratch: Folder on the same disk for the unfinished file; default: the folder of the file
    :return: The open file
    """
    with tempfile.NamedTemporaryFile(dir=scratch or path.parent, suffix=".tmp", delete=False) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            file.close()
            os.unlink(file.name)
            raise
    os.chmod(file.name, 0o644)  # temporary files can be read by their owner only
    os.replace(file.name, path)


class PartialCollection:
    """
    The finished episodes of a collection, in a folder beside its target.

    :param folder: The folder
    :param settings: Settings that determine the episodes. Episodes with other settings are not used.
    :param states: Number of rows of each episode; None: it differs.
    :param restart: Whether to delete episodes with other settings, instead of raising an error
    :raises ValueError: If the folder has episodes with other settings.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], states: int | None, restart: bool) -> None:
        self.folder = folder
        self._states = states
        found = self._read_settings()
        if found is not None and found != settings:
            if not restart:
                different = [key for key in sorted({*found, *settings}) if found.get(key) != settings.get(key)]
                changes = ", ".join(f"{key}: {found.get(key)!r} there, {settings.get(key)!r} now" for key in different)
                raise ValueError(
                    f"{folder} has an unfinished collection with other settings ({changes}). Finish it with those, "
                    "start again with --overwrite (overwrite=True), or remove the folder."
                )
            shutil.rmtree(folder)
            found = None
        if found is None:
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(folder / "settings.json") as file:
                file.write(json.dumps(settings, indent=2, sort_keys=True).encode())

    def _read_settings(self) -> dict[str, Any] | None:
        try:
            settings = json.loads((self.folder / "settings.json").read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return settings if isinstance(settings, dict) else {}

    def path(self, split: str, index: int) -> Path:
        """
        The file of an episode.

        :param split: ``"train"`` or ``"val"``
        :param index: Number of the episode, from 0
        :return: The file
        """
        return self.folder / f"{split}-{index:06d}.npz"

    def has(self, split: str, index: int) -> bool:
        """
        Whether an episode is finished. A file that cannot be read is not.

        :param split: ``"train"`` or ``"val"``
        :param index: Number of the episode, from 0
        :return: Whether it is
        """
        path = self.path(split, index)
        if not path.exists():
            return False
        try:
            rows = len(np.load(path, allow_pickle=False)["actions"])
        except DAMAGE:
            return False
        return self._states is None or rows == self._states

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder)


def write_episode(path: Path, episode: Episode) -> None:
    """
    Store one episode.

    :param path: The file
    :param episode: Its fields
    """
    with atomic_write(path) as file:
        np.savez(file, **episode)  # type: ignore[arg-type]


def join_episodes(path: Path, episodes: Sequence[Path], scratch: Path, metadata: dict[str, Any] | None = None) -> None:
    """
    Write the ``.npz`` file of a dataset, field by field, so that only one episode is in memory at a time.

    Equal episodes give equal files, byte for byte: the archive has no time stamps.

    :param path: The file
    :param episodes: The stored episodes, in order. Fields whose names begin with ``episode_`` have one row per episode, all
        others one per step.
    :param scratch: Folder on the same disk for the unfinished file
    :param metadata: Metadata, stored as JSON in the field ``metadata``; None: there is no such field
    """
    with np.load(episodes[0], allow_pickle=False) as first:
        columns = {field: first[field] for field in first.files}
    rows = 0
    for episode in episodes:
        with np.load(episode, allow_pickle=False) as stored:
            rows += len(stored[next(iter(columns))])
    with atomic_write(path, scratch) as file, zipfile.ZipFile(file, "w") as archive:
        for field, column in columns.items():
            header = {
                "descr": np.lib.format.dtype_to_descr(column.dtype),
                "fortran_order": False,
                "shape": (len(episodes) if field.startswith("episode_") else rows, *column.shape[1:]),
            }
            with archive.open(_entry(field), "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                for episode in episodes:
                    with np.load(episode, allow_pickle=False) as stored:
                        member.write(np.ascontiguousarray(stored[field]).tobytes())
        if metadata is not None:
            with archive.open(_entry("metadata"), "w") as member:
                np.lib.format.write_array(member, np.array(json.dumps(metadata, sort_keys=True)), allow_pickle=False)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], scratch: Path) -> None:
    """
    Write an ``.npz`` file. Equal arrays give equal files, byte for byte: the archive has no time stamps.

    :param path: The file
    :param arrays: The arrays by name
    :param scratch: Folder on the same disk for the unfinished file
    """
    with atomic_write(path, scratch) as file, zipfile.ZipFile(file, "w") as archive:
        for field, array in arrays.items():
            with archive.open(_entry(field), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


def _entry(field: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(f"{field}.npy")  # dated 1 January 1980
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry
