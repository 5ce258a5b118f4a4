"""Derivatives of functions with respect to their input, in a form that runs eagerly and compiled."""

from collections.abc import Callable

import torch as th


def vjp(function: Callable[[th.Tensor], th.Tensor], x: th.Tensor, cotangent: th.Tensor) -> th.Tensor:
    """
    A vector-Jacobian product, of the function's input only: no parameter of it gets a gradient.

    :param function: A function of one tensor
    :param x: Where, ``(B, n)``
    :param cotangent: The vector, shaped as the function's output
    :return: ``(df/dx)^T cotangent``, ``(B, n)``, without a graph
    """
    if th.compiler.is_compiling():  # which knows this form only
        pullback = th.func.vjp(function, x)[1]
        return pullback(cotangent)[0]  # type: ignore[no-any-return]
    with th.enable_grad():
        x = x.detach().requires_grad_()
        return th.autograd.grad(function(x), x, cotangent)[0]
