"""Reader of Diffusion Policy's zarr files, for instance the human demonstrations of Push-T."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from sb3_flow.common.data.columns import BLOCK_BYTES, ColumnBuilder, DatasetError
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.data.fields import Meaning, resolve
from sb3_flow.common.files import reason
from sb3_flow.common.optional import require
from sb3_flow.common.warn import warn
from sb3_flow.datasets.parts import split_parts, user_path

#: Key after a path: read images and the agent's position instead of the state, as in Push-T.
PIXELS = "pixels"
#: Meanings of arrays that are not observations, such as those about episodes.
_ABOUT_EPISODES = set(Meaning) - {Meaning.OBSERVATION, Meaning.INFORMATION}


def read_zarr(source: Any, env_id: str | None = None) -> OfflineDataset | None:
    """
    Read a zarr file in Diffusion Policy's layout, of version 2 or 3: arrays in ``data``, and ``meta/episode_ends``.

    ``data/action`` has the actions. ``data/state`` has the observations, if it exists; in ``pusht_cchi_v7_replay.zarr`` these
    are the observations ``state`` of ``gym_pusht``: the agent's position, the block's position and angle. Otherwise all other
    arrays are parts of a dictionary. ``PATH.zarr#KEY,KEY`` reads these arrays. ``PATH.zarr#pixels`` reads ``data/img`` and the
    first two elements of the state as a dictionary with ``pixels`` and ``agent_pos``, as ``obs_type="pixels_agent_pos"`` of
    Push-T. Compressed images (JPEG 2000 and others) need
    ``imagecodecs``.

    :param source: A path that ends with ``.zarr`` (a folder) or ``.zarr.zip``, with or without ``#`` and keys
    :param env_id: Not used
    :return: The dataset, or None if the source is something else
    :raises DatasetError: If the file is missing, damaged, or lacks an array.
    """
    if not isinstance(source, str | os.PathLike):
        return None
    text, keys = split_parts(os.fspath(source))
    path = user_path(text)
    if not path.name.endswith((".zarr", ".zarr.zip")):
        return None
    if not path.exists():
        raise DatasetError(f"{path}: there is no such file.")
    zarr = require("zarr", "datasets", "Reading a zarr file")
    try:
        store: Any = zarr.storage.ZipStore(str(path), mode="r") if path.suffix == ".zip" else str(path)
        group = zarr.open_group(store, mode="r")
        return OfflineDataset.from_dict(_columns(group, keys, path), os.fspath(source))
    except (DatasetError, ImportError):
        raise
    except Exception as error:  # zarr raises many classes for damaged files
        raise DatasetError(f"{path}: this is no zarr file, or it is damaged ({reason(error)}).") from error


def _columns(group: Any, keys: list[str], path: Path) -> dict[str, Any]:
    """The arrays by name, for ``OfflineDataset.from_dict``."""
    names = _names(path)
    for place in ("data/action", "meta/episode_ends"):
        if place not in group:
            raise DatasetError(f"{path}: `{place}` is missing; expected the layout of Diffusion Policy.")
    about = [field.name for field in resolve(names) if field.meaning in _ABOUT_EPISODES]
    there = [name for name in names if name not in about]
    chosen = keys or (["state"] if "state" in there else there)
    wanted = ["img", "state"] if chosen == [PIXELS] else chosen
    missing = [key for key in wanted if key not in there]
    if missing or not wanted:
        raise DatasetError(f"{path}: `data/{missing[0] if missing else 'state'}` is missing; there: {', '.join(names)}.")
    left = [name for name in there if name not in wanted]
    if left and not keys:
        warn(
            f"{path}: not used: {', '.join(f'`{name}`' for name in left)}. Take parts by their names, `{path.name}#"
            f"{','.join([*wanted, left[0]])}`."
        )
    parts = {key: _array(group["data"], key, path) for key in wanted}
    observations: Any = parts
    if chosen == [PIXELS]:
        observations = {"pixels": parts["img"], "agent_pos": parts["state"][:, :2]}
    elif chosen == ["state"]:
        observations = parts["state"]
    columns = {name: _array(group["data"], name, path) for name in about}
    return {"observations": observations, **columns, "episode_ends": _array(group["meta"], "episode_ends", path)}


def _names(path: Path) -> list[str]:
    """The names in ``data``. Arrays are not opened, because an array that is not used may need a codec."""
    if path.is_dir():
        data = path / "data"
        return sorted(entry.name for entry in data.iterdir() if entry.is_dir()) if data.is_dir() else []
    with zipfile.ZipFile(path) as archive:
        places = [name.split("/") for name in archive.namelist()]
    return sorted({place[1] for place in places if place[0] == "data" and len(place) > 2})


def _array(group: Any, name: str, path: Path) -> np.ndarray:
    """Read an array block by block; images in single precision are converted to uint8."""
    try:
        array = group[name]
        codecs = [*(array.filters or ()), *(array.compressors or ())]
    except (ValueError, KeyError) as error:
        array, codecs = _with_image_codecs(group, name, path, error)
    if array.dtype.kind not in "fiub" or any("pickle" in repr(codec).lower() for codec in codecs):
        raise DatasetError(f"{path}: `{name}` holds Python objects; expected numbers.")
    if array.ndim == 0:
        raise DatasetError(f"{path}: `{name}` is a single value; expected one a row.")
    column, length = ColumnBuilder(), array.shape[0]
    rows = max(1, BLOCK_BYTES * length // max(array.nbytes, 1))
    for start in range(0, max(length, 1), rows):
        block = np.asarray(array[start : start + rows])
        column.append(_images(block, name, path) if block.ndim == 4 else block)
    return column.finish()


def _with_image_codecs(group: Any, name: str, path: Path, error: Exception) -> tuple[Any, list[Any]]:
    """Try again with registered image codecs."""
    if "codec" not in str(error):
        raise error
    try:
        codecs = require("imagecodecs.numcodecs", "datasets", f"{path}: reading the compressed images in `{name}`")
    except ImportError as missing:
        raise ImportError(f"{missing} ({error})") from error
    codecs.register_codecs(verbose=False)
    try:
        array = group[name]
    except (ValueError, KeyError) as again:
        raise DatasetError(f"{path}: `{name}` cannot be decompressed ({again}).") from again
    return array, [*(array.filters or ()), *(array.compressors or ())]


def _images(images: np.ndarray, name: str, path: Path) -> np.ndarray:
    if images.dtype != np.uint8 and not (0.0 <= float(images.min()) and 1.0 < float(images.max()) <= 255.0):
        raise DatasetError(f"{path}: `data/{name}` goes from {images.min()} to {images.max()}; expected values from 0 to 255.")
    return images.astype(np.uint8, copy=False)
