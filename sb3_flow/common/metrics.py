"""What is logged of many updates, read once."""

from sb3_flow.common.types import Metrics


class MetricSums:
    """Sums of metrics, as tensors on their device, until somebody reads their means."""

    def __init__(self) -> None:
        self.sums: Metrics = {}
        self.count = 0

    def add(self, metrics: Metrics) -> None:
        for name, value in metrics.items():
            self.sums[name] = self.sums[name] + value.detach() if name in self.sums else value.detach()
        self.count += 1

    def means(self) -> dict[str, float]:
        means = {name: value.item() / self.count for name, value in self.sums.items()}
        self.sums, self.count = {}, 0
        return means
