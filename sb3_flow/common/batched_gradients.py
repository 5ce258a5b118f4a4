"""
The gradients of several models of one algorithm as one batched computation.

The parameters of all models are stacked, and those of each model become views of its row. Optimizers, target networks and
files stay those of each model: only losses and gradients are computed for all models at once, by ``torch.vmap``.
"""

from __future__ import annotations  # evaluated, those of functions inside of functions interrupt torch.compile

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import torch as th
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from sb3_flow.common.execution import Execution, Gradients, Loss, make_execution
from sb3_flow.common.flow_algorithm import FlowAlgorithm
from sb3_flow.common.turns import Ask
from sb3_flow.common.type_aliases import Metrics


class Call(NamedTuple):
    """
    A call of ``Execution.differentiate``.

    :param loss: A method of an algorithm
    :param parameters: What the gradients are for
    :param inputs: Arguments of the loss
    """

    loss: Any
    parameters: list[th.Tensor]
    inputs: tuple[Any, ...]

    @property
    def kind(self) -> Hashable:
        """Calls of one kind can be computed together: they have the same loss and the same shapes."""
        return self.loss.__name__, *(leaf.shape if is_tensor(leaf) else leaf for leaf in tree_leaves(self.inputs))


class Together(Execution):
    """
    Execution of one of several models: it asks for gradients, which are computed for all models at once.

    :param mode: As the ``compile`` of the model
    :param ask: Returns the answer of ``BatchedGradients`` to a ``Call``
    """

    def __init__(self, mode: bool | str, ask: Ask) -> None:
        self.mode, self.ask = mode, ask

    def __reduce__(self) -> tuple[Any, ...]:
        return Execution, ()  # a copy of the model is alone

    def differentiate(self, loss: Loss, parameters: list[th.Tensor], *inputs: Any) -> tuple[Gradients, Metrics]:
        result: tuple[Gradients, Metrics] = self.ask(Call(loss, parameters, inputs))
        return result


def require_together(algorithm: type[Any], compile: Any) -> None:
    """
    Check whether seeds can train together.

    :param algorithm: Class of the algorithm
    :param compile: Its argument, or None if it is not given
    :raises ValueError: If they cannot.
    """
    if not issubclass(algorithm, FlowAlgorithm):
        raise ValueError(
            f"Seeds of {algorithm.__name__} cannot train together in one process, because it has updates of its own: "
            "train each seed in a process of its own."
        )
    if compile == "cudagraph":
        raise ValueError(
            "Seeds that train together have no CUDA graphs: set `compile` to True or False, or train each seed in a process "
            "of its own."
        )


def train_together(model: Any, ask: Ask) -> None:
    """
    Compute the gradients of a model together with those of others.

    :param model: The model
    :param ask: See ``Together``
    :raises ValueError: If this is not possible for the model.
    """
    require_together(type(model), getattr(model, "compile", None))
    model.execution = Together(model.compile, ask)


class BatchedGradients:
    """Computes the gradients of several models, whose arguments are equal except for the seed."""

    def __init__(self) -> None:
        self.execution: Execution | None = None
        self.losses: dict[str, BatchedLoss] = {}
        self.policies: list[nn.Module] = []
        #: Parameters and buffers of all models by name, with the models as the first axis.
        self.stacked: dict[str, th.Tensor] = {}
        #: The same of each model, and where their data is.
        self.tensors: list[dict[str, th.Tensor]] = []
        self.addresses: list[int] = []

    def __call__(self, calls: Sequence[Call]) -> list[tuple[Gradients, Metrics]]:
        """
        Compute the gradients of all calls, those of one kind together.

        :param calls: One call of each model
        :return: The gradients and the metrics of each call
        :raises ValueError: If a loss cannot be computed for several models at once.
        """
        algorithm = calls[0].loss.__self__
        self.execution = self.execution or make_execution(algorithm.compile, algorithm.device)
        results: dict[int, tuple[Gradients, Metrics]] = {}
        for kind in dict.fromkeys(call.kind for call in calls):
            alike = [i for i, call in enumerate(calls) if call.kind == kind]
            results.update(zip(alike, self._of_one_kind(self.execution, [calls[i] for i in alike]), strict=True))
        return [results[i] for i in range(len(calls))]

    def _of_one_kind(self, execution: Execution, calls: list[Call]) -> list[tuple[Gradients, Metrics]]:
        loss, parameters, inputs = calls[0]
        if len(calls) == 1:
            return [execution.differentiate(loss, parameters, *inputs)]
        self._stack([call.loss.__self__.policy for call in calls])
        names = {id(tensor): name for name, tensor in self.tensors[0].items()}
        trained = dict.fromkeys(names[id(parameter)] for parameter in parameters)
        for name, tensor in self.stacked.items():
            tensor.requires_grad_(name in trained)
        if loss.__name__ not in self.losses or self.losses[loss.__name__].loss != loss:
            self.losses[loss.__name__] = BatchedLoss(loss)
        inputs = tree_map(lambda *leaves: th.stack(leaves) if is_tensor(leaves[0]) else leaves[0], *(c.inputs for c in calls))
        batched, leaves = self.losses[loss.__name__], [self.stacked[name] for name in trained]
        try:
            gradients, metrics = execution.differentiate(batched, leaves, self.stacked, inputs)
        except RuntimeError as error:  # of torch.vmap
            raise ValueError(
                f"`{loss.__name__}` of {type(loss.__self__).__name__} cannot be computed for several seeds at once: train "
                f"each seed in a process of its own. PyTorch says: {str(error).strip().splitlines()[0]}"
            ) from error
        rows = [[None] * len(calls) if gradient is None else gradient.unbind() for gradient in gradients]
        return [
            (tuple(row[i] for row in rows), {name: values[i] for name, values in metrics.items()}) for i in range(len(calls))
        ]

    def _stack(self, policies: list[nn.Module]) -> None:
        """Stack the parameters and buffers of policies, unless they are the views that they became the last time."""
        addresses = [tensor.data_ptr() for tensors in self.tensors for tensor in tensors.values()]
        if policies == self.policies and addresses == self.addresses:
            return
        self.policies = policies
        self.tensors = [{**dict(policy.named_parameters()), **dict(policy.named_buffers())} for policy in policies]
        self.stacked = {name: th.stack([each[name].detach() for each in self.tensors]) for name in self.tensors[0]}
        for i, (policy, tensors) in enumerate(zip(policies, self.tensors, strict=True)):
            for name, tensor in tensors.items():
                tensor.data = self.stacked[name][i]
            if copy_views not in policy._state_dict_hooks.values():
                policy.register_state_dict_post_hook(copy_views)  # type: ignore[no-untyped-call]
        self.addresses = [tensor.data_ptr() for tensors in self.tensors for tensor in tensors.values()]


class BatchedLoss:
    """
    The sum of a loss over models, and the metrics of each. A gradient of the sum has the gradient of each model as its row.

    :param loss: The loss, a method of any of the models
    """

    def __init__(self, loss: Any) -> None:
        self.loss, self.__name__ = loss, loss.__name__
        self.module = _Loss(loss)

    def __call__(self, stacked: dict[str, th.Tensor], inputs: tuple[Any, ...]) -> tuple[th.Tensor, Metrics]:
        """
        Evaluate the loss of all models.

        :param stacked: Parameters and buffers of all policies by name
        :param inputs: Arguments of the loss, whose tensors are stacked
        :return: The sum, and the metrics, ``(n_models,)`` each
        """

        def one(tensors: dict[str, th.Tensor], inputs: tuple[Any, ...]) -> tuple[th.Tensor, Metrics]:
            named = {f"policy.{name}": tensor for name, tensor in tensors.items()}
            return th.func.functional_call(self.module, named, inputs)  # type: ignore[no-any-return]

        axes = tree_map(lambda leaf: 0 if is_tensor(leaf) else None, inputs)
        losses, metrics = th.vmap(one, in_dims=(0, axes))(stacked, inputs)
        return losses.sum(), metrics


class _Loss(nn.Module):
    """A loss as a function of the parameters of the policy, for ``functional_call``."""

    def __init__(self, loss: Any) -> None:
        super().__init__()
        self.policy, self.loss = loss.__self__.policy, loss

    def forward(self, *inputs: Any) -> tuple[th.Tensor, Metrics]:
        return self.loss(*inputs)  # type: ignore[no-any-return]


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor."""
    return isinstance(value, th.Tensor)


def copy_views(policy: nn.Module, state: dict[str, th.Tensor], prefix: str, local_metadata: dict[str, Any]) -> None:
    """Copy the tensors of a policy's state, because PyTorch would write the rows of all models to the file of one."""
    for name in list(state):
        state[name] = state[name].clone()
