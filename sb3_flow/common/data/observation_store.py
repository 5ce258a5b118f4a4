"""Storage of the observations of a replay buffer, without duplicates."""

import math
from typing import Any

import numpy as np
import torch as th

#: Initial memory for the last observations of episodes, as a share of the rest; it grows if needed.
SLACK = 1 / 8


def zeros(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """
    Allocate storage of a replay buffer, which takes no memory before it is written to.

    :param shape: Its shape
    :param dtype: Its type
    :return: An array of zeros
    :raises MemoryError: If the machine does not have that much memory; the message gives advice.
    """
    try:
        return np.zeros(shape, dtype=dtype)
    except MemoryError as error:
        size = math.prod(shape) * np.dtype(dtype).itemsize / 2**30
        raise MemoryError(
            f"The replay buffer needs {size:,.1f} GiB in one piece (an array of shape {shape}), which this machine does not "
            "have. Pass a smaller `buffer_size`."
        ) from error


class ObservationStore:
    """
    The observation and the next observation of each row of a ring buffer, as lists of planes. Each plane is stored once.

    A vector is one plane; an image has one plane per channel. The next observation of a row is usually the observation of the
    next row of the same environment, and a stack of frames is usually the previous stack, shifted by one frame. Planes that
    are stored already are found by comparing an observation with the previous one. The stored observations are therefore
    exact, also at ends of episodes and for any way of stacking frames. Memory is used only when it is written to.

    :param n_rows: Number of rows of the ring buffer, over all environments
    :param shape: Shape of an observation
    :param dtype: Type of the stored values
    :param n_planes: Number of planes along the first axis; 1: the observation is one plane
    """

    def __init__(self, n_rows: int, shape: tuple[int, ...], dtype: Any, n_planes: int = 1) -> None:
        self.n_rows, self.shape, self.dtype, self.n_planes = n_rows, shape, np.dtype(dtype), n_planes
        self.plane_size = math.prod(shape) // n_planes
        #: Possible shifts of an observation in planes: none, or one frame of a stack.
        self.shifts = [0, *(shift for shift in range(1, n_planes) if n_planes % shift == 0)]
        #: Allocated slots of planes, in consecutive blocks; slot 0 is not used.
        self.blocks: list[np.ndarray] = []
        self.n_used, self.free = 1, list[int]()
        #: Number of observations that use each slot.
        self.uses = np.zeros(0, dtype=np.int32)
        #: The latest observation of each environment: its planes, and their slots.
        self.newest: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, rows: slice, obs: np.ndarray, next_obs: np.ndarray) -> None:
        """
        Write one row of each environment, and overwrite the previous content.

        :param rows: The rows
        :param obs: ``(n_envs, *shape)``
        :param next_obs: Next observations, ``(n_envs, *shape)``
        :raises MemoryError: If there is too little memory for all rows.
        """
        planes, next_planes = (
            np.array(part, dtype=self.dtype).reshape(-1, self.n_planes, self.plane_size) for part in (obs, next_obs)
        )
        if not self.blocks:
            # The slots of each row's planes, `slots[0]` of its observation, `slots[1]` of the next observation.
            slot_type = np.int32 if 2 * self.n_rows * self.n_planes < 2**31 else np.int64
            self.slots = zeros((2, self.n_rows, self.n_planes), slot_type)
            moved_on = max(int(self._moved_on(planes, next_planes).max()), 1)
            self._grow(math.ceil(self.n_rows * moved_on * (1 + SLACK)))
        # In this order an interruption loses some slots at worst, but no observation.
        new = np.stack([self._slots_of(planes), self._slots_of(next_planes)])
        for slots in new:  # slots of one observation differ, those of both may be equal
            self.uses[slots] += 1
        old = self.slots[:, rows].copy()
        self.slots[:, rows] = new
        for slots in old:  # rows that were not written yet have slot 0, whose count is negative and never 0 here
            self.uses[slots] -= 1
            self.free += slots[self.uses[slots] == 0].tolist()

    def at(self, rows: th.Tensor) -> th.Tensor:
        """The observations of rows, ``(B,)``."""
        return self._read(self.slots[0], rows)

    def after(self, rows: th.Tensor) -> th.Tensor:
        """The next observations of rows, ``(B,)``."""
        return self._read(self.slots[1], rows)

    def _read(self, column: np.ndarray, rows: th.Tensor) -> th.Tensor:
        slots = th.from_numpy(column).index_select(0, rows).flatten()
        blocks = [th.from_numpy(block) for block in self.blocks]
        if len(blocks) == 1:
            planes = blocks[0].index_select(0, slots)
        else:
            planes, start = th.empty((len(slots), self.plane_size), dtype=blocks[0].dtype), 0
            for block in blocks:
                inside = ((slots >= start) & (slots < start + len(block))).nonzero().flatten()
                planes[inside] = block.index_select(0, slots[inside] - start)
                start += len(block)
        return planes.view(len(rows), *self.shape)

    def _moved_on(self, before: np.ndarray, planes: np.ndarray) -> np.ndarray:
        """Shift of the observation of each environment in planes; ``n_planes`` if it has no plane in common."""
        moved_on = np.full(len(planes), self.n_planes)
        for shift in reversed(self.shifts):
            same: np.ndarray = (planes[:, : self.n_planes - shift] == before[:, shift:]).all(axis=(1, 2))
            moved_on[same] = shift
        return moved_on

    def _slots_of(self, planes: np.ndarray) -> np.ndarray:
        """Slots of the planes of each environment, ``(n_envs, n_planes, plane_size)``; new planes are stored."""
        slots = np.zeros(planes.shape[:2], dtype=self.slots.dtype)
        if self.newest is not None:
            before, slots_before = self.newest
            moved_on = self._moved_on(before, planes)
            for shift in set(moved_on.tolist()):
                same = moved_on == shift
                slots[same, : self.n_planes - shift] = slots_before[same, shift:]
        new = slots == 0
        slots[new] = self._store(planes[new])
        self.newest = planes, slots
        return slots

    def _store(self, planes: np.ndarray) -> np.ndarray:
        """Write planes, ``(n, plane_size)``, into free slots."""
        n_again = min(len(planes), len(self.free))
        n_before, self.n_used = self.n_used, self.n_used + len(planes) - n_again
        slots = np.array(
            [self.free.pop() for _ in range(n_again)] + list(range(n_before, self.n_used)), dtype=self.slots.dtype
        )
        if self.n_used > len(self.uses):
            self._grow(max(len(self.uses) // 2, self.n_used - len(self.uses)))
        start = 0
        for block in self.blocks:
            inside = (slots >= start) & (slots < start + len(block))
            block[slots[inside] - start] = planes[inside]
            start += len(block)
        return slots

    def _grow(self, n_slots: int) -> None:
        self.blocks.append(zeros((n_slots, self.plane_size), self.dtype))
        self.uses = np.concatenate([self.uses, np.zeros(n_slots, dtype=self.uses.dtype)])

    def state(self, n_rows: int) -> dict[str, Any]:
        """
        The settings and the written content, for ``from_state``. Arrays are not copied.

        :param n_rows: Number of rows that have been written
        """
        assert self.newest is not None
        return {
            "shape": self.shape,
            "dtype": self.dtype,
            "n_planes": self.n_planes,
            "sizes": [len(block) for block in self.blocks],
            "blocks": self.used_blocks(),
            "slots": self.slots[:, :n_rows],
            "uses": self.uses[: self.n_used],
            "free": np.array(self.free, dtype=np.int64),
            "newest": self.newest,
        }

    @classmethod
    def from_state(cls, n_rows: int, state: dict[str, Any]) -> "ObservationStore":
        """
        :param n_rows: Number of rows of the ring buffer
        :param state: As returned by ``state``
        :return: The store
        :raises ValueError: If the parts are inconsistent.
        """
        store = cls(n_rows, tuple(state["shape"]), state["dtype"], state["n_planes"])
        slots, uses, (planes, newest) = state["slots"], state["uses"], state["newest"]
        n_used = sum(map(len, state["blocks"]))
        indices = (slots, state["free"], newest)
        for array, axes in ((slots, 3), (state["free"], 1), (newest, 2), (uses, 1)):
            if array.dtype not in (np.int32, np.int64) or array.ndim != axes:
                raise ValueError(f"its observations have indices of {array.dtype} and the shape {array.shape}")
        if slots.shape != (2, min(slots.shape[1], n_rows), store.n_planes) or newest.shape != planes.shape[:2]:
            raise ValueError("its observations have indices of another shape")
        if any(part.dtype != store.dtype or part.shape[1:] != (store.plane_size,) for part in state["blocks"]):
            raise ValueError("its observations have another type or shape")
        if not all(part.size == 0 or 0 <= part.min() <= part.max() < n_used for part in indices) or len(uses) != n_used:
            raise ValueError("its observations are missing")
        if planes.dtype != store.dtype or planes.shape[1:] != (store.n_planes, store.plane_size):
            raise ValueError("its observations have another shape")
        store.blocks = [zeros((size, store.plane_size), store.dtype) for size in state["sizes"]]
        for block, used in zip(store.blocks, state["blocks"], strict=True):
            block[: len(used)] = used
        store.slots = zeros((2, n_rows, store.n_planes), slots.dtype)
        store.slots[:, : slots.shape[1]] = slots
        store.uses = np.concatenate([uses, np.zeros(sum(state["sizes"]) - n_used, dtype=uses.dtype)])
        store.n_used, store.free, store.newest = n_used, state["free"].tolist(), tuple(state["newest"])
        return store

    def used_blocks(self) -> list[np.ndarray]:
        """The slots of each block that have been used."""
        left, used = self.n_used, []
        for block in self.blocks:
            used.append(block[:left])
            left = max(left - len(block), 0)
        return used

    def __getstate__(self) -> dict[str, Any]:
        # Slots that were never used are not saved.
        return {**self.__dict__, "blocks": self.used_blocks(), "sizes": [len(block) for block in self.blocks]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.blocks = [zeros((size, self.plane_size), self.dtype) for size in self.__dict__.pop("sizes")]
        for block, used in zip(self.blocks, state["blocks"], strict=True):
            block[: len(used)] = used
