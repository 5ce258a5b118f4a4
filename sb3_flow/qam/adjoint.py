"""
Adjoint matching trains a flow to sample from the tilted distribution ``pi(a) exp(tau Q(a))`` of a base flow ``pi``, without
differentiating the sampling (Domingo-Enrich et al., 2025; Li and Levine, 2026).

Pure functions of tensors. ``T`` steps of size ``h = 1 / T`` transform noise at ``t_0 = 0`` into an action at ``t_T = 1``.
"""

from collections.abc import Callable

import torch as th

from sb3_flow.common.flow import same_time
from sb3_flow.common.networks import is_transformed
from sb3_flow.common.type_aliases import Velocity


def memoryless_std(n_steps: int) -> list[float]:
    """
    The noise of the memoryless schedule, for which the end of a path is independent of its start.

    :param n_steps: ``T``
    :return: ``sigma_i``, with ``sigma_i^2 = 2 (1 - t_i + h) / (t_i + h)``: ``T`` numbers
    """
    h = 1 / n_steps
    return [(2 * (1 - i * h + h) / (i * h + h)) ** 0.5 for i in range(n_steps)]


def memoryless_path(velocity: Velocity, base: Velocity, noise: th.Tensor) -> th.Tensor:
    """
    Simulate the stochastic differential equation that has the marginals of a flow and is memoryless.

    ``x_{i+1} = x_i + h (2 v(x_i, t_i) - x_i / (t_i + h)) + sqrt(h) sigma_i eps_i``. The last step, without noise, is an Euler
    step of the base flow.

    :param velocity: Velocity ``v`` of the flow
    :param base: Velocity of the base flow
    :param noise: Standard normal: ``x_0``, then ``eps_0`` to ``eps_{T-2}``, ``(T, B, D)``
    :return: ``x_0`` to ``x_T``, ``(T + 1, B, D)``
    """
    n_steps = len(noise)
    h, sigma = 1 / n_steps, memoryless_std(n_steps)
    x, path = noise[0], [noise[0]]
    for i in range(n_steps - 1):
        drift = 2 * velocity(x, same_time(i * h, x)) - x / (i * h + h)
        x = x + h * drift + h**0.5 * sigma[i] * noise[i + 1]
        path.append(x)
    path.append(x + h * base(x, same_time(1 - h, x)))
    return th.stack(path)


def lean_adjoint(base: Velocity, path: th.Tensor, terminal: th.Tensor) -> th.Tensor:
    """
    Propagate the gradient at the end of each path back along the path, by the Jacobian of the base flow's velocity.

    ``g_i = g_{i+1} + h (d b_i / d x)(x_i)^T g_{i+1}`` with ``b_i(x) = 2 v(x, t_i + h) - x / (t_i + h)``.

    :param base: Velocity ``v`` of the base flow
    :param path: ``x_0`` to ``x_T``, ``(T + 1, B, D)``
    :param terminal: ``g_T``, the gradient of the terminal cost at ``x_T``, ``(B, D)``
    :return: ``g_0`` to ``g_{T-1}``, ``(T, B, D)``
    """
    n_steps = len(path) - 1
    h, adjoint, adjoints = 1 / n_steps, terminal, []
    for i in reversed(range(n_steps)):
        x, later = path[i], i * h + h
        pulled_back = vjp(lambda x, later=later: base(x, same_time(later, x)), x, adjoint)  # type: ignore[misc]
        adjoint = adjoint + h * (2 * pulled_back - adjoint / later)
        adjoints.append(adjoint)
    return th.stack(adjoints[::-1])


def control(velocity: Velocity, base: Velocity, path: th.Tensor) -> th.Tensor:
    """
    The difference of two velocities along a path, ``u_i = (v - base)(x_i, t_i)``. Gradient: ``velocity`` only.

    :param velocity: Velocity ``v`` of the trained flow, with ``T`` points per sample
    :param base: Velocity of the base flow, with ``T`` points per sample
    :param path: ``x_0`` to ``x_T``, ``(T + 1, B, D)``
    :return: ``u_0`` to ``u_{T-1}``, ``(T, B, D)``
    """
    n_steps, n = len(path) - 1, path.shape[1]
    t = th.arange(n_steps, device=path.device, dtype=path.dtype).div(n_steps).repeat_interleave(n)[:, None]
    x = path[:-1].flatten(end_dim=1)
    with th.no_grad():
        base_velocity = base(x, t)
    return (velocity(x, t) - base_velocity).view_as(path[:-1])


def path_and_control(velocity: Velocity, base: Velocity, noise: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """
    ``memoryless_path`` and ``control`` with one evaluation of each velocity per point. Gradient: the control's, ``velocity``
    only.

    This saves the evaluations that both have in common, but computes the gradient step by step. It is faster on a CPU; a GPU
    needs few large operators instead.

    :param velocity: Velocity ``v`` of the trained flow
    :param base: Velocity of the base flow
    :param noise: Standard normal: ``x_0``, then ``eps_0`` to ``eps_{T-2}``, ``(T, B, D)``
    :return: ``x_0`` to ``x_T``, ``(T + 1, B, D)``, and ``u_0`` to ``u_{T-1}``, ``(T, B, D)``
    """
    controls = []

    def evaluate(x: th.Tensor, t: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        v = velocity(x, t)
        with th.no_grad():
            base_v = base(x, t)
        controls.append(v - base_v)
        return v.detach(), base_v

    path = memoryless_path(lambda x, t: evaluate(x, t)[0], lambda x, t: evaluate(x, t)[1], noise)
    return path, th.stack(controls)


def adjoint_matching_loss(control: th.Tensor, adjoints: th.Tensor, temperature: float | th.Tensor = 1.0) -> th.Tensor:
    """
    The adjoint matching loss, ``sum_i |(2 / s_i) u_i + s_i g_i|^2`` with ``s_i = sigma_i / sqrt(temperature)``. Its minimizer
    is ``u_i = -sigma_i^2 / (2 temperature) E[g_i | x_i]``.

    :param control: ``u_0`` to ``u_{T-1}``, ``(T, B, D)``
    :param adjoints: ``g_0`` to ``g_{T-1}``, ``(T, B, D)``
    :param temperature: Temperature, above 0
    :return: Loss of each sample, ``(B,)``
    """
    sigma = _std_of_paths(control) / temperature**0.5
    return (2 / sigma * control + sigma * adjoints).square().sum(dim=(0, 2))


def path_divergence(control: th.Tensor) -> th.Tensor:
    """
    Terms of the Kullback-Leibler divergence of the memoryless paths of a flow from those of the base flow. The divergence is
    the mean over the flow's paths of ``sum_i (2 h / sigma_i^2) |u_i|^2`` (Girsanov).

    :param control: ``u_0`` to ``u_{T-1}``, ``(T, B, D)``
    :return: This sum for each path, ``(B,)``
    """
    sigma = _std_of_paths(control)
    return (2 / len(control) * (control / sigma).square()).sum(dim=(0, 2))


def vjp(function: Callable[[th.Tensor], th.Tensor], x: th.Tensor, cotangent: th.Tensor) -> th.Tensor:
    """
    A vector-Jacobian product with respect to the function's input. Parameters get no gradient.

    :param function: A function of one tensor
    :param x: Input, ``(B, n)``
    :param cotangent: The vector, shaped as the function's output
    :return: ``(df/dx)^T cotangent``, ``(B, n)``, without a graph
    """
    if th.compiler.is_compiling() or is_transformed():  # which support only this form
        pullback = th.func.vjp(function, x)[1]
        return pullback(cotangent)[0]  # type: ignore[no-any-return]
    with th.enable_grad():
        x = x.detach().requires_grad_()
        return th.autograd.grad(function(x), x, cotangent)[0]


def _std_of_paths(path: th.Tensor) -> th.Tensor:
    """``memoryless_std`` for a tensor ``(T, B, D)``, computed on its device without a copy from the host, ``(T, 1, 1)``."""
    h = 1 / len(path)
    t = th.arange(len(path), device=path.device, dtype=path.dtype).view(-1, 1, 1) * h
    return (2 * (1 - t + h) / (t + h)).sqrt()
