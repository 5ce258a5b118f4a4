"""Learning rates over the course of training, as functions of the remaining progress, which is how SB3 takes them."""

import math
from collections.abc import Sequence

from stable_baselines3.common.type_aliases import Schedule


class WarmUpCosine:
    """
    Rises in a straight line over the first part of training, then falls to zero as half a cosine.

    A run that is resumed goes on where it was, because Stable-Baselines3 counts progress over the whole of it.

    :param peak: What it rises to, itself a function of the remaining progress, such as a constant one
    :param warm_up: Share of training in which it rises, in [0, 1)
    :raises ValueError: If the share lies outside.
    """

    def __init__(self, peak: Schedule, warm_up: float = 0.02) -> None:
        if not 0 <= warm_up < 1:
            raise ValueError(f"`warm_up` is {warm_up}; it must be a share of training, at least 0 and below 1.")
        self.peak, self.warm_up = peak, warm_up

    def __call__(self, progress_remaining: float) -> float:
        """
        :param progress_remaining: From 1 (start) to 0 (end)
        :return: The learning rate
        """
        done = min(max(1.0 - progress_remaining, 0.0), 1.0)
        if done < self.warm_up:
            return self.peak(progress_remaining) * done / self.warm_up
        fallen = (done - self.warm_up) / (1.0 - self.warm_up)
        return self.peak(progress_remaining) * 0.5 * (1.0 + math.cos(math.pi * fallen))


class InTurn:
    """
    The same schedule over again, in each part of training.

    :param schedule: A function of the remaining progress of a part (from 1 to 0)
    :param shares: How much of training each part is, above 0; together 1
    """

    def __init__(self, schedule: Schedule, shares: Sequence[float]) -> None:
        self.schedule, self.shares = schedule, list(shares)

    def __call__(self, progress_remaining: float) -> float:
        """
        :param progress_remaining: From 1 (start) to 0 (end)
        :return: The learning rate
        """
        done = 1.0 - progress_remaining
        for share in self.shares[:-1]:
            if done < share:
                return self.schedule(1.0 - done / share)
            done -= share
        return self.schedule(max(1.0 - done / self.shares[-1], 0.0))
