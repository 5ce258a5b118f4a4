"""An input that a user could give by mistake, and what must come of it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium

#: Errors whose message is for users. Stable-Baselines3 raises AssertionError for spaces that do not fit.
ERRORS = (ValueError, TypeError, OSError, ImportError, AssertionError, NotImplementedError, gymnasium.error.Error)
#: Longest message, in characters.
LONGEST = 700


@dataclass(frozen=True)
class Input:
    """
    One input.

    :param name: What is given
    :param give: Gives it; the argument is an empty folder
    :param error: What the message of the error must match; None: the input is accepted
    :param warning: What a warning must match, where the input is accepted with a warning
    :param result: What the result must be where it is accepted; None: anything
    """

    name: str
    give: Callable[[Path], Any]
    error: str | None = None
    warning: str | None = None
    result: Any = None

    @property
    def outcome(self) -> str:
        """``"error"``, ``"warning"`` or ``"accepted"``."""
        return "error" if self.error is not None else "warning" if self.warning is not None else "accepted"

    def check(self, folder: Path) -> None:
        """Give the input, and compare what comes of it."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                result = self.give(folder)
            except ERRORS as error:
                self._check_error(error)
                return
        assert self.error is None, f"accepted, with the result {result!r}"
        messages = [str(warning.message) for warning in caught]
        if self.warning is not None:
            assert any(re.search(self.warning, message) for message in messages), messages
        if self.result is not None:
            assert result == self.result

    def _check_error(self, error: Exception) -> None:
        message = str(error)
        assert self.error is not None, f"refused: {message}"
        assert re.search(self.error, message), message
        assert len(message) <= LONGEST and len(message.strip().splitlines()) == 1, message
