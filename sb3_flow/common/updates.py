"""What an update is: noise and a batch go in, one optimiser step is made, metrics come out."""

import math
from collections import Counter
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.utils import configure_logger

from sb3_flow.common.execution import Execution, Loss, make_execution
from sb3_flow.common.policies import FlowPolicy
from sb3_flow.common.types import Batch, Metrics


class FlowAlgorithm(OffPolicyAlgorithm):
    """An off-policy algorithm whose update is one loss of a batch and of noise, both drawn before it."""

    policy: FlowPolicy
    policy_class: type[FlowPolicy]
    generator: th.Generator
    host_generator: th.Generator
    #: How updates are executed: False (eagerly), True (compiled) or ``"cudagraph"``; see ``execution``.
    compile: bool | str = False

    #: Number of actions in a chunk
    horizon_length: int
    #: The norm that the gradients of all parameters together are clipped to; None: they are not.
    max_grad_norm: float | None = None

    #: Whether every update does the same, so that one CUDA graph can replay it.
    one_graph: ClassVar[bool] = True

    #: Names of the target networks of the policy, each with the network that it follows.
    targets: ClassVar[dict[str, str]] = {"critic_target": "critic"}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._metrics = MetricSums()
        self._execution: Execution | None = None

    @property
    def execution(self) -> Execution:
        """What executes updates. It is made when it is needed, so that a model that only acts is loaded anywhere."""
        if self._execution is None or self._execution.mode != self.compile:
            self._execution = make_execution(self.compile, self.device, self.one_graph)
        return self._execution

    def draw_noise(self, n: int) -> NamedTuple:
        """
        Draw every random number of one update.

        :param n: Batch size
        :return: The noise, which ``update`` takes
        """
        raise NotImplementedError

    def normal(self, *shape: int, dim: int | None = None) -> th.Tensor:
        """
        Standard normal noise of the training's random stream.

        :param shape: All axes but the last
        :param dim: The last axis, by default ``action_dim``
        :return: ``(*shape, dim)``
        """
        dim = self.policy.action_dim if dim is None else dim
        return th.randn((*shape, dim), generator=self.generator, device=self.device)

    def uniform(self, n: int) -> th.Tensor:
        """Times of the training's random stream, uniform in [0, 1], ``(n, 1)``."""
        return th.rand((n, 1), generator=self.generator, device=self.device)

    def terms(self) -> list[Loss]:
        """The losses that are descended together; each is a method that takes a batch and noise."""
        raise NotImplementedError

    def loss(self, batch: Batch, noise: Any) -> tuple[th.Tensor, Metrics]:
        """
        What one optimiser step descends, the sum of ``terms``, all at the same parameters: a pure function of these, the
        batch and the noise.

        :param batch: A batch
        :param noise: As drawn by ``draw_noise``
        :return: The loss, and what to log (tensors without axes)
        """
        return total([term(batch, noise) for term in self.terms()])

    def update(self, batch: Batch, noise: Any) -> Metrics:
        """
        One update: loss, gradients, optimiser step, then the targets. All randomness comes in by the arguments, so that
        it can be called by hand and compared with another implementation.

        :param batch: A batch, as ``Batch`` describes it
        :param noise: As drawn by ``draw_noise``
        :return: What to log
        """
        loss, metrics = self.execution.evaluate(self.loss, batch, noise)
        metrics |= self.descend(loss, self.policy.optimizer)
        self.update_targets()
        return metrics

    def descend(self, loss: th.Tensor, optimizer: th.optim.Optimizer, clip: bool = True) -> Metrics:
        """
        Gradients, clipped where ``max_grad_norm`` says so, and a step of the optimiser.

        :param loss: What to descend
        :param optimizer: By whose parameters
        :param clip: Whether ``max_grad_norm`` is meant for these parameters
        :return: What to log
        """
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        metrics = {}
        if clip and self.max_grad_norm is not None:
            metrics["grad_norm"] = clip_gradients(optimizer, self.max_grad_norm)
        optimizer.step()
        return metrics

    def update_targets(self, *names: str) -> None:
        """
        Move target networks towards the networks that they follow: ``target <- tau net + (1 - tau) target``.

        :param names: Which of ``targets``; by default all
        """
        with th.no_grad():
            for target in names or self.targets:
                followers = getattr(self.policy, target).parameters()
                leaders = getattr(self.policy, self.targets[target]).parameters()
                th._foreach_lerp_(list(followers), list(leaders), self.tau)

    def sample_batch(self, batch_size: int) -> Batch:
        """
        Draw a batch.

        :param batch_size: Number of transitions
        :return: The batch
        """
        raise NotImplementedError

    def draw_from(self, buffer: Any, indices: th.Tensor) -> Batch:
        """
        What updates are made of, for transitions that were drawn; neither normalised nor augmented yet.

        :param buffer: The offline or the online buffer
        :param indices: Which of its transitions, ``(B,)``
        :return: The batch
        """
        return buffer.draw(indices, self.n_steps, self.gamma, self.horizon_length)  # type: ignore[no-any-return]

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
        self._update_learning_rate(self.policy.optimizers)
        for _ in range(gradient_steps):
            self._metrics.add(*self.execution.step(self, self.sample_batch(batch_size)))
        self._n_updates += gradient_steps
        if self._metrics.unchecked >= self.check_interval:
            self.check_finite()

    @property
    def check_interval(self) -> int:
        """Number of updates between two looks at the losses. A look costs nothing on a CPU; a GPU has to be waited for."""
        return 1 if self.device.type == "cpu" else 100

    def check_finite(self) -> None:
        """
        Look at the updates since the last look. Whoever uses the parameters (``predict``, ``save``, the log) looks first.

        :raises ValueError: If a loss was not finite. (RL Zoo prunes a trial that raises this.)
        """
        count, last = self._metrics.unchecked, self._n_updates
        lost = self._metrics.not_finite() if count > 0 else []
        if lost:
            where = f"Update {last}" if count == 1 else f"One of the updates {last - count + 1} to {last}"
            raise ValueError(
                f"{where} is not finite ({', '.join(lost)}). The parameters are lost from there on: go back to the last "
                "checkpoint, with a lower learning rate or other data."
            )

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """As ``policy.predict``, after a look at whether the last updates were finite."""
        self.check_finite()
        return super().predict(observation, state, episode_start, deterministic)

    # Random streams.

    def seed_generators(self, seed: int) -> None:
        """
        Give the training random streams of its own: evaluating more often does not change what is learned.

        :param seed: The seed
        """
        self.generator = th.Generator(self.device).manual_seed(seed)
        # What the host decides, such as which rows make a batch, it draws itself: it does not wait for a GPU.
        self.host_generator = self.generator if self.device.type == "cpu" else th.Generator().manual_seed(seed)

    def random_state(self) -> th.Tensor:
        """The state of the training's random streams."""
        return th.cat([generator.get_state() for generator in self._generators()])

    def set_random_state(self, state: th.Tensor) -> None:
        """
        Go on where a random state was taken. One of another kind of device is ignored: the streams start anew.

        :param state: As returned by ``random_state``
        """
        sizes = [len(generator.get_state()) for generator in self._generators()]
        if len(state) == sum(sizes):
            for generator, part in zip(self._generators(), th.split(state.cpu(), sizes), strict=True):
                generator.set_state(part.clone())

    def _generators(self) -> list[th.Generator]:
        return [self.generator] if self.generator is self.host_generator else [self.generator, self.host_generator]


def total(parts: list[tuple[th.Tensor, Metrics]]) -> tuple[th.Tensor, Metrics]:
    """
    Several losses as one.

    :param parts: Each loss, and what it logs
    :return: Their sum, and all that they log
    """
    losses, metrics = zip(*parts, strict=True)
    return sum(losses[1:], losses[0]), {name: value for part in metrics for name, value in part.items()}


def clip_gradients(optimizer: th.optim.Optimizer, max_norm: float) -> th.Tensor:
    """
    Scale the gradients of all parameters of an optimiser by one factor, so that their norm together is at most so much.
    Unlike PyTorch's own function it adds nothing to the norm, and a gradient below the limit stays as it is.

    :param optimizer: The optimiser, whose gradients are changed in place
    :param max_norm: The limit, above 0
    :return: The norm before
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm: th.Tensor = th.linalg.vector_norm(th.stack(th._foreach_norm(gradients)))
    th._foreach_mul_(gradients, max_norm / norm.clamp(min=max_norm))
    return norm


class MetricSums:
    """Sums of metrics, as tensors on their device, until somebody reads their means."""

    #: Sums and counts by the names of the metrics: an update may report others than the one before it.
    sums: dict[tuple[str, ...], th.Tensor]
    counts: Counter[tuple[str, ...]]
    #: Number of updates that ``not_finite`` has not seen yet
    unchecked: int

    def __init__(self) -> None:
        self.clear()

    def add(self, names: tuple[str, ...], values: th.Tensor) -> None:
        """
        :param names: Names of the metrics of one update
        :param values: Their values, one after the other
        """
        self.sums[names] = self.sums[names] + values if names in self.sums else values.clone()
        self.counts[names] += 1
        self.unchecked += 1

    def not_finite(self) -> list[str]:
        """The metrics that were not finite since the last call, because what is not finite makes a sum so."""
        self.unchecked = 0
        lost = [name for name, value in self._totals().items() if not math.isfinite(value)]
        if lost:
            self.clear()  # the next call is not to find them again
        return lost

    def means(self) -> dict[str, float]:
        """The mean of each metric over the updates that reported it. The sums start anew."""
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
