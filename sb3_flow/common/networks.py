"""
The networks of flow policies: velocity fields, one-step actors, and ensembles of critics.

Each hidden layer is ``linear -> activation -> (layer norm)``; the last layer is linear. Weights are initialized Xavier uniform
and biases to zero, as in the published JAX implementations of this family.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import torch as th
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional as F

ActivationName = Literal["gelu", "relu", "silu", "mish", "tanh", "elu"]

#: sqrt(8 / pi) and the cubic coefficient of the tanh approximation of GELU.
_GELU_SCALE, _GELU_CUBIC = 1.5957691216057308, 0.044715
#: Below this number of elements the number of operators dominates the run time.
SMALL = 8192


def split_net_arch(net_arch: Any) -> tuple[list[int], list[int]]:
    """
    Get the widths of the hidden layers of actors and of critics.

    :param net_arch: A list of widths, or a dictionary of two lists as for Stable-Baselines3's SAC and TD3
    :return: Both lists
    :raises ValueError: If it is something else, or a list is empty.
    """
    parts = net_arch if isinstance(net_arch, Mapping) else {"pi": net_arch, "qf": net_arch}
    expected = "expected a list of widths such as [256, 256], or {'pi': [256, 256], 'qf': [256, 256]}"
    if parts.keys() != {"pi", "qf"}:
        raise ValueError(f"`net_arch` has the keys {sorted(map(str, parts))}; {expected}.")
    for widths in parts.values():
        if not isinstance(widths, Sequence) or not all(isinstance(width, int) and width > 0 for width in widths):
            raise ValueError(f"`net_arch` is {net_arch!r}; {expected}.")
        if not widths:
            raise ValueError(f"`net_arch` is empty; {expected}.")
    return list(parts["pi"]), list(parts["qf"])


class _GeluTanh(th.autograd.Function):
    """GELU's tanh approximation written as ``x * sigmoid(2u)``, because ``(1 + tanh(u)) / 2 = sigmoid(2u)``."""

    @staticmethod
    def forward(ctx: Any, x: th.Tensor) -> th.Tensor:
        gate = _gelu_gate(x)
        ctx.save_for_backward(x, gate)
        return x * gate

    @staticmethod
    def backward(ctx: Any, grad_output: th.Tensor) -> th.Tensor:
        x, gate = ctx.saved_tensors
        if th.is_grad_enabled():  # a second derivative may be needed, which PyTorch's operator has
            slow: th.Tensor = th.ops.aten.gelu_backward(grad_output, x, approximate="tanh")
            return slow
        # d/dx [x s(w)] = s + x s (1 - s) w',  w' = scale * (1 + 3 * cubic * x^2)
        slope: th.Tensor = (x * x).mul_(3 * _GELU_CUBIC * _GELU_SCALE).add_(_GELU_SCALE)
        slope.mul_(x).mul_(1 - gate).add_(1).mul_(gate)
        return slope.mul_(grad_output)


class _BatchedGeluTanh(th.autograd.Function):
    """``_GeluTanh`` inside of ``torch.vmap``, applied to all members at once. In this form alone it would be slower."""

    @staticmethod
    def forward(x: th.Tensor) -> th.Tensor:
        raise NotImplementedError

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[th.Tensor], output: th.Tensor) -> None: ...

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], x: th.Tensor) -> tuple[th.Tensor, int]:
        return _GeluTanh.apply(x), in_dims[0]  # type: ignore[no-untyped-call]


def _gelu_gate(x: th.Tensor) -> th.Tensor:
    gate = (x * x).mul_(_GELU_CUBIC * _GELU_SCALE).add_(_GELU_SCALE).mul_(x)
    return th.sigmoid_(gate)


def is_transformed() -> bool:
    """Whether a transform of ``torch.func`` or forward-mode differentiation is active."""
    return th._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_batched() -> bool:
    """Whether ``torch.vmap`` is active and no other transform. Then a tensor does not know whether it requires gradients."""
    transforms = th._C._functorch.get_interpreter_stack() or []
    return bool(transforms) and all(transform.key() == th._C._functorch.TransformType.Vmap for transform in transforms)


def gelu_tanh(x: th.Tensor) -> th.Tensor:
    """
    GELU in its tanh approximation, the default of JAX, in half the time of ``F.gelu(approximate="tanh")`` on a CPU.

    :param x: Any shape
    :return: ``0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))``
    """
    batched = not th.compiler.is_compiling() and is_batched()
    if th.compiler.is_compiling() or (is_transformed() and not batched):  # which fuse this or derive the gradient themselves
        return x * th.sigmoid(x * (_GELU_SCALE + _GELU_SCALE * _GELU_CUBIC * x * x))
    if x.numel() < SMALL:
        return F.gelu(x, approximate="tanh")
    if batched and th.is_grad_enabled():
        return _BatchedGeluTanh.apply(x)  # type: ignore[no-any-return,no-untyped-call]
    if x.requires_grad and th.is_grad_enabled():
        return _GeluTanh.apply(x)  # type: ignore[no-any-return,no-untyped-call]
    return _gelu_gate(x).mul_(x)


def mish(x: th.Tensor) -> th.Tensor:
    """
    Mish. Without gradients, it takes a third of the time of ``F.mish`` on a CPU.

    :param x: Any shape
    :return: ``x tanh(softplus(x))``, that is ``x n / (n + 2)`` with ``n = e^x (e^x + 2)``
    """
    if (x.requires_grad and th.is_grad_enabled()) or x.numel() < SMALL or th.compiler.is_compiling() or is_transformed():
        return F.mish(x)
    n = x.clamp(max=20.0).exp_()  # above 20 the quotient is 1
    n.mul_(n + 2)
    return n.div_(n + 2).mul_(x)


ACTIVATIONS: dict[str, Callable[[th.Tensor], th.Tensor]] = {
    "gelu": gelu_tanh,
    "relu": F.relu,
    "silu": F.silu,
    "mish": mish,
    "tanh": th.tanh,
    "elu": F.elu,
}


def get_activation(name: str) -> Callable[[th.Tensor], th.Tensor]:
    """
    Look up an activation by its name.

    :param name: One of ``ACTIVATIONS``
    :return: The function
    :raises ValueError: If the name is unknown; the message lists the names.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"Unknown activation {name!r}; choose one of {', '.join(get_args(ActivationName))}.")
    return ACTIVATIONS[name]


def linear(n_in: int, n_out: int) -> nn.Linear:
    """A linear layer with Xavier uniform weights and zero bias."""
    layer = nn.Linear(n_in, n_out)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class MLP(nn.Module):
    """
    A multi-layer perceptron whose input has several parts.

    The first layer is applied to each part separately: its product with the features of an observation (``context``) is
    computed once and reused in all integration steps of a flow.

    :param n_features: Size of the first part
    :param n_rest: Size of all other parts together
    :param n_out: Size of the output
    :param net_arch: Widths of the hidden layers, at least one
    :param activation: Name of the activation
    """

    def __init__(self, n_features: int, n_rest: int, n_out: int, net_arch: Sequence[int], activation: str = "gelu") -> None:
        super().__init__()
        if not net_arch:
            raise ValueError("`net_arch` is empty; give the width of at least one hidden layer, such as [256, 256].")
        sizes = [n_features + n_rest, *net_arch, n_out]
        self.layers = nn.ModuleList(linear(n_in, n_out) for n_in, n_out in pairwise(sizes))
        self.n_features = n_features
        self.activation = get_activation(activation)

    def context(self, features: th.Tensor) -> th.Tensor:
        """The part of the first layer that depends on features, with bias: ``(B, n_features) -> (B, width)``."""
        first = self.layers[0]
        return F.linear(features, first.weight[:, : self.n_features], first.bias)  # type: ignore[index,arg-type]

    def forward(self, context: th.Tensor, *rest: th.Tensor) -> th.Tensor:
        """
        :param context: As returned by ``context``
        :param rest: The other parts of the input, ``(B, n)`` each, in order
        :return: ``(B, n_out)``
        """
        inputs = rest[0] if len(rest) == 1 else th.cat(rest, dim=1)
        weight = self.layers[0].weight[:, self.n_features : self.n_features + inputs.shape[1]]  # type: ignore[index]
        hidden = self.activation(th.addmm(context, inputs, weight.t()))
        for layer in self.layers[1:-1]:
            hidden = self.activation(layer(hidden))
        return self.layers[-1](hidden)  # type: ignore[no-any-return]


def sinusoid(t: th.Tensor, dim: int, intervals: int) -> th.Tensor:
    """
    Sinusoidal embedding with geometrically decreasing frequencies; the first frequency is 1.

    :param t: Times, ``(B, 1)``
    :param dim: Size of the embedding, even
    :param intervals: Number of frequencies over which they decrease to 1/10000
    :return: ``[sin(t f_0), ..., cos(t f_0), ...]``, ``(B, dim)``
    """
    exponents = th.arange(dim // 2, device=t.device, dtype=t.dtype) / intervals
    angles = t * th.exp(-math.log(10_000.0) * exponents)
    return th.cat([angles.sin(), angles.cos()], dim=1)


class VelocityMLP(MLP):
    """
    A velocity field: maps features, a point and a time to a velocity.

    :param n_features: Size of the features
    :param dim: Size of the points
    :param net_arch: Widths of the hidden layers
    :param activation: Name of the activation
    :param encode_time_dim: Size of the embedding of the time, see ``sinusoid``; 0: the time itself
    :raises ValueError: If ``encode_time_dim`` is neither 0 nor an even number of at least 4.
    """

    def __init__(
        self, n_features: int, dim: int, net_arch: Sequence[int], activation: str = "gelu", encode_time_dim: int = 0
    ) -> None:
        if encode_time_dim != 0 and (encode_time_dim < 4 or encode_time_dim % 2):
            raise ValueError(f"`encode_time_dim` is {encode_time_dim}; it must be 0, or an even number of at least 4.")
        super().__init__(n_features, dim + (encode_time_dim or 1), dim, net_arch, activation)
        self.encode_time_dim = encode_time_dim

    def forward(self, context: th.Tensor, *rest: th.Tensor) -> th.Tensor:
        """
        :param context: As returned by ``context``
        :param rest: Points ``(B, dim)`` and times ``(B, 1)``. For times from ``flow.same_time``
            the embedding and its part of the first layer are computed once.
        :return: Velocities, ``(B, dim)``
        """
        x, t = rest
        if not self.encode_time_dim:
            return super().forward(context, x, t)
        one_for_all = t.stride(0) == 0
        embedding = sinusoid(t[:1] if one_for_all else t, self.encode_time_dim, intervals=self.encode_time_dim // 2 - 1)
        if not one_for_all:
            return super().forward(context, x, embedding)
        return super().forward(context + F.linear(embedding, self.layers[0].weight[:, -self.encode_time_dim :]), x)  # type: ignore[index]


class EnsembleMLP(nn.Module):
    """
    ``K`` independent multi-layer perceptrons with a scalar output each, computed as one batched network.

    :param n_members: ``K``
    :param n_in: Size of the input
    :param net_arch: Widths of the hidden layers
    :param activation: Name of the activation
    :param layer_norm: Whether a layer norm (eps 1e-6, with scale and shift) follows each activation
    """

    def __init__(
        self, n_members: int, n_in: int, net_arch: Sequence[int], activation: str = "gelu", layer_norm: bool = True
    ) -> None:
        super().__init__()
        sizes = [n_in, *net_arch, 1]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        self.scales, self.shifts = nn.ParameterList(), nn.ParameterList()
        for i, (n_from, n_to) in enumerate(pairwise(sizes)):
            weight = th.empty(n_members, n_from, n_to)
            for member in weight:
                nn.init.xavier_uniform_(member)
            self.weights.append(nn.Parameter(weight))
            self.biases.append(nn.Parameter(th.zeros(n_members, 1, n_to)))
            if layer_norm and i < len(net_arch):
                self.scales.append(nn.Parameter(th.ones(n_members, 1, n_to)))
                self.shifts.append(nn.Parameter(th.zeros(n_members, 1, n_to)))
        self.n_members = n_members
        self.activation = get_activation(activation)
        self.layer_norm = layer_norm

    def forward(self, inputs: th.Tensor, frozen: bool = False) -> th.Tensor:
        """
        :param inputs: ``(B, n_in)``, the same for all members, or ``(K, B, n_in)``, one for each
        :param frozen: Whether gradients flow to the inputs only. Actor losses do not need the gradients of the critics'
            weights, so this saves time.
        :return: ``(K, B)``
        """

        def constant(parameter: th.Tensor) -> th.Tensor:
            return parameter.detach() if frozen else parameter

        hidden = inputs.expand(self.n_members, -1, -1)
        *layers, (last_weight, last_bias) = zip(self.weights, self.biases, strict=True)
        for i, (weight, bias) in enumerate(layers):
            hidden = self.activation(th.baddbmm(constant(bias), hidden, constant(weight)))
            if self.layer_norm:
                # F.layer_norm has one scale and shift; each member has its own.
                hidden = F.layer_norm(hidden, hidden.shape[-1:], eps=1e-6)
                hidden = th.addcmul(constant(self.shifts[i]), hidden, constant(self.scales[i]))
        # A batched matrix product with one column would take five times as long on a CPU.
        return (hidden * constant(last_weight).mT).sum(dim=-1) + constant(last_bias).squeeze(-1)
