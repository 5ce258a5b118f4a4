"""Warnings that point at the user's code."""

import os
import sys
import warnings
from pathlib import Path

#: Folder of this package.
PACKAGE = os.fspath(Path(__file__).parents[1]) + os.sep


def warn(message: str) -> None:
    """
    Warn at the line of the caller outside of this package.

    :param message: The message
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
