"""Reader of LeRobot's datasets, for instance ``lerobot/pusht_image`` and ``lerobot/pusht_keypoints``."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from sb3_flow.common.data.columns import DatasetError, Observations
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.optional import require

#: Columns of observations, and what LeRobot's environments (gym_pusht and others) call them.
OBSERVATIONS = {
    "observation.image": "pixels",
    "observation.environment_state": "environment_state",
    "observation.state": "agent_pos",
}
#: Columns without which nothing can be learned, and those that order the rows.
NEEDED = ("action", "episode_index", "frame_index")


def read_lerobot(source: Any, env_id: str | None = None) -> OfflineDataset | None:
    """
    Read a LeRobot dataset: a folder with parquet files in ``data`` (of version 1, 2 or 3), or one such file.

    The columns ``observation.image``, ``observation.environment_state`` and ``observation.state`` become ``pixels``,
    ``environment_state`` and ``agent_pos`` of a dictionary, as LeRobot's environments have it. Images must be in the parquet
    files; videos are not read. ``next.reward`` is the reward, if there is one. Every row is a transition, and every episode
    ends its task, for nobody recorded what came after its last action.

    :param source: A path: a folder that has ``data/**/*.parquet``, or a file that ends with ``.parquet``
    :param env_id: Not used
    :return: The data set, or None if the source is no such path
    :raises DatasetError: If the file is missing, damaged, lacks a column, or its images are videos.
    """
    if not isinstance(source, str | os.PathLike):
        return None
    path = Path(source).expanduser()
    if path.suffix == ".parquet":
        if not path.is_file():
            raise DatasetError(f"{path}: there is no such file.")
        files = [path]
    else:
        files = sorted(path.glob("data/**/*.parquet"))
        if not files:
            return None
    columns = _read(files, path)
    order = np.lexsort((columns["frame_index"], columns["episode_index"]))
    columns = {name: column[order] for name, column in columns.items()}
    found = {key: columns[name] for name, key in OBSERVATIONS.items() if name in columns}
    if set(found) <= {"agent_pos"}:
        raise DatasetError(
            f"{path}: beside the robot's own state there is no observation. Found: {', '.join(columns)}. Images that are "
            "videos are not read; of Push-T, take lerobot/pusht_image or lerobot/pusht_keypoints."
        )
    observations: Observations = found
    episodes = columns["episode_index"]
    ends = np.append(np.diff(episodes) != 0, True)
    return OfflineDataset(
        observations,
        columns["action"],
        columns.get("next.reward"),
        terminations=ends.copy(),
        ends=ends,
        valids=np.ones(len(ends), dtype=bool),
        name=str(path),
    )


def _read(files: list[Path], path: Path) -> dict[str, np.ndarray]:
    parquet = require("pyarrow.parquet", "datasets", "Reading a LeRobot dataset")
    arrow = require("pyarrow", "datasets", "Reading a LeRobot dataset")
    wanted = [*NEEDED, *OBSERVATIONS, "next.reward"]
    parts: dict[str, list[np.ndarray]] = {}
    for file in files:
        try:
            names = parquet.read_schema(file).names
            missing = [name for name in NEEDED if name not in names]
            if missing:
                raise DatasetError(f"{file}: the column `{missing[0]}` is missing. Found: {', '.join(names)}.")
            table = parquet.read_table(file, columns=[name for name in wanted if name in names])
        except (OSError, arrow.ArrowException) as error:
            raise DatasetError(f"{file}: this is no parquet file, or it is damaged ({error}).") from error
        for name in table.column_names:
            parts.setdefault(name, []).append(_column(table[name].to_pylist(), f"{file}: `{name}`"))
    incomplete = [name for name, arrays in parts.items() if len(arrays) != len(files)]
    if incomplete:
        raise DatasetError(f"{path}: not all of its files have the column `{incomplete[0]}`.")
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _column(rows: list[Any], label: str) -> np.ndarray:
    if rows and isinstance(rows[0], dict):
        rows = [_image(row, label) for row in rows]
    try:
        column = np.array(rows)
    except ValueError as error:  # rows of different lengths
        raise DatasetError(f"{label} is no array of numbers ({error}).") from error
    return column.astype(np.float32) if column.dtype.kind == "f" else column


def _image(row: dict[str, Any], label: str) -> np.ndarray:
    """An image as Hugging Face's datasets store it: the bytes of a file, with its name beside them."""
    if not row.get("bytes"):
        raise DatasetError(f"{label} holds names of files and not images; expected the images themselves.")
    image = require("PIL.Image", "datasets", "Reading images").open(io.BytesIO(row["bytes"]))
    return np.asarray(image.convert("RGB"))
