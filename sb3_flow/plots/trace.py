"""The paths of a policy's flow from noise to actions, recorded while the policy itself acts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch as th

from sb3_flow.common.policies import FlowPolicy
from sb3_flow.common.type_aliases import TensorObs, Velocity
from sb3_flow.streaming_flow.policies import StreamingFlowPolicy


class Trace(NamedTuple):
    """
    A flow at one observation.

    :param sampler: Name of the sampler
    :param times: Times of the steps, from 0 to 1, ``(T + 1,)``
    :param points: Points of the paths, from noise to actions before they are clipped, ``(T + 1, n, action_dim)``
    :param velocity: The field ``(x, t) -> v`` at this observation, for any number ``B`` of points, of shapes
        ``(B, action_dim), (B, 1) -> (B, action_dim)``
    """

    sampler: str
    times: np.ndarray
    points: np.ndarray
    velocity: Velocity


def policy_of(model: Any) -> FlowPolicy:
    """
    :param model: A model of this package, or its policy
    :return: The policy
    :raises TypeError: If it is neither.
    """
    policy = getattr(model, "policy", model)
    if not isinstance(policy, FlowPolicy):
        raise TypeError(f"Expected a model of sb3_flow or its policy; {type(model).__name__} has no flow policy.")
    return policy


def repeated(policy: FlowPolicy, observation: np.ndarray | dict[str, np.ndarray], n: int) -> TensorObs:
    """
    :param policy: The policy
    :param observation: One observation of the environment
    :param n: Number of copies
    :return: A batch of ``n`` copies
    :raises ValueError: If it is a batch, or does not fit the observation space.
    """
    observations, vectorized = policy.obs_to_tensor(observation)
    if vectorized:
        raise ValueError("Expected one observation, as `env.reset()` returns it, not a batch; pass `observations[0]`.")
    if isinstance(observations, dict):
        return {key: part.repeat_interleave(n, dim=0) for key, part in observations.items()}
    return observations.repeat_interleave(n, dim=0)


def normal(n: int, size: int, policy: FlowPolicy, seed: int) -> th.Tensor:
    """Standard normal noise ``(n, size)`` of a seed, the same on every device. PyTorch's own generator is not used."""
    dtype = next(policy.parameters()).dtype
    return th.randn(n, size, generator=th.Generator().manual_seed(seed)).to(policy.device, dtype)


def sample(model: Any, observation: Any, n: int, sampler: str | None = None, seed: int = 0) -> np.ndarray:
    """
    Sample actions as ``predict`` does without ``deterministic``, from noise of a seed.

    :param model: A model or its policy
    :param observation: One observation
    :param n: Number of actions
    :param sampler: Name of a sampler; None: that of the policy
    :param seed: Seed of the noise
    :return: Actions in [-1, 1], ``(n, action_dim)``; of chunks all actions, time first
    """
    policy = policy_of(model)
    policy = policy if sampler is None else policy.with_sampler(sampler, policy.best_of_n)
    policy.set_training_mode(False)
    noise = normal(n, policy.best_of_n * policy.noise_dim, policy, seed).view(n, policy.best_of_n, -1)
    with th.no_grad():
        return policy.act_best(repeated(policy, observation, n), noise).cpu().numpy()


def trace_flow(model: Any, observation: Any, n: int = 200, sampler: str | None = None, seed: int = 0) -> Trace:
    """
    Record the flow of a policy at one observation.

    :param model: A model or its policy
    :param observation: One observation, as ``predict`` takes it: normalized, if the model was trained with ``VecNormalize``
    :param n: Number of paths, at least 1
    :param sampler: Name of a sampler that integrates a flow, such as ``"bc_flow"``; None: that of the policy, or if it has no
        flow, as a one-step actor, the first one that has
    :param seed: Seed of the noise
    :return: The paths and the velocity field
    :raises TypeError: If it is not a model of this package.
    :raises ValueError: If the sampler's actions are not the end of a flow: the message names the samplers that can be drawn.
    """
    policy = policy_of(model)
    policy.set_training_mode(False)
    if sampler is not None:
        policy.with_sampler(sampler)  # raises the error that lists the samplers
    names = [sampler] if sampler is not None else [policy.sampler, *policy.samplers]
    for name in names:
        found = _trace(policy.with_sampler(name), observation, n, seed)
        if found is not None:
            return found
    others = [name for name in policy.samplers if _trace(policy.with_sampler(name), observation, 1, seed) is not None]
    asked = f"The sampler {sampler!r} of" if sampler is not None else "No sampler of"
    hint = f"; choose one of {', '.join(others)}" if others else ""
    raise ValueError(f"{asked} {type(policy).__name__} has actions that are the end of a flow with steps in time{hint}.")


def _trace(policy: FlowPolicy, observation: Any, n: int, seed: int) -> Trace | None:
    """The flow of the policy's sampler; None if its actions are not the end of one."""
    if isinstance(policy, StreamingFlowPolicy):
        return _trace_stream(policy, observation, n, seed)
    calls: list[tuple[th.Tensor, ...]] = []
    fields: list[Velocity] = []
    acting = _recorded(policy, calls, fields)
    with th.no_grad():
        try:
            actions = acting.act(repeated(policy, observation, n), normal(n, policy.noise_dim, policy, seed))
        except NotImplementedError:
            return None
    # Fields of average velocities have two times; a sampler that chooses among several actions has more points.
    if len(fields) != 1 or any(len(call) != 3 or call[0].shape[0] != n for call in calls):
        return None
    points = [call[0] for call in calls]
    times = [float(call[1][0, 0]) for call in calls]
    points.append(points[-1] + (1.0 - times[-1]) * calls[-1][2])
    if actions.shape != points[-1].shape or not th.allclose(points[-1].clamp(-1, 1), actions, atol=1e-5):
        return None  # something else happens to the actions after the flow

    def velocity(x: th.Tensor, t: th.Tensor) -> th.Tensor:
        """The same field for another number of points."""
        again: list[Velocity] = []
        with th.no_grad():
            _recorded(policy, [], again).act(repeated(policy, observation, len(x)), x.new_zeros(len(x), policy.noise_dim))
            return again[0](x, t)

    return Trace(policy.sampler, np.array([*times, 1.0]), th.stack(points).cpu().numpy(), velocity)


def _recorded(policy: FlowPolicy, calls: list[tuple[th.Tensor, ...]], fields: list[Velocity]) -> FlowPolicy:
    """A policy that shares its networks with another, and records the fields that it integrates and their evaluations."""

    def velocity(*arguments: Any, **options: Any) -> Callable[..., th.Tensor]:
        field = policy.velocity(*arguments, **options)

        def record(*inputs: th.Tensor) -> th.Tensor:
            result = field(*inputs)
            calls.append((*inputs, result))
            return result

        fields.append(field)
        return record

    twin = copy.copy(policy)
    twin.__dict__["velocity"] = velocity
    return twin


def _trace_stream(policy: StreamingFlowPolicy, observation: Any, n: int, seed: int) -> Trace | None:
    """The flow of a streaming policy, whose points are the actions of one plan."""
    if policy.latent_dim:
        return None
    observations = repeated(policy, observation, n)
    horizon = policy.prediction_horizon
    with th.no_grad():
        context = policy.context(policy.acting, policy.first_frames(observations))
        x = policy.begin(policy.start(observations), normal(n, policy.action_dim, policy, seed))[0]
        points = [x]
        for cursor in range(horizon):
            x = policy.step(context, x, th.full_like(x[:, :1], cursor))[0]
            points.append(x)

    def velocity(x: th.Tensor, t: th.Tensor) -> th.Tensor:
        with th.no_grad():
            return policy.field(policy.acting, context[:1].expand(len(x), -1))(x, t)

    return Trace(policy.sampler, np.linspace(0, 1, horizon + 1), th.stack(points).cpu().numpy(), velocity)
