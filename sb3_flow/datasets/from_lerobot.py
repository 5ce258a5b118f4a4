"""Reader of LeRobot's datasets, of versions 1 to 3."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sb3_flow.common.data.columns import BLOCK_BYTES, ColumnBuilder, DatasetError, Observations, take
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.common.optional import require
from sb3_flow.common.warn import warn
from sb3_flow.datasets.parquet_columns import ParquetColumns
from sb3_flow.datasets.parts import split_parts, user_path
from sb3_flow.datasets.videos import frames_at

#: Columns of observations, and their names in LeRobot's environments (gym_pusht and others).
OBSERVATIONS = {
    "observation.image": "pixels",
    "observation.environment_state": "environment_state",
    "observation.state": "agent_pos",
}
#: Required columns: actions, and the order of the rows.
NEEDED = ("action", "episode_index", "frame_index")
#: Columns about rewards and episodes.
OTHERS = ("next.reward", "next.done", "next.truncated", "next.success", "timestamp", "task_index")


def read_lerobot(source: Any, env_id: str | None = None) -> OfflineDataset | None:
    """
    Read a LeRobot dataset: a folder with parquet files in ``data`` (of version 1, 2 or 3), or one such file.

    ``observation.state`` becomes ``agent_pos``, ``observation.image`` becomes ``pixels``, and ``observation.images.top``
    ``pixels_top`` of a dictionary, as in LeRobot's environments; other columns keep their name without ``observation.``. Data
    with a single vector is not a dictionary. Images may be in the parquet files or in videos, which are decoded with PyAV or
    OpenCV. ``next.reward`` is the reward, and ``next.done`` marks where the task ended; without it, the observation
    after the last action of an episode is not known, and only imitation uses that action.

    :param source: A path: a folder that has ``data/**/*.parquet``, or a file that ends with ``.parquet``. ``PATH#KEY,KEY``
        reads these parts of the observations only; ``task`` is the number of the task as a one-hot vector, and
        ``task=TASK`` selects the episodes of one task, by its number or its text.
    :param env_id: Not used
    :return: The dataset, or None if the source is something else
    :raises DatasetError: If a file is missing, damaged, or lacks a column.
    """
    if not isinstance(source, str | os.PathLike):
        return None
    name, keys = split_parts(os.fspath(source))
    path = user_path(name)
    if path.suffix == ".parquet":
        if not path.is_file():
            raise DatasetError(f"{path}: there is no such file.")
        files, folder = [path], None
    else:
        files, folder = sorted(path.glob("data/**/*.parquet")), path
        if not files:
            return None
    tables = ParquetColumns(files, path)
    if folder is None and not {"episode_index", "frame_index"} <= set(tables.names):
        return None  # a table of something else
    missing = [column for column in NEEDED if column not in tables.names]
    if missing:
        raise DatasetError(f"{files[0]}: the column `{missing[0]}` is missing. Found: {', '.join(tables.names)}.")
    return _Reader(tables, folder, keys, str(path)).read()


class _Reader:
    def __init__(self, tables: ParquetColumns, folder: Path | None, keys: list[str], name: str) -> None:
        self.tables, self.name = tables, name
        self.folder = folder
        self.info = _read_json(folder / "meta" / "info.json") if folder is not None else {}
        tasks = [key.removeprefix("task=") for key in keys if key.startswith("task=")]
        if len(tasks) > 1:
            raise DatasetError(f"{name}: one task can be chosen, not {', '.join(tasks)}; for several, pass a list of paths.")
        self.task = tasks[0] if tasks else None
        self.keys = [key for key in keys if not key.startswith("task=")]

    def read(self) -> OfflineDataset:
        columns = {name: self.tables.column(name) for name in (*NEEDED, *OTHERS) if name in self.tables.names}
        order = np.lexsort((columns["frame_index"], columns["episode_index"]))
        order = order[self._of_task(columns)[order]]
        columns = {name: column[order] for name, column in columns.items()}
        data: dict[str, Any] = {name: columns[name] for name in (*NEEDED, *OTHERS) if name in columns}
        data["observations"] = self._observations(order, columns)
        dataset = OfflineDataset.from_dict(data, self.name)
        if {"next.done", "next.success"} <= set(columns):
            without = np.count_nonzero(columns["next.done"].reshape(-1) & ~columns["next.success"].reshape(-1))
            if without:
                remark = f"{without:,} times `next.done` is set without `next.success`, which counts as the end of the task"
                dataset = replace(dataset, remarks=(*dataset.remarks, remark))
        return dataset

    # Tasks.

    def _of_task(self, columns: dict[str, np.ndarray]) -> np.ndarray:
        """Flags of the rows of the selected task."""
        rows = len(columns["episode_index"])
        numbers = columns.get("task_index", np.zeros(rows, dtype=np.int64))
        texts = self._task_texts()
        named = {
            number: f"{number} ({texts[number]!r})" if number in texts else str(number) for number in set(numbers.tolist())
        }
        if self.task is None:
            if len(named) > 1 and "task" not in self.keys:
                warn(
                    f"{self.name}: it has {len(named)} tasks, {', '.join(named.values())}, and the observations do not tell "
                    "which. Take one (`PATH#task=0`), or let the policy see it (`PATH#agent_pos,task`)."
                )
            return np.ones(rows, dtype=bool)
        chosen = [number for number in named if self.task in (str(number), texts.get(number))]
        if not chosen:
            raise DatasetError(f"{self.name}: there is no task {self.task!r}; there: {', '.join(named.values())}.")
        mine: np.ndarray = numbers == chosen[0]
        return mine

    def _task_texts(self) -> dict[int, str]:
        """The texts of the tasks by their numbers, from files of version 3 or 2; empty if there are none."""
        if self.folder is None:
            return {}
        lines, table = self.folder / "meta" / "tasks.jsonl", self.folder / "meta" / "tasks.parquet"
        if table.is_file():
            columns = self.tables.parquet.read_table(table).to_pydict()
            texts: list[str] = next((values for name, values in columns.items() if name != "task_index"), [])
            return dict(zip(columns.get("task_index", []), texts, strict=False))
        if lines.is_file():
            tasks = [json.loads(line) for line in lines.read_text("utf-8").splitlines() if line]
            return {task["task_index"]: task["task"] for task in tasks}
        return {}

    # Observations.

    def _observations(self, order: np.ndarray, columns: dict[str, np.ndarray]) -> Observations:
        videos = [name for name, feature in self.info.get("features", {}).items() if feature.get("dtype") == "video"]
        fields = [*OBSERVATIONS, *(name for name in (*self.tables.names, *videos) if name.startswith("observation."))]
        fields = [name for name in dict.fromkeys(fields) if name in self.tables.names or name in videos]
        keys = {_key(name): name for name in fields}
        wanted = self.keys or list(keys)
        tasks = ["task"] if "task_index" in columns else []
        unknown = [key for key in wanted if key not in keys and key not in tasks]
        if unknown or not keys:
            raise DatasetError(
                f"{self.name}: the observations have no part {', '.join(unknown) or 'at all'}; there: "
                f"{', '.join(keys) or 'none'}. Found columns: {', '.join(self.tables.names)}."
            )
        parts: dict[str, np.ndarray] = {}
        for key in wanted:
            if key == "task":
                parts[key] = np.eye(int(columns["task_index"].max()) + 1, dtype=np.float32)[columns["task_index"]]
            elif keys[key] in videos and keys[key] not in self.tables.names:
                parts[key] = self._video(keys[key], columns)
            else:
                parts[key] = self._column(keys[key], order)
        if len(parts) == 1 and not self.keys and next(iter(parts.values())).ndim == 2:
            return next(iter(parts.values()))
        return parts

    def _column(self, name: str, order: np.ndarray) -> np.ndarray:
        in_order = len(order) == 0 or (order[0] == 0 and (np.diff(order) == 1).all())
        if name not in self.tables.structures:
            column = self.tables.column(name)
            column = column[:, None] if column.ndim == 1 else column
            return column if in_order and len(order) == len(column) else take(column, order)
        label = f"{self.name}: `{name}`"
        if "timestamp" in self.tables.structures[name]:
            places = [row for _, row in _in_order(self.tables.rows(name), order)]
            return self._frames([(str(row["path"]), float(row["timestamp"])) for row in places], label)
        images = (_image(row, label, self.folder) for row in self.tables.rows(name))
        column = _build(images, label)
        return column if in_order and len(order) == len(column) else take(column, order)

    def _video(self, name: str, columns: dict[str, np.ndarray]) -> np.ndarray:
        """The frames of one camera, from the videos that ``meta`` names."""
        assert self.folder is not None
        template = self.info.get("video_path")
        if template is None:
            raise DatasetError(f"{self.name}: meta/info.json does not say where the videos of `{name}` are (`video_path`).")
        if "timestamp" not in columns:
            raise DatasetError(f"{self.name}: the column `timestamp` is missing, by which frames of videos are found.")
        episodes = self._episodes(name)
        places = []
        for episode, time in zip(columns["episode_index"].tolist(), columns["timestamp"].tolist(), strict=True):
            chunk, file, start = episodes.get(episode, (episode // int(self.info.get("chunks_size", 1000)), 0, 0.0))
            path = template.format(
                video_key=name, chunk_index=chunk, file_index=file, episode_chunk=chunk, episode_index=episode
            )
            places.append((path, start + time))
        return self._frames(places, f"{self.name}: `{name}`")

    def _episodes(self, name: str) -> dict[int, tuple[int, int, float]]:
        """Video file of each episode and its start time, in version 3; empty in earlier versions."""
        assert self.folder is not None
        found = {}
        for file in sorted(self.folder.glob("meta/episodes/**/*.parquet")):
            fields = [f"videos/{name}/{field}" for field in ("chunk_index", "file_index", "from_timestamp")]
            columns = self.tables.parquet.read_table(file, columns=["episode_index", *fields]).to_pydict()
            for episode, *place in zip(*(columns[field] for field in ("episode_index", *fields)), strict=True):
                found[episode] = (int(place[0]), int(place[1]), float(place[2]))
        return found

    def _frames(self, places: list[tuple[str, float]], label: str) -> np.ndarray:
        """Frames by the path of their video and their time in it."""
        if self.folder is None:
            raise DatasetError(f"{label} is in videos; pass the folder of the dataset instead of a file.")
        folder = self.folder
        tolerance = 0.5 / float(self.info.get("fps", 30))

        def frames() -> Iterator[np.ndarray]:
            start = 0
            while start < len(places):
                path, stop = places[start][0], start + 1
                while stop < len(places) and places[stop][0] == path and places[stop][1] >= places[stop - 1][1]:
                    stop += 1
                yield from frames_at(Path(folder, path), np.array([time for _, time in places[start:stop]]), tolerance)
                start = stop

        return _build(frames(), label)


def _build(images: Iterator[np.ndarray], label: str) -> np.ndarray:
    """Join images to a column, in blocks."""
    column, block = ColumnBuilder(), list[np.ndarray]()
    try:
        for image in images:
            block.append(image)
            if len(block) * image.nbytes >= BLOCK_BYTES:
                column.append(np.stack(block))
                block = []
        if block:
            column.append(np.stack(block))
    except ValueError as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{label} has images of different shapes ({error}).") from error
    return column.finish()


def _in_order(rows: Iterator[Any], order: np.ndarray) -> list[tuple[int, Any]]:
    listed = list(rows)
    return [(int(row), listed[row]) for row in order]


def _key(name: str) -> str:
    """Key of a part of the observations."""
    key = name.removeprefix("observation.")
    key = f"pixels_{key.removeprefix('images.')}" if key.startswith("images.") else key
    return OBSERVATIONS.get(name, key.replace(".", "_"))


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise DatasetError(f"{path}: this is no JSON file, or it is damaged ({error}).") from error
    return content if isinstance(content, dict) else {}


def _image(row: dict[str, Any], label: str, folder: Path | None) -> np.ndarray:
    """An image as Hugging Face's datasets store it: the content of a file, and its name."""
    content = row.get("bytes")
    if not content:
        file = None if folder is None or not row.get("path") else Path(folder, str(row["path"]))
        if file is None or not file.is_file():
            raise DatasetError(f"{label} holds names of files and not images ({row.get('path')}); expected the images.")
        content = file.read_bytes()
    image = require("PIL.Image", "datasets", "Reading images").open(io.BytesIO(content))
    if image.mode.startswith(("I", "F")):
        raise DatasetError(f"{label} has images of the mode {image.mode}, which 8 bits cannot hold, such as depths.")
    return np.asarray(image.convert("RGB"))
