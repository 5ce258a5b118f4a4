"""The page about a robot of one's own: all of its code runs, in its order."""

import re
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_flow import FQL
from sb3_flow.cli import main
from sb3_flow.datasets import load_dataset

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "own_robot.md").read_text("utf-8")
#: What makes the page short: patterns, and what replaces them.
SHORTER = {r"range\(200\)": "range(6)", r"\b\d_000\b": "2", r"\blearn\(200\)": "learn(4)", r"episodes=20\b": "episodes=1"}


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a dataset of LeRobot."""
    with zipfile.ZipFile(ROOT / "tests" / "datasets" / "written" / "lerobot.zip") as archive:
        archive.extractall(tmp_path / "recordings" / "lerobot")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    gym.registry.pop("Arm-v0", None)


def run_page(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "own_robot"}
    exec(compile(code, "docs/own_robot.md", "exec"), names)
    return names


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:There is no environment")
def test_the_code_of_the_page_runs(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("pandas", "pyarrow", "moviepy", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
    for pattern, short in SHORTER.items():
        code, count = re.subn(pattern, short, code)
        assert count, f"{pattern} is not on the page"
    names = run_page(code)
    assert names["model"].n_env_steps == 4 and list(page.glob("videos/*.mp4"))
    (command,) = re.findall(r"^sb3-flow (datasets info) (\".*\")$", PAGE, re.MULTILINE)
    assert main([*command[0].split(), command[1].strip('"')]) == 0
    assert re.search(r"trajectories: +6\n", capsys.readouterr().out)
    first, *others = (load_dataset(names[source]) for source in ("episodes", "dataset", "frame"))
    for other in others:
        assert (other.trajectory_lengths() == first.trajectory_lengths()).all()
        for (name, column), (_, expected) in zip(other.columns(), first.columns(), strict=True):
            np.testing.assert_array_equal(column[:], expected[:], name)


@pytest.mark.slow
def test_the_loop_acts_as_in_a_vectorized_environment(page: Path) -> None:
    """Single observations with images as the camera gives them, and chunks over several episodes of different lengths."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (loop,) = [block for block in blocks if "for step in range(100)" in block]
    names = run_page(blocks[0])
    small = {"net_arch": [8], "features_extractor_kwargs": {"encoder": "small"}}
    arm = partial(gym.make, "Arm-v0", max_episode_steps=7)
    model = FQL("FlowPolicy", arm(), horizon_length=3, policy_kwargs=small, device="cpu", seed=0)

    env = DummyVecEnv([arm])
    env.seed(0)
    expected, state, starts = [], None, np.ones(1, dtype=bool)
    observations = env.reset()
    for _ in range(100):
        actions, state = model.predict(observations, state, starts, deterministic=True)
        observations, _, starts, _ = env.step(actions)
        expected.append(actions[0])

    class Robot(gym.Wrapper):  # type: ignore[type-arg]
        """Seeded as ``DummyVecEnv`` seeds its environment, once."""

        seed: int | None = 0

        def reset(self, **_: Any) -> Any:
            seed, self.seed = self.seed, None
            return self.env.reset(seed=seed)

        def step(self, action: Any) -> Any:
            found.append(action)
            return self.env.step(action)

    found: list[np.ndarray] = []
    exec(loop.replace('gym.make("Arm-v0")', "robot"), {**names, "model": model, "robot": Robot(arm())})
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert len(np.unique(np.array(expected), axis=0)) > 20
