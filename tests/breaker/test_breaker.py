"""Inputs that a user could give by mistake: each is refused by a clear error, or accepted, as its table says."""

import re
from collections import Counter
from pathlib import Path

import pytest
import torch as th

from breaker import arguments, commands, data, environments, models
from breaker.outcome import Input

#: The classes of inputs, as docs/robustness.md names them.
CLASSES: dict[str, list[Input]] = {
    "data": data.INPUTS,
    "arguments": arguments.INPUTS,
    "environments and spaces": environments.INPUTS,
    "`predict`, `update` and `learn`": models.CALLS,
    "files and disks": models.FILES,
    "options and commands": commands.INPUTS,
}
PAGE = Path(__file__).parents[2] / "docs" / "robustness.md"


@pytest.mark.parametrize(
    "given", [pytest.param(given, id=f"{name}: {given.name}"[:90]) for name, inputs in CLASSES.items() for given in inputs]
)
def test_input(given: Input, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "without CUDA" in given.name and th.cuda.is_available():
        pytest.skip("there is CUDA")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OGBENCH_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setenv("SB3_FLOW_DATA_DIR", str(tmp_path))
    given.check(tmp_path)


def test_names_are_unique() -> None:
    for name, inputs in CLASSES.items():
        repeated = [given for given, count in Counter(given.name for given in inputs).items() if count > 1]
        assert not repeated, f"{name}: {repeated}"


def test_the_numbers_of_the_documentation() -> None:
    """The table counts the inputs of each class by outcome. New arguments of algorithms add a few to those of the table."""
    table = PAGE.read_text("utf-8").split("\n## ")[0]
    rows = dict(re.findall(r"^\| ([^|]+) \| ([\d| ]+) \|$", table, re.MULTILINE))
    total = Counter[str]()
    for name, inputs in [*CLASSES.items(), ("all", [])]:
        counts = Counter(given.outcome for given in inputs) if inputs else total
        total += counts if inputs else Counter()
        documented = [*map(int, rows.pop(name).split(" | "))]
        for outcome, number in zip(("error", "warning", "accepted"), documented, strict=True):
            assert number <= counts[outcome] <= 1.1 * number + 2, (
                f"{name}, {outcome}: {counts[outcome]}, and {number} in {PAGE}"
            )
    assert not rows
