"""Files of version 0.1, whose modules have moved."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch as th

#: Modules in files of version 0.1, and their current names.
MOVED = {
    "sb3_flow.common.compact": "sb3_flow.common.checkpoints.old_files",
    "sb3_flow.common.observation_store": "sb3_flow.common.data.observation_store",
    "sb3_flow.common.online_buffer": "sb3_flow.common.data.online_buffer",
    "sb3_flow.flow_opt.diffusion": "sb3_flow.baselines.diffusion_opt",
    "sb3_flow.swfp.whole_flow": "sb3_flow.baselines.whole_flow",
}


@contextmanager
def moved_modules() -> Iterator[None]:
    """Context in which modules can also be imported under their former names."""
    added = {old: importlib.import_module(new) for old, new in MOVED.items() if old not in sys.modules}
    sys.modules.update(added)
    try:
        yield
    finally:
        for old in added:
            sys.modules.pop(old, None)


def _with_zeros(shape: tuple[int, ...], dtype: np.dtype[Any], parts: list[tuple[int, bytes]], is_tensor: bool) -> Any:
    """Large arrays in pickles of version 0.1, which have no blocks of zeros."""
    array = np.zeros(shape, dtype=dtype)  # pages of zeros need no memory before they are written
    raw = array.reshape(-1).view(np.uint8)
    for start, part in parts:
        raw[start : start + len(part)] = np.frombuffer(part, np.uint8)
    return th.from_numpy(array) if is_tensor else array
