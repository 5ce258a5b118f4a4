"""Clusters of Ray that are too small, or that cannot be reached."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sb3_flow.tables import sweep
from sb3_flow.tables.sweep import await_resources, list_runs, start_ray

pytest.importorskip("rl_zoo3")


@pytest.fixture
def run(tmp_path: Path) -> Any:
    file = tmp_path / "sweep.yml"
    file.write_text("output: runs\nseeds: 1\ntasks: [Pendulum-v1]\nalgorithms: [fql]\n", "utf-8")
    return list_runs(file)[0]


def machine(cpus: float, gpus: float = 0, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus}}


def test_a_run_that_is_larger_than_any_machine(run: Any, capsys: pytest.CaptureFixture) -> None:
    """It is refused after a while, also if the machines together have enough."""
    machines = [machine(2), machine(3, 1), machine(64, alive=False)]
    with pytest.raises(ValueError, match=r"needs 4 CPUs and 0 GPUs of one machine; the cluster has 2 CPUs and 0 GPUs, 3 CPUs"):
        await_resources([replace(run, cpus=4.0)], lambda: machines, patience=0.0)
    with pytest.raises(ValueError, match=r"needs 3 CPUs and 2 GPUs"):
        await_resources([replace(run, cpus=3.0, gpus=2.0)], lambda: machines, patience=0.0)
    await_resources([run, replace(run, cpus=3.0, gpus=1.0)], lambda: machines, patience=0.0)


def test_a_machine_that_joins_later(run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sweep, "INTERVAL", 0.01)
    answers = [[], [machine(1)], [machine(1), machine(8)]]
    await_resources([replace(run, cpus=8.0)], lambda: answers.pop(0), patience=30.0)
    assert not answers and capsys.readouterr().err.count("Waiting 30 seconds for another machine") == 1


def test_a_cluster_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's message has no cause; the token is a frequent one."""

    def init(**_: Any) -> None:
        raise ConnectionError("Failed to connect to Ray cluster at head:6379.\n Please check.")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    with pytest.raises(ValueError, match=r"cluster at head:6379: Failed to connect .*auth_token.*RAY_AUTH_MODE=disabled"):
        start_ray("head:6379")


@pytest.mark.parametrize("mode", [None, "disabled"])
def test_a_local_sweep_has_a_token_of_its_own(mode: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would write one to the home folder, and then use it for clusters that have none."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    if mode is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=lambda **_: None))
    start_ray(None)
    assert os.environ["RAY_AUTH_MODE"] == (mode or "token")
    assert (len(os.environ.get("RAY_AUTH_TOKEN", "")) == 32) is (mode is None)
