"""Reader of Diffusion Policy's zarr files, for instance the demonstrations that people gave of Push-T."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from sb3_flow.common.data.columns import DatasetError, Observations
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.optional import require

#: Behind a path: take images and the agent's position in the place of the state.
PIXELS = "#pixels"


def read_zarr(source: Any, env_id: str | None = None) -> OfflineDataset | None:
    """
    Read a zarr file in Diffusion Policy's layout: arrays in ``data``, and ``meta/episode_ends``.

    ``data/action`` holds the actions and ``data/state`` the observations; in ``pusht_cchi_v7_replay.zarr`` these are what
    ``gym_pusht`` calls ``state``: the agent's position, the block's position and angle. ``PATH.zarr#pixels`` takes
    ``data/img`` with the first two numbers of the state as a dictionary in their place: ``pixels`` and ``agent_pos``, as
    ``obs_type="pixels_agent_pos"`` gives them.

    There are no rewards. Every row is a transition, and every episode ends its task: people stopped when they had done it.

    :param source: A path that ends with ``.zarr`` (a folder) or ``.zarr.zip``, with or without ``#pixels``
    :param env_id: Not used
    :return: The data set, or None if the source is no such path
    :raises DatasetError: If the file is missing, damaged, or lacks an array.
    """
    if not isinstance(source, str | os.PathLike):
        return None
    name = os.fspath(source)
    path = Path(name.removesuffix(PIXELS)).expanduser()
    if not path.name.endswith((".zarr", ".zarr.zip")):
        return None
    if not path.exists():
        raise DatasetError(f"{path}: there is no such file.")
    pixels = name.endswith(PIXELS)
    arrays = _read(path, ["action", "state", *(["img"] if pixels else [])])
    actions, ends = arrays["action"], _end_flags(arrays["episode_ends"], len(arrays["action"]), path)
    observations: Observations = arrays["state"]
    if pixels:
        observations = {"pixels": arrays["img"], "agent_pos": arrays["state"][:, :2]}
    return OfflineDataset(
        observations, actions, None, terminations=ends.copy(), ends=ends, valids=np.ones(len(ends), dtype=bool), name=name
    )


def _read(path: Path, fields: list[str]) -> dict[str, np.ndarray]:
    zarr = require("zarr", "datasets", "Reading a zarr file")
    arrays = {}
    try:
        store: Any = str(path)
        if path.suffix == ".zip":
            store = zarr.storage.ZipStore(str(path), mode="r")
        group = zarr.open_group(store, mode="r")
        for field, place in [*((field, f"data/{field}") for field in fields), ("episode_ends", "meta/episode_ends")]:
            if place not in group:
                raise DatasetError(f"{path}: `{place}` is missing; expected the layout of Diffusion Policy.")
            arrays[field] = np.asarray(group[place][:])
    except (OSError, RuntimeError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path}: this is no zarr file, or it is damaged ({error}).") from error
    if "img" in arrays:
        arrays["img"] = _images(arrays["img"], path)
    return arrays


def _images(images: np.ndarray, path: Path) -> np.ndarray:
    """Push-T's images are bytes that are stored as numbers in single precision."""
    if images.dtype != np.uint8 and not (0.0 <= float(images.min()) and 1.0 < float(images.max()) <= 255.0):
        raise DatasetError(f"{path}: `data/img` goes from {images.min()} to {images.max()}; expected values from 0 to 255.")
    return images.astype(np.uint8, copy=False)


def _end_flags(ends: np.ndarray, length: int, path: Path) -> np.ndarray:
    """Whether each row is the last one of its episode; the file has the number of rows up to the end of each."""
    if len(ends) == 0 or ends[-1] != length or (np.diff(ends, prepend=0) <= 0).any():
        raise DatasetError(
            f"{path}: `meta/episode_ends` is {ends}; expected rising numbers, the last one that of all rows, {length}."
        )
    flags = np.zeros(length, dtype=bool)
    flags[ends - 1] = True
    return flags
