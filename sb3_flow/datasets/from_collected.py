"""Reader of the datasets that this package collects (not OGBench's), by name."""

from __future__ import annotations

from typing import Any

from sb3_flow.common.data.columns import DatasetError
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.datasets.arrays import ArrayFile
from sb3_flow.datasets.from_arrays import read_fields
from sb3_flow.datasets.registry import OGBENCH, RECIPES, own_directory


def read_collected(source: Any, env_id: str | None = None) -> OfflineDataset | None:
    """
    Read a collected dataset, such as ``pusht``, ``two-routes`` or ``cube-single-expert-task2``.

    :param source: A name
    :param env_id: Not used
    :return: The dataset, or None if the source is something else
    :raises DatasetError: If it has not been collected yet, or its file is damaged.
    """
    if not isinstance(source, str) or source not in RECIPES or RECIPES[source].source == OGBENCH:
        return None
    path = own_directory() / f"{source}.npz"
    if not path.exists():
        raise DatasetError(f"{source}: there is no {path}. Collect it with the expert: `sb3-flow datasets collect {source}`.")
    return read_fields(ArrayFile(path), source, None)
