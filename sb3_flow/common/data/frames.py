"""Columns of observations in datasets: dictionaries, channels last, single frames to be stacked."""

import math
import warnings
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_flow.common.data.columns import DatasetError, Observations, listed
from sb3_flow.common.encoders import image_keys, subspaces
from sb3_flow.common.type_aliases import TensorObs
from sb3_flow.common.warn import warn

#: Types that PyTorch reads without conversion.
TENSOR_TYPES = tuple(
    map(np.dtype, (bool, np.uint8, np.int8, np.int16, np.int32, np.int64, np.float16, np.float32, np.float64))
)


class Frames:
    """
    A column of observations: dictionaries, images with channels last, and the stacking of single frames.

    If the space has a multiple of the data's channels, frames are stacked, the oldest first. Before the start of a trajectory
    its first frame is repeated.
    """

    def __init__(self, observations: Observations, field: str, name: str, space: spaces.Space[Any], ends: np.ndarray) -> None:
        parts = dict(observations) if isinstance(observations, dict) else {"": observations}
        wanted = subspaces(space)
        if set(parts) != set(wanted):
            raise DatasetError(
                f"{name}: `{field}` has {listed(parts)}, but the observation space has {listed(wanted)}: {space}."
            )
        for key in image_keys(space):
            if parts[key].dtype != np.uint8:
                raise DatasetError(
                    f"{name}: `{field}{f'[{key}]' if key else ''}` has {parts[key].dtype} values, but the observation space "
                    "has images of bytes; expected uint8 values from 0 to 255."
                )
        for key, part in parts.items():
            if wanted[key].shape == () and part.shape[1:] == (1,):  # discrete observations in SB3's buffers
                parts[key] = part.reshape(-1)
        self.columns = {key: as_tensor(storable(part)) for key, part in parts.items()}
        self.channels_last: set[str] = set()
        self.stacks: dict[str, int] = {}
        for key, part in parts.items():
            target = wanted[key].shape
            assert target is not None
            shape = part.shape[1:]
            if len(target) == len(shape) == 3 and shape != target and shape[:2] == target[1:]:
                self.channels_last.add(key)
                shape = (shape[2], *shape[:2])
            if (
                len(target) == len(shape) == 3
                and shape[1:] == target[1:]
                and 0 < shape[0] < target[0]
                and target[0] % shape[0] == 0
            ):
                self.stacks[key] = target[0] // shape[0]
                if (shape[0], target[0]) == (1, 3):
                    label = f"{field}[{key}]" if key else field
                    warn(
                        f"{name}: `{label}` has gray images; three of them in a row are used as one observation of three "
                        "channels. This is wrong if the environment has images in color."
                    )
                shape = target
            if shape != target:
                frames = math.prod(target) / max(1, math.prod(shape))
                hint = (
                    " If the environment stacks frames (`VecFrameStack`, `FrameStackObservation`): only images are stacked "
                    "here. Record the data with the stacked frames, or do not stack them."
                )
                raise DatasetError(
                    f"{name}: `{field}{f'[{key}]' if key else ''}` has the shape {part.shape[1:]} per row, "
                    f"but the observation space has {target}.{hint if frames > 1 and frames % 1 == 0 else ''}"
                )
        if self.stacks:
            self.starts = trajectory_starts(ends)

    def part(self, key: str, rows: th.Tensor) -> th.Tensor:
        """One part of the observations of rows, as a single frame, ``(B, *shape)``."""
        frames = self.columns[key].index_select(0, rows)
        if key in self.channels_last:
            frames = frames.permute(0, 3, 1, 2)
        return frames if frames.dtype == th.uint8 else frames.float()

    def at(self, rows: th.Tensor) -> TensorObs:
        """The observations of rows, ``(B,)``."""
        return self._history(rows, rows)

    def after(self, rows: th.Tensor, follows: th.Tensor) -> TensorObs:
        """
        The next observations of rows, for data in which each state is stored once.

        :param rows: Indices of the rows, ``(B,)``
        :param follows: Whether the next row has the next observation, ``(B,)`` of bool. Otherwise the task ended: nothing is
            bootstrapped, and the observation of the row itself is returned.
        """
        return self._history(rows + follows.long(), rows)

    def _history(self, newest: th.Tensor, rows: th.Tensor) -> TensorObs:
        parts = {}
        for key in self.columns:
            n_frames = self.stacks.get(key, 1)
            if n_frames == 1:
                parts[key] = self.part(key, newest)
            else:
                start = self.starts[th.searchsorted(self.starts, rows, right=True) - 1]
                frames = [self.part(key, th.maximum(newest - age, start)) for age in reversed(range(n_frames))]
                parts[key] = th.cat(frames, dim=1)
        return join(parts)


def trajectory_starts(ends: np.ndarray) -> th.Tensor:
    """The first row of each trajectory, in order, given flags of the last rows, ``(N,)``."""
    return as_tensor(np.concatenate([[0], np.flatnonzero(ends[:-1]) + 1]))


def join(parts: dict[str, th.Tensor]) -> TensorObs:
    """Observations from their parts by key; a single part with the empty key is a plain tensor."""
    return parts[""] if set(parts) == {""} else parts


def as_arrays(observations: TensorObs) -> Observations:
    """Observations as NumPy arrays that share their memory."""
    if isinstance(observations, dict):
        return {key: part.numpy() for key, part in observations.items()}
    return observations.numpy()


def storable(part: np.ndarray) -> np.ndarray:
    """Convert to float32 unless it is uint8, or a memory-mapped file that PyTorch can read."""
    if part.dtype in (np.uint8, np.float32) or (isinstance(part, np.memmap) and part.dtype in TENSOR_TYPES):
        return part
    return part.astype(np.float32)


def readable(part: np.ndarray) -> np.ndarray:
    """Convert to double precision if PyTorch cannot read the type."""
    return part if part.dtype in TENSOR_TYPES else part.astype(np.float64)


def as_tensor(array: np.ndarray) -> th.Tensor:
    """The array as a tensor that shares its memory, even if it is read-only."""
    shareable = isinstance(array, np.memmap) and min(array.strides, default=0) >= 0
    with warnings.catch_warnings():
        # Datasets are not written to, so that they may be read-only.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return th.from_numpy(array if shareable else np.ascontiguousarray(array))
