"""
One run of ``soak.py``: environments that fail when they are told to, and a script that trains on them and resumes.
"""

import contextlib
import io
import json
import os
import random
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium.envs.classic_control import PendulumEnv
from gymnasium.wrappers import TimeLimit
from memory_growth import resident_mb
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from sb3_flow.cli import main as command
from sb3_flow.common.checkpoints import TrainingCheckpoint, latest_checkpoint
from sb3_flow.methods import METHODS

ENV_ID, EPISODE = "SoakPendulum-v0", 25
#: The algorithms that train in environments, by their names, with the arguments that make them small.
ALGORITHMS: dict[str, tuple[Any, dict[str, Any]]] = {
    variant.name: (method, {**variant.arguments, **variant.small})
    for method in METHODS
    for variant in method.variants
    if "online" in method.regime and variant.small is not None
}


@dataclass(frozen=True)
class Fault:
    """
    What goes wrong in one process.

    :param kind: ``"observation"``, ``"reward"``, ``"environment"`` (raises), ``"disk"`` (full), ``"interrupt"`` or ``"kill"``
    :param after: How many steps of the process before it happens
    :param value: The value of the observation or reward
    :param in_checkpoint: Whether the signal is sent while a checkpoint is written
    :param delay: Seconds between this and the signal
    :param file_size_limit: Largest size of a file that can be written, bytes
    """

    kind: str
    after: int
    value: float = float("nan")
    in_checkpoint: bool = False
    delay: float = 0.0
    file_size_limit: int = 0


@dataclass(frozen=True)
class Spec:
    """
    A run.

    :param algorithm: A key of ``ALGORITHMS``
    :param mode: ``"script"`` (each process resumes the one before), ``"loop"`` (one process that catches errors and resumes)
        or ``"command"`` (``sb3-flow train --resume``)
    :param seed: Seed of the run
    :param total: Timesteps
    :param save_freq: Timesteps between two checkpoints
    :param n_envs: Number of environments
    :param normalize: Whether they are in ``VecNormalize``
    :param offline_steps: Timesteps of the offline phase, 0: none
    :param arguments: Further arguments of the algorithm
    """

    algorithm: str
    mode: str
    seed: int
    total: int = 800
    save_freq: int = 100
    n_envs: int = 1
    normalize: bool = False
    offline_steps: int = 0
    arguments: dict[str, Any] = field(default_factory=dict)


class Plan:
    """The fault of this process: when it is due, and where it happened."""

    def __init__(self) -> None:
        self.begin(None)

    def begin(self, fault: Fault | None) -> None:
        self.fault, self.steps, self.happened = fault, 0, dict[str, Any]()
        self.environments = self.calls = 0

    def due(self, *kinds: str) -> bool:
        return self.fault is not None and not self.happened and self.fault.kind in kinds and self.steps >= self.fault.after


PLAN = Plan()


class Failing(gym.Wrapper):
    """
    Pendulum with short episodes, and the faults of ``PLAN``.

    :param fails: Whether it has faults
    """

    def __init__(self, fails: bool = True) -> None:
        super().__init__(TimeLimit(PendulumEnv(), EPISODE))
        self.index, self.fails = PLAN.environments, fails
        PLAN.environments += fails

    def _observed(self, observation: np.ndarray, where: str) -> np.ndarray:
        if self.fails and PLAN.due("observation"):
            assert PLAN.fault is not None
            PLAN.happened = {"environment": self.index, "where": where}
            observation = observation.copy()
            observation[random.Random(PLAN.steps).randrange(3)] = PLAN.fault.value
        return observation

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        observation, info = self.env.reset(**kwargs)
        return self._observed(observation, "reset"), info

    def step(self, action: Any) -> Any:
        PLAN.steps += self.fails
        if self.fails and PLAN.due("environment"):
            PLAN.happened = {"environment": self.index, "where": "step"}
            raise RuntimeError("the simulator has ended")
        observation, reward, *rest = self.env.step(action)
        if self.fails and PLAN.due("reward"):
            assert PLAN.fault is not None
            PLAN.happened = {"environment": self.index, "where": "step"}
            reward = PLAN.fault.value
        return self._observed(observation, "step"), reward, *rest


gym.register(ENV_ID, entry_point=Failing)


class Progress(BaseCallback):
    """Tell the parent process each timestep, and fill the disk when it is time."""

    connection: Connection

    def _on_step(self) -> bool:
        model: Any = self.model
        self.connection.send(("step", model.timesteps_done, model.n_env_steps))
        PLAN.calls += 1  # not in this object, whose state is in the checkpoints
        if PLAN.fault is not None and PLAN.fault.kind == "disk" and PLAN.calls == PLAN.fault.after:
            PLAN.happened = {"file_size_limit": PLAN.fault.file_size_limit}
            resource.setrlimit(resource.RLIMIT_FSIZE, (PLAN.fault.file_size_limit, resource.RLIM_INFINITY))
        return True


def dataset() -> dict[str, np.ndarray]:
    """Transitions of random actions; the same at each call."""
    env = Failing(fails=False)
    env.action_space.seed(0)
    rows: list[tuple[Any, ...]] = []
    observation, _ = env.reset(seed=0)
    for _ in range(200):
        action = env.action_space.sample()
        following, reward, terminated, truncated, _ = env.step(action)
        rows.append((observation, action, reward, terminated, truncated, following))
        observation = env.reset()[0] if truncated else following
    names = ("observations", "actions", "rewards", "terminations", "truncations", "next_observations")
    return {name: np.stack(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def arguments_of(spec: Spec) -> dict[str, Any]:
    """The arguments of the algorithm."""
    given: dict[str, Any] = {
        "batch_size": 16,
        "buffer_size": 300,
        "learning_starts": 20,
        "policy_kwargs": {"net_arch": [16, 16]},
    }
    if spec.offline_steps:
        given["offline_steps"] = spec.offline_steps
    return {**given, **ALGORITHMS[spec.algorithm][1], **spec.arguments}


def train(spec: Spec, folder: Path) -> None:
    """Start, or resume, as docs/resume.md advises."""
    resuming = latest_checkpoint(folder) is not None
    folder.mkdir(exist_ok=True)

    def make(index: int) -> gym.Env:
        return Monitor(Failing(), str(folder / str(index)), override_existing=not resuming)

    env: VecEnv = DummyVecEnv([lambda i=i: make(i) for i in range(spec.n_envs)])  # type: ignore[misc]
    evaluated: VecEnv = DummyVecEnv([lambda: Monitor(Failing(fails=False))])
    if spec.normalize:
        env, evaluated = VecNormalize(env), VecNormalize(evaluated, training=False)
    evaluated.seed(7)
    try:
        data = dataset() if spec.offline_steps else None
        cls = ALGORITHMS[spec.algorithm][0].algorithm
        if resuming:
            model = cls.resume(folder, env, dataset=data, device="cpu")
        else:
            model = cls("FlowPolicy", env, dataset=data, seed=spec.seed, device="cpu", **arguments_of(spec))
        evaluate = EvalCallback(
            evaluated, eval_freq=45, n_eval_episodes=2, log_path=str(folder), deterministic=False, verbose=0, warn=False
        )
        checkpoint = TrainingCheckpoint(folder, spec.save_freq // spec.n_envs)
        model.learn(spec.total, callback=[Progress(), evaluate, checkpoint])
    finally:
        with contextlib.suppress(OSError):  # the disk is full
            env.close()


def train_by_command(spec: Spec, folder: Path) -> None:
    """
    Start, or resume, by ``sb3-flow train``.

    :raises SystemExit: If it ends with another exit code than 0; the message is its standard error.
    """
    folder.mkdir(exist_ok=True)
    settings = {"policy": "FlowPolicy", "n_timesteps": spec.total, "n_envs": spec.n_envs, "callback": "soak_run.Progress"}
    settings |= arguments_of(spec)
    if spec.normalize:
        settings["normalize"] = True
    if spec.offline_steps:
        np.savez(folder.parents[1] / "data.npz", **dataset())  # type: ignore[arg-type]
        settings["dataset"] = str(folder.parents[1] / "data.npz")
    (folder / "config.yml").write_text(json.dumps({ENV_ID: settings}), "utf-8")
    options = ["train", "--algo", spec.algorithm, "--env", ENV_ID, "-f", folder, "--run-id", 1, "--resume", "--device", "cpu"]
    options += ["--seed", spec.seed, "--eval-freq", 45, "--eval-episodes", 2, "--checkpoint-freq", spec.save_freq]
    options += ["--num-threads", 1, "--verbose", 0, "-conf", folder / "config.yml", "--gym-packages", "soak_run"]
    options += ["--eval-env-kwargs", "fails:False"]
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            code = command([*map(str, options)])
        except Exception as error:  # as an interpreter ends a program
            raise SystemExit(f"exit code 1: {type(error).__name__}: {error}") from error
    if code != 0:
        lines = errors.getvalue().strip().splitlines()
        raise SystemExit(f"exit code {code}: {next((line for line in lines if line.startswith('sb3-flow:')), lines[-1])}")


def work(spec: Spec, folder: Path, faults: list[Fault | None], connection: Connection) -> None:
    """
    What a process does: train, and in the mode ``"loop"`` again after each error.

    :param spec: The run
    :param folder: Its folder, which is made
    :param faults: The faults, one for each time that it trains; None: no fault
    :param connection: Where steps, and the ends of training, are reported
    """
    th.set_num_threads(1)
    sys.stdout = open(os.devnull, "w")  # until the process ends
    tempfile.tempdir = str(folder.parent)  # of the folders that Stable-Baselines3's logger makes
    Progress.connection = connection
    for fault in faults:
        PLAN.begin(fault)
        error = None
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            (train_by_command if spec.mode == "command" else train)(spec, folder)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        except BaseException as raised:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            error = f"{type(raised).__name__}: {raised}"
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        connection.send(("end", error, PLAN.happened, resident_mb()))


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """
    The names and values of everything that a run leaves, without times, as bytes.

    :param folder: The folder of the run
    """
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        yield f"file {name}", b""
        if path.suffix == ".zip":
            yield from _of_model(name, path)
        elif path.suffix == ".npz":
            yield from _of_arrays(name, path)
        elif path.name.endswith("monitor.csv"):
            rows = path.read_text("utf-8").splitlines()[1:]
            yield name, "\n".join(",".join(row.split(",")[:2]) for row in rows).encode()


#: What depends on the clock, and since when it counts.
TIMES = {"t", "t_start", "start_time", "sizes", "seconds", "seconds_at", "_num_timesteps_at_start"}


def _of_model(name: str, path: Path) -> Iterator[tuple[str, bytes]]:
    import zipfile

    with zipfile.ZipFile(path) as archive:
        for part in archive.namelist():
            with archive.open(part) as file:
                if part.endswith(".pth"):
                    yield from _of_value(f"{name}/{part}", th.load(file, weights_only=True))
                elif part == "data":
                    yield from _of_value(f"{name}/{part}", json.load(file))


def _of_arrays(name: str, path: Path) -> Iterator[tuple[str, bytes]]:
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            if key == "data":
                yield from _of_value(f"{name}/{key}", json.loads(archive[key].tobytes()))
            elif key not in TIMES:
                yield f"{name}/{key}", repr((archive[key].dtype, archive[key].shape)).encode() + archive[key].tobytes()


def _of_value(name: str, value: Any) -> Iterator[tuple[str, bytes]]:
    if isinstance(value, dict):
        for key, part in value.items():
            if key not in TIMES:
                yield from _of_value(f"{name}/{key}", part)
    elif isinstance(value, (list, tuple)):
        for i, part in enumerate(value):
            yield from _of_value(f"{name}/{i}", part)
    elif isinstance(value, th.Tensor):
        yield name, repr((value.dtype, value.shape)).encode() + value.numpy().tobytes()
    else:
        yield name, repr(value).encode()
