"""``benchmarks/gpu.py`` runs to its end without a GPU, in small."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.nightly
def test_all_parts(tmp_path: Path) -> None:
    for package in ("ogbench", "yaml"):
        pytest.importorskip(package)
    environment = {**os.environ, "OGBENCH_DATA_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--device", "cpu", "--quick"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    titles = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("== ")]
    assert titles == ["Conditions", "tests/test_cuda.py", "Updates", "Updates", "FQL"]
    assert "success in" in done.stdout.splitlines()[-1]
