"""Calls of models: ``predict``, ``update``, ``learn``, callbacks, saving, loading and resuming."""

import errno
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import gymnasium as gym
import numpy as np
import torch as th
from conformance.environments import AnySpaces, collect, pendulum
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from breaker.data import SMALL
from breaker.data import model as offline
from breaker.outcome import Input
from sb3_flow import FQL, GFP
from sb3_flow.common.checkpoints import TrainingCheckpoint
from sb3_flow.fql.policies import FQLPolicy
from sb3_flow.gfp.policies import GFPPolicy


@cache
def single() -> FQL:
    return offline(collect(pendulum), seed=0)


@cache
def chunks() -> FQL:
    return offline(collect(pendulum), horizon_length=3, seed=0)


@cache
def of_images() -> FQL:
    return of_space(spaces.Box(0, 255, (3, 36, 36), np.uint8))


def of_space(space: spaces.Space) -> FQL:
    return FQL("FlowPolicy", AnySpaces(space, spaces.Box(-1, 1, (1,))), buffer_size=20, **SMALL)


@cache
def of_choices() -> FQL:
    return of_space(spaces.Discrete(3))


@cache
def of_parts() -> FQL:
    return of_space(spaces.Dict({"arm": spaces.Box(-1, 1, (3,)), "goal": spaces.Box(-1, 1, (3,))}))


def online(**kwargs: Any) -> FQL:
    return FQL("FlowPolicy", pendulum(), buffer_size=200, learning_starts=4, **SMALL, **kwargs)


OBSERVATION, TWO = np.zeros(3, np.float32), np.zeros((2, 3), np.float32)
IMAGE = np.full((3, 36, 36), 0.5, np.float32)


def shape(answer: tuple[np.ndarray, Any]) -> tuple[int, ...]:
    return answer[0].shape


def given_back(observation: np.ndarray, **kwargs: Any) -> tuple[int, ...]:
    """A second call of ``predict`` with the state of a first one."""
    state = chunks().predict(OBSERVATION)[1]
    return shape(chunks().predict(observation, **{"state": state, **kwargs}))


def predictions() -> list[Input]:
    wrong: dict[str, tuple[Callable[[], Any], str]] = {
        "a tuple of reset": (lambda: single().predict(pendulum().reset()), "a tuple .*pass `observation`"),
        "a tuple of reset for chunks": (lambda: chunks().predict(pendulum().reset()), "a tuple .*pass `observation`"),
        "None": (lambda: single().predict(None), "is None of the type object; expected numbers"),
        "text": (lambda: single().predict("here"), "expected numbers"),
        "objects": (lambda: single().predict(np.array([None] * 3)), "expected numbers"),
        "complex numbers": (lambda: single().predict(OBSERVATION * 1j), "type complex.*expected numbers"),
        "a number": (lambda: single().predict(3), r"Unexpected observation shape \(\)"),
        "two numbers of three": (lambda: single().predict(np.zeros(2)), r"Unexpected observation shape \(2,\)"),
        "too many axes": (lambda: single().predict(np.zeros((2, 3, 3))), r"Unexpected observation shape \(2, 3, 3\)"),
        "a dictionary": (lambda: single().predict({"arm": OBSERVATION}), "is a dict but the obs space is"),
        "nan": (lambda: single().predict(OBSERVATION * np.nan), "has the value nan"),
        "infinity": (lambda: single().predict(OBSERVATION + np.inf), "has the value inf"),
        "infinity in half precision": (
            lambda: single().predict((OBSERVATION + np.inf).astype(np.float16)),
            "has the value inf",
        ),
        "a number beyond single precision": (
            lambda: single().predict(np.full(3, 1e300)),
            "has the value 1e.300, which is too large for single precision",
        ),
        "a choice that the space does not have": (
            lambda: of_choices().predict(np.array(3)),
            r"has the value 3; expected whole numbers of the space Discrete\(3\)",
        ),
        "half a choice": (lambda: of_choices().predict(np.array([1, 0.5])), "has the value 0.5; expected whole numbers"),
        "a part is missing": (
            lambda: of_parts().predict({"arm": OBSERVATION}),
            r"has the parts \['arm'\]; expected \['arm', 'goal'\]",
        ),
        "a part too many": (
            lambda: of_parts().predict({"arm": OBSERVATION, "goal": OBSERVATION, "leg": OBSERVATION}),
            r"has the parts \['arm', 'goal', 'leg'\]; expected \['arm', 'goal'\]",
        ),
        "a bright image of whole numbers": (
            lambda: of_images().predict(np.full((3, 36, 36), 300)),
            "is an image with values from 300 to 300; expected 0 to 255",
        ),
        "a mask as image": (lambda: of_images().predict(IMAGE > 0), r"is an image of True and False, .*255 \* image"),
        "a scaled image": (lambda: of_images().predict(IMAGE), r"floats in \[0, 1\].*255 \* image"),
        "a negative image": (lambda: of_images().predict(-IMAGE), "values from -0.5 to -0.5; expected 0 to 255"),
        "a bright image": (lambda: of_images().predict(IMAGE + 300), "expected 0 to 255"),
        "a gray image": (lambda: of_images().predict(np.zeros((36, 36), np.float32)), "expected an image"),
        "deterministic as second argument": (lambda: single().predict(OBSERVATION, True), "deterministic=True"),
        "deterministic as text": (lambda: single().predict(OBSERVATION, deterministic="no"), "`deterministic` is 'no'"),
        "a number as state": (lambda: chunks().predict(OBSERVATION, state=3), "`state` is 3"),
        "a state of another number of environments": (
            lambda: given_back(TWO),
            "`state` is for 1 environments.* 2 observations",
        ),
        "starts of another number": (
            lambda: given_back(OBSERVATION, episode_start=np.ones(3, bool)),
            "`episode_start` is for 3 environments",
        ),
        "starts of two": (
            lambda: given_back(OBSERVATION, episode_start=np.array([2])),
            r"`episode_start` is array\(\[2\]\); expected True or False",
        ),
        "a state of longer chunks": (
            lambda: chunks().predict(OBSERVATION, state=(np.zeros((1, 5, 1)), np.zeros(1, int))),
            "`state` is that of another policy; pass what `predict` of this policy returned",
        ),
        "an unknown sampler": (
            lambda: single().policy.with_sampler("best"),
            "no sampler 'best'; choose one of one_step, bc_flow",
        ),
        "the best of none": (lambda: single().policy.with_sampler("bc_flow", 0), "`best_of_n` is 0"),
        "the best of text": (lambda: single().policy.with_sampler("bc_flow", "many"), "`best_of_n` is 'many'"),
    }
    accepted: dict[str, tuple[Callable[[], Any], Any]] = {
        "a list": (lambda: shape(single().predict([0.0, 0.0, 0.0])), (1,)),
        "whole numbers": (lambda: shape(single().predict(np.zeros(3, int))), (1,)),
        "a tensor": (lambda: shape(single().predict(th.zeros(3))), (1,)),
        "an empty batch": (lambda: shape(single().predict(np.zeros((0, 3)))), (0, 1)),
        "an empty batch for chunks": (lambda: shape(chunks().predict(np.zeros((0, 3)))), (0, 1)),
        "far outside of the space": (lambda: shape(single().predict(OBSERVATION + 1e6)), (1,)),
        "one start": (lambda: given_back(OBSERVATION, episode_start=True), (1,)),
        "channels last": (lambda: shape(of_images().predict(np.zeros((36, 36, 3), np.uint8))), (1,)),
        "an image as floats": (lambda: shape(of_images().predict(IMAGE * 200)), (1,)),
    }
    inputs = [Input(f"predict: {name}", lambda _, f=give: f(), message) for name, (give, message) in wrong.items()]
    return inputs + [
        Input(f"predict: {name}", lambda _, f=give: f(), result=result) for name, (give, result) in accepted.items()
    ]


def updates() -> list[Input]:
    wrong: dict[str, tuple[Callable[[], Any], str]] = {
        "a batch of 0": (lambda: single().sample_batch(0), "`batch_size` is 0; it must be at least 1"),
        "a batch of -1": (lambda: single().sample_batch(-1), "`batch_size` is -1"),
        "a batch of 1.5": (lambda: single().sample_batch(1.5), "`batch_size` is 1.5; it must be a whole number"),
        "a batch of None": (lambda: single().sample_batch(None), "`batch_size` is None"),
        "a batch without data": (lambda: online().sample_batch(4), "neither a dataset nor a collected transition"),
        "train: -1 updates": (lambda: single().train(-1, 4), "`gradient_steps` is -1"),
        "train: a batch of 0": (lambda: single().train(1, 0), "`batch_size` is 0"),
        "update without noise": (lambda: single().update(single().sample_batch(4)), "noise"),
        "learn(-1)": (lambda: online().learn(-1), "`total_timesteps` is -1"),
        "learn(2.5)": (lambda: online().learn(2.5), "`total_timesteps` is 2.5; it must be a whole number"),
        "learn('many')": (lambda: online().learn("many"), "`total_timesteps` is 'many'"),
        "log_interval=0": (lambda: online().learn(8, log_interval=0), "`log_interval` is 0"),
        "callback=3": (lambda: online().learn(8, callback=3), "`callback` has 3; it must be a callback"),
        "a callback's class": (lambda: online().learn(8, callback=EvalCallback), "`callback` has <class"),
        "a list with text": (lambda: online().learn(8, callback=["save"]), "`callback` has 'save'"),
        "evaluations of 0 episodes": (
            lambda: online().learn(8, callback=EvalCallback(gym.make("Pendulum-v1"), n_eval_episodes=0)),
            "`n_eval_episodes` of `EvalCallback` is 0",
        ),
        "save_freq=0": (lambda: TrainingCheckpoint("run", 0), "`save_freq` is 0"),
        "save_freq=1.5": (lambda: TrainingCheckpoint("run", 1.5), "`save_freq` is 1.5"),
        "save_freq='often'": (lambda: TrainingCheckpoint("run", "often"), "`save_freq` is 'often'"),
        "keep=0": (lambda: TrainingCheckpoint("run", 10, keep=0), "`keep` is 0"),
        "a number as folder": (lambda: TrainingCheckpoint(3, 10), "`folder` is 3; it must be the path of a folder"),
        "folder and save_freq exchanged": (lambda: TrainingCheckpoint(10, "run"), r"`folder` is 10; .*\(folder, save_freq\)"),
        "checkpoints of SAC": (
            lambda: SAC("MlpPolicy", pendulum(), buffer_size=10, device="cpu").learn(3, callback=TrainingCheckpoint("run", 2)),
            "TrainingCheckpoint is for the algorithms of sb3_flow, not for SAC",
        ),
        "no data after all": (lambda: single().set_dataset(None), "Cannot read None as a dataset"),
        "no environment after all": (lambda: single().set_env(None), "`env` is of the type NoneType"),
        "another environment": (lambda: single().set_env(gym.make("MountainCarContinuous-v0")), "spaces do not match"),
    }
    accepted: dict[str, Callable[[], Any]] = {
        "a batch of '16'": lambda: single().sample_batch("16").actions.shape[0],
        "train: no update": lambda: single().train(0, 4),
        "learn(0)": lambda: online().learn(0).num_timesteps,
        "learn(1e1)": lambda: online().learn(1e1).num_timesteps,
        "a function as callback": lambda: online().learn(6, callback=lambda *_: True).num_timesteps,
        "an id as environment": lambda: offline(collect(pendulum)).set_env("Pendulum-v1"),
    }
    results = {"a batch of '16'": 16, "learn(0)": 0, "learn(1e1)": 10, "a function as callback": 6}

    def within_episodes(folder: Path) -> None:
        online().learn(13, callback=TrainingCheckpoint(folder, 6))

    inputs = [Input(name, lambda _, f=give: f(), message) for name, (give, message) in wrong.items()]
    nothing = "Nothing is learned in this online phase: it ends after 4 environment steps"
    inputs.append(Input("learn(4) with learning_starts=4", lambda _: online().learn(4), warning=nothing))
    inputs.append(Input("checkpoints within episodes", within_episodes, warning="No episode ended in the 6 environment steps"))
    return inputs + [Input(name, lambda _, f=give: f(), result=results.get(name)) for name, give in accepted.items()]


@cache
def content() -> bytes:
    """A saved model."""
    file = Path("model.zip")
    single().save(file)
    return file.read_bytes()


@cache
def run() -> dict[str, bytes]:
    """The files of a run with a checkpoint."""
    offline(collect(pendulum)).learn(4, callback=TrainingCheckpoint("run", 4))
    files = {path.as_posix(): path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    shutil.rmtree("run")
    return files


def load(file: bytes | None = None, /, path: Any = "model.zip", cls: Any = FQL, **kwargs: Any) -> Any:
    Path("model.zip").write_bytes(content() if file is None else file)
    return cls.load(path, **{"device": "cpu", **kwargs})


def load_policy(file: bytes | None = None, cls: Any = FQLPolicy, share: float = 1.0, state: Any = None) -> Any:
    if state is not None:
        th.save(state, "policy.zip")
    elif file is not None:
        Path("policy.zip").write_bytes(file)
    else:
        single().policy.save("policy.zip")
    whole = Path("policy.zip").read_bytes()
    Path("policy.zip").write_bytes(whole[: int(share * len(whole))])
    return cls.load("policy.zip", device="cpu")


def resume(cls: Any = FQL, env: Any = "Pendulum-v1", **kwargs: Any) -> Any:
    for name, file in run().items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(file)
    return cls.resume("run", env, **{"dataset": collect(pendulum), "device": "cpu", **kwargs})


def resume_normalized(**changes: Any) -> Any:
    data = collect(pendulum)
    FQL("FlowPolicy", VecNormalize(DummyVecEnv([pendulum])), dataset=data, **SMALL).learn(
        2, callback=TrainingCheckpoint("normalized", 2)
    )
    return FQL.resume("normalized", VecNormalize(DummyVecEnv([pendulum]), **changes), dataset=data, device="cpu")


def two_environments() -> DummyVecEnv:
    return DummyVecEnv([pendulum] * 2)


def on_a_full_disk(give: Callable[[], Any]) -> Any:
    """What was there before must still be there."""
    Path("model.zip").write_bytes(content())
    full = OSError(errno.ENOSPC, "No space left on device")
    try:
        with mock.patch("sb3_flow.common.files.os.fsync", side_effect=full):
            give()
    finally:
        assert Path("model.zip").read_bytes() == content() and not list(Path().glob(".model*"))


def disks() -> list[Input]:
    """Folders that are files, and a disk that is full."""

    def below_a_file(give: Callable[[], Any]) -> Callable[[Path], Any]:
        return lambda _: (Path("file").touch(), give())

    full = "No space left on device"
    return [
        Input("save: into a folder", lambda _: (Path("here.zip").mkdir(), single().save("here")), "here.zip is a folder"),
        Input("save: below a file", below_a_file(lambda: single().save("file/model")), "file"),
        Input("save: a full disk", lambda _: on_a_full_disk(lambda: single().save("model")), full),
        Input("replay buffer: below a file", below_a_file(lambda: online().save_replay_buffer("file/buffer")), "file"),
        Input(
            "checkpoint: below a file",
            below_a_file(lambda: online().learn(3, callback=TrainingCheckpoint("file/run", 2))),
            "file",
        ),
        Input(
            "checkpoint: a full disk",
            lambda _: on_a_full_disk(lambda: offline(collect(pendulum)).learn(3, callback=TrainingCheckpoint("run", 2))),
            full,
        ),
    ]


def files() -> list[Input]:
    half = {name: column[:100] for name, column in collect(pendulum).items()}
    wrong: dict[str, tuple[Callable[[], Any], str]] = {
        "load: nothing there": (lambda: FQL.load("nothing"), "There is no saved model nothing or nothing.zip"),
        "load: a folder": (lambda: FQL.load("."), "is a folder, not a saved model"),
        "load: a number": (lambda: FQL.load(3), "`path` is 3; it must be a path or an open file"),
        "load: an empty file": (lambda: load(b""), "is empty"),
        "load: a text": (lambda: load(b"a model"), "is not a saved model"),
        "load: half a file": (lambda: load(content()[: len(content()) // 2]), "model.zip is damaged"),
        "load: another class": (lambda: load(cls=GFP), "was saved by another algorithm"),
        "load: an unknown argument": (lambda: load(learning_rat=1e-3), "load has no argument `learning_rat`; did you mean"),
        "load: gamma=5": (lambda: load(gamma=5), "`gamma` is 5"),
        "load: gamma='x'": (lambda: load(gamma="x"), "`gamma` is 'x'"),
        "load: alpha=-1": (lambda: load(alpha=-1), "`alpha` is -1"),
        "load: q_agg='max'": (lambda: load(q_agg="max"), "Unknown `q_agg` 'max'"),
        "load: custom_objects=3": (lambda: load(custom_objects=3), "`custom_objects` is 3; it must be a dictionary"),
        "load: alpha=-1 in custom_objects": (lambda: load(custom_objects={"alpha": -1}), "`alpha` is -1"),
        "load: n-step returns of chunks": (lambda: load(horizon_length=3, n_steps=3), "use `n_steps=1`"),
        "load: use_sde": (lambda: load(use_sde=True), "no argument `use_sde`: there is no gSDE"),
        "load: device='tpu'": (lambda: load(device="tpu"), "`device` is 'tpu'"),
        "load: other networks": (lambda: load(policy_kwargs={"net_arch": [9]}), "policy kwargs"),
        "load: an unknown environment": (lambda: load(env="Pendulumm-v1"), "Did you mean: `Pendulum`"),
        "load: another environment": (lambda: load(env="MountainCarContinuous-v0"), "spaces do not match"),
        "load: a class as environment": (lambda: load(env=gym.Env), "`env` is a class"),
        "learn after load without data": (lambda: load().learn(3), "is not part of the saved file. Pass it again"),
        "replay buffer: nothing there": (lambda: online().load_replay_buffer("nothing"), "no saved replay buffer nothing"),
        "policy: nothing there": (lambda: FQLPolicy.load("nothing"), "No such file or directory: 'nothing'"),
        "policy: a text": (lambda: load_policy(b"a policy"), "policy.zip is (damaged, or not a policy|not a policy)"),
        "policy: half a file": (lambda: load_policy(share=0.5), "policy.zip is damaged, or not a policy"),
        "policy: of another algorithm": (lambda: load_policy(cls=GFPPolicy), "policy.zip does not fit GFPPolicy"),
        "policy: a model": (lambda: load_policy(content()), "policy.zip is (damaged, or )?not a policy"),
        "policy: device='tpu'": (lambda: (single().policy.save("p"), FQLPolicy.load("p", "tpu")), "`device` is 'tpu'"),
        "policy: parameters only": (lambda: load_policy(state={"a": th.zeros(2)}), "it has no settings or no parameters"),
        "resume: nothing there": (lambda: FQL.resume("nothing"), "There is no folder nothing"),
        "resume: an empty folder": (lambda: FQL.resume("."), "has no checkpoint"),
        "resume: an environment as folder": (
            lambda: FQL.resume(pendulum(), "run"),
            r"`folder` is .*FQL.resume\(folder, env\)",
        ),
        "resume: a file": (lambda: (Path("file").touch(), FQL.resume("file")), "is a file"),
        "resume: another class": (lambda: resume(GFP), "was saved by another algorithm"),
        "resume: no data": (lambda: resume(dataset=None), "which is not saved in it. Pass it"),
        "resume: half of the data": (lambda: resume(dataset=half), "Pass the dataset of the run"),
        "resume: other data": (lambda: resume(dataset=collect(pendulum, seed=1)), "as many transitions .*other values"),
        "resume: two environments": (lambda: resume(env=two_environments()), "`env` has 2 environments; it must have 1"),
        "resume: alpha=-1": (lambda: resume(alpha=-1), "`alpha` is -1"),
        "resume: other normalization": (
            lambda: resume_normalized(norm_obs=False),
            r"`VecNormalize\(norm_obs=True\)`, but that of `env` has norm_obs=False. Wrap the environment as before",
        ),
        "resume: an unknown argument": (lambda: resume(learning_rat=1e-3), "did you mean `learning_rate`"),
        "a new model in the folder of a run": (
            lambda: (resume(), offline(collect(pendulum)).learn(3, callback=TrainingCheckpoint("run", 2))),
            "belongs to a run that is ahead of this model",
        ),
        "a file as folder": (
            lambda: (Path("run").touch(), online().learn(3, callback=TrainingCheckpoint("run", 2))),
            "is a file; TrainingCheckpoint needs a folder",
        ),
    }
    accepted: dict[str, tuple[Callable[[], Any], Any]] = {
        "load: gamma='0.5'": (lambda: load(gamma="0.5").gamma, 0.5),
        "load: without suffix": (lambda: load(path="model").num_timesteps, 0),
        "load: an id as environment": (lambda: load(env="Pendulum-v1").n_envs, 1),
        "resume: the checkpoint's data": (lambda: resume().num_timesteps, 4),
    }
    inputs = [Input(name, lambda _, f=give: f(), message) for name, (give, message) in wrong.items()]
    inputs.append(
        Input(
            "load: custom_objects that are not there",
            lambda _: load(custom_objects={"gama": 0.5}),
            warning="`custom_objects` has 'gama', which .*model.zip does not have: nothing is replaced",
        )
    )
    return inputs + [Input(name, lambda _, f=give: f(), result=result) for name, (give, result) in accepted.items()]


CALLS, FILES = predictions() + updates(), files() + disks()
