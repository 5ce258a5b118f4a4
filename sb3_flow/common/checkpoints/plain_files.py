"""
Files of plain data: ``.npz`` archives, one of whose arrays is JSON. Pickles are read only if they are trusted.
"""

from __future__ import annotations

import json
import pickle
from typing import IO, Any

import numpy as np

from sb3_flow.common.checkpoints.old_files import moved_modules
from sb3_flow.common.checkpoints.plain import NotPlain, from_plain, to_plain

#: Name of the JSON array.
DATA = "data"


class PickledFile(ValueError):
    """A file is a pickle that is not trusted."""


def write_data(file: IO[bytes], kind: str, value: Any) -> None:
    """
    Write a value as plain data.

    :param file: An open file
    :param kind: Kind of the file, such as ``"replay buffer"``
    :param value: A value that ``to_plain`` can convert
    :raises NotPlain: If a part of it cannot be converted.
    """
    arrays: list[np.ndarray] = []
    try:
        plain = to_plain(value, arrays=arrays, name=kind)
    except NotPlain as error:
        raise NotPlain(
            f"{error} is not plain data, so the {kind} cannot be saved. Use classes of gymnasium.spaces, numbers and arrays."
        ) from error
    text = json.dumps({"kind": kind, "value": plain}, allow_nan=False)
    named = {str(i): array for i, array in enumerate(arrays)}
    np.savez(file, **{DATA: np.frombuffer(text.encode("ascii"), np.uint8), **named})  # type: ignore[arg-type]


def read_data(file: IO[bytes], kind: str, trusted: bool = False) -> Any:
    """
    Read a value.

    :param file: An open file
    :param kind: As for ``write_data``
    :param trusted: Whether a pickle, as version 0.1 wrote, is unpickled. That runs any code that it contains.
    :return: The value
    :raises PickledFile: If it is a pickle and not trusted; the message gives advice.
    :raises ValueError: If it is damaged, or has another kind.
    """
    start = file.read(2)
    file.seek(-len(start), 1)
    try:
        if start == b"PK":
            with np.load(file, allow_pickle=False) as archive:
                content = json.loads(archive[DATA].tobytes())
                if content["kind"] != kind:
                    raise ValueError(f"it is a {content['kind']}, not a {kind}")
                return from_plain(content["value"], arrays=[archive[str(i)] for i in range(len(archive.files) - 1)])
        if trusted:
            with moved_modules():
                return pickle.load(file)
    except Exception as error:  # damaged archives and pickles can raise anything
        raise ValueError(str(error) or type(error).__name__) from error
    if start[:1] == b"\x80":
        raise PickledFile(
            "is a pickle, as version 0.1 and Stable-Baselines3 write it. Reading a pickle runs any code that it contains, so "
            "it is refused. If you trust its source, pass `trusted=True`, and save it again."
        )
    raise ValueError("it has an unknown format")
