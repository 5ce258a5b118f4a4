"""Frames of videos by their times, decoded with PyAV or OpenCV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sb3_flow.common.data.columns import DatasetError
from sb3_flow.common.optional import require


def frames_at(path: Path, times: np.ndarray, tolerance: float) -> Iterator[np.ndarray]:
    """
    Decode a video once from its beginning, and select the frames at given times.

    :param path: The video
    :param times: Increasing times in seconds, ``(n,)``
    :param tolerance: Largest accepted error of the time of a frame, in seconds
    :return: The frames, ``(height, width, 3)`` of uint8, one for each time
    :raises DatasetError: If it cannot be decoded, or has no frame at one of the times.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: there is no such video, which the dataset names.")
    wanted = 0
    before: tuple[float, np.ndarray] | None = None
    # A frame is the nearest one if the next one is farther away.
    for time, frame in _decode(path):
        while wanted < len(times) and before is not None and abs(before[0] - times[wanted]) <= abs(time - times[wanted]):
            _check_time(path, before[0], times[wanted], tolerance)
            yield before[1]
            wanted += 1
        if wanted == len(times):
            return
        before = time, frame
    for time in times[wanted:]:
        _check_time(path, np.inf if before is None else before[0], time, tolerance)
        assert before is not None
        yield before[1]


def _check_time(path: Path, found: float, wanted: float, tolerance: float) -> None:
    if abs(found - wanted) > tolerance:
        raise DatasetError(f"{path}: there is no frame at {wanted:.3f} s (the nearest one is at {found:.3f} s).")


def _decode(path: Path) -> Iterator[tuple[float, np.ndarray]]:
    """Each frame with its time in seconds."""
    try:
        av = require("av", "datasets", "Reading videos")
    except ImportError:
        try:
            yield from _decode_by_opencv(path)
        except ImportError:
            raise ImportError(
                "Reading videos needs the package `av`, or `opencv-python`: pip install 'sb3_flow[datasets]'"
            ) from None
        return
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield float(frame.pts * frame.time_base), frame.to_ndarray(format="rgb24")
    except (av.error.FFmpegError, IndexError) as error:
        raise DatasetError(f"{path}: this is no video, or it is damaged ({error}).") from error


def _decode_by_opencv(path: Path) -> Iterator[tuple[float, np.ndarray]]:
    cv2 = require("cv2", "datasets", "Reading videos")
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise DatasetError(f"{path}: this is no video that OpenCV can decode; install PyAV (pip install av).")
    rate = video.get(cv2.CAP_PROP_FPS)
    for number in range(int(video.get(cv2.CAP_PROP_FRAME_COUNT))):
        there, frame = video.read()
        if not there:
            break
        yield number / rate, np.ascontiguousarray(frame[:, :, ::-1])  # OpenCV has blue first
    video.release()
