"""Export of a policy to ONNX: observations and noise in, actions in the units of the environment out."""

from __future__ import annotations

import copy
import json
import logging
import pathlib
import warnings
from typing import Any

import gymnasium
import numpy as np
import stable_baselines3
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from sb3_flow.common.encoders import choices, is_scaled_image, subspaces
from sb3_flow.common.files import atomic_write, file_to_write
from sb3_flow.common.observation_wrappers import OBSERVATION, preparation, prepare
from sb3_flow.common.optional import require
from sb3_flow.common.policies import FlowPolicy
from sb3_flow.common.real_time import condition, planning_all
from sb3_flow.common.type_aliases import TensorObs

#: Key of the description in the metadata of the file, and the version of its format.
KEY, FORMAT = "sb3_flow", 1


class ExportedPolicy(nn.Module):
    """
    A policy with all that SB3 does between an environment and its policy: normalization, image layout, scaling of actions.

    :param policy: The policy
    :param env: The environment of the model, for its wrappers
    :param real_time: Whether plans are whole chunks, conditioned on known actions
    :param space: The observation space of the environment, if ``env`` is None; None: that of the policy
    """

    low: th.Tensor
    high: th.Tensor

    def __init__(
        self, policy: FlowPolicy, env: VecEnv | None, real_time: bool = False, space: spaces.Space[Any] | None = None
    ) -> None:
        super().__init__()
        self.n_action_steps, self.real_time = policy.n_action_steps, real_time
        self.policy = planning_all(policy) if real_time else policy
        #: Observations are those of this space; then the steps follow, in this order.
        self.observation_space, self.steps = preparation(policy.observation_space, env, space)
        low, high = (th.as_tensor(bound.astype(np.float64)) for bound in (policy.action_space.low, policy.action_space.high))
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        #: Whether the actions of the environment are those of the policy.
        self.keeps_actions = bool(
            (low == -1).all() and (high == 1).all() and np.issubdtype(policy.action_space.dtype, np.floating)
        )

    def forward(
        self,
        observations: dict[str, th.Tensor],
        noise: th.Tensor,
        last_actions: th.Tensor,
        episode_start: th.Tensor,
        known_actions: th.Tensor | None = None,
        weights: th.Tensor | None = None,
    ) -> tuple[th.Tensor, ...]:
        """
        Plan actions.

        :param observations: As the environment returns them, ``(B, *shape)``, or with histories ``(B, n_obs_steps, *shape)``
        :param noise: Standard normal noise, ``(B, n_noises, noise_dim)``
        :param last_actions: Second output of the previous plan, ``(B, action_dim)``
        :param episode_start: Whether an episode begins, ``(B,)`` of bool
        :param known_actions: Actions in [-1, 1] that are known, if ``real_time``, ``(1, horizon_length, action_dim)``
        :param weights: How much the plan should follow each of them, in [0, 1], ``(1, horizon_length)``
        :return: Actions in the units of the environment, ``(B, n_action_steps, *action_shape)``, and the last one in [-1, 1];
            if ``real_time``, ``horizon_length`` actions, and the one before the next plan of ``predict``. A policy that
            certifies plans also has which of them are certified, ``(B,)``, bool.
        """
        if known_actions is not None and weights is not None:
            condition(self.policy, known_actions, weights)
        parts = observations
        if self.policy.n_obs_steps > 1:
            parts = {key: part.flatten(end_dim=1) for key, part in parts.items()}
        parts = prepare(parts, self.steps)
        inputs: TensorObs = parts if isinstance(self.policy.observation_space, spaces.Dict) else parts[OBSERVATION]
        scaled = self.policy.plan_actions_in_graph(inputs, noise, last_actions, episode_start)
        plans: tuple[th.Tensor, ...] = (
            self.unscale(scaled.view(*scaled.shape[:2], *self.low.shape)),
            scaled[:, self.n_action_steps - 1],
        )
        return (*plans, self.policy.certified) if self.policy.certifies else plans

    def unscale(self, scaled: th.Tensor) -> th.Tensor:
        """As ``unscale_action`` of the policy."""
        dtype = self.policy.action_space.dtype
        assert dtype is not None
        if self.keeps_actions:
            return scaled.to(getattr(th, dtype.name))
        actions = self.low + 0.5 * (scaled.double() + 1.0) * (self.high - self.low)
        if dtype.kind in "iu":
            actions = actions.round()
        inside = th.minimum(th.maximum(actions, self.low), self.high)
        actions = th.where(scaled.abs() <= 1.0, inside, actions)
        return actions.to(getattr(th, dtype.name))


def describe(exported: ExportedPolicy, algorithm: str) -> dict[str, Any]:
    """
    Describe the inputs and outputs of an exported policy.

    :param exported: The policy
    :param algorithm: Name of the algorithm
    :return: Values that JSON has
    """
    policy, space = exported.policy, exported.policy.action_space
    assert space.dtype is not None
    return {
        "format": FORMAT,
        "algorithm": algorithm,
        "sampler": policy.sampler,
        "observations": {
            key or OBSERVATION: {"shape": list(part.shape or ()), "dtype": input_type(part), **valid_values(part)}
            for key, part in subspaces(exported.observation_space).items()
        },
        "n_obs_steps": policy.n_obs_steps,
        "action": {
            "shape": list(space.shape),
            "dtype": space.dtype.name,
            "low": space.low.tolist(),
            "high": space.high.tolist(),
        },
        "horizon_length": policy.prediction_horizon,
        "n_action_steps": exported.n_action_steps,
        "real_time": exported.real_time,
        "conditions_plans": policy.conditions_plans,
        "deterministic_noise": policy._noise(1, deterministic=True)[0].tolist(),
        "noise": [policy.n_noises, policy.noise_dim],
        "versions": {
            "torch": th.__version__,
            "stable_baselines3": stable_baselines3.__version__,
            "gymnasium": gymnasium.__version__,
            "numpy": np.__version__,
        },
    }


def input_type(space: spaces.Space[Any]) -> str:
    """The data type of an input of the exported file."""
    name = str(np.dtype(space.dtype))
    return "float32" if name == "float16" else name


def valid_values(space: spaces.Space[Any]) -> dict[str, Any]:
    """The valid values of a discrete space, and a wide range for images that are scaled to [0, 1]: from, and below."""
    if (found := choices(space)) is not None:
        return {"range": [np.asarray(bound).tolist() for bound in (found[0], np.add(*found))]}
    return {"range": [-1, 2]} if is_scaled_image(space) else {}


def export_policy(
    policy: FlowPolicy,
    env: VecEnv | None,
    algorithm: str,
    path: str | pathlib.Path,
    real_time: bool = False,
    space: spaces.Space[Any] | None = None,
) -> None:
    """
    Write a policy to an ONNX file.

    :param policy: The policy, with the sampler to export
    :param env: Environment of the model, for the statistics of ``VecNormalize`` and the layout of images, or None
    :param algorithm: Name of the algorithm, for the description in the file
    :param path: The file; ``.onnx`` is added if it has no suffix
    :param real_time: Whether plans are whole chunks, conditioned on known actions, for ``ControlLoop``
    :param space: The observation space of the environment, if ``env`` is None; None: that of the policy
    :raises ImportError: If the extra ``export`` is not installed.
    :raises ValueError: If the policy cannot be exported, for instance because of an operator of a features extractor, or not
        with ``real_time``, because it certifies plans.
    """
    optimizer = require("onnxscript.optimizer", "export", "Exporting a policy")
    onnx = require("onnx", "export", "Exporting a policy")
    if real_time and policy.certifies:
        raise ValueError(
            f"`real_time` is True, but {type(policy).__name__} with the sampler {policy.sampler!r} certifies whole plans, and "
            "these cannot be conditioned on known actions. Export it without `real_time`."
        )
    exported = ExportedPolicy(copy.deepcopy(policy), env, real_time, space).cpu().eval()
    description = describe(exported, algorithm)
    arguments = examples(exported, description)
    batch = None if real_time else {0: th.export.Dim.DYNAMIC}
    shapes = ({key: batch for key in arguments[0]}, *[batch] * (len(arguments) - 1))
    names = [*arguments[0], "noise", "last_actions", "episode_start", "known_actions", "weights"]
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with th.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = th.onnx.export(
                without_gradients(exported, arguments) if real_time else exported,
                arguments,
                input_names=names[: len(arguments[0]) + len(arguments) - 1],
                output_names=["actions", "next_last_actions", *(["certified"] if policy.certifies else [])],
                dynamic_shapes=shapes,
                dynamo=True,
                optimize=False,  # onnxscript 0.7.2 would remove additions of up to 1e-8, on which divisions by 0 depend
                verbose=False,
            )
    except (th.onnx.OnnxExporterError, RuntimeError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise ValueError(
            f"{type(policy).__name__} with the sampler {policy.sampler!r} cannot be exported to ONNX. PyTorch says: "
            f"{str(cause).strip().splitlines()[0]}"
        ) from error
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
    assert program is not None
    with np.errstate(divide="ignore"):  # the weight of guidance at the first step, which is limited later
        for simplify in (optimizer.inline, optimizer.fold_constants, optimizer.remove_unused_nodes):
            simplify(program.model)
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # lines and paths of the code on this machine, most of the size of the file
    model = program.model_proto
    onnx.helper.set_model_props(model, {KEY: json.dumps(description)})
    used = {name for node in model.graph.node for name in node.input}
    for unused in [each for each in model.graph.input if each.name not in used]:
        model.graph.input.remove(unused)
    for name, value in zip(names[-2:], arguments[4:], strict=False):  # these inputs are optional: the default is the weight 0
        if name in [each.name for each in model.graph.input]:
            model.graph.initializer.append(onnx.numpy_helper.from_array(value.numpy(), name))
    with atomic_write(file_to_write(path, "onnx")) as file:
        file.write(model.SerializeToString())


def without_gradients(exported: ExportedPolicy, arguments: tuple[Any, ...]) -> nn.Module:
    """
    The operations of a policy, including those that compute the gradients of the guidance, which the exporter cannot trace.

    :param exported: The policy
    :param arguments: Its arguments; others must have the same shapes
    :return: A module that computes the same
    """
    return make_fx(lambda *inputs: exported(*inputs))(*arguments)


def examples(exported: ExportedPolicy, description: dict[str, Any]) -> tuple[Any, ...]:
    """Inputs from which the graph is traced: for three environments, if ``real_time`` for one."""
    n, policy = 1 if exported.real_time else 3, exported.policy
    steps = [policy.n_obs_steps] if policy.n_obs_steps > 1 else []
    observations = {
        key: th.zeros(n, *steps, *part["shape"], dtype=getattr(th, part["dtype"]))
        for key, part in description["observations"].items()
    }
    noise = th.zeros(n, *description["noise"])
    known: list[th.Tensor] = []
    if exported.real_time:
        horizon = description["horizon_length"]
        known = [th.zeros(1, horizon, exported.low.numel()), th.zeros(1, horizon)]
    return observations, noise, th.zeros(n, exported.low.numel()), th.ones(n, dtype=th.bool), *known
