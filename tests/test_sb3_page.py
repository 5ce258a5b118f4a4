"""Each line of the page about Stable-Baselines3's tests names tests that exist."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "stable_baselines3.md"


@cache
def names_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_each_line_is_backed_by_tests_that_exist() -> None:
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `test_")]
    assert len(lines) >= 40
    for line in lines:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", line)
        assert named, line
        for file, test in named:
            assert test in names_in(file), f"{file} has no {test}"
