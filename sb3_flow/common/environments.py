"""Environments of other packages, made to fit: registration by need, and success under the name that callbacks read."""

from typing import Any

import gymnasium as gym

from sb3_flow.common.optional import require

#: Packages that register environments when they are imported, and how the ids begin that they register.
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
}


def register_environment(env_id: str) -> None:
    """
    Import the package that registers an environment, so that ``gymnasium.make(env_id)`` knows it.

    :param env_id: For instance ``"cube-single-singletask-task2-v0"``. Other ids are left to Gymnasium.
    :raises ImportError: If the package that owns such ids is not installed.
    """
    if env_id in gym.registry:
        return
    for package, prefixes in ENVIRONMENT_PACKAGES.items():
        if env_id.startswith(prefixes):
            require(package, "mujoco", f"The environment {env_id!r}")


def needs_success_report(env_id: str) -> bool:
    """
    Whether an environment reports success under a name of its own, which ``report_success`` mends.

    :param env_id: Its id
    :return: True for those of OGBench
    """
    return env_id.startswith(ENVIRONMENT_PACKAGES["ogbench"])


def make_env(env_id: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """
    ``gymnasium.make`` for every environment that this package knows, with success reported as ``is_success``.

    :param env_id: For instance ``"cube-single-singletask-task2-v0"`` or ``"Pendulum-v1"``
    :param kwargs: Arguments of the environment
    :return: The environment
    """
    register_environment(env_id)
    return report_success(gym.make(env_id, **kwargs))


def report_success(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """
    Wrap environments of OGBench, whose ``info["success"]`` the callbacks of Stable-Baselines3 do not read.

    :param env: Any environment
    :return: The environment, wrapped in ``SuccessInfo`` where it comes from OGBench
    """
    if type(env.unwrapped).__module__.split(".")[0] == "ogbench":
        return SuccessInfo(env)
    return env


class SuccessInfo(gym.Wrapper[Any, Any, Any, Any]):
    """Repeats ``info["success"]`` as ``info["is_success"]``, from which success rates are computed."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        if "success" in info:
            info["is_success"] = bool(info["success"])
        return observation, reward, terminated, truncated, info
