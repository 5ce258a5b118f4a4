"""Inputs of the kinds that a fuzzer found: each raised an error of another package, or was accepted."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from conformance.environments import collect, pendulum, pendulums
from stable_baselines3.common.vec_env import VecNormalize

from sb3_flow import FQL
from sb3_flow.common.checkpoints import TrainingCheckpoint, part, save_statistics
from sb3_flow.common.checkpoints.plain_files import read_data, write_data
from sb3_flow.common.data.columns import DatasetError
from sb3_flow.datasets import load_dataset
from sb3_flow.zoo.configs import read_entries
from sb3_flow.zoo.entries import resolve_entries

SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [4]}, "batch_size": 4, "device": "cpu", "seed": 0}


def test_a_damaged_header_of_an_array(tmp_path: Path) -> None:
    """numpy's parser raises errors of ``tokenize`` for it."""
    for name, column in collect(pendulum, 20).items():
        np.save(tmp_path / f"{name}.npy", column)
    path = tmp_path / "actions.npy"
    path.write_bytes(path.read_bytes().replace(b"'shape': (20, 1)", b"'shape': ((((((("))
    with pytest.raises(DatasetError, match="`actions` cannot be read; the file is damaged or foreign"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("zarr.json", lambda value: {**value, "node_type": "tree"}),
        ("data/action/zarr.json", lambda value: {**value, "codecs": [{"name": "bytes"}, 3]}),
        ("data/action/zarr.json", lambda value: {**value, "chunk_grid": {"name": "regular"}}),
    ],
)
def test_metadata_of_a_zarr_file(tmp_path: Path, file: str, change: Callable[[Any], Any]) -> None:
    zarr = pytest.importorskip("zarr")
    path, data = tmp_path / "data.zarr", collect(pendulum, 20)
    group = zarr.open_group(str(path), mode="w")
    columns = {"data/state": data["observations"], "data/action": data["actions"], "meta/episode_ends": np.array([10, 20])}
    for name, column in columns.items():
        group.create_array(name, shape=column.shape, dtype=column.dtype)[...] = column
    assert len(load_dataset(path)) == 18  # without the last step of each episode
    (path / file).write_text(json.dumps(change(json.loads((path / file).read_text("utf-8")))), "utf-8")
    with pytest.raises(DatasetError, match=r"data.zarr: this is no zarr file, or it is damaged"):
        load_dataset(path)


def test_elements_of_vectors_in_a_table() -> None:
    pandas = pytest.importorskip("pandas")
    data = {"obs_0": [1.0, 2.0], "action_0": [0.0, 0.0], "action_1": [[1.0, 2.0], [3.0, 4.0]], "episode_index": [0, 0]}
    with pytest.raises(DatasetError, match="`action_1` has arrays; expected numbers"):
        load_dataset(pandas.DataFrame(data))


def test_formulas(tmp_path: Path) -> None:
    """Large exponents filled the memory, or were a traceback."""
    for formula, message in (
        ("= 1e400", "is too large"),
        ("= 1e999999999", "is not a formula"),
        ("= 1e300 * 1e300", "too large"),
    ):
        with pytest.raises(ValueError, match=message):
            resolve_entries({"a": {"alpha": formula}}, "a")
    assert resolve_entries({"a": {"alpha": "= 1e300 / 1e300"}}, "a") == {"a": {"alpha": 1.0}}
    (tmp_path / "c.yml").write_bytes(b"a: \xff")
    with pytest.raises(ValueError, match=r"c.yml is not valid YAML: .*utf-8"):
        read_entries(str(tmp_path / "c.yml"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run with ``VecNormalize``."""
    env = VecNormalize(pendulums(1))
    model = FQL("FlowPolicy", env, buffer_size=50, learning_starts=4, **SMALL)
    model.learn(12, callback=TrainingCheckpoint(tmp_path, 12))
    return tmp_path


def resume(run: Path) -> FQL:
    return FQL.resume(run, VecNormalize(pendulums(1)), device="cpu").learn(14)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: {**state, "random": {**state["random"], "python": (3, (1,), None)}},
            "the states of its random generators are malformed",
        ),
        (
            lambda state: {**state, "random": {**state["random"], "torch": None}},
            "the states of its random generators are malformed",
        ),
        (lambda state: {name: value for name, value in state.items() if name != "n_envs"}, "its `n_envs` is missing"),
        (lambda state: {**state, "callbacks": [1]}, "its `callbacks` is missing or malformed"),
        (lambda state: {**state, "monitors": {"sizes": {"0.monitor.csv": -1}, "t_start": []}}, "its `monitors` is"),
        (lambda state: {**state, "run": {}}, "its `run` is missing or malformed"),
    ],
)
def test_states_of_runs(run: Path, change: Callable[[Any], Any], message: str) -> None:
    """They are checked when they are read, not when they are used."""
    path = part(run / "checkpoint_12", "training.npz")
    assert resume(run).n_env_steps == 14
    with path.open("rb") as file:
        state = read_data(file, "state of a run")
    with path.open("wb") as file:
        write_data(file, "state of a run", change(state))
    with pytest.raises(
        ValueError, match=rf"training.npz is damaged, or was written by another version \({message}.*Resume from"
    ):
        FQL.resume(run, VecNormalize(pendulums(1)), device="cpu")


def test_statistics_of_other_environments(run: Path) -> None:
    """Their shapes and values are compared with those of the environment."""
    path = part(run / "checkpoint_12", "vecnormalize.npz")
    env = VecNormalize(pendulums(1))
    env.obs_rms.mean = np.zeros(4)
    save_statistics(env, path)
    with pytest.raises(ValueError, match=r"vecnormalize.npz is damaged, or does not fit .*`mean` has the shape \(4,\)"):
        resume(run)
    env.obs_rms.mean = np.full(3, np.nan)
    save_statistics(env, path)
    with pytest.raises(ValueError, match=r"vecnormalize.npz is damaged, or does not fit .*expected finite numbers"):
        resume(run)


def test_resume_does_not_warn_of_missing_statistics(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Those of the checkpoint are loaded before the dataset is read."""
    data = collect(pendulum)
    model = FQL("FlowPolicy", VecNormalize(pendulums(1)), dataset=data, **SMALL)
    model.learn(6, callback=TrainingCheckpoint(tmp_path, 4))
    FQL.resume(tmp_path, VecNormalize(pendulums(1)), dataset=data, device="cpu")
    assert not [str(warning.message) for warning in recwarn if "has no statistics" in str(warning.message)]


def test_a_replay_buffer_with_a_number_that_is_not_finite(tmp_path: Path) -> None:
    model = FQL("FlowPolicy", pendulum(), buffer_size=50, learning_starts=4, **SMALL).learn(8)
    model.replay_buffer.transitions.rewards[2] = np.nan
    model.save_replay_buffer(tmp_path / "buffer")
    other = FQL("FlowPolicy", pendulum(), buffer_size=50, **SMALL)
    with pytest.raises(ValueError, match=r"buffer.pkl has the value nan; all numbers of a replay buffer must be finite"):
        other.load_replay_buffer(tmp_path / "buffer")
    assert len(other.replay_buffer) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {**state, "pos": True}, "its `pos` is True"),
        (lambda state: {**state, "newest_done": np.zeros(1)}, "its counters do not fit"),
        (lambda state: {**state, "columns": {**state["columns"], "ends": np.zeros(8)}}, r"its ends have the shape \(8,\)"),
        (lambda state: with_store(state, slots=state["stores"][""]["slots"].astype(np.float32)), "indices of float32"),
        (lambda state: with_store(state, slots=state["stores"][""]["slots"][:1]), "indices of another shape"),
        (lambda state: with_store(state, free=np.zeros((1, 1), int)), r"indices of int64 and the shape \(1, 1\)"),
        (lambda state: with_store(state, blocks=[state["stores"][""]["blocks"][0].astype(np.int64)]), "another type or shape"),
    ],
)
def test_parts_of_a_replay_buffer(tmp_path: Path, change: Callable[[Any], Any], message: str) -> None:
    """They are checked when they are read, not when a batch is drawn."""
    model = FQL("FlowPolicy", pendulum(), buffer_size=50, learning_starts=4, **SMALL).learn(8)
    other = FQL("FlowPolicy", pendulum(), buffer_size=50, **SMALL)
    model.save_replay_buffer(tmp_path / "good")
    other.load_replay_buffer(tmp_path / "good")
    assert len(other.replay_buffer) == 8
    with (tmp_path / "buffer.pkl").open("wb") as file:
        write_data(file, "replay buffer", change(model.replay_buffer.state()))
    with pytest.raises(ValueError, match=rf"buffer.pkl is not a replay buffer, or it is damaged \(.*{message}"):
        other.load_replay_buffer(tmp_path / "buffer.pkl")


def with_store(state: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The state of a replay buffer with changes of its observations."""
    return {**state, "stores": {"": {**state["stores"][""], **changes}}}


@pytest.mark.parametrize(
    ("name", "value"),
    [("acting", 3), ("acting", {"predict": 3}), ("acting", {"sampler": "none"}), ("acting", {"best_of_n": 0})],
)
def test_settings_of_models(tmp_path: Path, name: str, value: Any) -> None:
    model = FQL("FlowPolicy", pendulum(), buffer_size=10, **SMALL)
    model.save(tmp_path / "model")
    change_settings(tmp_path / "model.zip", lambda settings: {**settings, "acting": value})
    with pytest.raises(ValueError, match=r"model.zip (does not fit FQL|cannot be loaded)"):
        FQL.load(tmp_path / "model.zip", device="cpu")


def test_parameters_of_optimizers(tmp_path: Path) -> None:
    """Stable-Baselines3 reads their groups; and the states of random generators have a form."""
    model = FQL("FlowPolicy", pendulum(), buffer_size=10, **SMALL)
    states = {
        "policy.optimizer.pth": {"param_groups": "x", "state": {}},
        "pytorch_variables.pth": {"generator_state": th.full_like(model.random_state(), 255)},
    }
    for name, state in states.items():
        model.save(tmp_path / "model")
        written = io.BytesIO()
        th.save(state, written)
        change_parts(tmp_path / "model.zip", {name: written.getvalue()})
        with pytest.raises(ValueError, match=r"model.zip does not fit FQL"):
            FQL.load(tmp_path / "model.zip", device="cpu")


def change_settings(path: Path, change: Callable[[Any], Any]) -> None:
    with zipfile.ZipFile(path) as archive:
        settings = json.loads(archive.read("data"))
    change_parts(path, {"data": json.dumps(change(settings)).encode()})


def change_parts(path: Path, parts: dict[str, bytes]) -> None:
    """Replace parts of a saved model."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, member in {**content, **parts}.items():
            archive.writestr(name, member)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state["state"][0].pop("exp_avg_sq"), r"The state of optimizer has no `exp_avg_sq` of the shape"),
        (lambda state: state["state"][0].update(exp_avg=3), "no `exp_avg` of the shape"),
        (lambda state: state["state"][1].update(exp_avg=th.zeros(7)), "no `exp_avg` of the shape"),
        (lambda state: state["param_groups"][0].update(lr="fast"), "`lr` of optimizer is 'fast'"),
        (lambda state: state["param_groups"][0].update(betas=3), "`betas` of optimizer is 3"),
    ],
)
def test_states_of_optimizers(tmp_path: Path, change: Callable[[Any], Any], message: str) -> None:
    """They are checked when they are read, not by the next update."""
    model = FQL("FlowPolicy", pendulum(), dataset=collect(pendulum), **SMALL).learn(2)
    model.save(tmp_path / "model")
    assert FQL.load(tmp_path / "model", device="cpu").policy.optimizer.state
    state = model.policy.optimizer.state_dict()
    change(state)
    written = io.BytesIO()
    th.save(state, written)
    change_parts(tmp_path / "model.zip", {"policy.optimizer.pth": written.getvalue()})
    with pytest.raises(ValueError, match=rf"model.zip cannot be loaded. .*{message}"):
        FQL.load(tmp_path / "model.zip", device="cpu")
