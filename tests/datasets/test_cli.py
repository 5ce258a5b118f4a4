"""The command sb3-flow datasets."""

import subprocess
import sys

import pytest
import python_process

from sb3_flow.cli import main


def run(*arguments):
    return python_process.run("-m", "sb3_flow.cli", *arguments)


@pytest.mark.slow
def test_collect_info_list(tmp_path):
    """Collected by the command, in new interpreters."""
    pytest.importorskip("ogbench")
    name = "pointmaze-medium-navigate-v0"
    command = [sys.executable, "-m", "sb3_flow.cli", "datasets", "collect", name, "--transitions", "1000", "--workers", "1"]
    collected = subprocess.run(command, capture_output=True, text=True, check=False)
    assert collected.returncode == 0, collected.stderr
    assert "Wrote" in collected.stdout and "2,000 of 2,000 steps (100 %)" in collected.stdout
    assert "Warning" not in collected.stderr
    info = run("datasets", "info", name, "--env", "pointmaze-medium-singletask-task1-v0")
    assert info.returncode == 0 and info.stderr == ""
    lines = dict(line.split(":", 1) for line in info.stdout.splitlines() if ":" in line)
    assert lines["transitions"].strip() == "1,000" and lines["trajectories"].strip() == "1"
    assert lines["rewards"].strip().startswith("from -1 to ")
    listing = run("datasets", "list").stdout
    assert f"  {name}\n" in listing and "cube-single-play-v0" in listing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "cube-single-play-v0"], "sb3-flow datasets collect cube-single-play-v0"),
        (["info", "nothing.npz"], "no such file"),
        (["collect", "nothing"], "No scripted expert"),
        (["collect", "cube-single-play-v0", "--algo", "sac"], "--algo goes with --policy"),
        (["collect", "Pendulum-v1", "--policy", "a.zip", "--workers", "2"], "--workers does not go with --policy"),
        (["collect", "Pendulum-v1", "--policy", "a.zip"], "--policy needs --transitions"),
        (["unpack", "nothing.npz", "folder"], "nothing.npz: there is no such file"),
        (["convert", "nothing.npz", "folder"], "nothing.npz: there is no such file"),
        (["convert", "nothing.npz", "folder.zarr"], "folder.zarr has the suffix of a file; expected the name of a folder"),
    ],
)
def test_errors_are_one_line(capsys, arguments, message):
    assert main(["datasets", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and message in captured.err
    assert captured.err.startswith("sb3-flow: ") and captured.err.count("\n") == 1


def test_a_missing_package_is_named(capsys, monkeypatch, tmp_path):
    (tmp_path / "log.hdf5").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "h5py", None)  # as if it were not installed
    assert main(["datasets", "info", str(tmp_path / "log.hdf5")]) == 2
    assert "pip install 'sb3_flow[datasets]'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_exit_code_of_the_process_is_that_of_the_command():
    wrong = run("datasets", "info", "nothing.npz")
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr
    assert run("datasets").returncode == 2


def test_model_into_minari(capsys, tmp_path):
    pytest.importorskip("minari")
    from stable_baselines3 import TD3

    TD3("MlpPolicy", "Pendulum-v1", buffer_size=10).save(tmp_path / "model.zip")
    options = ["--policy", str(tmp_path / "model.zip"), "--algo", "td3", "--transitions", "20", "--name", "demo/a-v0"]
    assert main(["datasets", "collect", "Pendulum-v1", *options, "--no-progress"]) == 2
    assert "--trusted" in capsys.readouterr().err
    options.append("--trusted")
    assert main(["datasets", "collect", "Pendulum-v1", *options, "--no-progress"]) == 0
    assert main(["datasets", "info", "demo/a-v0"]) == 0
    assert "transitions:    20\n" in capsys.readouterr().out
