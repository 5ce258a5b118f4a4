"""
Building blocks of the independent implementations of the methods: slow, literal, in float64.

It shares no code with the package: its own matrix products, GELU, layer norm, Euler loop, Adam and moving average, one
critic after the other. A method's own equations are in its test file.
"""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch as th
from conformance.environments import AnySpaces
from gymnasium import spaces

from sb3_flow.common.flow_algorithm import FlowAlgorithm
from sb3_flow.common.type_aliases import Batch

OBS_DIM, BATCH = 4, 16
#: Seeds of tests that train until something is learned.
SEEDS = (0, pytest.param(1, marks=pytest.mark.nightly))


def box_env(obs_dim: int = OBS_DIM, action_dim: int = 1) -> AnySpaces:
    """Observations of any size, actions in [-1, 1]."""
    return AnySpaces(spaces.Box(-np.inf, np.inf, (obs_dim,)), spaces.Box(-1.0, 1.0, (action_dim,)))


def shake(model: FlowAlgorithm, scale: float = 0.4) -> None:
    """Make all parameters random, targets as well, so that no two networks agree and actions leave the box now and then."""
    generator = th.Generator().manual_seed(1)
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(scale * th.randn(parameter.shape, generator=generator))


def nightly_except(often: Collection[str], variants: Mapping[str, Any]) -> list[Any]:
    """Parameters of a test: variants by their names, of which all but some are ``nightly``."""
    assert set(often) <= variants.keys()
    marks = {name: [] if name in often else [pytest.mark.nightly] for name in variants}
    return [pytest.param(variant, id=name, marks=marks[name]) for name, variant in variants.items()]


def each_column(batch: Batch, change: Callable[[th.Tensor], th.Tensor]) -> Batch:
    """A batch whose columns are changed; a column that is None stays None."""
    return Batch(*(None if column is None else change(column) for column in batch))  # type: ignore[arg-type]


def parameters_of(model: FlowAlgorithm) -> dict[str, th.Tensor]:
    """Copies of the parameters of a model, by name."""
    return {name: parameter.detach().clone() for name, parameter in model.policy.named_parameters()}


def assert_single_precision(
    found: dict[str, th.Tensor], expected: dict[str, th.Tensor], rel: float = 1e-4, atol: float = 1e-5
) -> None:
    """Losses in float32 are those in float64, up to rounding."""
    for name, value in expected.items():
        assert found[name].dtype == th.float32
        assert found[name].item() == pytest.approx(value.item(), rel=rel, abs=atol), name


class Draw:
    """Random numbers that are equal in single and double precision."""

    def __init__(self, seed: int, dtype: th.dtype = th.float64) -> None:
        self.rng, self.dtype = np.random.default_rng(seed), dtype

    def tensor(self, values: Any) -> th.Tensor:
        return th.as_tensor(values, dtype=th.float32).to(self.dtype)

    def normal(self, *shape: int) -> th.Tensor:
        return self.tensor(self.rng.normal(size=shape))

    def uniform(self, *shape: int) -> th.Tensor:
        return self.tensor(self.rng.random(shape))

    def batch(self, dim: int, gamma: float = 0.99, n_steps: int = 1, valid: float = 1.0) -> Batch:
        """Values of every kind; some tasks end, returns are of 1 to ``n_steps`` steps, and some chunks may be invalid."""
        rng = self.rng
        steps = rng.integers(1, n_steps + 1, BATCH)
        batch = Batch(
            observations=self.normal(BATCH, OBS_DIM),
            actions=self.tensor(rng.uniform(-1, 1, (BATCH, dim))),
            rewards=self.tensor(rng.normal(-0.5, 1, BATCH)),
            masks=self.tensor(rng.random(BATCH) < 0.7),
            discounts=self.tensor(gamma**steps),
            next_observations=self.normal(BATCH, OBS_DIM),
            valids=self.tensor(rng.random(BATCH) < valid),
        )
        assert {0.0, 1.0} == set(batch.masks.tolist())
        return batch


class Transcription:
    """
    Parameters in float64 by the names that the policy gives them, and what is done with them.

    A subclass gives ``losses``; ``owners`` says which loss each of the networks descends.
    """

    #: The name of each network that is trained (of each parameter that is none of a network's), and of its loss
    owners: ClassVar[dict[str, str]]
    #: The name of each target network, and of the network that it follows
    targets: ClassVar[dict[str, str]] = {"critic_target": "critic"}

    def __init__(self, model: FlowAlgorithm, variant: Any) -> None:
        """
        :param model: Whose parameters are copied
        :param variant: Its arguments; ``learning_rate`` and ``tau`` are used here
        """
        self.variant = variant
        self.parameters = {
            name: parameter.detach().double().clone().requires_grad_(name.split(".")[0] not in self.targets)
            for name, parameter in model.policy.named_parameters()
        }
        self.trained = {name: parameter for name, parameter in self.parameters.items() if parameter.requires_grad}
        self.first_moment = {name: th.zeros_like(parameter) for name, parameter in self.trained.items()}
        self.second_moment = {name: th.zeros_like(parameter) for name, parameter in self.trained.items()}
        self.n_updates = 0

    @staticmethod
    def gelu(x: th.Tensor) -> th.Tensor:
        return 0.5 * x * (1 + th.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    def mlp(self, network: str, *inputs: th.Tensor) -> th.Tensor:
        hidden = th.cat(inputs, dim=1)
        n_layers = sum(name.startswith(f"{network}.net.layers.") for name in self.parameters) // 2
        for layer in range(n_layers):
            weight = self.parameters[f"{network}.net.layers.{layer}.weight"]
            bias = self.parameters[f"{network}.net.layers.{layer}.bias"]
            hidden = hidden @ weight.T + bias
            if layer < n_layers - 1:
                hidden = self.gelu(hidden)
        return hidden

    def q(self, network: str, k: int, s: th.Tensor, a: th.Tensor) -> th.Tensor:
        """The ``k``-th critic of an ensemble."""
        hidden = th.cat([s, a], dim=1)
        n_layers = sum(name.startswith(f"{network}.net.weights.") for name in self.parameters)
        for layer in range(n_layers):
            weight = self.parameters[f"{network}.net.weights.{layer}"][k]
            bias = self.parameters[f"{network}.net.biases.{layer}"][k, 0]
            hidden = hidden @ weight + bias
            if layer < n_layers - 1:
                hidden = self.gelu(hidden)
                if f"{network}.net.scales.{layer}" in self.parameters:
                    mean = hidden.mean(dim=1, keepdim=True)
                    variance = ((hidden - mean) ** 2).mean(dim=1, keepdim=True)
                    hidden = (hidden - mean) / th.sqrt(variance + 1e-6)
                    scale = self.parameters[f"{network}.net.scales.{layer}"][k, 0]
                    hidden = hidden * scale + self.parameters[f"{network}.net.shifts.{layer}"][k, 0]
        return hidden[:, 0]

    @staticmethod
    def euler(velocity: Callable[[th.Tensor, th.Tensor], th.Tensor], z: th.Tensor, n_steps: int) -> th.Tensor:
        """Not clipped."""
        x = z
        for i in range(n_steps):
            x = x + velocity(x, th.full((len(x), 1), i / n_steps, dtype=th.float64)) / n_steps
        return x

    def losses(self, batch: Batch, noise: Any) -> dict[str, th.Tensor]:
        raise NotImplementedError

    def gradients(self, losses: dict[str, th.Tensor]) -> dict[str, th.Tensor]:
        """The gradient of each network is that of its own loss."""
        result = {}
        for network, loss in self.owners.items():
            own = {name: parameter for name, parameter in self.trained.items() if name.split(".")[0] == network}
            gradients = th.autograd.grad(losses[loss], list(own.values()), retain_graph=True)
            result.update(dict(zip(own, gradients, strict=True)))
        assert set(result) == set(self.trained)
        return result

    def assert_gradients(
        self,
        model: FlowAlgorithm,
        losses: dict[str, th.Tensor],
        rtol: float = 1e-9,
        atol: float = 1e-12,
        untrained: tuple[str, ...] = (),
    ) -> None:
        """
        The gradients of a model after ``backward`` are those of the transcription. Targets have none.

        :param model: The model, in float64
        :param losses: As returned by ``losses``
        :param rtol: Relative tolerance
        :param atol: Absolute tolerance
        :param untrained: Parameters without a gradient besides the targets
        """
        gradients = self.gradients(losses)
        for name, parameter in model.policy.named_parameters():
            if name in gradients:
                th.testing.assert_close(parameter.grad, gradients[name], rtol=rtol, atol=atol)
                assert gradients[name].abs().max().item() > 1e-6  # none of the comparisons is empty
            else:
                assert name.split(".")[0] in (*self.targets, *untrained) and parameter.grad is None

    def assert_parameters(
        self, model: FlowAlgorithm, start: dict[str, th.Tensor], atol: float = 1e-10, elsewhere: tuple[str, ...] = ()
    ) -> None:
        """
        The parameters of a model after updates are those of the transcription, and all of them have changed.

        :param model: The model, in float64
        :param start: Its parameters before the updates, by name
        :param atol: Absolute tolerance
        :param elsewhere: Parameters that the transcription keeps elsewhere; the test compares them
        """
        for name, parameter in model.policy.named_parameters():
            if name not in elsewhere:
                th.testing.assert_close(parameter.detach(), self.parameters[name].detach(), rtol=0, atol=atol)
            assert not th.equal(parameter, start[name])

    def update(self, batch: Batch, noise: Any) -> None:
        """Adam, then the targets. They follow the networks after their step (the published code: before it)."""
        self.step(self.gradients(self.losses(batch, noise)))

    def step(self, gradients: dict[str, th.Tensor]) -> None:
        self.n_updates += 1
        with th.no_grad():
            for name, gradient in gradients.items():
                first = self.first_moment[name] = 0.9 * self.first_moment[name] + 0.1 * gradient
                second = self.second_moment[name] = 0.999 * self.second_moment[name] + 0.001 * gradient**2
                first, second = first / (1 - 0.9**self.n_updates), second / (1 - 0.999**self.n_updates)
                self.parameters[name] -= self.variant.learning_rate * first / (th.sqrt(second) + 1e-8)
            for name, parameter in self.parameters.items():
                target, *rest = name.split(".")
                if target in self.targets:
                    net = self.parameters[".".join([self.targets[target], *rest])]
                    rate = self.rate(target)
                    parameter.copy_(rate * net + (1 - rate) * parameter)

    def rate(self, target: str) -> float:
        """Rate of a target: the share of the network in each update."""
        return self.variant.tau  # type: ignore[no-any-return]
