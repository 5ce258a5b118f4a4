"""Models from data alone: their spaces are those of the data, and what is missing is said where it is needed."""

from __future__ import annotations

import inspect
import re
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_flow import FQL
from sb3_flow.datasets import DatasetError
from sb3_flow.methods import METHODS

SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}, "batch_size": 8, "flow_steps": 2, "device": "cpu"}


class Robot(gym.Env[np.ndarray, np.ndarray]):
    """Moves by its actions."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-2, 2, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = np.zeros(2, np.float32)
        return self.place, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.place = self.place + action
        return self.place, 0.0, False, False, {}


def log() -> dict[str, np.ndarray]:
    """Actions from -0.5 to 1.5 in the first element; the second one is always 0.25."""
    n = 40
    actions = np.stack([np.linspace(-0.5, 1.5, n), np.full(n, 0.25)], axis=1).astype(np.float32)
    rows = np.arange(n)
    observations = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
    return {"observations": observations, "actions": actions, "rewards": np.zeros(n), "truncations": rows % 10 == 9}


def model(data: Any = None, **arguments: Any) -> FQL:
    with pytest.warns(UserWarning, match="There is no environment: the spaces are taken from the dataset"):
        return FQL("FlowPolicy", dataset=log() if data is None else data, **SMALL, **arguments)


@pytest.mark.parametrize("cls", sorted({method.algorithm for method in METHODS}, key=lambda cls: cls.__name__))
def test_the_environment_can_be_left_out(cls: type) -> None:
    assert inspect.signature(cls).parameters["env"].default is None


def test_spaces_are_those_of_the_data() -> None:
    alone = model()
    # An action that never changes has a narrow range, so that it can be scaled.
    np.testing.assert_allclose(alone.action_space.low, [-0.5, 0.249], rtol=1e-6)
    np.testing.assert_allclose(alone.action_space.high, [1.5, 0.251], rtol=1e-6)
    assert alone.observation_space == spaces.Box(-np.inf, np.inf, (2,), np.float32)
    alone.learn(3)
    action = alone.predict(np.zeros(2, np.float32))[0]
    assert alone.action_space.contains(action)
    np.testing.assert_allclose(alone.draw_batch(100).actions[:, 1], 0.0, atol=1e-4)


def test_spaces_of_images_and_dictionaries() -> None:
    data: dict[str, Any] = log()
    image = np.zeros((40, 36, 36, 3), np.uint8)
    data["observations"] = {"camera": image, "arm": data["observations"]}
    space = model(data).observation_space
    assert isinstance(space, spaces.Dict)
    assert space["arm"] == spaces.Box(-np.inf, np.inf, (2,), np.float32)
    assert space["camera"].shape == (3, 36, 36) and space["camera"].dtype == np.uint8


def test_evaluation_says_what_is_missing(tmp_path: Path) -> None:
    alone = model()
    with pytest.raises(RuntimeError, match=r"pass it: evaluate_policy\(model, env\), EvalCallback\(env\), or model\.set_env"):
        evaluate_policy(alone, alone.get_env(), n_eval_episodes=1)
    limited = gym.wrappers.TimeLimit(Robot(), 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SB3: the environment has no monitor
        assert evaluate_policy(alone, limited, n_eval_episodes=1)[0] == 0
        alone.learn(4, callback=EvalCallback(limited, eval_freq=2, n_eval_episodes=1, verbose=0))


def test_an_environment_that_comes_later(tmp_path: Path) -> None:
    """It shows the model's action space, which is a part of its own, and goes on online."""
    alone = model(offline_steps=3, learning_starts=2).learn(3)
    alone.set_env(gym.wrappers.TimeLimit(Robot(), 5))
    alone.learn(8)
    assert alone.n_env_steps == 8
    alone.save(tmp_path / "model")
    loaded = FQL.load(tmp_path / "model", env=gym.wrappers.TimeLimit(Robot(), 5), device="cpu")
    np.testing.assert_array_equal(loaded.action_space.low, alone.action_space.low)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [((-0.1, 0.1), "outside of the environment's space"), ((-2.0, 1.0), "Is the environment wrapped as it was")],
)
def test_an_environment_that_does_not_fit(bounds: tuple[float, float], message: str) -> None:
    class Narrow(Robot):
        action_space = spaces.Box(*bounds, (2,), np.float32)

    with pytest.raises(ValueError, match=message):
        model().set_env(Narrow())

    class Other(Robot):
        observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)

    with pytest.raises(ValueError, match="Observation spaces do not match"):
        model().set_env(Other())


def test_a_dataset_that_is_gone_is_left_aside_once(tmp_path: Path) -> None:
    """The offline steps are spent, and the file is on another computer: training goes on online, with one warning."""
    np.savez(tmp_path / "log.npz", **log())
    robot = gym.wrappers.TimeLimit(Robot(), 5)
    arguments: dict[str, Any] = {"offline_steps": 3, "learning_starts": 2, **SMALL}
    FQL("FlowPolicy", robot, dataset=str(tmp_path / "log.npz"), **arguments).learn(3).save(tmp_path / "model")
    FQL("FlowPolicy", robot, dataset=str(tmp_path / "log.npz"), **arguments).learn(1).save(tmp_path / "unfinished")
    (tmp_path / "log.npz").unlink()
    moved = FQL.load(tmp_path / "model", env=robot, device="cpu")
    with pytest.warns(UserWarning, match=r"Going on without .*log\.npz.*there is no such file") as caught:
        moved.learn(6)
    assert moved.n_env_steps == 6 and len([w for w in caught if "Going on" in str(w.message)]) == 1
    with pytest.raises(DatasetError, match=r"cannot be read: .*log\.npz: there is no such file.*`model\.set_dataset"):
        FQL.load(tmp_path / "unfinished", env=robot, device="cpu").learn(6)


def test_any_number_of_environments_is_accepted_later(tmp_path: Path) -> None:
    """Before the first step: by `set_env`, also after loading; then no other number. Each has its place in the buffer."""
    robots = DummyVecEnv([lambda: gym.wrappers.TimeLimit(Robot(), 5)] * 2)
    model(log(), offline_steps=4).learn(4).save(tmp_path / "model")
    for alone in (model(log(), offline_steps=4).learn(4), FQL.load(tmp_path / "model", dataset=log(), device="cpu")):
        alone.set_env(robots)
        alone.learn(8)
        assert alone.n_env_steps == 8 and alone.n_offline_updates == 4
        assert alone.replay_buffer.n_envs == 2 and len(alone.replay_buffer) == 8
        with pytest.raises(AssertionError, match=r"2.*1|1.*2"):
            alone.set_env(Robot())


def test_a_model_of_several_environments_learns_without_one(tmp_path: Path) -> None:
    FQL("FlowPolicy", DummyVecEnv([Robot] * 2), dataset=log(), **SMALL).learn(2).save(tmp_path / "model")
    assert FQL.load(tmp_path / "model", dataset=log(), device="cpu").learn(4).n_offline_updates == 6


# Data that follows the wrappers of an environment.


class Parts(Robot):
    """Observations in parts of several kinds."""

    observation_space = spaces.Dict(  # type: ignore[assignment]
        {
            "place": spaces.Box(-np.inf, np.inf, (2,), np.float32),
            "mode": spaces.Discrete(3, start=1),
            "lights": spaces.MultiBinary(2),
        }
    )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return {"place": super().reset(seed=seed)[0], "mode": np.int64(1), "lights": np.zeros(2, np.int8)}, {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        place = super().step(action)[0]
        return {"place": place, "mode": np.int64(3), "lights": np.ones(2, np.int8)}, 0.0, False, False, {}


def parts_log() -> dict[str, Any]:
    """As ``log``, recorded inside of all wrappers."""
    data: dict[str, Any] = log()
    rng = np.random.default_rng(1)
    data["observations"] = {
        "place": data["observations"],
        "mode": rng.integers(1, 4, 40),
        "lights": rng.integers(0, 2, (40, 2)),
    }
    return data


def rows(data: dict[str, Any]) -> list[dict[str, Any]]:
    return [{key: part[row] for key, part in data["observations"].items()} for row in range(40)]


WRAPPERS: dict[str, Any] = {
    "flattened": gym.wrappers.FlattenObservation,
    "chosen": lambda env: gym.wrappers.FilterObservation(env, ["place", "lights"]),
    "chosen, then flattened": lambda env: gym.wrappers.FlattenObservation(
        gym.wrappers.FilterObservation(env, ["mode", "place"])
    ),
    "scaled": lambda env: gym.wrappers.TransformObservation(
        env, lambda observation: 2 * observation["place"], spaces.Box(-np.inf, np.inf, (2,), np.float32)
    ),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_data_follows_the_wrappers(name: str) -> None:
    """What the wrappers make of each row is what the model draws."""
    env = WRAPPERS[name](Parts())
    data = parts_log()
    fql = FQL("FlowPolicy", env, dataset=data, **SMALL).learn(2)
    drawn = fql.offline_buffer.observations.at(th.arange(40))
    for row, whole in enumerate(rows(data)):
        expected = whole
        for layer in reversed(list(layers(env))):
            expected = layer.observation(expected)
        if isinstance(expected, dict):
            for key, part in expected.items():
                np.testing.assert_allclose(drawn[key][row], part, rtol=1e-6)
        else:
            np.testing.assert_allclose(drawn[row], expected, rtol=1e-6)


def layers(env: gym.Env[Any, Any]) -> Any:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, gym.ObservationWrapper):
            yield env
        env = env.env


def test_data_that_does_not_follow() -> None:
    stacked = gym.wrappers.FrameStackObservation(gym.wrappers.FlattenObservation(Parts()), 2)
    with pytest.raises(
        DatasetError, match="`observations` has the parts lights, mode, place, but the observation space has one"
    ):
        FQL("FlowPolicy", stacked, dataset=parts_log(), **SMALL).learn(1)
    data = parts_log()
    del data["observations"]["mode"]
    with pytest.raises(DatasetError, match="Name the parts of the data as the environment does"):
        FQL("FlowPolicy", Parts(), dataset=data, **SMALL).learn(1)


@pytest.mark.parametrize(("scale", "warns"), [(1.0, False), (100.0, True)])
def test_observations_on_another_scale_than_those_of_the_environment(scale: float, warns: bool) -> None:
    class Bounded(Robot):
        observation_space = spaces.Box(-5, 5, (2,), np.float32)

    data = log()
    data["observations"] = np.clip(data["observations"], -2, 2) * scale
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        FQL("FlowPolicy", Bounded(), dataset=data, **SMALL).learn(1)
    expected = "goes from -2.* to 200, but the observation space from -5 to 5. Are these on another scale"
    assert warns == any(re.search(expected, str(warning.message)) for warning in caught)


@pytest.mark.parametrize(("scale", "warns"), [(1.0, False), (np.pi / 180, True), (0.0, False)])
def test_actions_in_another_unit_than_those_of_the_environment(scale: float, warns: bool) -> None:
    """Radians in a space of degrees lie inside of it."""
    data = log()
    data["actions"] = data["actions"] * scale
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        FQL("FlowPolicy", Robot(), dataset=data, **SMALL)
    expected = "`actions` go from .*, less than 2 % of the action space, from .* Are these in another unit?"
    assert warns == any(re.search(expected, str(warning.message)) for warning in caught)


def test_discrete_observations_need_not_start_at_zero() -> None:
    FQL("FlowPolicy", gym.wrappers.TimeLimit(Parts(), 5), learning_starts=3, **SMALL).learn(10)
