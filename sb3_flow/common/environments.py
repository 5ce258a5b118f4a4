"""Support of other packages' environments: registration on demand, and success rates for SB3's callbacks."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_flow.common.optional import require

#: Packages that register environments when they are imported, and the prefixes of their ids.
ENVIRONMENT_PACKAGES: dict[str, tuple[str, ...]] = {
    "ogbench": (
        "antmaze-",
        "antsoccer-",
        "cube-",
        "humanoidmaze-",
        "pointmaze-",
        "powderworld-",
        "puzzle-",
        "scene-",
        "visual-",
    ),
    "shimmy": ("dm_control/",),
    "gym_pusht": ("gym_pusht/",),
}
#: Another package that each of them needs, and the extra that installs both.
NEEDS: dict[str, tuple[str, str]] = {
    "ogbench": ("mujoco", "mujoco"),
    "shimmy": ("dm_control", "dm-control"),
    "gym_pusht": ("pymunk", "pusht"),
}
#: The bound of unbounded actions in MuJoCo.
UNBOUNDED = 1e10


def register_environment(env_id: str) -> None:
    """
    Import the package that registers an environment, so that ``gymnasium.make(env_id)`` knows it.

    :param env_id: For instance ``"cube-single-singletask-task2-v0"`` or ``"dm_control/walker-walk-v0"``. Unknown ids are
        ignored.
    :raises ImportError: If the package is not installed.
    """
    if env_id in gym.registry:
        return
    for package, prefixes in ENVIRONMENT_PACKAGES.items():
        if env_id.startswith(prefixes):
            needed, extra = NEEDS[package]
            # Dependencies first: without dm_control, shimmy silently registers nothing.
            require(needed, extra, f"The environment {env_id!r}")
            require(package, extra, f"The environment {env_id!r}")


def needs_success_report(env_id: str) -> bool:
    """
    Whether an environment reports success under another name than SB3, see ``report_success``.

    :param env_id: Its id
    :return: True for OGBench's environments
    """
    return env_id.startswith(ENVIRONMENT_PACKAGES["ogbench"])


def make_env(env_id: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """
    ``gymnasium.make`` with registration on demand, and with success reported as ``is_success``.

    :param env_id: For instance ``"cube-single-singletask-task2-v0"`` or ``"Pendulum-v1"``
    :param kwargs: Arguments of the environment
    :return: The environment
    """
    register_environment(env_id)
    return report_success(gym.make(env_id, **kwargs))


def check_actions(action_space: spaces.Space[Any]) -> None:
    """
    Check that an action space can be scaled to [-1, 1].

    :param action_space: Action space of an environment
    :raises ValueError: If it is a ``Box`` without bounds, as in a few tasks of dm_control.
    """
    if not isinstance(action_space, spaces.Box):
        return
    bounds = np.abs([action_space.low, action_space.high])
    if (np.isinf(bounds) | (bounds == UNBOUNDED)).any():
        raise ValueError(
            f"The action space is {action_space}; it must be finite. Give the environment bounds: "
            f"gymnasium.wrappers.TransformAction(env, lambda action: action, "
            f"gymnasium.spaces.Box(-1, 1, {action_space.shape}, numpy.{action_space.dtype}))."
        )


def report_success(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """
    Wrap environments of OGBench, whose ``info["success"]`` the callbacks of Stable-Baselines3 do not read.

    :param env: Any environment
    :return: The environment, wrapped in ``SuccessInfo`` if it comes from OGBench
    """
    if type(env.unwrapped).__module__.split(".")[0] == "ogbench":
        return SuccessInfo(env)
    return env


class SuccessInfo(gym.Wrapper[Any, Any, Any, Any]):
    """Copy ``info["success"]`` to ``info["is_success"]``, from which SB3 computes success rates."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        if "success" in info:
            info["is_success"] = bool(info["success"])
        return observation, reward, terminated, truncated, info
