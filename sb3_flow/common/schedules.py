"""Learning rate schedules: functions of the remaining progress, as in Stable-Baselines3."""

import math
from collections.abc import Sequence

from stable_baselines3.common.type_aliases import Schedule


class WarmUpCosine:
    """
    Linear warm-up, followed by cosine decay to zero.

    A resumed run continues the schedule, because Stable-Baselines3 counts progress over the whole run.

    :param peak: Learning rate after the warm-up, as a function of the remaining progress
    :param warm_up: Fraction of training for the warm-up, in [0, 1)
    :raises ValueError: If the fraction is out of its range.
    """

    def __init__(self, peak: Schedule, warm_up: float = 0.02) -> None:
        if not 0 <= warm_up < 1:
            raise ValueError(f"`warm_up` is {warm_up}; it must be a fraction of training, at least 0 and below 1.")
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
    Repeat a schedule in each stage of training.

    :param schedule: A function of the remaining progress of a stage (from 1 to 0)
    :param shares: Fraction of training for each stage, above 0; their sum is 1
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


class LinearToZero:
    """
    Linear decay to zero, which RL Zoo writes as ``lin_1e-3``.

    :param initial_value: Learning rate at the start
    """

    def __init__(self, initial_value: float) -> None:
        self.initial_value = float(initial_value)

    def __call__(self, progress_remaining: float) -> float:
        """
        :param progress_remaining: From 1 (start) to 0 (end)
        :return: The learning rate
        """
        return progress_remaining * self.initial_value
