"""``benchmarks/soak.py`` compares a run with faults with one without."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

soak = pytest.importorskip("soak", reason="limits of files are those of POSIX")
pytestmark = pytest.mark.nightly


def test_a_run_with_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the first kill nothing is left, and after the second one the run resumes."""
    spec = soak.Spec("fql", "script", seed=0, total=90, save_freq=30)
    faults = [
        soak.Fault("kill", 20),
        soak.Fault("reward", 40),
        soak.Fault("disk", 20, file_size_limit=100),
        soak.Fault("kill", 20),
    ]
    monkeypatch.setattr(soak, "draw", lambda number, seed: (spec, faults))
    row = soak.soak(0, 0, tmp_path)
    assert row["equal"] and row["problems"] == []
    assert [fault["happened"] for fault in row["faults"]] == [True] * 4
    assert "After 40 environment steps, the reward of environment 0 is nan" in row["faults"][1]["error"]
    assert "File too large" in row["faults"][2]["error"]


def test_what_is_lost_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs with other seeds differ; an error that did not happen, or has another message, is a problem."""
    found = []
    for seed in (0, 1):
        spec = soak.Spec("fql", "script", seed=seed, total=40, save_freq=20)
        process = soak.Process(spec, tmp_path / str(seed), [None], soak.Clock())
        found.append(process.train(None))
        process.close()
    assert [end.error for end in found] == [None, None]
    differences = soak.compare(tmp_path / "0", tmp_path / "1")
    assert any("policy.pth" in name for name in differences) and any("replay_buffer" in name for name in differences)
    assert soak.compare(tmp_path / "0", tmp_path / "0") == []
    end = soak.End("ValueError: After 7 environment steps, ...", {"environment": 0}, 6, 6)
    assert soak.problems_of(spec, soak.Fault("reward", 6), end)
    assert soak.problems_of(spec, soak.Fault("reward", 6), end._replace(error=None)) == ["reward: no error"]
