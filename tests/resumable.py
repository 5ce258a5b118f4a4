"""A training run with checkpoints that can be killed and resumed."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from conformance.algorithms import ALGORITHMS
from conformance.environments import collect, pendulum
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback, EveryNTimesteps
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecNormalize

from sb3_flow.common.checkpoints import TrainingCheckpoint, latest_checkpoint
from sb3_flow.common.flow_algorithm import FlowAlgorithm

CASE = ALGORITHMS[0]


def inverted_pendulum() -> gym.Env:
    """MuJoCo, with short episodes."""
    return TimeLimit(gym.make("InvertedPendulum-v5").unwrapped, 12)


@dataclass(frozen=True)
class Scenario:
    """
    How to train.

    :param make_env: One environment
    :param n_envs: How many of them
    :param vec_env: How they are run
    :param normalize: Whether they are in ``VecNormalize``
    :param has_data: Whether there is a data set
    :param total: Timesteps
    :param save_freq: Calls between two checkpoints
    :param arguments: Arguments of the algorithm
    """

    make_env: Callable[[], gym.Env] = pendulum
    n_envs: int = 1
    vec_env: Callable[[list[Callable[[], gym.Env]]], VecEnv] = DummyVecEnv
    normalize: bool = False
    has_data: bool = False
    total: int = 70
    save_freq: int = 20
    arguments: dict[str, Any] = field(default_factory=dict)


SCENARIOS = {
    "offline": Scenario(has_data=True, normalize=True, arguments={"learning_rate": LinearSchedule(1e-2, 0.0, 1.0)}),
    "online": Scenario(
        make_env=inverted_pendulum,
        arguments={
            "action_noise": OrnsteinUhlenbeckActionNoise(np.zeros(1), np.full(1, 0.3)),
            "learning_rate": LinearSchedule(1e-2, 0.0, 1.0),
            "learning_starts": 25,  # so that one checkpoint is taken while actions are random
            "buffer_size": 50,  # and one when the buffer is full
        },
    ),
    "online-2": Scenario(
        n_envs=2,
        vec_env=partial(SubprocVecEnv, start_method="fork"),  # other methods import all packages again, which takes seconds
        normalize=True,
        total=140,
        arguments={"train_freq": 3, "gradient_steps": 2, "action_noise": NormalActionNoise(np.zeros(1), np.full(1, 0.3))},
    ),
    "offline-to-online": Scenario(
        has_data=True, arguments={"offline_steps": 30, "horizon_length": 4, "balanced_sampling": True}, save_freq=15
    ),
}


class SendSteps(BaseCallback):
    """Reports each timestep to the parent process."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection

    def _on_step(self) -> bool:
        self.connection.send(self.num_timesteps)
        return True


class CountCalls(BaseCallback):
    """A callback of the user with state."""

    def __init__(self) -> None:
        super().__init__()
        self.clock: list[int] = []

    def _on_step(self) -> bool:
        self.clock.append(self.num_timesteps)
        return True


def train(scenario: Scenario, folder: Path, callbacks: list[BaseCallback] | None = None) -> FlowAlgorithm:
    """Start or resume a run, and write its result."""
    resuming = latest_checkpoint(folder) is not None
    folder.mkdir(exist_ok=True)

    def make(i: int) -> Callable[[], gym.Env]:
        return lambda: Monitor(scenario.make_env(), str(folder / str(i)), override_existing=not resuming)

    env = scenario.vec_env([make(i) for i in range(scenario.n_envs)])
    eval_env: VecEnv = DummyVecEnv([scenario.make_env])
    if scenario.normalize:
        env, eval_env = VecNormalize(env), VecNormalize(eval_env, training=False)
    eval_env.seed(7)
    count = CountCalls()
    evaluate = EvalCallback(
        eval_env, eval_freq=9, n_eval_episodes=2, log_path=str(folder), deterministic=False, verbose=0, warn=False
    )
    data = collect(scenario.make_env) if scenario.has_data else None
    if resuming:
        model = CASE.cls.resume(folder, env, dataset=data, device="cpu")
    else:
        model = CASE.make(env, dataset=data, **scenario.arguments)
    # The checkpoint precedes an evaluation of the same timestep, which the resumed run must not skip.
    model.learn(
        scenario.total,
        callback=[
            *(callbacks or []),
            EveryNTimesteps(10, count),
            TrainingCheckpoint(folder, scenario.save_freq),
            evaluate,
        ],
    )
    env.close()
    result = {
        "policy": model.policy.state_dict(),
        "optimizer": model.policy.optimizer.state_dict(),
        "random": model.random_state(),
        "torch": th.get_rng_state(),
        "counters": [model.num_timesteps, model.n_offline_updates, model.n_env_steps, model._n_updates, model._episode_num],
        "buffer": len(model.replay_buffer),
        "returns": [[info["r"], info["l"]] for info in model.ep_info_buffer],
        "clock": count.clock,
    }
    th.save(result, folder / "result.pt")
    return model


def die_while_saving(number: int) -> None:
    """Make this process kill itself while it writes a given checkpoint."""
    write_model, saves = CASE.cls.save, []

    def save(model: FlowAlgorithm, path: Path, *args: Any) -> None:
        if ".partial" in str(path):
            saves.append(path)
            if len(saves) == number:
                path.write_bytes(b"half a model")
                os.kill(os.getpid(), signal.SIGKILL)
        write_model(model, path, *args)

    CASE.cls.save = save  # type: ignore[assignment]


def run(scenario: str, folder: Path, connection: Connection, dies_in_checkpoint: int | None) -> None:
    """
    What a process does.

    :param scenario: Name of the scenario
    :param folder: The run's folder
    :param connection: Where each timestep that is done goes
    :param dies_in_checkpoint: The number of the checkpoint in whose middle the process kills itself, if any
    """
    os.setsid()  # so that it can be killed together with the environments in processes
    th.set_num_threads(1)
    if dies_in_checkpoint is not None:
        die_while_saving(dies_in_checkpoint)
    train(SCENARIOS[scenario], folder, [SendSteps(connection)])
