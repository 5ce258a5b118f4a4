"""Support of other packages' environments: registration on demand, and success rates for SB3's callbacks."""

import importlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.env_util import is_wrapped

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


def import_packages(modules: Iterable[str]) -> None:
    """
    Import modules that register environments.

    :param modules: Their names
    :raises ImportError: If one of them does not exist.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not module.startswith(error.name):
                raise  # the module exists, but one of its dependencies does not
            raise ImportError(
                f"--gym-packages {module}: there is no such module. Install its package, or add its folder to PYTHONPATH."
            ) from error


def needs_success_report(env_id: str) -> bool:
    """
    Whether an environment reports success under another name than SB3, see ``report_success``.

    :param env_id: Its id
    :return: True for the environments of OGBench and Meta-World, and of Gymnasium-Robotics where that has been imported
    """
    if env_id.startswith((*ENVIRONMENT_PACKAGES["ogbench"], "Meta-World/")):
        return True
    entry_point = gym.registry[env_id].entry_point if env_id in gym.registry else None
    return str(entry_point).startswith("gymnasium_robotics.")


def make_env(env_id: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """
    ``gymnasium.make`` with registration on demand, and with success reported as ``is_success``.

    :param env_id: For instance ``"cube-single-singletask-task2-v0"`` or ``"Pendulum-v1"``
    :param kwargs: Arguments of the environment
    :return: The environment
    """
    register_environment(env_id)
    return report_success(gym.make(env_id, **kwargs))


def as_environment(env: Any) -> Any:
    """
    Make an environment from its id, and check that it is one, with spaces that are supported.

    :param env: An environment, a vectorized environment, or an id
    :return: The environment
    :raises TypeError: If it is another object, for example a class or a function that makes an environment.
    :raises ValueError: If its spaces are not supported.
    """
    if isinstance(env, str):
        register_environment(env)
        env = gym.make(env)
    if isinstance(env, type) or not (hasattr(env, "action_space") and hasattr(env, "observation_space")):
        made = "a class" if isinstance(env, type) else "a function" if callable(env) else f"of the type {type(env).__name__}"
        raise TypeError(
            f"`env` is {made}; it must be an environment, a vectorized environment or an id, such as "
            "gymnasium.make('Pendulum-v1'), DummyVecEnv([make_env]) or 'Pendulum-v1'."
        )
    if isinstance(env, gym.vector.VectorEnv):
        raise TypeError(
            f"`env` is Gymnasium's {type(env).__name__}; vectorized environments must be those of Stable-Baselines3: "
            "make_vec_env('Pendulum-v1', n_envs=4), or DummyVecEnv([make_env])."
        )
    check_actions(env.action_space)
    check_observations(env.observation_space)
    return env


def check_observations(observation_space: spaces.Space[Any]) -> None:
    """
    Check that an observation space is supported.

    :param observation_space: Observation space of an environment
    :raises ValueError: If it is empty, or of a kind without fixed size, or if a part of it has parts itself.
    """
    parts = observation_space.spaces if isinstance(observation_space, spaces.Dict) else {"": observation_space}
    wrong = {key: part for key, part in parts.items() if not _is_supported(part)}
    if wrong:
        remedy = ""
        if any(isinstance(part, spaces.Dict | spaces.Tuple) for part in wrong.values()):
            remedy = " gymnasium.wrappers.FlattenObservation(env) makes one vector of all parts."
        elif len(wrong) < len(parts):
            rest = [key for key in parts if key not in wrong]
            remedy = f" gymnasium.wrappers.FilterObservation(env, {rest}) leaves the others out."
        named = ", ".join(f"{key!r} is a {type(part).__name__}" for key, part in wrong.items() if key)
        raise ValueError(
            f"The observation space is {observation_space}; it must be a Box, Discrete, MultiDiscrete of one axis, "
            f"MultiBinary, or a dictionary of these{f' ({named})' if named else ''}.{remedy}"
        )
    if not parts or 0 in (observation_space.shape or ()):
        raise ValueError(f"The observation space is {observation_space}, which is empty; it must have at least one number.")


def _is_supported(space: spaces.Space[Any]) -> bool:
    if isinstance(space, spaces.MultiDiscrete):
        return len(space.shape) == 1
    return isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiBinary)


def check_actions(action_space: spaces.Space[Any]) -> None:
    """
    Check that an action space can be scaled to [-1, 1].

    :param action_space: Action space of an environment
    :raises ValueError: If it is a ``Box`` that is empty, or without bounds, as in a few tasks of dm_control.
    """
    if not isinstance(action_space, spaces.Box):
        return
    if action_space.low.size == 0:
        raise ValueError(f"The action space is {action_space}, which is empty; it must have at least one number.")
    bounds = np.abs([action_space.low, action_space.high])
    if (np.isinf(bounds) | (bounds == UNBOUNDED)).any():
        raise ValueError(
            f"The action space is {action_space}; it must be finite. Give the environment bounds: "
            f"gymnasium.wrappers.TransformAction(env, lambda action: action, "
            f"gymnasium.spaces.Box(-1, 1, {action_space.shape}, numpy.{action_space.dtype}))."
        )


#: Packages whose environments report ``info["success"]``.
REPORT_SUCCESS = ("ogbench", "gymnasium_robotics", "metaworld")


def report_success(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """
    Wrap environments whose ``info["success"]`` the callbacks of Stable-Baselines3 do not read, and those whose resets ignore
    their seed.

    :param env: Any environment
    :return: The environment, wrapped in ``SuccessInfo`` if it is of OGBench, Gymnasium-Robotics or Meta-World, and in
        ``OwnGenerator`` if it is of OGBench
    """
    module = type(env.unwrapped).__module__
    if module.startswith("ogbench.") and not is_wrapped(env, OwnGenerator):
        env = OwnGenerator(env)
    if module.split(".")[0] in REPORT_SUCCESS and not is_wrapped(env, SuccessInfo):
        env = SuccessInfo(env)
    return env


class SuccessInfo(gym.Wrapper[Any, Any, Any, Any]):
    """Copy ``info["success"]`` to ``info["is_success"]``, from which SB3 computes success rates."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        if "success" in info:
            info["is_success"] = bool(info["success"])
        return observation, reward, terminated, truncated, info


class OwnGenerator(gym.Wrapper[Any, Any, Any, Any]):
    """
    Give an environment that draws from NumPy's global generator a state of that generator of its own, so that the seed of
    ``reset`` decides, and nothing else draws other numbers because of it. OGBench's mazes do so in resets, and where they
    teleport.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._state: Any = None
        self._draws_in_steps = getattr(env.unwrapped, "_teleport_info", None) is not None

    @contextmanager
    def _own_state(self) -> Iterator[None]:
        if self._state is None:  # never seeded: the global generator decides, as it does without this wrapper
            self._state = np.random.RandomState(np.random.randint(2**32, dtype=np.uint32)).get_state()
        others = np.random.get_state()
        np.random.set_state(self._state)
        try:
            yield
        finally:
            self._state = np.random.get_state()
            np.random.set_state(others)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self._state = np.random.RandomState(seed % 2**32).get_state()
        with self._own_state():
            return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        with self._own_state() if self._draws_in_steps else nullcontext():
            return self.env.step(action)
