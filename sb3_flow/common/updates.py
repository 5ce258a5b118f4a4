"""What an update is: noise and a batch go in, one optimiser step is made, metrics come out."""

from typing import Any, ClassVar, NamedTuple

import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.utils import configure_logger

from sb3_flow.common.policies import FlowPolicy
from sb3_flow.common.types import Batch, Metrics


class FlowAlgorithm(OffPolicyAlgorithm):
    """An off-policy algorithm whose update is one loss of a batch and of noise, both drawn before it."""

    policy: FlowPolicy
    policy_class: type[FlowPolicy]
    generator: th.Generator

    #: Names of the target networks of the policy, each with the network that it follows.
    targets: ClassVar[dict[str, str]] = {"critic_target": "critic"}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._metrics = MetricSums()

    def draw_noise(self, n: int) -> NamedTuple:
        """
        Draw every random number of one update.

        :param n: Batch size
        :return: The noise, which ``update`` takes
        """
        raise NotImplementedError

    def normal(self, n: int) -> th.Tensor:
        """Standard normal noise of the training's random stream, ``(n, action_dim)``."""
        return th.randn((n, self.policy.action_dim), generator=self.generator, device=self.device)

    def uniform(self, n: int) -> th.Tensor:
        """Times of the training's random stream, uniform in [0, 1], ``(n, 1)``."""
        return th.rand((n, 1), generator=self.generator, device=self.device)

    def loss(self, batch: Batch, noise: Any) -> tuple[th.Tensor, Metrics]:
        """
        What one optimiser step descends: a pure function of the parameters, the batch and the noise.

        :param batch: A batch
        :param noise: As drawn by ``draw_noise``
        :return: The loss, and what to log (tensors without axes)
        """
        raise NotImplementedError

    def update(self, batch: Batch, noise: Any) -> Metrics:
        """
        One update: loss, gradients, optimiser step, then the targets. All randomness comes in by the arguments, so that
        it can be called by hand and compared with another implementation.

        :param batch: A batch, as ``Batch`` describes it
        :param noise: As drawn by ``draw_noise``
        :return: What to log
        """
        loss, metrics = self.loss(batch, noise)
        self.policy.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.policy.optimizer.step()
        self.update_targets()
        return metrics

    def update_targets(self) -> None:
        """Move each target network towards the network that it follows: ``target <- tau net + (1 - tau) target``."""
        with th.no_grad():
            for target, net in self.targets.items():
                followers, leaders = getattr(self.policy, target).parameters(), getattr(self.policy, net).parameters()
                th._foreach_lerp_(list(followers), list(leaders), self.tau)

    def sample_batch(self, batch_size: int) -> Batch:
        """
        Draw a batch.

        :param batch_size: Number of transitions
        :return: The batch
        """
        raise NotImplementedError

    def train(self, gradient_steps: int, batch_size: int) -> None:
        """
        Draw batches and update.

        :param gradient_steps: Number of updates
        :param batch_size: Transitions per update
        :raises ValueError: If a loss is not finite.
        """
        self.policy.set_training_mode(True)
        if not hasattr(self, "_logger"):  # called by hand, before `learn`
            self._logger = configure_logger(self.verbose)
        self._update_learning_rate(self.policy.optimizer)
        metrics: Metrics = {}
        for _ in range(gradient_steps):
            metrics = self.update(self.sample_batch(batch_size), self.draw_noise(batch_size))
            self._metrics.add(metrics)
        self._n_updates += gradient_steps
        # Before any callback can save the parameters. RL Zoo prunes a trial that raises a ValueError.
        if not all(bool(th.isfinite(value)) for value in metrics.values()):
            values = ", ".join(f"{name} = {value.item():.3g}" for name, value in metrics.items())
            raise ValueError(
                f"Update {self._n_updates} is not finite ({values}). The parameters are lost from here on: go back to the "
                "last checkpoint, with a lower learning rate or other data."
            )


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
