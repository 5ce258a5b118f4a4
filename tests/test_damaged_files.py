"""Damaged, foreign or missing files: one error names the file and the reason, and says what to do."""

import errno
import io
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from conformance.case import AlgorithmCase, parameters, same_parameters
from conformance.environments import AnySpaces, pendulum, pendulums
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_flow import FQL
from sb3_flow.common.offline_to_online_algorithm import OfflineToOnlineAlgorithm

pytestmark = pytest.mark.one_variant


@pytest.fixture(scope="module")
def content(algorithm: AlgorithmCase) -> bytes:
    """The contents of an intact file."""
    file = io.BytesIO()
    algorithm.make(pendulum()).save(file)
    return file.getvalue()


@pytest.fixture
def saved(content: bytes, tmp_path: Path) -> Path:
    """An intact file."""
    path = tmp_path / "model.zip"
    path.write_bytes(content)
    return path


def rewrite(path: Path, change: Callable[[str, bytes], tuple[str, bytes] | None]) -> None:
    """Rewrite an archive with parts changed or left out."""
    with zipfile.ZipFile(path) as archive:
        parts = [change(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w") as archive:
        for part in parts:
            if part is not None:
                archive.writestr(*part)


def flip_a_bit(path: Path) -> None:
    """Change parameters, which PyTorch does not detect."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("policy.pth")
    content = bytearray(path.read_bytes())
    content[info.header_offset + info.file_size // 2] ^= 1
    path.write_bytes(bytes(content))


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("letter.txt", "Dear reader")


def of_sac(path: Path) -> None:
    SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, buffer_size=10, device="cpu").save(path)


def without_a_layer(path: Path) -> None:
    def change(name: str, content: bytes) -> tuple[str, bytes]:
        if name != "policy.pth":
            return name, content
        state = th.load(io.BytesIO(content), weights_only=True)
        state.pop(next(iter(state)))
        buffer = io.BytesIO()
        th.save(state, buffer)
        return name, buffer.getvalue()

    rewrite(path, change)


def cut(share: float) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])  # type: ignore[func-returns-value]


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


Damage = Callable[[Path], Any]
#: A change of a saved model; the error of loading it, and a pattern of its message.
DAMAGED_MODELS: list[tuple[Damage, type[Exception], str]] = [
    (lambda path: path.unlink(), FileNotFoundError, "There is no saved model"),
    (as_folder, ValueError, "is a folder, not a saved model.*`resume` takes folders"),
    (lambda path: path.write_bytes(b""), ValueError, "is empty"),
    (lambda path: path.write_text("Dear reader"), ValueError, "is not a saved model.*`save` wrote"),
    (cut(0.999), ValueError, "is damaged.*truncated.*earlier copy"),
    (cut(0.5), ValueError, "is damaged.*truncated.*earlier copy"),
    (cut(0.01), ValueError, "is damaged.*truncated.*earlier copy"),
    (flip_a_bit, ValueError, "is damaged: the checksum of its part 'policy.pth' is wrong"),
    (other_zip, ValueError, "is a zip archive, but not a saved model: it has no data, policy.pth"),
    (of_sac, ValueError, r"outside of sb3_flow \(policy in stable_baselines3.sac.policies\).*class that saved it"),
    (
        lambda path: rewrite(path, lambda name, content: None if name == "policy.optimizer.pth" else (name, content)),
        ValueError,
        "does not fit .*missing",
    ),
    (without_a_layer, ValueError, "does not fit .*Missing key"),
    (
        lambda path: rewrite(path, lambda name, content: (name, b"{}" if name == "data" else content)),
        ValueError,
        "saved by an algorithm outside of sb3_flow",
    ),
]


def test_models_that_cannot_be_loaded(
    algorithm: AlgorithmCase, content: bytes, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """By path, with or without the suffix, and from an open file."""
    for number, (damage, error, message) in enumerate(DAMAGED_MODELS):
        saved = tmp_path / str(number) / "model.zip"
        saved.parent.mkdir()
        saved.write_bytes(content)
        damage(saved)
        with subtests.test(message):
            for path in (saved, str(saved.with_suffix(""))):
                with pytest.raises(error, match=message) as raised:
                    algorithm.load(path)
                assert str(saved) in str(raised.value)
            if saved.is_file() and saved.stat().st_size:
                with pytest.raises(error, match=message):
                    algorithm.load(io.BytesIO(saved.read_bytes()))


def test_a_policy_of_another_algorithm(algorithm: AlgorithmCase, saved: Path) -> None:
    """An algorithm with another policy class refuses the file before it creates a model."""

    class Other(algorithm.cls):  # type: ignore[name-defined, misc]
        class OtherPolicy(algorithm.cls.policy_aliases["FlowPolicy"]):  # type: ignore[name-defined, misc]
            pass

        policy_aliases = {"FlowPolicy": OtherPolicy}  # noqa: RUF012

    with pytest.raises(ValueError, match=r"saved by another algorithm.*class that saved it, not with Other"):
        Other.load(saved)


def test_an_environment_of_other_spaces(algorithm: AlgorithmCase, saved: Path) -> None:
    """The message contains the file, both spaces, and what to pass."""
    with pytest.raises(ValueError, match=r"model.zip cannot be loaded. Observation spaces.*Pass the environment that it was"):
        algorithm.load(saved, env=gym.make("MountainCarContinuous-v0"))


def test_save_is_atomic(algorithm: AlgorithmCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When saving fails, the older file is unchanged, and no temporary file remains."""
    model = algorithm.make(pendulum())
    model.save(tmp_path / "model")
    content = (tmp_path / "model.zip").read_bytes()

    def broken(*args: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(th, "save", broken)
    with pytest.raises(OSError, match="No space left"):
        model.save(tmp_path / "model")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["model.zip"]
    assert (tmp_path / "model.zip").read_bytes() == content


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_what_interrupts_a_save_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """``zipfile`` raises a ValueError when it closes an archive with an open part; errors handled before do not count."""
    model = FQL("FlowPolicy", pendulum(), policy_kwargs={"net_arch": [4]}, buffer_size=10, device="cpu")

    def close(part: Any) -> None:
        raise error

    monkeypatch.setattr("zipfile._ZipWriteFile.close", close)
    with pytest.raises(type(error), match=rf"{re.escape(str(tmp_path / 'model.zip'))}|^$"):
        model.save(tmp_path / "model")
    monkeypatch.undo()
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        monkeypatch.setattr(th, "save", lambda *_: exec("raise ZeroDivisionError"))
        with pytest.raises(ZeroDivisionError):
            model.save(tmp_path / "model")
    assert not [*tmp_path.iterdir()]


def test_where_save_writes(algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """As Stable-Baselines3: the suffix and folders are added; the target of a link is written; a folder is refused."""
    model = algorithm.make(pendulum())
    model.save(str(tmp_path / "new" / "folder" / "model"))
    model.save(tmp_path / "other.name")
    (tmp_path / "link.zip").symlink_to(tmp_path / "new" / "folder" / "model.zip")
    model.save(tmp_path / "link")
    assert (tmp_path / "link.zip").is_symlink()
    for path in ("new/folder/model.zip", "other.name", "link"):
        assert same_parameters(parameters(algorithm.load(tmp_path / path)), parameters(model))
    with pytest.raises(ValueError, match=r"new\.zip is a folder"):
        (tmp_path / "new.zip").mkdir()
        model.save(tmp_path / "new")


DAMAGED_BUFFERS: list[tuple[Damage, type[Exception], str]] = [
    (lambda path: path.unlink(), FileNotFoundError, "There is no saved replay buffer"),
    (as_folder, ValueError, "is a folder, not a saved replay buffer"),
    (lambda path: path.write_bytes(b""), ValueError, "is empty"),
    (cut(0.5), ValueError, "is not a replay buffer, or it is damaged.*save_replay_buffer"),
    (lambda path: path.write_text("Dear reader"), ValueError, "is not a replay buffer, or it is damaged"),
    (lambda path: path.write_bytes(pickle.dumps({"a": 1})), ValueError, "is a pickle.*runs any code.*`trusted=True`"),
    (lambda path: np.savez(path.open("wb"), a=np.zeros(3)), ValueError, "is not a replay buffer, or it is damaged.*data"),
]


@pytest.fixture(scope="module")
def collected(online_algorithm: AlgorithmCase) -> OfflineToOnlineAlgorithm:
    """A model with 15 transitions in its replay buffer."""
    return online_algorithm.make(pendulum(), learning_starts=15).learn(15)


def test_buffers_that_cannot_be_loaded(collected: OfflineToOnlineAlgorithm, tmp_path: Path, subtests: pytest.Subtests) -> None:
    """As for models; the buffer of the model is unchanged."""
    for number, (damage, error, message) in enumerate(DAMAGED_BUFFERS):
        path = tmp_path / f"buffer{number}.pkl"
        collected.save_replay_buffer(path)
        damage(path)
        with subtests.test(message):
            with pytest.raises(error, match=message) as raised:
                collected.load_replay_buffer(path.with_suffix(""))
            assert str(path) in str(raised.value)
            assert len(collected.replay_buffer) == 15


def test_buffers_of_others(online_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """Buffers of Stable-Baselines3, of other spaces, of another number of environments."""
    model = online_algorithm.make(pendulum())
    space = spaces.Box(-1, 1, (3,))
    with (tmp_path / "sb3.pkl").open("wb") as file:
        pickle.dump(ReplayBuffer(10, space, space), file)
    with pytest.raises(ValueError, match=r"stable_baselines3.common.buffers.ReplayBuffer; .*as `dataset`"):
        model.load_replay_buffer(tmp_path / "sb3.pkl", trusted=True)
    for env, message in (
        (AnySpaces(space, space), "`observation_space`"),
        (pendulums(2), "`n_envs` of .* is 2, but that of this model is 1. Load it with a model of 2 environments, and pass"),
    ):
        other = online_algorithm.make(env).learn(4)
        other.save_replay_buffer(tmp_path / "other")
        with pytest.raises(ValueError, match=message):
            model.load_replay_buffer(tmp_path / "other")
    other.load_replay_buffer(tmp_path / "other")
    model.set_dataset(other.replay_buffer)  # as the message says
    assert model.offline_buffer is not None and len(model.offline_buffer.actions) == 4


def test_a_replay_buffer_is_saved_as_large_as_it_is_filled(online_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """A nearly empty buffer for a million transitions (36 MB) makes a small file, and loads with its full size."""
    model = online_algorithm.make(pendulum(), buffer_size=1_000_000).learn(12)
    model.save_replay_buffer(tmp_path / "buffer")
    assert (tmp_path / "buffer.pkl").stat().st_size < 500_000
    content = io.BytesIO()
    model.save_replay_buffer(content)
    content.seek(0)
    for file in (tmp_path / "buffer", content):
        other = online_algorithm.make(pendulum(), buffer_size=1_000_000)
        other.load_replay_buffer(file)
        rows = th.arange(12)
        for mine, theirs in zip(model.replay_buffer.draw(rows), other.replay_buffer.draw(rows), strict=True):
            assert th.equal(mine, theirs)
        assert other.replay_buffer.buffer_size == 1_000_000
        assert len(other.learn(3, reset_num_timesteps=False).replay_buffer) == 15
