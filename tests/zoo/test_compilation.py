"""When commands advise to compile the updates of a run."""

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conformance.environments import collect, pendulum
from stable_baselines3 import TD3

pytest.importorskip("rl_zoo3")

from sb3_flow import FQL
from sb3_flow.cli import main
from sb3_flow.tables.supervisor import write_record
from sb3_flow.tables.sweep import list_runs
from sb3_flow.zoo import compilation
from sb3_flow.zoo.compilation import GAIN, LONG_RUN, has_compiler, would_pay

SMALL = {"policy": "FlowPolicy", "batch_size": 16, "flow_steps": 1, "policy_kwargs": {"net_arch": [16]}}


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a compiler."""
    monkeypatch.setenv("CXX", sys.executable)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: None) -> Path:
    """A folder with data and a configuration, where a run of ten timesteps is long."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compilation, "LONG_RUN", 10)
    np.savez(tmp_path / "data.npz", **collect(pendulum))
    entry = {**SMALL, "n_timesteps": 10, "dataset": "data.npz"}
    (tmp_path / "small.yml").write_text(yaml.safe_dump({"Pendulum-v1": entry}), "utf-8")
    return tmp_path


@pytest.mark.usefixtures("compiler")
def test_when_there_is_advice() -> None:
    assert would_pay(FQL, LONG_RUN, "cpu", None) and would_pay(FQL, None, "cpu", None)
    assert not would_pay(FQL, LONG_RUN - 1, "cpu", None), "compilation takes a part of the gain"
    assert not would_pay(FQL, LONG_RUN, "cuda", None), "not measured"
    assert not would_pay(FQL, LONG_RUN, "cpu", False) and not would_pay(FQL, LONG_RUN, "cpu", True), "the user has decided"
    assert not would_pay(TD3, LONG_RUN, "cpu", None), "it has no `compile`"


def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "g++"))
    assert not has_compiler() and not would_pay(FQL, LONG_RUN, "cpu", None)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not has_compiler()


def test_a_long_training(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It advises, and leaves `compile` as it is; a resumed run cannot change it, and gets no advice."""

    def out(*arguments: str) -> str:
        options = "--algo fql --env Pendulum-v1 --conf-file small.yml --device cpu --eval-freq -1 --run-id 1 --seed 0".split()
        assert main(["train", *options, *arguments]) == 0
        return capfd.readouterr().out

    assert GAIN not in out("-n", "9")
    assert GAIN in out("-n", "10", "--checkpoint-freq", "5", "--run-id", "2")
    config = (folder / "logs" / "fql" / "Pendulum-v1_2" / "Pendulum-v1" / "config.yml").read_text("utf-8")
    assert "compile" not in config and FQL.load(folder / "logs/fql/Pendulum-v1_2/Pendulum-v1.zip").compile is False
    (folder / "logs" / "fql" / "Pendulum-v1_2" / "Pendulum-v1.zip").unlink()
    resumed = out("-n", "10", "--run-id", "2", "--resume")
    assert "Resuming from" in resumed and GAIN not in resumed
    assert GAIN not in out("-n", "10", "--run-id", "3", "-params", "compile:False")


@pytest.mark.parametrize("compile", [True, False])
def test_a_model_that_is_trained_further(
    folder: Path, compile: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`-i MODEL` keeps its `compile`; there is no advice to set what is set, and it can be followed otherwise."""
    FQL("FlowPolicy", pendulum(), compile=compile, flow_steps=1, policy_kwargs={"net_arch": [16]}).save("model")
    monkeypatch.setattr(FQL, "learn", lambda model, *_, **__: model)  # nothing is compiled
    options = "--algo fql --env Pendulum-v1 --conf-file small.yml --device cpu --eval-freq -1 -i model.zip -n 10".split()
    for further, expected in (([], compile), (["-params", "compile:True"], True), (["-params", "compile:False"], False)):
        assert main(["train", *options, *further]) == 0
        assert (GAIN in capfd.readouterr().out) == (not further and not compile)
        runs = sorted((folder / "logs" / "fql").iterdir())
        assert FQL.load(runs[-1] / "Pendulum-v1.zip").compile is expected


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({}, True),
        ({"compile": False}, False),
        ({"compile": True}, False),
        ({"n_timesteps": 9}, False),
        ({"device": "cuda"}, False),
        ({"conf_file": "small.yml"}, False),
        ({"algorithms": ["td3_offline"], "policy": "MlpPolicy", "flow_steps": None}, False),
        ({"algorithms": {"fql": {"compile": True}, "gfp": {}}}, True),
    ],
)
def test_a_sweep(folder: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], advice: bool) -> None:
    table = {"output": "runs", "seeds": 2, "n_timesteps": 10, "tasks": {"Pendulum-v1": {"dataset": "data.npz"}}}
    table = {**table, "algorithms": ["fql"], **SMALL, **changes}
    (folder / "table.yml").write_text(
        yaml.safe_dump({key: value for key, value in table.items() if value is not None}), "utf-8"
    )
    assert main(["sweep", "table.yml", "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert (GAIN in shown.err) == advice and shown.err.count("\n") == advice
    assert "compile" not in shown.out.replace("compile:True", "").replace("compile:False", "")


def test_a_sweep_that_has_started(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No advice for algorithms with results, with which the sweep refuses other settings."""
    table = {"output": "runs", "seeds": 2, "n_timesteps": 10, "tasks": {"Pendulum-v1": {"dataset": "data.npz"}}}

    def shown(**algorithms: dict[str, bool]) -> tuple[int, str]:
        Path("table.yml").write_text(yaml.safe_dump({**table, **SMALL, "algorithms": algorithms}), "utf-8")
        return main(["sweep", "table.yml", "--dry-run"]), capsys.readouterr().err

    assert "`compile: true` for fql, gfp in" in shown(fql={}, gfp={})[1]
    run = next(run for run in list_runs(Path("table.yml")) if run.algo == "fql")
    run.folder.mkdir(parents=True)
    (run.folder / "evaluations.npz").touch()
    write_record(run.folder, {"command": run.command, "finished": True})
    assert "`compile: true` for gfp in" in shown(fql={}, gfp={})[1]
    assert shown(fql={}) == (0, "")
    code, message = shown(fql={"compile": True})
    assert code == 2 and "has results with other settings" in message
