"""Every example runs: shortened, on a budget of seconds; and in full."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from python_process import run

EXAMPLES = Path(__file__).parent.parent / "examples"

#: What makes each example short, with the files that it is to write.
SHORT: dict[str, tuple[str, list[str]]] = {
    "custom_algorithm.py": ("--episodes 2 --updates 20", []),
    "decision_flow_two_modes.py": ("--updates 20 --file picture.png", ["picture.png"]),
    "fql_cube_demo.py": (
        "--transitions 1000 --updates 2 --episodes 1 --folder run",
        ["run/results.json", "run/learning_curve.png", "run/paths.png", "run/fql_cube.zip"],
    ),
    "fql_maze_demo.py": (
        "--transitions 1000 --updates 2 --episodes 1 --folder run",
        ["run/results.json", "run/learning_curve.png", "run/paths.png", "run/fql_maze.zip"],
    ),
    "flow_opt_crossing.py": (
        "--robots 3 --scenes 2 --updates 6 --samples 2 --film film.gif --file picture.png",
        ["film.gif", "picture.png"],
    ),
    "fpmd_two_goals.py": ("--timesteps 1040 --file picture.png", ["picture.png"]),
    "gfp_value_aware_teacher.py": ("--updates 20 --file picture.png", ["picture.png"]),
    "offline_to_online_pointmaze.py": (
        "--transitions 1000 --offline-steps 20 --online-steps 120 --episodes 1 --folder run",
        ["run/fql_pointmaze.zip"],
    ),
    "maze_values.py": ("--transitions 1000 --updates 2 --episodes 1 --folder run", ["run/values.png"]),
    "online_pendulum.py": ("--timesteps 250 --model run/model", ["run/model.zip"]),
    "own_data.py": ("--episodes 2 --updates 20", []),
    "rql_reversal.py": ("--updates 20 --file picture.png", ["picture.png"]),
    "streaming_flow_pusht.py": ("--demonstrations 1 --updates 20 --seeds 1 --steps 20 --film film.gif", ["film.gif"]),
    "streaming_flow_two_routes.py": ("--episodes 2 --updates 20 --walks 2 --file picture.png", ["picture.png"]),
    "streaming_flow_tube.py": ("--updates 20 --file picture.png", ["picture.png"]),
    "swfp_cascade.py": ("--offline-steps 20 --online-steps 30 --file picture.png", ["picture.png"]),
    "qam_tilted_distribution.py": ("--steps 3 5 --updates 5 --file picture.png", ["picture.png"]),
}


#: In full, as a user starts it, where it is not to be started without arguments.
FULL = {"streaming_flow_pusht.py": ["--demonstrations", "50"]}


def test_none_is_forgotten() -> None:
    assert set(SHORT) == {path.name for path in EXAMPLES.glob("*.py")}


#: Examples that also run without `--all`: those that users start from.
FIRST = {"fql_maze_demo.py", "own_data.py"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in FIRST else pytest.mark.nightly) for name in SHORT])
def test_short_example(name: str, tmp_path: Path) -> None:
    arguments, files = SHORT[name]
    ended = run(EXAMPLES / name, *arguments.split(), cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for file in files:
        assert (tmp_path / file).stat().st_size > 0


@pytest.mark.nightly
@pytest.mark.parametrize("name", SHORT)
def test_full_example(name: str, tmp_path: Path) -> None:
    """In a new interpreter, for at most an hour."""
    command = [sys.executable, str(EXAMPLES / name), *FULL.get(name, [])]
    ended = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=3600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
