"""Pickles without blocks of zeros in large arrays, so that only the filled part of a replay buffer is saved."""

from __future__ import annotations

import pickle
from typing import IO, Any

import numpy as np
import torch as th

#: Size of the blocks in bytes; blocks of zeros are omitted. Smaller arrays are written without change.
BLOCK = 2**16
#: Types of the tensors in a replay buffer.
DTYPES = (th.float32, th.uint8, th.bool, th.int64)


def dump(thing: Any, file: IO[bytes]) -> None:
    """
    Pickle an object without the blocks of zeros in its large arrays and tensors. ``pickle.load`` reads the result.

    :param thing: The object, with arrays anywhere in it
    :param file: An open file
    """
    _Pickler(file, protocol=pickle.HIGHEST_PROTOCOL).dump(thing)


class _Pickler(pickle.Pickler):
    def reducer_override(self, thing: Any) -> Any:
        is_tensor = type(thing) is th.Tensor and thing.device.type == "cpu" and thing.dtype in DTYPES
        array = thing.detach().numpy() if is_tensor else thing
        if type(array) is not np.ndarray or array.dtype.hasobject or array.nbytes <= BLOCK or not array.flags.c_contiguous:
            return NotImplemented
        raw = array.reshape(-1).view(np.uint8)
        parts = [(start, pickle.PickleBuffer(raw[start:end].data)) for start, end in written(raw)]
        return _with_zeros, (array.shape, array.dtype, parts, is_tensor)


def written(raw: np.ndarray) -> list[tuple[int, int]]:
    """Start and end of each sequence of blocks with bytes other than zero (-0.0 has such bytes)."""
    stretches: list[tuple[int, int]] = []
    for start in range(0, len(raw), BLOCK):
        end = min(start + BLOCK, len(raw))
        if not raw[start:end].any():
            continue
        if stretches and stretches[-1][1] == start:
            stretches[-1] = stretches[-1][0], end
        else:
            stretches.append((start, end))
    return stretches


def _with_zeros(shape: tuple[int, ...], dtype: np.dtype[Any], parts: list[tuple[int, bytes]], is_tensor: bool) -> Any:
    array = np.zeros(shape, dtype=dtype)  # pages of zeros need no memory before they are written
    raw = array.reshape(-1).view(np.uint8)
    for start, part in parts:
        raw[start : start + len(part)] = np.frombuffer(part, np.uint8)
    return th.from_numpy(array) if is_tensor else array
