"""Progress without a terminal is printed as lines."""

import re

import gymnasium as gym
import pytest

from sb3_flow import FQL
from sb3_flow.common import progress
from sb3_flow.common.progress import ProgressLines, progress_bar


def test_a_line_per_interval(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """One unit per second, from 20 of 100: a line every 10 seconds, with the rate and the time that is left."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with ProgressLines(100, initial=20, desc="collect", unit="episode") as lines:
        for _ in range(25):
            clock[0] += 1
            lines.update()
    assert capsys.readouterr().out.splitlines() == [
        "collect: 30 of 100 episodes (30 %), 1 per second, 0:01:10 left",
        "collect: 40 of 100 episodes (40 %), 1 per second, 0:01:00 left",
        "collect: 45 of 100 episodes (45 %), 1 per second, 0:00:55 left",
    ]


def test_learn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    model = FQL("FlowPolicy", gym.make("Pendulum-v1"), learning_starts=100, policy_kwargs={"net_arch": [8]})
    model.learn(3, progress_bar=True)
    model.learn(2, progress_bar=True, reset_num_timesteps=False)
    done = [match[1] for match in re.finditer(r"^FQL: (\d of \d) timesteps", capsys.readouterr().out, re.MULTILINE)]
    assert done == ["1 of 3", "2 of 3", "3 of 3", "3 of 3", "4 of 5", "5 of 5", "5 of 5"]
    model.learn(3)
    assert capsys.readouterr().out == ""


def test_in_a_terminal_it_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    tqdm = pytest.importorskip("tqdm")
    with progress_bar(2, desc="collect") as bar:
        assert isinstance(bar, tqdm.tqdm)
    with progress_bar(2, disable=True) as bar:
        assert isinstance(bar, tqdm.tqdm) and bar.disable
