"""Ctrl-C ends the command with exit code 130 and one line, also while it imports its packages."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch as th

from sb3_flow import FQL

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_an_interrupt_during_the_import(tmp_path: Path) -> None:
    """A module in the place of PyTorch takes its time."""
    (tmp_path / "torch.py").write_text("print('importing', flush=True)\nimport time\ntime.sleep(60)\n", "utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, str(ROOT / "sb3_flow_command.py"), "--help"]
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Shells start background jobs with interrupts ignored, and child processes inherit this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None and process.stdout.readline() == "importing\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "sb3-flow: interrupted\n")


@pytest.mark.slow
@pytest.mark.parametrize("save", ["model", "policy"])
def test_an_interrupt_during_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: str) -> None:
    """PyTorch aborts the process if an interrupt is raised while it writes, so that comes after it has written."""
    saved: list[int] = []
    write = th.save

    def interrupted(*args: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        saved.append(1)
        write(*args)

    model = FQL("FlowPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [4]}, buffer_size=10, device="cpu")
    monkeypatch.setattr(th, "save", interrupted)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests may run where it is ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            {"model": model, "policy": model.policy}[save].save(tmp_path / "file")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, handler)
    assert len(saved) == {"model": 3, "policy": 1}[save] and not [*tmp_path.iterdir()]
    signal.signal(signal.SIGINT, lambda *_: saved.clear())
    try:
        {"model": model, "policy": model.policy}[save].save(tmp_path / "file")  # a handler of the user's own
    finally:
        signal.signal(signal.SIGINT, handler)
    assert saved == [] and len([*tmp_path.iterdir()]) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        pytest.param([str(ROOT / "sb3_flow_command.py")], id="script"),
        pytest.param(["-m", "sb3_flow"], id="module", marks=pytest.mark.nightly),
    ],
)
def test_the_command(command: list[str]) -> None:
    result = subprocess.run([sys.executable, *command, "trian"], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 2 and "sb3-flow: error:" in result.stderr and "invalid choice: 'trian'" in result.stderr
