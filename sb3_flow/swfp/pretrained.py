"""BC flows of other algorithms' models."""

import pathlib
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file

from sb3_flow.common.checkpoints.saving import unpack_settings
from sb3_flow.common.files import file_to_read, name_of, read_settings
from sb3_flow.common.networks import VelocityMLP
from sb3_flow.common.policies import FlowPolicy, Network


def pretrained_policy(model: BaseAlgorithm | str | pathlib.Path) -> tuple[FlowPolicy, int]:
    """
    Get a policy with a BC flow (``bc_flow``) from a model or its file.

    :param model: An FQL, GFP, QAM or SWFP model, or the path of a saved one
    :return: The policy, on the CPU if it comes from a file, and its number of updates
    :raises FileNotFoundError: If there is no such file.
    :raises ValueError: If the file is not a saved model, or has pickles (load it with ``trusted=True`` then, and pass the
        model), or the policy has no BC flow.
    """
    if isinstance(model, BaseAlgorithm):
        policy, n_updates, name = model.policy, getattr(model, "_n_updates", 0), f"This {type(model).__name__}"
    else:
        policy, n_updates = _read(model)
        name = name_of(model)
    flow = getattr(policy, "bc_flow", None)
    if not isinstance(policy, FlowPolicy) or not isinstance(getattr(flow, "net", None), VelocityMLP):
        raise ValueError(
            f"{name} has no BC flow: its policy is a {type(policy).__name__}. Pass an FQL, GFP, QAM or SWFP model, or let "
            "SWFP train its BC flow by `SWFP(..., dataset=...)`."
        )
    return policy, n_updates


def bc_flow_of(policy: FlowPolicy) -> Network:
    """The BC flow of a policy; for SWFP, its base."""
    flow: Network = policy.base if hasattr(policy, "base") else policy.bc_flow  # type: ignore[assignment]
    return flow


def network_arguments(policy: FlowPolicy) -> dict[str, Any]:
    """
    Arguments of a policy with a flow of the same shapes.

    :param policy: As returned by ``pretrained_policy``
    :return: ``policy_kwargs``
    """
    return {
        "net_arch": {"pi": policy.net_arch, "qf": policy.value_arch},
        "activation": policy.activation,
        "encode_time_dim": bc_flow_of(policy).net.encode_time_dim,
        "features_extractor_class": policy.features_extractor_class,
        "features_extractor_kwargs": policy.features_extractor_kwargs,
        "normalize_images": policy.normalize_images,
        "n_critics": policy.n_critics,
        "critic_layer_norm": policy.critic_layer_norm,
    }


def _read(path: str | pathlib.Path) -> tuple[Any, int]:
    path = file_to_read(path, "zip", "saved model")
    saved = read_settings(path)
    if "n_offline_updates" not in saved:
        raise ValueError(f"{name_of(path)} was saved by an algorithm outside of sb3_flow, which has no BC flow.")
    try:
        settings = unpack_settings(path, saved, (), None, trusted=False)
    except ValueError as error:
        raise ValueError(
            f"{error} Then pass the model, not its path: `SWFP.from_pretrained(FQL.load(path, ...), env)`."
        ) from error
    _, parameters, _ = load_from_zip_file(path, load_data=False, device="cpu")
    policy = settings["policy_class"](
        settings["observation_space"],
        settings["action_space"],
        lambda _: 0.0,
        horizon_length=settings["horizon_length"],
        flow_steps=settings.get("flow_steps", 10),
        **settings["policy_kwargs"],
    )
    # Not strict: variants of the algorithms have more networks.
    policy.load_state_dict(parameters["policy"], strict=False)
    return policy, settings["_n_updates"]
