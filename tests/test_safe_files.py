"""Files do not run code unless they are trusted, whether they are accepted or refused."""

import base64
import contextlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch as th
from conformance.environments import collect, pendulum, pendulums
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_flow import FQL, QAM, SWFP
from sb3_flow.common.checkpoints import TrainingCheckpoint
from sb3_flow.common.checkpoints.plain_files import write_data
from sb3_flow.common.checkpoints.replay_buffer import KIND
from sb3_flow.common.checkpoints.saving import PICKLE
from sb3_flow.fql.policies import FQLPolicy

SMALL: dict[str, Any] = {
    **{"policy_kwargs": {"net_arch": [8]}, "batch_size": 4, "learning_starts": 2, "buffer_size": 100},
    **{"device": "cpu", "seed": 0},
}
FILES_0_1 = Path(__file__).parent / "files_0_1"
REFUSED = r"runs any code that it contains, so (the file|it) is refused.*`trusted=True`"

#: What unpickling a marker adds to.
RUN: list[str] = []


def run(name: str) -> str:
    RUN.append(name)
    return name


class Marker:
    """Harmless: unpickling it calls ``run``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return run, ("marker",)


@pytest.fixture(autouse=True)
def nothing_has_run() -> None:
    RUN.clear()


@pytest.fixture(scope="module")
def model() -> FQL:
    return FQL("FlowPolicy", pendulum(), **SMALL).learn(5)


@pytest.fixture
def saved(model: FQL, tmp_path: Path) -> Path:
    model.save(tmp_path / "model.zip")
    return tmp_path / "model.zip"


def rewrite(path: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    """Change one member of an archive."""
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    members[name] = change(members[name])
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)


def plant(path: Path, setting: str, thing: Any = None) -> None:
    """Put a pickle in the place of a setting of a saved model, as Stable-Baselines3 writes it."""

    def change(content: bytes) -> bytes:
        pickled = base64.b64encode(cloudpickle.dumps(Marker() if thing is None else thing)).decode()
        return json.dumps({**json.loads(content), setting: {":type:": "marker", PICKLE: pickled}}).encode()

    rewrite(path, "data", change)


def members(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return sorted(archive.namelist())


def settings_of(path: Path) -> str:
    """The settings, which are JSON as the standard has it."""
    text = zipfile.ZipFile(path).read("data").decode()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    return text


def test_the_archive_is_that_of_stable_baselines3(saved: Path, tmp_path: Path) -> None:
    """The same members, with plain JSON as settings."""
    SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, buffer_size=10).save(tmp_path / "sac.zip")
    own = {"policy.pth", "policy.optimizer.pth", "data", "pytorch_variables.pth", "system_info.txt"}
    assert own < set(members(saved)) <= {*own, "_stable_baselines3_version"}
    assert {name for name in members(tmp_path / "sac.zip") if not name.endswith(".pth")} == {
        name for name in members(saved) if not name.endswith(".pth")
    }
    assert PICKLE not in settings_of(saved)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.usefixtures("no_pickles")
def test_numbers_that_are_not_finite_survive(saved: Path, value: float) -> None:
    """In the logged averages, for instance; the space of observations has infinite bounds here."""
    space = spaces.Box(-np.inf, np.inf, (3,))
    env = pendulum()
    env.observation_space = space
    model = FQL("FlowPolicy", env, **SMALL)
    assert model.ep_info_buffer is None or len(model.ep_info_buffer) == 0
    model._setup_learn(1)
    model.ep_info_buffer.append({"r": value, "l": 3, "t": 0.5})
    model.save(saved)
    assert PICKLE not in settings_of(saved)
    loaded = FQL.load(saved)
    np.testing.assert_equal(list(loaded.ep_info_buffer), [{"r": value, "l": 3, "t": 0.5}])
    assert loaded.observation_space == space


@pytest.mark.parametrize("setting", ["learning_rate", "policy_class", "new", "action_space"])
def test_a_pickle_among_the_settings(saved: Path, setting: str) -> None:
    plant(saved, setting)
    for path in (saved, io.BytesIO(saved.read_bytes())):
        with pytest.raises(ValueError, match=rf"pickled objects \({setting}\).*{REFUSED}"):
            FQL.load(path)
    assert RUN == []
    with contextlib.suppress(ValueError):  # a text is neither a learning rate, nor a policy, nor a space
        FQL.load(saved, trusted=True)
    assert RUN == ["marker"]


@pytest.mark.parametrize("cls", [QAM, SAC])
def test_a_pickle_in_a_file_of_another_algorithm(saved: Path, tmp_path: Path, cls: Any) -> None:
    """It is refused for one reason or the other, and not read."""
    options = {key: SMALL[key] for key in ("policy_kwargs", "device")}
    cls("FlowPolicy" if cls is QAM else "MlpPolicy", "Pendulum-v1", buffer_size=10, **options).save(saved)
    plant(saved, "learning_rate")
    with pytest.raises(ValueError):
        FQL.load(saved)
    assert RUN == []


def test_a_pickle_in_a_damaged_file(saved: Path) -> None:
    plant(saved, "learning_rate")
    content = saved.read_bytes()
    for damaged in (content[:-40], content[: len(content) // 2], content.replace(b"policy.pth", b"policy.pty")):
        saved.write_bytes(damaged)
        for trusted in (False, True):
            with pytest.raises(ValueError):
                FQL.load(saved, trusted=trusted)
    assert RUN == []


def test_a_pickle_with_a_replacement(saved: Path) -> None:
    """It is not read, even in a trusted file; other attributes may be given, too."""
    plant(saved, "learning_rate")
    for trusted in (False, True):
        assert FQL.load(saved, custom_objects={"learning_rate": 0.5}, trusted=trusted).learning_rate == 0.5
        assert FQL.load(saved, learning_rate=0.25, trusted=trusted).learning_rate == 0.25
    assert RUN == []


@pytest.mark.parametrize("name", ["policy.pth", "policy.optimizer.pth", "pytorch_variables.pth"])
@pytest.mark.parametrize("trusted", [False, True])
def test_a_pickle_among_the_parameters(saved: Path, name: str, trusted: bool) -> None:
    """They are tensors, in trusted files as well."""
    buffer = io.BytesIO()
    th.save({"x": Marker()}, buffer)
    rewrite(saved, name, lambda content: buffer.getvalue())
    for call in (
        lambda: FQL.load(saved, trusted=trusted),
        lambda: FQL("FlowPolicy", pendulum(), **SMALL).set_parameters(saved),
    ):
        with pytest.raises((ValueError, pickle.UnpicklingError)):
            call()
    assert RUN == []


def test_a_pickle_inside_a_value(saved: Path) -> None:
    """Pickles are values of settings only, not parts of them."""
    packed = {PICKLE: base64.b64encode(pickle.dumps(Marker())).decode()}
    rewrite(saved, "data", lambda content: json.dumps({**json.loads(content), "acting": {"sampler": packed}}).encode())
    with pytest.raises(ValueError, match="does not have a valid `acting`"):
        FQL.load(saved, trusted=True)
    assert RUN == []


class Extractor(BaseFeaturesExtractor):
    """A class of the user's own."""

    def __init__(self, observation_space: Any) -> None:
        super().__init__(observation_space, 3)
        self.scale = nn.Parameter(th.ones(3))

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return observations * self.scale


def test_a_class_of_the_user(tmp_path: Path, no_pickles: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named when the model is saved; then the file needs trust, or the class again."""
    policy_kwargs = {"net_arch": [8], "features_extractor_class": Extractor}
    model = FQL("FlowPolicy", pendulum(), **{**SMALL, "policy_kwargs": policy_kwargs})
    with pytest.warns(
        UserWarning, match=r"pickled objects.*policy_kwargs\['features_extractor_class'\] \(the class .*Extractor"
    ):
        model.save(tmp_path / "model")
    with pytest.warns(
        UserWarning, match=r"features_extractor_class \(the class .*Extractor\).*FQLPolicy\.load\(\.\.\., trusted=True"
    ):
        model.policy.save(tmp_path / "policy")
    with pytest.raises(
        ValueError, match=rf"pickled objects \(policy_kwargs\): functions or classes of your own.*{REFUSED}.*custom_objects"
    ):
        FQL.load(tmp_path / "model")
    with pytest.raises(ValueError, match=rf"pickled objects \(features_extractor_class\).*{REFUSED}"):
        FQLPolicy.load(tmp_path / "policy")
    observations = np.ones((4, 3), np.float32)
    loaded = [FQL.load(tmp_path / "model", custom_objects={"policy_kwargs": policy_kwargs})]
    monkeypatch.undo()
    loaded += [FQL.load(tmp_path / "model", trusted=True), FQLPolicy.load(tmp_path / "policy", trusted=True)]
    for other in loaded:
        actions = other.predict(observations, deterministic=True)[0]
        np.testing.assert_array_equal(actions, model.predict(observations, deterministic=True)[0])


def test_a_policy_of_the_user_is_known_to_its_algorithm(tmp_path: Path, no_pickles: None) -> None:
    class OwnPolicy(FQLPolicy):
        pass

    class Own(FQL):
        policy_aliases = {"FlowPolicy": OwnPolicy}  # noqa: RUF012

    Own("FlowPolicy", pendulum(), **SMALL).save(tmp_path / "model")
    assert type(Own.load(tmp_path / "model").policy) is OwnPolicy
    with pytest.raises(ValueError, match="OwnPolicy is not accepted"):
        FQL.load(tmp_path / "model")


def test_a_pickle_as_a_policy(model: FQL, tmp_path: Path) -> None:
    th.save({"state_dict": model.policy.state_dict(), "data": {"net_arch": Marker()}}, tmp_path / "policy")
    with pytest.raises(ValueError, match="is not a policy as plain data"):
        FQLPolicy.load(tmp_path / "policy")
    assert RUN == []
    old = {**model.policy._get_constructor_parameters(), "sampler": Marker()}  # a marker is unpickled as a text
    th.save({"state_dict": model.policy.state_dict(), "data": old}, tmp_path / "policy")
    with pytest.raises(ValueError, match="no `sampler` 'marker'"):
        FQLPolicy.load(tmp_path / "policy", trusted=True)
    assert RUN == ["marker"]


def test_a_pickle_as_a_replay_buffer(model: FQL, tmp_path: Path) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "buffer.pkl").write_bytes(pickle.dumps(Marker(), protocol))
        with pytest.raises(ValueError, match=REFUSED if protocol > 1 else "is not a replay buffer"):
            model.load_replay_buffer(tmp_path / "buffer")
    with pytest.raises(ValueError, match=REFUSED):
        model.load_replay_buffer(io.BytesIO(pickle.dumps(Marker())))
    assert RUN == []
    with pytest.raises(ValueError, match=r"contains a builtins\.str"):
        model.load_replay_buffer(tmp_path / "buffer", trusted=True)
    assert RUN == ["marker"]


@pytest.mark.parametrize("position", ["data", "0"])
def test_arrays_of_objects_in_a_replay_buffer(model: FQL, tmp_path: Path, position: str) -> None:
    """``numpy.load`` would unpickle them if it were allowed to."""
    model.save_replay_buffer(tmp_path / "buffer")
    with np.load(tmp_path / "buffer.pkl") as archive:
        arrays = dict(archive)
    np.savez(tmp_path / "buffer", **{**arrays, position: np.array([Marker()])})
    for trusted in (False, True):
        with pytest.raises(ValueError, match="is not a replay buffer, or it is damaged"):
            model.load_replay_buffer(tmp_path / "buffer.npz", trusted=trusted)
    assert RUN == []


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with ``VecNormalize`` and a checkpoint at 6."""
    folder = tmp_path_factory.mktemp("run")
    FQL("FlowPolicy", VecNormalize(pendulums(1)), **SMALL).learn(6, callback=TrainingCheckpoint(folder, 6))
    return folder


@pytest.mark.parametrize("part", ["training", "vecnormalize", "replay_buffer", "model"])
def test_a_pickle_in_a_checkpoint(finished: Path, part: str, tmp_path: Path) -> None:
    """Under the name of version 0.1, or under today's."""
    checkpoint = tmp_path / "checkpoint_6"
    checkpoint.mkdir()
    for file in (finished / "checkpoint_6").iterdir():
        (checkpoint / file.name).write_bytes(file.read_bytes())
    if part == "model":
        plant(checkpoint / "model.zip", "learning_rate")
    else:
        (checkpoint / f"{part}.npz").rename(checkpoint / f"{part}.pkl").write_bytes(pickle.dumps(Marker()))
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"{part}.*{REFUSED}"):
            FQL.resume(tmp_path, VecNormalize(pendulums(1)), device="cpu")
        if part != "model" and (checkpoint / f"{part}.pkl").exists():
            (checkpoint / f"{part}.pkl").rename(checkpoint / f"{part}.npz")
    assert RUN == []
    with pytest.raises(ValueError, match=part):
        FQL.resume(tmp_path, VecNormalize(pendulums(1)), device="cpu", trusted=True)
    assert RUN == ["marker"]


def test_a_checkpoint_has_no_pickles(finished: Path) -> None:
    """Its parts are archives that NumPy reads without unpickling."""
    names = ["model.zip", "replay_buffer.npz", "training.npz", "vecnormalize.npz"]
    assert sorted(path.name for path in (finished / "checkpoint_6").iterdir()) == names
    for name in names[1:]:
        with np.load(finished / "checkpoint_6" / name, allow_pickle=False) as archive:
            assert all(archive[key].dtype != object for key in archive.files)


def test_statistics_come_back(finished: Path, no_pickles: None) -> None:
    env = VecNormalize(pendulums(1))
    model = FQL.resume(finished, env, device="cpu")
    assert env.obs_rms.count > 6 and env.ret_rms.count > 6
    assert model.learn(9).n_env_steps == 9


def test_callbacks_of_stable_baselines3_write_no_pickles(tmp_path: Path, no_pickles: None) -> None:
    """``CheckpointCallback`` calls ``save`` and ``save_replay_buffer``, under names of its own."""
    callback = CheckpointCallback(5, str(tmp_path), save_replay_buffer=True)
    model = FQL("FlowPolicy", pendulum(), **SMALL).learn(5, callback=callback)
    loaded = FQL.load(tmp_path / "rl_model_5_steps", env=pendulum())
    loaded.load_replay_buffer(tmp_path / "rl_model_replay_buffer_5_steps")
    assert len(loaded.replay_buffer) == 4  # callbacks are called before a transition is stored
    np.testing.assert_array_equal(loaded.replay_buffer.observations, model.replay_buffer.observations[:4])


def test_files_of_version_0_1_are_refused(model: FQL, no_pickles: None) -> None:
    with pytest.raises(ValueError, match=rf"FQL\.zip has pickled objects \(.*policy_class.*\).*version 0\.1.*{REFUSED}"):
        FQL.load(FILES_0_1 / "FQL.zip")
    with pytest.raises(ValueError, match=rf"training\.pkl is a pickle, as version 0\.1.*{REFUSED}"):
        FQL.resume(FILES_0_1 / "run", pendulum(), dataset=collect(pendulum))
    with pytest.raises(ValueError, match=rf"replay_buffer\.pkl is a pickle.*{REFUSED}"):
        model.load_replay_buffer(FILES_0_1 / "run" / "checkpoint_20" / "replay_buffer.pkl")
    with pytest.raises(ValueError, match=REFUSED):
        SWFP.from_pretrained(FILES_0_1 / "FQL.zip", pendulum())


def test_a_pretrained_flow_is_read_without_pickles(saved: Path, no_pickles: None) -> None:
    assert SWFP.from_pretrained(saved, pendulum(), device="cpu").predict(np.zeros(3, np.float32))[0].shape == (1,)


def test_a_buffer_that_does_not_fit_together(model: FQL, tmp_path: Path) -> None:
    """Rows that point at no observation, counters beyond the size, columns that are shorter."""
    state = model.replay_buffer.state()
    store = state["stores"][""]
    for broken in (
        {"pos": 1000},
        {"full": True},
        {"newest_done": np.ones(2, bool)},
        {"columns": {}},
        {"stores": {}},
        {"stores": {"": {**store, "slots": store["slots"] + 100}}},
        {"stores": {"": {**store, "uses": store["uses"][:-1]}}},
        {"stores": {"": {**store, "shape": (4,)}}},
        {"columns": {**state["columns"], "rewards": state["columns"]["rewards"][:-1]}},
        {"observation_space": None},
        {"n_envs": 0},
    ):
        with (tmp_path / "buffer").open("wb") as file:
            write_data(file, KIND, {**state, **broken})
        with pytest.raises(ValueError, match="is not a replay buffer, or it is damaged"):
            model.load_replay_buffer(tmp_path / "buffer")
    model.save_replay_buffer(tmp_path / "buffer.npz")
    model.load_replay_buffer(tmp_path / "buffer.npz")
