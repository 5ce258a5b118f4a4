"""``sb3-flow train --resume``: what is compared with the first start of a run."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from sb3_flow import FQL
from sb3_flow.cli import main

pytest.importorskip("rl_zoo3")

ENV = "Pendulum-v1"
OPTIONS = ["train", "--algo", "fql", "--env", ENV, "--device", "cpu", "--num-threads", "1", "--eval-freq", "-1"]
ENTRY = {
    **{"policy": "FlowPolicy", "n_timesteps": 30, "learning_starts": 5, "batch_size": 8, "gamma": 0.9},
    **{"policy_kwargs": {"net_arch": [8]}, "normalize": {"norm_obs": True, "norm_reward": False}},
}


def start(folder: Path, *options: str, params: tuple[str, ...] = ()) -> int:
    (folder / "conf.yml").write_text(yaml.safe_dump({"default": ENTRY}), "utf-8")
    paths = ["-f", str(folder / "logs"), "--conf-file", str(folder / "conf.yml"), "--checkpoint-freq", "20"]
    return main([*OPTIONS, *paths, *options, *(["-params", *params] if params else [])])


def run_folder(folder: Path) -> Path:
    return folder / "logs" / "fql" / f"{ENV}_1"


def model_of(folder: Path) -> Path:
    return run_folder(folder) / f"{ENV}.zip"


def arguments_of(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = yaml.unsafe_load((run_folder(folder) / ENV / "args.yml").read_text("utf-8"))
    return dict(read)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the seed 1 with 40 timesteps, and its last checkpoint, at 40."""
    folder = tmp_path_factory.mktemp("first")
    assert start(folder, "--seed", "1", "-n", "40") == 0
    return folder


@pytest.fixture(params=["finished", "unfinished"])
def folder(first: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    shutil.copytree(first / "logs", tmp_path / "logs")
    if request.param == "unfinished":
        model_of(tmp_path).unlink()
    return tmp_path


@pytest.mark.parametrize(
    ("options", "params", "message"),
    [
        (["--seed", "7"], (), "--seed is 7, but {run} was started with 1. Leave it out, or name another run by --run-id."),
        (["--seed=7", "--run-id=1"], (), "--seed is 7, but {run} was started with 1."),
        (["-n", "90"], (), "-n is 90, but {run} was started with 40. Schedules depend on this number"),
        (["-n", "30"], (), "-n is 30, but {run} was started with 40."),
        ([], ("alpha:99",), "`alpha` is 99, but {run} was started with None. Pass the same settings, or start another run."),
        (["--env-kwargs", "g:1.0"], (), "--env-kwargs is {{'g': 1.0}}, but {run} was started with None."),
        (["--eval-env-kwargs", "g:1.0"], (), "--eval-env-kwargs is {{'g': 1.0}}, but {run} was started with None."),
        (["-i", "other.zip"], (), "-i is other.zip, but {run} was started with none."),
    ],
)
def test_other_settings_are_refused(
    folder: Path,
    options: list[str],
    params: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    Path("other.zip").touch()
    before = {path: path.stat().st_mtime_ns for path in run_folder(folder).rglob("*")}
    assert start(folder, *options, "--resume", params=params) == 2
    assert message.format(run=f"{folder}/logs/fql/{ENV}_1") in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in run_folder(folder).rglob("*")} == before


@pytest.mark.parametrize("options", [["--seed", "1", "-n", "40"], ["-n", "40.0"], ["--seed", "-1", "-n", "-1"], []])
def test_the_same_settings_or_none(folder: Path, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A run that is resumed goes on with its own seed, to its own timesteps; a finished one is left alone."""
    finished, before = model_of(folder).exists(), arguments_of(folder)
    assert start(folder, *options, "--resume") == 0
    shown = capsys.readouterr().out
    assert (f"{ENV}_1 has finished: nothing to do.\n" in shown) == finished
    assert ("checkpoint_40: seed 1, 40 timesteps\n" in shown) == (not finished)
    model = FQL.load(model_of(folder), device="cpu")
    assert (model.seed, model.num_timesteps) == (1, 40)
    assert arguments_of(folder) == before


def test_timesteps_of_the_configuration(tmp_path: Path) -> None:
    """A run that was started without -n has those of its entry, also if they are given now."""
    assert start(tmp_path) == 0
    assert [start(tmp_path, "--resume", *options) for options in ([], ["-n", "30"], ["-n", "31"])] == [0, 0, 2]


def test_a_finished_model_is_trained_further(first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the options that the message names."""
    shutil.copytree(first / "logs", tmp_path / "logs")
    assert start(tmp_path, "-n", "90", "--resume") == 2
    message = capsys.readouterr().err
    assert f"start another run: -i {model_of(tmp_path)}, without --resume." in message
    assert start(tmp_path, "-n", "10", "--trusted", "-i", str(model_of(tmp_path))) == 0  # the statistics are a pickle
    longer = FQL.load(tmp_path / "logs" / "fql" / f"{ENV}_2" / f"{ENV}.zip", device="cpu")
    assert longer._n_updates > FQL.load(model_of(tmp_path), device="cpu")._n_updates > 0
