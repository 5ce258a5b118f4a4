"""Ctrl-C ends the command with exit code 130 and one line, also while it imports its packages."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
def test_the_command(capfd: pytest.CaptureFixture) -> None:
    result = subprocess.run([sys.executable, str(ROOT / "sb3_flow_command.py"), "trian"], capture_output=True, text=True)
    assert result.returncode == 2 and "invalid choice: 'trian'" in result.stderr
