"""
Execution of updates: eager, with compiled losses, or as one CUDA graph. Results are equal up to rounding. Algorithms do not
depend on the mode.
"""

import functools
import inspect
import types
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import torch as th

from sb3_flow.common.type_aliases import Batch, Metrics

#: A pure function of the parameters, a batch and noise (or values computed from it): the loss, and metrics to log.
Loss = Callable[..., tuple[th.Tensor, Metrics]]
#: The gradient of a loss for each of several parameters; None: the loss does not depend on it.
Gradients = tuple[th.Tensor | None, ...]
#: The metrics of one update: their names, and their values in one tensor.
PackedMetrics = tuple[tuple[str, ...], th.Tensor]


class Updating(Protocol):
    """The part of an algorithm that executions use. Each attribute is documented in ``FlowAlgorithm``."""

    device: th.device
    generator: th.Generator
    policy: Any

    def draw_noise(self, n: int) -> NamedTuple: ...

    def update(self, batch: Batch, noise: Any) -> Metrics: ...


def evaluate(loss: Loss, *inputs: Any) -> tuple[th.Tensor, Metrics]:
    """Evaluate a loss, and detach its metrics."""
    value, metrics = loss(*inputs)
    return value, {name: metric.detach() for name, metric in metrics.items()}


def differentiate(loss: Loss, parameters: list[th.Tensor], *inputs: Any) -> tuple[Gradients, Metrics]:
    """Evaluate the gradients of a loss; None for parameters that it does not depend on. Metrics are detached."""
    value, metrics = evaluate(loss, *inputs)
    if not (parameters and value.requires_grad):  # all parameters are frozen
        return (None,) * len(parameters), metrics
    gradients = th.autograd.grad(value, parameters, allow_unused=True)
    return tuple(with_strides_of(p, gradient) for p, gradient in zip(parameters, gradients, strict=True)), metrics


def with_strides_of(parameter: th.Tensor, gradient: th.Tensor | None) -> th.Tensor | None:
    """The gradient of a parameter with the same order in memory, which fused optimizers expect without a check."""
    if gradient is None or gradient.stride() == parameter.stride():
        return gradient
    return th.empty_like(parameter).copy_(gradient)


def traces_gradients() -> bool:
    """Whether this version of PyTorch compiles ``torch.autograd.grad``."""
    return hasattr(th._dynamo.config, "trace_autograd_ops")


def tracing_of_gradients() -> AbstractContextManager[Any]:
    """Compile ``torch.autograd.grad``, where this version of PyTorch can. Otherwise it would interrupt compiled functions."""
    return th._dynamo.config.patch(trace_autograd_ops=True) if traces_gradients() else nullcontext()


def pack(metrics: Metrics) -> PackedMetrics:
    """Stack metrics into one tensor, so that summing them is one operator."""
    return tuple(metrics), th.stack(list(metrics.values()))


class Execution:
    """Eager execution: ``compile=False``."""

    mode: bool | str = False

    def __reduce__(self) -> tuple[Any, ...]:
        # Copies and pickles do not contain compiled functions or graphs.
        return type(self), ()

    def differentiate(self, loss: Loss, parameters: list[th.Tensor], *inputs: Any) -> tuple[Gradients, Metrics]:
        """
        Evaluate the gradients of a loss of an algorithm.

        :param loss: A method of the algorithm
        :param parameters: What the gradients are for
        :param inputs: Arguments of the loss: a batch, noise, and values computed from them
        :return: The gradients, and the detached metrics
        """
        return differentiate(loss, parameters, *inputs)

    def step(self, algorithm: Updating, batch: Batch) -> PackedMetrics:
        """
        Draw noise and update.

        :param algorithm: The algorithm
        :param batch: A batch
        :return: Metrics to log
        """
        return pack(algorithm.update(batch, algorithm.draw_noise(len(batch.actions))))


class Compiled(Execution):
    """``torch.compile`` of the losses with their gradients: ``compile=True``. The rest of an update is not compiled."""

    mode = True

    def __init__(self) -> None:
        #: Compiled functions by the names of the losses.
        self.functions: dict[str, Callable[..., tuple[Gradients, Metrics]]] = {}
        self.failed = False

    def differentiate(self, loss: Loss, parameters: list[th.Tensor], *inputs: Any) -> tuple[Gradients, Metrics]:
        if self.failed:
            return differentiate(loss, parameters, *inputs)
        if loss.__name__ not in self.functions:
            self.functions[loss.__name__] = self._compiled()
        try:
            with tracing_of_gradients():
                return self.functions[loss.__name__](loss, parameters, *inputs)
        except (th._dynamo.exc.TorchDynamoException, th._dynamo.exc.FailOnRecompileLimitHit) as error:
            # For instance, there is no C++ compiler, or a features extractor cannot be traced.
            reason = " ".join(str(error).strip().splitlines()[:2])  # the first line may name only PyTorch's backend
            warnings.warn(
                f"torch.compile failed. Updates are executed eagerly, which is slower and gives the same results up to "
                f"rounding. On a CPU, torch.compile needs a C++ compiler, such as g++, and its cache must not be damaged: "
                f"delete TORCHINDUCTOR_CACHE_DIR if it may be. PyTorch says: {reason}",
                stacklevel=2,
            )
            self.failed = True
            return differentiate(loss, parameters, *inputs)

    @staticmethod
    def _compiled() -> Callable[..., tuple[Gradients, Metrics]]:
        """``differentiate``, compiled. PyTorch limits recompilations to eight per code object, so each loss has its own."""

        def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
            own = types.FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
            return th.compile(own, fullgraph=True)

        if traces_gradients():
            return compiled(differentiate)
        evaluated = compiled(evaluate)  # its gradients are compiled as a second function
        return lambda loss, *arguments: differentiate(functools.partial(evaluated, loss), *arguments)


class Captured(Execution):
    """
    One CUDA graph of a whole update (noise, loss, gradients, Adam, targets): ``compile="cudagraph"``.

    A graph replays the same kernels on the same memory. Therefore the batch is copied into static tensors, the learning rate
    is a tensor, and the graph is captured again when something that it contains as a constant changes: shapes, storage of the
    parameters or of Adam's state, or a plain argument of the algorithm such as ``tau``.

    Direct calls of ``update`` do not use the graph.
    """

    mode = "cudagraph"
    #: Number of updates before a capture, in which PyTorch's libraries allocate memory. They are undone.
    WARM_UP = 3

    def __init__(self) -> None:
        self.frozen: tuple[Any, ...] | None = None

    def step(self, algorithm: Updating, batch: Batch) -> PackedMetrics:
        if self.frozen != self._frozen(algorithm, batch):
            self._capture(algorithm, batch)
            self.frozen = self._frozen(algorithm, batch)
        th._foreach_copy_(tensors(self.batch), tensors(batch))
        for rate, group in zip(self.rates, algorithm.policy.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        self.graph.replay()
        return self.metrics  # overwritten by the next replay

    @staticmethod
    def _frozen(algorithm: Updating, batch: Batch) -> tuple[Any, ...]:
        """Everything that a captured graph contains as a constant."""
        optimizer = algorithm.policy.optimizer
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        moments = [value for state in optimizer.state.values() for value in state.values()]
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in tensors(batch))
        places = tuple((tensor.data_ptr(), tensor.requires_grad) for tensor in trained + moments)
        return shapes, places, plain_arguments(algorithm)

    def _capture(self, algorithm: Updating, batch: Batch) -> None:
        policy, optimizer, generator = algorithm.policy, algorithm.policy.optimizer, algorithm.generator
        if not optimizer.defaults.get("fused"):
            raise ValueError(
                "`compile='cudagraph'` needs an optimizer with `fused=True`, such as the default one; this one is "
                f"{type(optimizer).__name__} without it. Set it in `optimizer_kwargs`, or use `compile=True`."
            )
        with th.cuda.device(algorithm.device):
            stream = th.cuda.Stream()  # type: ignore[no-untyped-call]
            self.graph = th.cuda.CUDAGraph()
            self.graph.register_generator_state(generator)
            self.batch = clone(batch)
            floats = [group["lr"] for group in optimizer.param_groups]
            self.rates = [th.tensor(float(rate), device=algorithm.device) for rate in floats]
            parameters = {name: value.clone() for name, value in policy.state_dict().items()}
            moments = {
                parameter: {name: value.clone() for name, value in state.items()}
                for parameter, state in optimizer.state.items()
            }
            random_state = generator.get_state()
            try:
                for rate, group in zip(self.rates, optimizer.param_groups, strict=True):
                    group.update(lr=rate, capturable=True)
                stream.wait_stream(th.cuda.current_stream())
                with th.cuda.stream(stream), warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message=".*capturable=True")
                    for _ in range(self.WARM_UP):
                        super().step(algorithm, self.batch)
                th.cuda.current_stream().wait_stream(stream)
                policy.load_state_dict(parameters)
                for parameter, state in optimizer.state.items():
                    for name, value in state.items():  # Adam's state is initialized to zeros
                        value.copy_(moments[parameter][name]) if parameter in moments else value.zero_()
                generator.set_state(random_state)
                optimizer.zero_grad()  # so that gradients are allocated in the memory of the graph
                with th.cuda.graph(self.graph, stream=stream):
                    self.metrics = super().step(algorithm, self.batch)
            finally:
                # Saved files and other code see the optimizer as without a graph.
                for rate, group in zip(floats, optimizer.param_groups, strict=True):
                    group.update(lr=rate, capturable=False)


EXECUTIONS: tuple[type[Execution], ...] = (Execution, Compiled, Captured)


def make_execution(mode: bool | str, device: th.device, one_graph: bool = True) -> Execution:
    """
    Create the execution of a mode.

    :param mode: False, True or ``"cudagraph"``
    :param device: Device of the algorithm
    :param one_graph: Whether all updates of the algorithm have the same operations
    :return: The execution
    :raises ValueError: If the mode is unknown, or not available on this device or for this algorithm.
    """
    for execution in EXECUTIONS:
        if execution.mode == mode:
            break
    else:
        raise ValueError(f"Unknown `compile` {mode!r}; choose False, True or 'cudagraph'.")
    if execution is Captured and device.type != "cuda":
        raise ValueError(
            f"`compile='cudagraph'` needs a CUDA device; this model is on {device.type!r}. Use `compile=True`, which compiles "
            "the losses on any device, or `compile=False`."
        )
    if execution is Captured and not one_graph:
        raise ValueError(
            "`compile='cudagraph'` replays one update, but the updates of this algorithm differ from each other. Use "
            "`compile=True`, which compiles its losses."
        )
    return execution()


def tensors(batch: Batch) -> list[th.Tensor]:
    """All tensors of a batch, in order."""
    parts = [tensor for part in batch for tensor in (part.values() if isinstance(part, dict) else [part])]
    return [tensor for tensor in parts if tensor is not None]


def clone(batch: Batch) -> Batch:
    """Copy a batch."""

    def copy(part: Any) -> Any:
        if part is None:
            return None
        return {key: value.clone() for key, value in part.items()} if isinstance(part, dict) else part.clone()

    return Batch(*map(copy, batch))


def plain_arguments(algorithm: Updating) -> tuple[Any, ...]:
    """The algorithm's arguments that are numbers, strings or booleans."""
    values = [getattr(algorithm, name, None) for name in argument_names(type(algorithm))]
    return tuple(value for value in values if isinstance(value, bool | int | float | str))


@functools.cache
def argument_names(cls: type) -> list[str]:
    """The names of the arguments of a class and of its base classes."""
    constructors = [vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base) and base is not object]
    return sorted({name for constructor in constructors for name in inspect.signature(constructor).parameters})
