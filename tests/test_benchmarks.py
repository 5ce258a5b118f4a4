"""Each script in ``benchmarks`` runs to its end, in small. Some have tests of their own."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sb3_flow import DecisionFlow
from sb3_flow.cli import main

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
#: Tested elsewhere, or modules of other scripts, or in need of the authors' JAX code.
TESTED = {"alternating", "control_loop", "decision_flow_parts", "fuzz", "fuzz_targets", "gpu", "jax_fql"}
TESTED |= {"multi_robot_optimizers", "soak", "soak_run"}
SMALL = "--threads 1 --sizes 128x2 --rounds 1 --seconds 0.05"
COMMANDS = [
    f"updates_per_second {SMALL} --modes eager",
    f"algorithms {SMALL} --algos fql rql",
    f"by_part {SMALL} --algo qam",
    f"image_encoders {SMALL} --side 32",
    f"seeds {SMALL} --seeds 2 --modes eager",
    f"latency {SMALL} --turns 1 --algos fql --onnx --single",
    f"streaming {SMALL} --networks small --turns 1",
    f"memory_growth {SMALL} --updates 20",
    "memory --gibibytes 0.01 --updates 3",
    "memory_of_formats --mebibytes 2 --updates 2 --formats npz",
    "multi_robot --threads 1 --robots 4 --problems 2 --samples 1 --methods line noise",
    "multi_robot_initializer bounds --robots 4 --problems 2 --seeds 0 --output FILE",
    "multi_robot_initializer learned --robots 4 --problems 2 --seeds 0 --scenes 8 --copies 1 --expert-scenes 2 "
    "--flow-updates 2 --imitation-updates 2 --unrolled-updates 1 --batch 2 --unrolled 2 --output FILE",
]


def run(command: str, folder: Path) -> str:
    """The output of a script."""
    script, *options = command.split()
    arguments = [sys.executable, str(BENCHMARKS / f"{script}.py"), *options]
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.nightly
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.partition(" --")[0])
def test_a_benchmark_runs(command: str, tmp_path: Path) -> None:
    shown = run(command.replace("FILE", "results.jsonl"), tmp_path)
    if "FILE" in command:
        shown = run("multi_robot_initializer show --output results.jsonl", tmp_path)
    assert len(re.findall(r"\d", shown)) > 10, shown


@pytest.mark.nightly
def test_the_benchmark_of_the_control_loop_runs(tmp_path: Path) -> None:
    pytest.importorskip("ogbench")
    command = ["datasets", "collect", "cube-single-expert-task2", "--episodes", "2", "--directory", str(tmp_path)]
    assert main(command) == 0
    for algo in ("streaming_flow", "chunk_flow"):
        run(f"control_loop train --task cube --algo {algo} --updates 2 --data {tmp_path}", tmp_path)
    run("control_loop evaluate --task cube --episodes 1 --latencies 0 3 --output results", tmp_path)
    run("control_loop jitter --task cube --seconds 1 --output results", tmp_path)
    assert "success" in run("control_loop report --output results", tmp_path)
    assert (tmp_path / "results" / "intervals.csv").is_file()


@pytest.mark.nightly
def test_the_parts_of_decision_flow_are_measured(tmp_path: Path) -> None:
    rng, n = np.random.default_rng(0), 40
    data = {"observations": rng.normal(size=(n, 3)), "actions": rng.uniform(-2, 2, (n, 1)), "rewards": rng.normal(size=n)}
    data |= {"next_observations": rng.normal(size=(n, 3)), "terminals": np.zeros(n, bool), "timeouts": np.arange(n) % 10 == 9}
    np.savez(tmp_path / "data.npz", **{name: column.astype(np.float32) for name, column in data.items()})
    files = []
    for variant in ("dir", "div"):
        model = DecisionFlow("FlowPolicy", "Pendulum-v1", dataset=str(tmp_path / "data.npz"), variant=variant, device="cpu")
        model.learn(2)
        files.append(tmp_path / variant / "run_1" / "model.zip")
        model.save(files[-1])
    shown = run(f"decision_flow_parts {files[0]} {files[1]} --env Pendulum-v1 --dataset data.npz", tmp_path)
    rows = [line.split(" | ") for line in shown.splitlines() if line.startswith("| ")][2:]
    assert [len(row) for row in rows] == [10, 10] and rows[1][-1] != "- |"


def test_every_benchmark_is_tested() -> None:
    assert {command.split()[0] for command in COMMANDS} | TESTED == {file.stem for file in BENCHMARKS.glob("*.py")}
