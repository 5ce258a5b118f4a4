"""The documentation site builds without warnings, and its Python blocks are valid."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sb3_flow.methods import METHODS

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.slow
def test_the_site(tmp_path: Path) -> None:
    """It is complete, with equations as MathML, and pages load scripts, styles and fonts from no other host."""
    pytest.importorskip("latex2mathml")
    pytest.importorskip("mkdocstrings_handlers.python")
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True)  # fails for warnings, such as broken links and references
    for page in PAGES:
        assert (tmp_path / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file()
    for method in METHODS:
        text = (tmp_path / "api" / "algorithms.html").read_text("utf-8")
        assert re.search(rf'id="sb3_flow\.(baselines\.)?{method.algorithm.__name__}"', text), method.title
    found = json.loads((tmp_path / "search" / "search_index.json").read_text("utf-8"))["docs"]
    assert any("expectile" in entry["text"] for entry in found)

    text = (tmp_path / "fql.html").read_text("utf-8")
    assert text.count('display="block"') == 3 and "$$" not in text
    for page in tmp_path.rglob("*.html"):
        for source in re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', page.read_text("utf-8")):
            assert source.startswith("https://example"), f"{page.name}: {source}"


#: Pages that belong to one algorithm.
ALGORITHM_PAGES = sorted({method.docs for method in METHODS if method.docs is not None})


@pytest.mark.parametrize("name", ALGORITHM_PAGES)
def test_a_page_of_an_algorithm_is_complete(name: str) -> None:
    """The losses as equations, and the sections that readers look for."""
    text = (ROOT / "docs" / name).read_text("utf-8")
    assert text.count("$$") >= 4 and text.count("$$") % 2 == 0
    for title in ("Idea", "When to use it", "Use", "Arguments", "Logged metrics", "Results"):
        assert f"\n## {title}\n" in text, title
    assert re.search(r"^\| symbol \| in the code \| meaning \|$", text, re.MULTILINE)
    assert re.search(r"^## (Deviations|What is ours|Our reconstruction)", text, re.MULTILINE)


def test_the_pages_of_methods_are_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8").split("nav:")[1]
    for page in PAGES:
        assert f": {page.relative_to(ROOT / 'docs').as_posix()}\n" in navigation


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_are_valid(page: Path) -> None:
    """Each block compiles, and the names that it imports exist."""
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        compile(block, page.name, "exec")
        for module, names in re.findall(r"^from (\S+) import ([\w, ]+)$", block, re.MULTILINE):
            if importlib.util.find_spec(module.split(".")[0]):
                imported = importlib.import_module(module)
                assert all(hasattr(imported, name.strip()) for name in names.split(",")), f"{module}: {names}"
