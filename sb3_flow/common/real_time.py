"""Planning of a chunk while the previous one is being executed, for ``sb3_flow.deploy.ControlLoop``."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_flow.common.encoders import subspaces
from sb3_flow.common.guards import check_observation
from sb3_flow.common.observation_wrappers import OBSERVATION, Step, prepare

#: A ``FlowPolicy``, whose module imports this one.
Policy = Any


def planning_all(policy: Policy) -> Policy:
    """A policy that shares the networks of another one, and whose ``plan_actions`` returns whole chunks."""
    twin = copy.copy(policy)
    twin.n_action_steps = policy.prediction_horizon
    return twin


def condition(policy: Policy, known: th.Tensor, weights: th.Tensor) -> None:
    """
    Condition the next plan on known actions, if the sampler can be conditioned.

    :param policy: The policy
    :param known: Actions in [-1, 1], ``(1, prediction_horizon, action_dim)``
    :param weights: How much the plan should follow each of them, in [0, 1], ``(1, prediction_horizon)``
    """
    if policy.sampler in policy.guided_samplers:
        policy.known_actions = known.flatten(start_dim=1), weights[..., None].expand(known.shape).flatten(start_dim=1)


class RealTimePlanner:
    """
    A policy as the planner of a ``ControlLoop``, which documents its attributes and methods.

    :param policy: The policy, with the sampler that plans
    :param space: The space of its observations before they are prepared; None: the policy's
    :param steps: Their preparation, see ``common.observation_wrappers``
    """

    def __init__(self, policy: Policy, space: spaces.Space[Any] | None = None, steps: Sequence[Step] = ()) -> None:
        self.policy = planning_all(policy)
        self.observation_space, self.steps = policy.observation_space if space is None else space, steps
        self.prediction_horizon, self.n_action_steps = policy.prediction_horizon, policy.n_action_steps
        self.n_obs_steps, self.action_shape = policy.n_obs_steps, policy.action_space.shape
        self.conditions_plans = policy.conditions_plans
        self.can_be_conditioned = policy.sampler in policy.guided_samplers
        if policy.certifies:
            self.certified = False

    def check(self, observation: Any) -> None:
        space = self.observation_space
        check_observation(observation, space)
        parts = observation if isinstance(observation, dict) else {"": observation}
        if parts.keys() != subspaces(space).keys():
            raise ValueError(f"The observation has {sorted(parts)}; expected {sorted(subspaces(space))}.")
        for key, part in subspaces(space).items() if self.steps else ():
            if np.shape(parts[key]) not in (part.shape, (len(parts[key]), *(part.shape or ()))):
                name = f"`{key}` of the observation" if key else "The observation"
                raise ValueError(f"{name} has the shape {np.shape(parts[key])}; expected {part.shape}.")
        if self.policy.obs_to_tensor(self.prepared(observation))[1]:  # raises for other shapes
            raise ValueError("The observation is a batch; a control loop takes the observation of one robot.")

    def prepared(self, observation: Any) -> Any:
        """What SB3's wrappers do to an observation, or to a batch."""
        if not self.steps:
            return observation
        if isinstance(observation, dict):
            parts = {key: th.as_tensor(np.asarray(part)) for key, part in observation.items()}
            return {key: part.numpy() for key, part in prepare(parts, self.steps).items()}
        return prepare({OBSERVATION: th.as_tensor(np.asarray(observation))}, self.steps)[OBSERVATION].numpy()

    def plan(
        self, history: list[Any], previous: np.ndarray | None, known: np.ndarray, weights: np.ndarray, deterministic: bool
    ) -> Iterable[np.ndarray]:
        policy = self.policy
        last = th.zeros(1, int(np.prod(self.action_shape)), device=policy.device)
        start = th.ones(1, dtype=th.bool, device=policy.device)
        with th.no_grad():
            policy.known_actions = None
            if weights.any():
                condition(policy, self.scaled(known), th.as_tensor(weights[None], device=policy.device))
            plan = policy.plan_actions(self.inputs(history), policy._noise(1, deterministic), last, start)
        if policy.certifies:
            self.certified = bool(policy.certified[0])
        return self.unscaled(plan[0])

    def inputs(self, history: list[Any]) -> Any:
        """The observations of a history as tensors."""
        self.policy.set_training_mode(False)
        frames: Any
        if isinstance(history[0], dict):
            frames = {key: np.stack([each[key] for each in history]) for key in history[0]}
        else:
            frames = np.stack(history)
        return self.policy.obs_to_tensor(self.prepared(frames))[0]

    def scaled(self, actions: np.ndarray) -> th.Tensor:
        """Scale actions to [-1, 1]: ``(n, *action_shape) -> (1, n, action_dim)``."""
        return th.as_tensor(self.policy.scale_action(actions), device=self.policy.device).view(1, len(actions), -1)

    def unscaled(self, actions: th.Tensor) -> np.ndarray:
        """Scale actions to their units: ``(n, action_dim) -> (n, *action_shape)``."""
        return self.policy.unscale_action(actions.cpu().numpy().reshape(-1, *self.action_shape))  # type: ignore[no-any-return]
