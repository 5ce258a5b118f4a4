"""The targets of ``fuzz.py``: each edits a valid small input, gives it to a reader, and checks what is accepted."""

import copy
import io
import json
import shutil
import traceback
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium.envs.classic_control import PendulumEnv
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import sb3_flow
from sb3_flow import FQL
from sb3_flow.common.checkpoints import TrainingCheckpoint
from sb3_flow.common.guards import not_finite
from sb3_flow.fql.policies import FQLPolicy
from sb3_flow.zoo.arguments import quote_values
from sb3_flow.zoo.configs import check_entry, check_noise, read_entries, read_number
from sb3_flow.zoo.entries import resolve_entries
from sb3_flow.zoo.options import check_numbers, check_texts
from sb3_flow.zoo.plot_options import check_plot
from sb3_flow.zoo.trust import read_yaml
from sb3_flow.zoo.values import NotAValue, parse_value

#: Exceptions with a message for users, and the length of a message.
ERRORS = (ValueError, TypeError, OSError, ImportError, NotImplementedError, MemoryError)
LONGEST = 1000
PACKAGE = str(Path(sb3_flow.__file__).parent)
SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [4]}, "flow_steps": 2, "batch_size": 4, "device": "cpu", "seed": 0}
NUMBERS = [0, 1, -1, 2, 3, 7, 255, 256, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e-300, 1e39, 1e308]
BAD = [float("nan"), float("inf"), float("-inf")]
TEXTS = ["", "a", "observations", "nan", "1e3", "0x10", "\x00", "é", "../x", "a/b", "-1", "None", "[1]", " ", "x" * 100]
DTYPES = ["f2", "f4", "f8", "i1", "u1", "i8", "u8", "?", "U3", "S3", "O", "c8", "M8[s]", "m8[s]", "V4", ">f4"]
NAMES = [
    *("observations", "actions", "rewards", "terminations", "truncations", "next_observations", "terminals", "timeouts"),
    *("masks", "dones", "episode_ends", "qpos", "obs", "action", "next_obs", "episode_index", "frame_index", "steps"),
    *(
        "observations/a",
        "infos/x",
        "valids",
        "discount",
        "task",
        "desired_goal",
        "obs_0",
        "action_0",
        "reward",
        "done",
        "success",
    ),
]


class Edits:
    """Choices of the fuzzer."""

    def __init__(self, provider: Any) -> None:
        self.provider = provider

    def upto(self, most: int) -> int:
        return int(self.provider.ConsumeIntInRange(0, most))

    def one(self, options: Any) -> Any:
        options = [*options]
        return options[self.upto(len(options) - 1)]

    def rarely(self) -> bool:
        return self.upto(7) == 7

    def text(self) -> str:
        kind = self.upto(2)
        return str(self.one(TEXTS if kind else NAMES)) if kind < 2 else self.words(12)

    def words(self, most: int) -> str:
        return "".join(letter for letter in self.provider.ConsumeUnicodeNoSurrogates(most) if letter.isprintable())

    def number(self) -> Any:
        return self.one(NUMBERS) if self.upto(1) else self.provider.ConsumeInt(4)

    def bytes_of(self, content: bytes) -> bytes:
        """Bytes with a few changes."""
        changed = bytearray(content)
        for _ in range(self.upto(4)):
            if not changed:
                break
            at = self.provider.ConsumeIntInRange(0, len(changed) - 1)
            kind = self.upto(4)
            if kind == 0:
                changed[at] = self.upto(255)
            elif kind == 1:
                changed[at] ^= 1 << self.upto(7)
            elif kind == 2:
                del changed[at : at + 1 + self.upto(40)]
            elif kind == 3:
                changed[at:at] = self.provider.ConsumeBytes(1 + self.upto(16))
            else:
                del changed[at:]
        return bytes(changed)

    # Arrays.

    def array(self, array: np.ndarray) -> Any:
        """An array with one change, or something else in its place."""
        kind = self.upto(13)
        if kind <= 1 and array.size and array.dtype.kind in "fiub?":
            array = array.astype(self.one(["f4", "f8", array.dtype])) if kind else array.copy()
            with np.errstate(all="ignore"):
                value = np.array(float(self.one(BAD + NUMBERS))).astype(array.dtype)
            array.reshape(-1)[self.upto(array.size - 1)] = value
            return array
        if kind == 2:
            try:
                with np.errstate(all="ignore"):
                    return array.astype(self.one(DTYPES))
            except (ValueError, TypeError):
                return np.zeros(len(array), self.one(DTYPES))
        if kind == 3:
            return array[: self.upto(len(array))] if array.ndim else array
        if kind == 4:
            return array.reshape(*array.shape, 1) if self.upto(1) else array.reshape(1, *array.shape)
        if kind == 5:
            return array.reshape(-1)
        if kind == 6:
            return array.T
        if kind == 7:
            return np.zeros([self.upto(3) for _ in range(self.upto(4))], self.one(DTYPES))
        if kind == 8 and array.ndim:
            return np.concatenate([array, array[: self.upto(len(array))]])
        if kind == 9 and array.ndim > 1:
            return np.concatenate([array, array], axis=1)
        if kind == 10 and array.dtype.kind in "fiu":
            return array * self.one([2, 255, 1e6, 1e30])
        if kind == 11:
            return np.full(array.shape, self.one([0, 1, 0.5, 2, -1]))
        if kind == 12:
            return ~array if array.dtype == bool else array.astype(bool)
        return np.roll(array, self.upto(5))

    def columns(self, data: dict[str, np.ndarray]) -> dict[str, Any]:
        """Columns with a few changes."""
        changed: dict[str, Any] = dict(data)
        for _ in range(self.upto(4)):
            if not changed:
                break
            name, kind = self.one(changed), self.upto(6)
            if kind == 0:
                del changed[name]
            elif kind == 1:
                changed[self.one(NAMES)] = changed.pop(name)
            elif kind == 2:
                changed[self.text()] = changed[name]
            else:
                changed[name] = self.array(np.asarray(changed[name]))
        return changed

    # Trees, as of JSON.

    def leaf(self) -> Any:
        plain = [
            None,
            True,
            False,
            [],
            {},
            "",
            {":float": "nan"},
            {":array": 0},
            {":tuple": [1]},
            {":tensor": 0},
            {":number": 1},
        ]
        plain += [
            {":class": "torch.nn.modules.activation.ReLU"},
            {":object": ["ConstantSchedule", {}]},
            {":deque": [[], None]},
        ]
        plain += [{":dtype": "<f4"}, {":bytes": "AA=="}, {":set": [[]]}, {":dict": [[[], 1]]}, {":space": ["Box", {}]}]
        kind = self.upto(3)
        return copy.deepcopy(self.one(plain)) if kind == 0 else self.text() if kind == 1 else self.number()

    def tree(self, root: Any) -> Any:
        """A tree with a few changes."""
        root = copy.deepcopy(root)
        for _ in range(self.upto(3)):
            places = [*nodes(root)]
            if not places:
                return self.leaf()
            parent, key = self.one(places)
            kind = self.upto(5)
            if kind == 0:
                del parent[key]
            elif kind == 1:
                other, its = self.one(places)
                parent[key] = copy.deepcopy(other[its])
            elif kind == 2 and isinstance(parent, dict):
                parent[self.text()] = parent.pop(key)
            elif kind == 3:
                parent[key] = [parent[key]]
            else:
                parent[key] = self.leaf()
        return root

    def tensors(self, state: Any) -> Any:
        """A tree of tensors with a few changes."""
        state = copy.deepcopy(state)
        for _ in range(self.upto(2)):
            places = [*nodes(state)]
            if not places:
                break
            parent, key = self.one(places)
            value = parent[key]
            kind = self.upto(3)
            if kind == 0:
                del parent[key]
            elif kind == 1 and isinstance(value, th.Tensor):
                changed = np.asarray(self.array(value.numpy()))
                changed = changed.astype(changed.dtype.newbyteorder("="))
                parent[key] = th.from_numpy(changed.copy()) if changed.dtype.kind in "fiub" else self.number()
            elif kind == 2 and isinstance(parent, dict):
                parent[self.text()] = parent.pop(key)
            else:
                parent[key] = self.leaf()
        return state


def nodes(root: Any) -> Any:
    """The places of a tree: parents and keys."""
    keys = root if isinstance(root, dict) else range(len(root)) if isinstance(root, list) else ()
    for key in [*keys]:
        yield root, key
        yield from nodes(root[key])


def unclear(error: BaseException) -> str | None:
    """What is wrong with an error; None: it is one of this package."""
    frames = traceback.extract_tb(error.__traceback__)
    message = str(error)
    if not isinstance(error, ERRORS):
        return "another class"
    names_a_file = isinstance(error, OSError) and error.filename is not None
    if not (names_a_file or frames[-1].filename.startswith(PACKAGE)):
        return "not raised by this package"
    if len(message.strip().splitlines()) != 1:
        return "not one line"
    return f"{len(message)} characters" if len(message) > LONGEST else None


# What the targets start from.


def pendulum() -> gym.Env:
    return TimeLimit(PendulumEnv(), 6)


@cache
def data() -> dict[str, np.ndarray]:
    rng, rows = np.random.default_rng(0), 24
    angle = rng.uniform(-3, 3, rows)
    observations = np.stack([np.cos(angle), np.sin(angle), rng.uniform(-8, 8, rows)], axis=1).astype(np.float32)
    ends = np.arange(rows) % 6 == 5
    return {
        "observations": observations,
        "actions": rng.uniform(-2, 2, (rows, 1)).astype(np.float32),
        "rewards": rng.uniform(-16, 0, rows).astype(np.float32),
        "terminations": np.zeros(rows, bool),
        "truncations": ends,
        "next_observations": np.roll(observations, -1, 0),
    }


@cache
def reader() -> FQL:
    """A model whose dataset is replaced at each input."""
    return FQL("FlowPolicy", pendulum(), dataset=data(), **SMALL)


def online() -> FQL:
    return FQL("FlowPolicy", pendulum(), buffer_size=12, learning_starts=4, **SMALL)


@cache
def files() -> dict[str, bytes]:
    """A saved model, a policy, a replay buffer and the parts of a checkpoint of a run with ``VecNormalize``."""
    model = online().learn(9)
    content: dict[str, bytes] = {}
    folder = Path("valid")
    model.save(folder / "model.zip")
    model.policy.save(folder / "policy.zip")
    model.save_replay_buffer(folder / "buffer.pkl")
    env = VecNormalize(DummyVecEnv([pendulum]))
    FQL("FlowPolicy", env, dataset=data(), offline_steps=4, buffer_size=12, learning_starts=4, **SMALL).learn(
        12, callback=TrainingCheckpoint(folder / "run", 8)
    )
    for path in folder.rglob("*"):
        if path.is_file():
            content[path.relative_to(folder).as_posix()] = path.read_bytes()
    shutil.rmtree(folder)
    return content


def edited_archive(edits: Edits, content: bytes) -> bytes:
    """A zip archive with edits of its members: JSON, arrays, tensors, or of its bytes."""
    if edits.rarely():
        return edits.bytes_of(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for _ in range(1 + edits.upto(1)):
        name = edits.one(members)
        members[name] = edited_member(edits, name, members[name])
        if edits.rarely():
            del members[name]
            if not members:
                break
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return written.getvalue()


def edited_member(edits: Edits, name: str, member: bytes) -> bytes:
    if edits.rarely():
        return edits.bytes_of(member)
    try:
        if name == "data":
            return json.dumps(edits.tree(json.loads(member))).encode()
        if name == "data.npy":
            text = np.load(io.BytesIO(member)).tobytes()
            return as_npy(np.frombuffer(json.dumps(edits.tree(json.loads(text))).encode(), np.uint8))
        if name.endswith(".npy"):
            return as_npy(edits.array(np.load(io.BytesIO(member))))
        if name.endswith(".pth"):
            written = io.BytesIO()
            th.save(edits.tensors(th.load(io.BytesIO(member), weights_only=True)), written)
            return written.getvalue()
    except Exception:  # edited before
        pass
    return edits.bytes_of(member)


def as_npy(array: Any) -> bytes:
    written = io.BytesIO()
    np.save(written, array, allow_pickle=True)
    return written.getvalue()


# Checks of what is accepted.


def check_data(source: Any) -> None:
    """All transitions of an accepted dataset can be drawn, and are finite."""
    model = reader()
    model.set_dataset(source)
    assert model.offline_buffer is not None
    batch = model.draw_from(model.offline_buffer, th.arange(len(model.offline_buffer)))
    lost = not_finite([part for part in batch if part is not None])
    assert lost is None, f"accepted, and a batch has {lost}"
    model.sample_batch(4)


def check_model(model: Any) -> None:
    """An accepted model acts, or says that its parameters are not finite."""
    action, _ = model.predict(np.zeros(3, np.float32))
    assert action.shape == (1,) and np.isfinite(action).all(), action


# The targets.


def arrays(edits: Edits, folder: Path) -> None:
    changed = edits.columns(data())
    kind = edits.upto(6)
    if kind == 1:
        check_data({name: column.tolist() if isinstance(column, np.ndarray) else column for name, column in changed.items()})
    elif kind == 2:
        check_data([changed, edits.columns(data())])
    elif kind == 3:
        description = {"weight": 1, "rewards": {"shift": -1, "scale": 2.0}}
        edited = edits.tree(description)
        check_data({"source": changed, **edited} if isinstance(edited, dict) else edited)
    elif kind == 4:
        nested = {key: changed.pop(key) for key in ("observations", "next_observations") if key in changed}
        check_data({**changed, **{key: {"a": part, edits.text(): part} for key, part in nested.items()}})
    else:
        check_data(changed)


def npz(edits: Edits, folder: Path) -> None:
    path = folder / "data.npz"
    columns = {str(name).replace("\x00", "0") or "empty": column for name, column in edits.columns(data()).items()}
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, column in columns.items():
            archive.writestr(f"{name}.npy", as_npy(column))
    path.write_bytes(edited_archive(edits, written.getvalue()) if edits.upto(1) else written.getvalue())
    check_data(path)


def folder_of_arrays(edits: Edits, folder: Path) -> None:
    """The memory-mapped form."""
    path = folder / "unpacked"
    path.mkdir()
    for name, column in edits.columns(data()).items():
        if name in NAMES:
            (path / name).parent.mkdir(exist_ok=True)
            content = as_npy(column)
            (path / f"{name}.npy").write_bytes(edits.bytes_of(content) if edits.rarely() else content)
    check_data(path)


def hdf5(edits: Edits, folder: Path) -> None:
    import h5py

    path = folder / "data.hdf5"
    with h5py.File(path, "w") as file:
        groups = edits.one([[""], ["data/demo_0/", "data/demo_1/"], ["traj_0/"], ["episode_0/", "episode_3/"]])
        for group in groups:
            for name, column in edits.columns(data()).items():
                array, name = np.asarray(column), str(name).strip("/").replace("\x00", "0") or "empty"
                if array.dtype.kind in "fiubSc":
                    options = {"chunks": True, "compression": "gzip"} if edits.rarely() and array.size else {}
                    try:
                        file.create_dataset(f"{group}{name}", data=array, **options)
                    except (ValueError, TypeError, OSError):  # not a name of HDF5, or twice
                        continue
    if edits.rarely():
        path.write_bytes(edits.bytes_of(path.read_bytes()))
    check_data(str(path) + (edits.one(["#state", "#train", "#", "#a,b"]) if edits.rarely() else ""))


def zarr(edits: Edits, folder: Path) -> None:
    import zarr as library

    path = folder / "data.zarr"
    group = library.open_group(str(path), mode="w")
    columns = {"state": data()["observations"], "action": data()["actions"], "reward": data()["rewards"]}
    for name, column in edits.columns(columns).items():
        array = np.asarray(column)
        if array.dtype.kind in "fiub" and name and str(name).isidentifier():
            group.create_array(f"data/{name}", shape=array.shape, dtype=array.dtype)[...] = array
    ends = np.asarray(edits.array(np.array([6, 12, 24])) if edits.upto(1) else np.array([6, 12, 24]))
    if ends.dtype.kind in "fiub":
        group.create_array("meta/episode_ends", shape=ends.shape, dtype=ends.dtype)[...] = ends
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        if edits.rarely():
            content = file.read_bytes()
            file.write_bytes(
                json.dumps(edits.tree(json.loads(content))).encode() if file.suffix == ".json" else edits.bytes_of(content)
            )
    check_data(str(path) + (edits.one(["#pixels", "#state", "#"]) if edits.rarely() else ""))


def table(edits: Edits, folder: Path) -> None:
    """DataFrames and parquet files, also LeRobot's."""
    import pandas

    names = edits.one([("obs_0", "obs_1", "obs_2", "action_0"), ("observation.state", "action"), ("observations", "actions")])
    columns: dict[str, Any] = {"episode_index": np.arange(24) // 6, "frame_index": np.arange(24) % 6}
    columns |= {
        edits.one(["reward", "next.reward"]): data()["rewards"],
        edits.one(["done", "next.done"]): data()["truncations"],
    }
    for i, name in enumerate(names):
        field = data()["actions" if i == len(names) - 1 else "observations"]
        columns[name] = field[:, i % 3 % field.shape[1]] if len(names) == 4 else field
    changed = edits.columns(columns)
    frame = {
        name: [*column] if np.ndim(column) > 1 else np.asarray(column)
        for name, column in changed.items()
        if np.ndim(column) and len(column) == 24
    }
    made = pandas.DataFrame(frame)
    if edits.upto(1):
        return check_data(made)
    path = folder / "data.parquet"
    try:
        made.to_parquet(path)
    except Exception:  # what Arrow does not write
        return None
    if edits.rarely():
        path.write_bytes(edits.bytes_of(path.read_bytes()))
    return check_data(path)


@cache
def minari_files() -> dict[str, bytes]:
    import minari
    from minari.data_collector.episode_buffer import EpisodeBuffer

    columns = data()
    buffers = [
        EpisodeBuffer(
            id=i,
            observations=columns["observations"][6 * i : 6 * i + 7],
            actions=columns["actions"][6 * i : 6 * i + 6],
            rewards=columns["rewards"][6 * i : 6 * i + 6].tolist(),
            terminations=[False] * 6,
            truncations=[False] * 5 + [True],
        )
        for i in range(2)
    ]
    minari.create_dataset_from_buffers(
        "fuzz/data-v0",
        buffers,
        env="Pendulum-v1",
        author="a",
        author_email="a",
        code_permalink="a",
        algorithm_name="a",
        requirements=[],
        description="a",
    )
    found = {str(path): path.read_bytes() for path in Path("fuzz").rglob("*") if path.is_file()}
    shutil.rmtree("fuzz")
    return found


def minari_data(edits: Edits, folder: Path) -> None:
    import os

    import h5py

    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    for name, content in minari_files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".json" and edits.upto(1):
            content = json.dumps(edits.tree(json.loads(content))).encode()
        path.write_bytes(content)
        if path.suffix == ".hdf5" and edits.upto(1):
            with h5py.File(path, "r+") as file:
                places = [place for place in ("episode_0", "episode_1") for place in [f"{place}/{key}" for key in file[place]]]
                place = edits.one(places)
                if isinstance(file[place], h5py.Dataset):
                    array = np.asarray(edits.array(file[place][()]))
                    del file[place]
                    if array.dtype.kind in "fiubS" and not edits.rarely():
                        file[place] = array
    check_data("minari:fuzz/data-v0")


def names(edits: Edits, folder: Path) -> None:
    """Names and paths of datasets that do not exist."""
    pieces = [
        "cube-single",
        "-play-v0",
        "minari:",
        "ogbench:",
        "*",
        "[",
        "#",
        ".npz",
        ".hdf5",
        ".zarr",
        ".parquet",
        "~unknown-user",
        "/no",
        "..",
    ]
    source = "".join(edits.one(pieces) if edits.upto(2) else edits.text() for _ in range(edits.upto(4)))
    check_data(edits.one([source, Path(source), [source], {"source": source}, source.encode()]))


def model(edits: Edits, folder: Path) -> None:
    (folder / "model.zip").write_bytes(edited_archive(edits, files()["model.zip"]))
    check_model(FQL.load(folder / "model.zip", device="cpu"))


def policy(edits: Edits, folder: Path) -> None:
    state = th.load(io.BytesIO(files()["policy.zip"]), weights_only=True)
    written = io.BytesIO()
    th.save(edits.tensors(state), written)
    content = edits.bytes_of(written.getvalue()) if edits.rarely() else written.getvalue()
    (folder / "policy.zip").write_bytes(content)
    check_model(FQLPolicy.load(folder / "policy.zip", device="cpu"))


@cache
def collected() -> FQL:
    return online().learn(9)


def replay_buffer(edits: Edits, folder: Path) -> None:
    (folder / "buffer.pkl").write_bytes(edited_archive(edits, files()["buffer.pkl"]))
    learner = collected()
    before = learner.replay_buffer
    try:
        learner.load_replay_buffer(folder / "buffer.pkl")
        assert learner.replay_buffer.not_finite() is None, "accepted with a number that is not finite"
        if len(learner.replay_buffer):
            assert not_finite([*learner.sample_batch(4)]) is None, "accepted, and a batch is not finite"
    finally:
        learner.replay_buffer = before


def checkpoint(edits: Edits, folder: Path) -> None:
    names = [name for name in files() if name.startswith("run/checkpoint")]
    changed = edits.one(names)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(edited_archive(edits, files()[name]) if name == changed else files()[name])
    env = VecNormalize(DummyVecEnv([pendulum]))
    resumed = FQL.resume(folder / "run", env, dataset=data(), device="cpu")
    resumed.learn(14, callback=TrainingCheckpoint(folder / "run", 6))
    lost = resumed.not_finite()
    assert not lost, f"accepted with numbers that are not finite: {lost}"


ENTRIES = {
    "default": {"policy": "FlowPolicy", "n_timesteps": 1e3, "learning_rate": "lin_3e-4", "n_envs": 1},
    "Pendulum*": {
        **{"policy": "FlowPolicy", "n_timesteps": "1e6", "alpha": "= 10 / 5", "batch_size": 256, "dataset": "x{*}.npz"},
        **{"policy_kwargs": "dict(net_arch=[64, 64])", "normalize": True, "noise_type": "normal", "noise_std": 0.1},
        **{"train_freq": [1, "step"], "env_kwargs": {"g": 9.8}, "frame_stack": 1, "max_grad_norm": None, "gradient_steps": -1},
    },
}
VALUES = ["dict(net_arch=[64, 64], activation_fn=nn.ReLU)", "lin_3e-4", "[1, 'a', None]", "1e3", "(1, 'episode')", "2**8 - 1"]


def configuration(edits: Edits, folder: Path) -> None:
    import yaml

    entries = edits.tree(ENTRIES)
    formula = "= " + "".join(edits.one(["2", "0", "1e5", "1e400", "9" * 30, " * ", " / ", "-"]) for _ in range(edits.upto(4)))
    if isinstance(entries, dict) and isinstance(entries.get("Pendulum*"), dict) and edits.upto(1):
        entries["Pendulum*"]["alpha"] = edits.one([formula, parsed_text(edits)])
    text = yaml.safe_dump(entries).encode()
    path = folder / "config.yml"
    path.write_bytes(edits.bytes_of(text) if edits.upto(1) else text)
    found = resolve_entries(read_entries(str(path)), "Pendulum-v1")
    for entry in found.values():
        check_noise(check_entry(entry, FQL, lambda key: f"{path}, {key}"), str)
    read_yaml(path)


def parsed_text(edits: Edits) -> str:
    return edits.bytes_of(edits.one(VALUES).encode()).decode("utf-8", "replace")


def options(edits: Edits, folder: Path) -> None:
    try:
        parse_value(parsed_text(edits))
    except NotAValue:
        pass
    pieces = ["-n", "--n-timesteps", "--seed", "-params", "alpha:1", "--env-kwargs", "--algo", "fql", "--device", "cpu", "1e3"]
    pieces += ["-f", "-a", "-e", "Pendulum-v1", "--storage", "x.log", "--eval-episodes", "0", "-1", "--num-threads", "plot"]
    arguments = [edits.one(pieces) if edits.upto(3) else edits.text() for _ in range(edits.upto(8))]
    name = edits.one(["train", "enjoy", "plot", "optimize", "record-video"])
    try:
        check_texts(name, arguments, ["fql", "sac"])
        check_plot(name, arguments)
        check_numbers(name, quote_values(arguments))
    except SystemExit:  # of argparse, with its message
        pass
    hint = edits.one([int, float, bool, str, int | None, tuple[int, str], list[int], dict[str, Any]])
    read_number("key", edits.one([edits.leaf(), edits.number(), parsed_text(edits)]), hint, str)


TARGETS: dict[str, Callable[[Any, Path], None]] = {
    name: lambda provider, folder, target=target: target(Edits(provider), folder)  # type: ignore[misc]
    for name, target in {
        **{"arrays": arrays, "npz": npz, "folder": folder_of_arrays, "hdf5": hdf5, "zarr": zarr, "table": table},
        **{"minari": minari_data, "names": names, "model": model, "policy": policy, "buffer": replay_buffer},
        **{"checkpoint": checkpoint, "configuration": configuration, "options": options},
    }.items()
}
