"""Names of datasets, and suggestions for misspelled names."""

import difflib
import os
import re
from itertools import product
from typing import Any

from sb3_flow.common.data.columns import DatasetError
from sb3_flow.common.data.dataset import OfflineDataset
from sb3_flow.datasets.registry import RECIPES, local_datasets


def _published() -> set[str]:
    """Names of OGBench's datasets."""
    mazes = ("medium", "large", "giant", "teleport")
    found = [
        *product(("pointmaze", "antmaze", "visual-antmaze"), mazes, ("navigate", "stitch")),
        *product(("antmaze", "visual-antmaze"), ("medium", "large", "teleport"), ("explore",)),
        *product(("humanoidmaze", "visual-humanoidmaze"), mazes[:3], ("navigate", "stitch")),
        *product(("antsoccer",), ("arena", "medium"), ("navigate", "stitch")),
        *product(("cube", "visual-cube"), ("single", "double", "triple", "quadruple"), ("play", "noisy")),
        *product(("puzzle", "visual-puzzle"), ("3x3", "4x4", "4x5", "4x6"), ("play", "noisy")),
        *product(("scene", "visual-scene"), ("play", "noisy")),
        *product(("powderworld",), ("easy", "medium", "hard"), ("play",)),
    ]
    return {f"{'-'.join(parts)}-v0" for parts in found}


#: Names of OGBench's datasets, whether or not they are on this machine.
OGBENCH_NAMES = _published()


def no_such_name(source: str) -> DatasetError:
    """
    Create the error for an unknown name.

    :param source: The name
    :return: The error, with the most similar name
    """
    close = _nearest(source)
    hint = f"; did you mean {close!r}?" if close else "; see `sb3-flow datasets list`."
    return DatasetError(f"There is no dataset {source!r}{hint}")


def _nearest(source: str) -> str | None:
    known = [*OGBENCH_NAMES, *RECIPES, *local_datasets()]
    plain = re.sub(r"-singletask(-task\d+)?", "", source.rpartition(":")[2])
    close = difflib.get_close_matches(plain, known, n=1, cutoff=0.8)
    return close[0] if close else None


def read_misspelled(source: Any, env_id: str | None = None) -> OfflineDataset | None:
    """
    Refuse a name that no reader supports but that is similar to the name of a dataset. It is called after all readers.

    :param source: The argument ``dataset``
    :param env_id: Not used
    :return: None if it is something else
    :raises DatasetError: If it is similar to the name of a dataset; the message has this name.
    """
    if isinstance(source, str) and not os.path.exists(source) and _nearest(source) is not None:
        raise no_such_name(source)
    return None
