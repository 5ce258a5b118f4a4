"""Environments that misbehave, and spaces of every kind."""

from typing import Any

import gymnasium as gym
import numpy as np
from conformance.environments import AnySpaces
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper, VecFrameStack, VecNormalize

from breaker.arguments import fql
from breaker.data import SMALL
from breaker.outcome import Input
from sb3_flow import FQL

VECTOR, JOINT = spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-1, 1, (1,), np.float32)


class Faulty(AnySpaces):
    """From its second step on, something is wrong with what it returns."""

    def __init__(self, fault: str) -> None:
        super().__init__(VECTOR, JOINT)
        self.fault = fault

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        if self.time < 2:
            return observation, reward, terminated, truncated, info
        if self.fault == "raises":
            raise OSError("the simulator has ended")
        faults: dict[str, tuple[Any, Any]] = {
            "observation nan": (observation * np.nan, reward),
            "observation inf": (observation + np.inf, reward),
            "observation None": (None, reward),
            "observation of another shape": (np.zeros(4, np.float32), reward),
            "reward nan": (observation, float("nan")),
            "reward inf": (observation, float("-inf")),
            "reward as text": (observation, "high"),
            "reward None": (observation, None),
        }
        return *faults[self.fault], terminated, truncated, info


class FaultyVectorized(VecEnvWrapper):
    """
    :param reward: What is added to the rewards, in double precision
    :param infos: Whether there are any, with the last observations of episodes
    """

    def __init__(self, reward: float, infos: bool) -> None:
        super().__init__(DummyVecEnv([lambda: AnySpaces(VECTOR, JOINT, episode_length=3)]))
        self.reward, self.has_infos = reward, infos

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        return observations, rewards + np.float64(self.reward), dones, infos if self.has_infos else [{}]


def train(env: Any, **kwargs: Any) -> int:
    model = FQL("FlowPolicy", env, learning_starts=4, buffer_size=60, **{**SMALL, **kwargs})
    return model.learn(8).num_timesteps


def of(observation_space: spaces.Space, action_space: spaces.Space = JOINT) -> gym.Env:
    return AnySpaces(observation_space, action_space)


def misbehaving() -> list[Input]:
    messages = {
        "observation nan": "After 2 environment steps, the observation of environment 0 has the value nan",
        "observation inf": "After 2 environment steps, the observation of environment 0 has the value inf",
        "observation None": "After 2 environment steps, the observation of environment 0 has the value nan",
        "observation of another shape": r"After 2 .*what an environment returned cannot be stored: .*\(4,\).*\(3,\)",
        "reward nan": "After 2 environment steps, the reward of environment 0 is nan",
        "reward inf": "After 2 environment steps, the reward of environment 0 is -inf",
        "reward as text": "cannot be stored: .*'high'. It must return observations of Box.*, and rewards that are numbers",
        "reward None": "After 2 environment steps, what an environment returned cannot be stored: .*NoneType",
        "raises": "the simulator has ended",
    }
    inputs = [Input(fault, lambda _, f=fault: train(Faulty(f)), message) for fault, message in messages.items()]
    lost = "An episode has ended, but `infos` does not have its last observation"
    return [
        *inputs,
        Input("last observations that are lost", lambda _: train(FaultyVectorized(0.0, infos=False)), warning=lost),
        Input(
            "reward beyond single precision",
            lambda _: train(FaultyVectorized(1e39, infos=True)),
            "the reward of environment 0 is 1e.39. Rewards must be finite in single precision",
        ),
    ]


class Mission(spaces.Space[str]):
    """A space without shape that a package defines itself, as Minigrid does."""

    def __init__(self) -> None:
        super().__init__(None, None)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        return "go to the door"

    def contains(self, x: Any) -> bool:
        return isinstance(x, str)


def not_supported() -> list[Input]:
    box, infinite = spaces.Box, np.inf
    observations: dict[str, tuple[spaces.Space, str]] = {
        "text": (spaces.Text(3), "The observation space is Text.*it must be a Box"),
        "a sequence": (spaces.Sequence(JOINT), "The observation space is Sequence.*it must be a Box"),
        "a graph": (spaces.Graph(JOINT, None), "The observation space is Graph.*it must be a Box"),
        "a dictionary with a sequence": (spaces.Dict({"a": spaces.Sequence(JOINT)}), "it must be a Box.*'a' is a Sequence"),
        "a dictionary with a text": (
            spaces.Dict({"arm": JOINT, "mission": Mission()}),
            r"it must be a Box.*'mission' is a Mission.*FilterObservation\(env, \['arm'\]\) leaves the others out",
        ),
        "a space of its own": (Mission(), "it must be a Box"),
        "a matrix of choices": (spaces.MultiDiscrete([[2, 3]]), "MultiDiscrete of one axis"),
        "a tuple": (spaces.Tuple([JOINT]), "it must be a Box.*FlattenObservation"),
        "nested dictionaries": (spaces.Dict({"a": spaces.Dict({"b": JOINT})}), "'a' is a Dict.*FlattenObservation"),
        "an empty vector": (box(-1, 1, (0,)), "which is empty"),
        "an empty dictionary": (spaces.Dict({}), "which is empty"),
    }
    actions: dict[str, tuple[spaces.Space, str]] = {
        "infinite actions": (box(-infinite, infinite, (1,)), "it must be finite. Give the environment bounds"),
        "half infinite actions": (box(0, infinite, (1,)), "it must be finite"),
        "actions of one value": (box(0, 0, (1,)), "upper bounds of actions must be above the lower bounds"),
        "no action": (box(-1, 1, (0,)), "which is empty"),
        "discrete actions": (spaces.Discrete(3), "Box.*Discrete"),
        "several discrete actions": (spaces.MultiDiscrete([2, 2]), "Box.*MultiDiscrete"),
        "binary actions": (spaces.MultiBinary(2), "Box.*MultiBinary"),
        "a dictionary of actions": (spaces.Dict({"a": JOINT}), "Box.*Dict"),
    }
    inputs = [
        Input(f"observations: {name}", lambda _, s=space: train(of(s)), text) for name, (space, text) in observations.items()
    ]
    return inputs + [Input(name, lambda _, s=space: train(of(VECTOR, s)), text) for name, (space, text) in actions.items()]


def supported() -> list[Input]:
    box = spaces.Box
    observations: dict[str, spaces.Space] = {
        "one number": box(-1, 1, ()),
        "double precision": box(-1, 1, (3,), np.float64),
        "whole numbers": box(0, 5, (3,), np.int64),
        "a matrix": box(-1, 1, (2, 3)),
        "one of three": spaces.Discrete(3),
        "bits": spaces.MultiBinary(3),
        "several choices": spaces.MultiDiscrete([2, 3]),
        "unbounded": box(-np.inf, np.inf, (3,)),
        "an image": box(0, 255, (3, 36, 36), np.uint8),
        "a dictionary": spaces.Dict({"arm": VECTOR, "goal": spaces.Discrete(2)}),
    }
    actions: dict[str, spaces.Space] = {
        "whole numbers": box(0, 5, (1,), np.int64),
        "a matrix": box(-1, 1, (2, 2)),
        "one number": box(-1, 1, ()),
        "asymmetric bounds": box(np.array([-3, 0], np.float32), np.array([1, 0.5], np.float32)),
    }
    inputs = [
        Input(f"observations: {name}", lambda _, s=space: train(of(s)), result=8) for name, space in observations.items()
    ]
    return inputs + [
        Input(f"actions: {name}", lambda _, s=space: train(of(VECTOR, s)), result=8) for name, space in actions.items()
    ]


def no_environments() -> list[Input]:
    def two() -> DummyVecEnv:
        return DummyVecEnv([lambda: of(VECTOR)] * 2)

    no = "it must be an environment, a vectorized environment or an id"
    return [
        Input("a number", lambda _: fql(env=3), "`env` is 3"),
        Input("an unknown id", lambda _: fql(env="Pendulumm-v1"), "Did you mean: `Pendulum`"),
        Input("an id without version", lambda _: fql(env="NoRobot"), "Environment `NoRobot` doesn't exist"),
        Input("a class", lambda _: fql(env=gym.Env), f"`env` is a class; {no}"),
        Input("a function", lambda _: fql(env=lambda: of(VECTOR)), f"`env` is a function; {no}"),
        Input("a list", lambda _: fql(env=[of(VECTOR)]), f"`env` is of the type list; {no}"),
        Input("data", lambda _: fql(env={"observations": np.zeros((3, 3))}), f"`env` is of the type dict; {no}"),
        Input(
            "frames stacked after normalization", lambda _: fql(env=VecFrameStack(VecNormalize(two()), 2)), "must be outermost"
        ),
        Input("normalized twice", lambda _: fql(env=VecNormalize(VecNormalize(two()))), "`VecNormalize` twice"),
        Input(
            "episodes of two environments", lambda _: fql(env=two(), train_freq=(1, "episode")), "needs a single environment"
        ),
        Input("frames normalized after stacking", lambda _: fql(env=VecNormalize(VecFrameStack(two(), 2)))),
        Input("two environments", lambda _: train(two()), result=8),
    ]


INPUTS = [*misbehaving(), *not_supported(), *supported(), *no_environments()]
