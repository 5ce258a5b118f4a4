"""The workflow of the public CI covers what pyproject.toml promises."""

import re
import sys
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[1]


def workflow() -> dict:
    return yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text("utf-8"))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib")
def test_versions_are_those_of_the_package() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    jobs = workflow()["jobs"]
    pythons = [text.rsplit(" ", 1)[1] for text in project["classifiers"] if re.search(r":: 3\.\d+$", text)]
    assert jobs["python"]["strategy"]["matrix"]["python"] == pythons
    lowest, newest = jobs["versions"]["strategy"]["matrix"]["include"]
    assert (lowest["python"], newest["python"]) == (pythons[0], pythons[-1])
    for requirement in project["dependencies"]:
        name, _, bound = requirement.partition(">=")
        if name in ("stable-baselines3", "torch", "gymnasium"):
            version = re.search(rf"{name}==([\d.]+)", lowest["packages"])
            assert version is not None and f"{version[1]}.".startswith(f"{bound.split(',')[0]}."), requirement


def test_jobs_run_the_tests() -> None:
    commands = [step.get("run", "") for job in workflow()["jobs"].values() for step in job["steps"]]
    assert sum(command.startswith("pytest -q") for command in commands) == 3
    for command in commands:
        for path in re.findall(r"tests/[\w/.]+", command):
            assert (ROOT / path).exists(), path
