"""The figures of the README are those of the recorded runs."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RUNS = sorted((ROOT / "docs" / "demo").glob("seed*.json"))


def test_three_seeds_are_recorded() -> None:
    assert len(RUNS) >= 3


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_demo_figures(path: Path) -> None:
    run = json.loads(path.read_text("utf-8"))
    rates = run["success_rate"]
    cells = [rates[name][mode] for name in ("FQL", "behaviour cloning (BC flow)") for mode in ("sampled", "deterministic")]
    row = " | ".join([str(run["seed"]), *(f"{cell:.2f}" for cell in cells)])
    assert f"| {row} |" in (ROOT / "README.md").read_text("utf-8")
