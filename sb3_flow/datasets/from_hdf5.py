"""Reader of D4RL's HDF5 files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sb3_flow.common.data.columns import DatasetError
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.optional import require


def read_hdf5(source: Any, env_id: str | None = None) -> OfflineDataset | None:
    """
    Read an HDF5 file in D4RL's layout: ``observations, actions, rewards, terminals, timeouts[, next_observations]``.

    Groups named ``observations`` and ``next_observations`` are dictionary observations. Other groups (``infos``,
    ``metadata``) are not read.

    :param source: A path that ends with ``.hdf5`` or ``.h5``
    :param env_id: Not used
    :return: The data set, or None if the source is no such path
    :raises DatasetError: If the file is missing, damaged, or lacks a field.
    """
    if not isinstance(source, str | os.PathLike):
        return None
    path = Path(source).expanduser()
    if path.suffix not in (".hdf5", ".h5"):
        return None
    if not path.is_file():
        raise DatasetError(f"{path}: there is no such file.")
    h5py = require("h5py", "datasets", "Reading an HDF5 file")
    data: dict[str, Any] = {}
    try:
        with h5py.File(path, "r") as file:
            for field, node in file.items():
                if isinstance(node, h5py.Dataset):
                    if node.dtype.kind in "fiub":  # D4RL stores texts beside the data
                        data[field] = node[()]
                elif field in ("observations", "next_observations"):
                    data[field] = {key: column[()] for key, column in node.items()}
    except (OSError, RuntimeError, KeyError) as error:
        raise DatasetError(f"{path}: this is no HDF5 file, or it is damaged ({error}).") from error
    return OfflineDataset.from_dict(data, str(path))
