"""The course: notebooks are complete and run from top to bottom; solutions are right."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
COURSE = ROOT / "course"
NOTEBOOKS = sorted(COURSE.glob("*.ipynb"))
IDS = [path.stem for path in NOTEBOOKS]
#: What a lesson needs beside matplotlib.
NEEDS = {"06_sequences": "gym_pusht"}


def cells(path: Path, kind: str) -> list[str]:
    """Texts of the cells of a kind: ``"code"`` or ``"markdown"``."""
    return ["".join(cell["source"]) for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == kind]


def execute(sources: list[str], path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    """Run cells in one namespace, as a notebook does, and return it."""
    matplotlib = pytest.importorskip("matplotlib")
    pytest.importorskip(NEEDS.get(path.stem, "matplotlib"))
    matplotlib.use("Agg")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.chdir(folder)  # files that a notebook writes
    namespace: dict[str, Any] = {"__name__": "__main__"}
    try:
        for number, source in enumerate(sources):
            exec(compile(source, f"{path.name}[{number}]", "exec"), namespace)
            pyplot.close("all")
    finally:
        pyplot.close("all")
    return namespace


def test_there_are_eight_lessons() -> None:
    assert [name[:2] for name in IDS] == [f"{number:02d}" for number in range(1, 9)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_a_notebook_is_complete(path: Path) -> None:
    """Goals, an install cell, at least three exercises with hints, no outputs; valid in version 4.5 of the format."""
    notebook = json.loads(path.read_text("utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert {"cells", "metadata", "nbformat", "nbformat_minor"} == notebook.keys()
    for cell in notebook["cells"]:
        fields = {"cell_type", "id", "metadata", "source"}
        assert cell.keys() == fields | ({"outputs", "execution_count"} if cell["cell_type"] == "code" else set())
        assert re.fullmatch(r"[\w-]{1,64}", cell["id"])
        assert not cell.get("outputs") and cell.get("execution_count") is None
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    text, code = "\n".join(cells(path, "markdown")), cells(path, "code")
    assert text.startswith(f"# Lesson {int(path.stem[:2])}: ") and "**Goals.**" in text and "## What to remember" in text
    assert 'subprocess.run([sys.executable, "-m", "pip", "install"' in code[0]
    exercises = re.findall(r"^\*\*Exercise (\d)\.\*\*", text, re.MULTILINE)
    assert exercises == [str(number) for number in range(1, len(exercises) + 1)] and len(exercises) >= 3
    assert text.count("<summary>Hint</summary>") == len(exercises) == code.count("# Your code")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_solutions_are_separate_files(path: Path) -> None:
    solutions = (COURSE / "solutions" / f"{path.stem}.py").read_text("utf-8")
    exercises = re.findall(r"^\*\*Exercise (\d)\.\*\*", "\n".join(cells(path, "markdown")), re.MULTILINE)
    assert re.findall(r"^# Exercise (\d):", solutions, re.MULTILINE) == exercises
    parts = re.split(r"^# Exercise \d:", solutions, flags=re.MULTILINE)[1:]
    assert all("assert" in part for part in parts)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_the_guide_has_a_section_for_each_lesson(path: Path) -> None:
    title = cells(path, "markdown")[0].splitlines()[0].removeprefix("# ")
    guide = (COURSE / "README.md").read_text("utf-8")
    assert f"## {title}\n" in guide
    section = guide.split(f"## {title}\n")[1].split("\n## ")[0]
    minutes = [int(number) for number in re.findall(r"^\| [^|]+ \| (\d+) \|", section, re.MULTILINE)]
    assert sum(minutes) == 90 and "Ask" in section and "Common mistakes" in section


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_the_first_third_runs(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = cells(path, "code")
    execute(code[: -(-len(code) // 3)], path, monkeypatch, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("path", NOTEBOOKS, ids=IDS)
def test_a_notebook_and_its_solutions_run(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From top to bottom, with the assertions in the cells; then the solutions, with theirs, on the same names."""
    solutions = COURSE / "solutions" / f"{path.stem}.py"
    execute([*cells(path, "code"), solutions.read_text("utf-8")], path, monkeypatch, tmp_path)
