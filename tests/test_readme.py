"""The figures of the README are those of the recorded runs."""

import json
import re
from pathlib import Path

import pytest

from sb3_flow.methods import METHODS

ROOT = Path(__file__).parent.parent
#: Recorded runs of `run.py demo`, and of the example with a robot arm.
DEMO = sorted((ROOT / "docs" / "demo").glob("seed*.json"))
CUBE = sorted((ROOT / "docs" / "fql").glob("cube_seed*.json"))


def test_all_seeds_are_recorded() -> None:
    assert (len(DEMO), len(CUBE)) == (5, 3)


@pytest.mark.parametrize("path", DEMO + CUBE, ids=lambda path: path.stem)
def test_demo_figures(path: Path) -> None:
    run = json.loads(path.read_text("utf-8"))
    rates = run["success_rate"]
    cells = [rates[name][mode] for name in ("FQL", "behavior cloning (BC flow)") for mode in ("sampled", "deterministic")]
    row = " | ".join([str(run["seed"]), *(f"{cell:.2f}" for cell in cells)])
    page = "README.md" if path in DEMO else "docs/fql.md"
    assert f"| {row} |" in (ROOT / page).read_text("utf-8")


def test_the_tables_of_algorithms_are_those_of_the_records() -> None:
    """A row per method that is no baseline, in the README and in the index of the documentation."""
    for file, folder in (("README.md", "docs/"), ("docs/index.md", "")):
        text = (ROOT / file).read_text("utf-8")
        last = r" \| ([^|]*) \|$" if folder else r"() \|$"
        found = re.findall(r"^\| \[`(\w+)`\]\((\S+)\) \| ([^|]*) \| ([^|]*)" + last, text, re.MULTILINE)
        expected = []
        for method in METHODS:
            if not method.baseline:
                title = method.title + (" (our reconstruction)" if method.reconstructed else "")
                title = title if folder else f"[{title}]({method.paper})"
                expected.append(
                    (method.algorithm.__name__, f"{folder}{method.docs}", title, method.regime, method.shown if folder else "")
                )
        assert found == expected, file


def test_what_is_shown_is_there() -> None:
    """Links lead to files, and numbers are those of the linked page."""
    for method in METHODS:
        assert (method.shown is not None) == (not method.baseline)
        for number, path in re.findall(r"\[([^]]*)\]\(([^)#]*)[^)]*\)", method.shown or ""):
            text = (ROOT / path).read_text("utf-8")
            assert not re.match(r"0\.", number) or number in text, (number, path)


def test_every_method_has_its_page_and_its_settings() -> None:
    for method in METHODS:
        assert method.docs is None or (ROOT / "docs" / method.docs).is_file(), method.title
        for variant in method.variants:
            assert (ROOT / "zoo_configs" / f"{variant.name}.yml").is_file(), variant.name
