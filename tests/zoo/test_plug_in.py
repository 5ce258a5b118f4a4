"""A user's script with the lines from docs/zoo.md runs."""

import re
from pathlib import Path

import numpy as np
import pytest
import python_process

pytest.importorskip("rl_zoo3")

PAGE = Path(__file__).parents[2] / "docs" / "zoo.md"
CONFIG = """
Pendulum-v1:
  policy: FlowPolicy
  n_timesteps: 60
  learning_starts: 20
  batch_size: 16
  policy_kwargs: {net_arch: [16]}
"""


@pytest.mark.slow
def test_three_lines_plug_us_into_a_script_of_ones_own(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    (script,) = [block for block in blocks if "sb3_flow.zoo.register()" in block]
    (tmp_path / "my_train.py").write_text(script, "utf-8")
    (tmp_path / "mine.yml").write_text(CONFIG, "utf-8")

    def run(*arguments: str) -> python_process.Completed:
        return python_process.run(tmp_path / "my_train.py", *arguments, "--device", "cpu", cwd=tmp_path)

    options = ["--algo", "fql", "--env", "Pendulum-v1", "--env-kwargs", "max_episode_steps:20"]
    ours = run(*options, "--conf-file", "mine.yml", "--eval-freq", "30", "--eval-episodes", "1")
    assert ours.returncode == 0, ours.stderr
    assert np.load(tmp_path / "logs" / "fql" / "Pendulum-v1_1" / "evaluations.npz")["timesteps"].tolist() == [30, 60]
    assert (tmp_path / "logs" / "fql" / "Pendulum-v1_1" / "Pendulum-v1.zip").is_file()
    # Without --conf-file our own configurations are found, and their keys are checked.
    wrong = run(*options, "-params", "alhpa:1.0")
    assert wrong.returncode != 0 and "did you mean `alpha`?" in wrong.stderr
