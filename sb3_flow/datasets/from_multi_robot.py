"""Reader of datasets of multi-robot plans, by name."""

from __future__ import annotations

import re
from typing import Any

from sb3_flow.common.data.columns import DatasetError
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.datasets.arrays import ArrayFile
from sb3_flow.datasets.from_arrays import read_fields
from sb3_flow.datasets.registry import own_directory

_NAME = re.compile(r"(?P<name>multirobot[23]d)-(?P<robots>\d+(to\d+)?)-v0")


def read_multi_robot(source: Any, env_id: str | None = None) -> OfflineDataset | None:
    """
    Read a dataset of multi-robot plans by its name: ``multirobot2d-16-v0``, or ``multirobot2d-4to8-v0``.

    :param source: A name
    :param env_id: Not used
    :return: The dataset, or None if the source is something else
    :raises DatasetError: If the file is not on this machine.
    """
    match = _NAME.fullmatch(source) if isinstance(source, str) else None
    if match is None:
        return None
    path = own_directory() / f"{source}.npz"
    if not path.exists():
        robots = match["robots"].replace("to", "-")
        raise DatasetError(
            f"{source}: there is no {path}. Collect it: `sb3-flow datasets collect {match['name']} --robots {robots}`."
        )
    return read_fields(ArrayFile(path), source, None)
