"""Time limits that an environment reports as the end of the task."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sb3_flow.common.warn import warn

#: Number of first episodes that are compared.
EPISODES = 5


class FirstEpisodes:
    """
    Warns if the first episodes of a run all end in a terminal state after the same number of steps, more than one: this is
    probably a time limit, after which a value should be bootstrapped (Pardo et al., 2018, https://arxiv.org/abs/1712.00378).
    """

    def __init__(self) -> None:
        self.n_episodes, self.length = 0, 0

    def see(self, dones: np.ndarray, infos: Sequence[dict[str, Any]]) -> None:
        """
        :param dones: Whether an episode ends, for each environment
        :param infos: With the length of an episode that ends, from ``Monitor``; without it nothing is known
        """
        if self.n_episodes >= EPISODES or not dones.any():
            return
        for done, info in zip(dones, infos, strict=True):
            if not done:
                continue
            length = info.get("episode", {}).get("l", 0)
            if info.get("TimeLimit.truncated", False) or length <= 1 or self.length not in (0, length):
                self.n_episodes = EPISODES  # episodes end in other ways
                return
            self.n_episodes, self.length = self.n_episodes + 1, length
        if self.n_episodes >= EPISODES:
            n, steps = self.n_episodes, self.length
            warn(
                f"The first {n} episodes all ended with the end of the task (`terminated`), after {steps:,} steps each. "
                "If this is a time limit, values are wrong, because none is expected after it. The environment must return "
                f"`truncated` there: switch its own limit off, and use gymnasium.wrappers.TimeLimit(env, {steps})."
            )
