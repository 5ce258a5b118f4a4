"""Each extra installs what its code imports, also where another extra is not installed."""

import ast
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sb3_flow.zoo.commands import SCRIPTS

ROOT = Path(__file__).parent.parent / "sb3_flow"
OWNERS = importlib.metadata.packages_distributions()


@cache
def installed_by(requirement: str) -> frozenset[str]:
    """The distributions that a requirement installs, with those that these require."""
    found: set[tuple[str, str]] = set()
    open_ones = [Requirement(requirement)]
    while open_ones:
        required = open_ones.pop()
        name = canonicalize_name(required.name)
        for extra in ("", *required.extras):
            if (name, extra) in found:
                continue
            found.add((name, extra))
            try:
                requirements = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:
                continue  # for instance of another platform
            parsed = map(Requirement, requirements)
            open_ones += [each for each in parsed if each.marker is None or each.marker.evaluate({"extra": extra})]
    return frozenset(name for name, _ in found)


def brings(requirement: str, module: str) -> bool:
    """Whether a requirement installs a module. A module that is not installed here cannot be judged: True."""
    top = module.split(".")[0]
    owners = {canonicalize_name(owner) for owner in OWNERS.get(top, ())}
    return top in sys.stdlib_module_names or not owners or bool(owners & installed_by(requirement))


def required() -> Iterator[tuple[str, str]]:
    """The literal modules and extras of all calls of ``require``."""
    for file in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "require":
                names = [str(argument.value) for argument in node.args[:2] if isinstance(argument, ast.Constant)]
                if len(names) == 2:
                    yield names[0], names[1]


def imported(module: str) -> Iterator[str]:
    """The absolute imports at the top of a module."""
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    for node in ast.parse(Path(spec.origin).read_text("utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


#: With this extra, PyAV decodes videos, and OpenCV is not asked for.
FALLBACK = ("cv2", "datasets")


@pytest.mark.parametrize(("module", "extra"), sorted(set(required()) - {FALLBACK}))
def test_the_extra_of_a_message_installs_the_module(module: str, extra: str) -> None:
    """The message says `pip install 'sb3_flow[extra]'`."""
    assert brings(f"sb3_flow[{extra}]", module)


@pytest.mark.parametrize("command", SCRIPTS)
def test_the_extra_zoo_installs_what_commands_import(command: str) -> None:
    """RL Zoo does not require all that its scripts import."""
    seen, open_ones = set(), [SCRIPTS[command].module]
    while open_ones:
        module = open_ones.pop()
        if module in seen:
            continue
        seen.add(module)
        names = set(imported(module))
        open_ones += [name for name in names if name.startswith("rl_zoo3")]
        assert [name for name in names if not brings("sb3_flow[zoo]", name)] == [], module


def test_what_an_extra_does_not_install_is_found() -> None:
    assert brings("sb3_flow[export]", "onnx") and not brings("sb3_flow", "onnx")
