"""Sums of metrics, kept on their device until they are logged."""

import math
from collections import Counter

import torch as th


class MetricSums:
    """Sums of the metrics of updates, as tensors on their device."""

    #: Sums and counts by the names of the metrics; updates may report different metrics.
    sums: dict[tuple[str, ...], th.Tensor]
    counts: Counter[tuple[str, ...]]
    #: Number of updates since the last call of ``not_finite``.
    unchecked: int

    def __init__(self) -> None:
        self.clear()

    def add(self, names: tuple[str, ...], values: th.Tensor) -> None:
        """
        Add the metrics of one update.

        :param names: Names of the metrics
        :param values: Their values, in the same order, ``(len(names),)``
        """
        self.sums[names] = self.sums[names] + values if names in self.sums else values.clone()
        self.counts[names] += 1
        self.unchecked += 1

    def not_finite(self) -> list[str]:
        """The metrics with a value that was not finite since the last call."""
        self.unchecked = 0
        lost = [name for name, value in self._totals().items() if not math.isfinite(value)]
        if lost:
            self.clear()  # so that the next call does not report them again
        return lost

    def means(self) -> dict[str, float]:
        """The mean of each metric over the updates that reported it. The sums are reset."""
        counts: Counter[str] = Counter()
        for names, count in self.counts.items():
            counts.update(dict.fromkeys(names, count))
        means = {name: total / counts[name] for name, total in self._totals().items()}
        self.clear()
        return means

    def clear(self) -> None:
        self.sums, self.counts, self.unchecked = {}, Counter(), 0

    def _totals(self) -> dict[str, float]:
        totals: dict[str, float] = {}
        for names, values in self.sums.items():
            for name, value in zip(names, values.tolist(), strict=True):
                totals[name] = totals.get(name, 0.0) + value
        return totals
