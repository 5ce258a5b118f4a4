"""
Import rules: which package may import from which, and which third-party packages the core may import.

Packages are the folders and top-level modules of ``sb3_flow``. A folder that is not listed here belongs to an algorithm.
"""

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from sb3_flow.methods import METHODS

PACKAGE = Path(__file__).parents[1] / "sb3_flow"

#: Packages that may import from every other one, except those listed. `__init__` is the package itself, as in
#: ``from sb3_flow import FQL``, and `__main__` what `python -m` runs, in whatever folder.
TOP: dict[str, set[str]] = {
    "__init__": set(),
    "__main__": set(),
    "cli": set(),
    "methods": {"cli", "plots", "tables", "zoo"},
    "plots": {"cli", "methods", "zoo"},
    "tables": {"cli", "plots"},
    "zoo": {"cli", "plots", "tables"},
}
#: Packages without algorithms, and the other packages from which they may import.
FOUNDATIONS: dict[str, set[str]] = {
    "common": set(),
    "datasets": {"common", "planning"},
    "envs": {"common", "planning"},
    "planning": set(),
    "deploy": set(),
}
#: Files that extend classes of an optional package, which they therefore import; no other file imports them when it is
#: imported itself.
EXTENSIONS: dict[str, set[str]] = {
    "zoo/experiment.py": {"rl_zoo3", "yaml"},
    "zoo/hyperparameters.py": {"rl_zoo3"},
}
#: Packages of methods that extend another one, which they then may import: the packages of the bases of each class.
EXTENDS: dict[str, set[str]] = {}
for method in METHODS:
    package, *bases = (cls.__module__.split(".") for cls in method.algorithm.__mro__)
    EXTENDS.setdefault(package[1], set()).update(base[1] for base in bases if base[0] == "sb3_flow")
#: What the core install has; everything else is imported where it is used.
CORE = {"filelock", "gymnasium", "numpy", "stable_baselines3", "torch"} | sys.stdlib_module_names
MAX_LINES = 650


def may_import(name: str, other: str) -> bool:
    """Whether files of a package may import from another package."""
    if name == other:
        return True
    if name in TOP:
        return other not in TOP[name]
    if name in FOUNDATIONS:
        return other in FOUNDATIONS[name]
    return other in FOUNDATIONS or other in EXTENDS.get(name, set())


def package_of(module: str) -> str:
    """The package of a module of ours: ``"common"`` for ``"sb3_flow.common.flow"``."""
    if module.endswith(".__main__"):
        return "__main__"
    return [*module.split("."), "__init__"][1]


def imported(node: ast.AST, file: Path, package: Path) -> list[str]:
    """The modules that a statement imports, by their full names; none if it is no import."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    module = node.module or ""
    if node.level:
        folder = file.parents[node.level - 1].relative_to(package.parent)
        module = ".".join([*folder.parts, module]).rstrip(".")
    if module != package.name:
        return [module]
    # `from sb3_flow import x`: a package if there is one of that name, else something that `__init__` has.
    return [
        f"{module}.{alias.name}" if (package / alias.name).is_dir() or (package / f"{alias.name}.py").is_file() else module
        for alias in node.names
    ]


def run_at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a module is imported: not the bodies of functions, nor what only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        yield node
        yield from run_at_import(node)


def wrong_directions(file: Path, package: Path) -> list[str]:
    """Forbidden imports of a file, anywhere in it."""
    name = package_of(".".join(file.relative_to(package.parent).with_suffix("").parts))
    return [
        f"{file.relative_to(package.parent).as_posix()}:{node.lineno}: `{name}` must not import `{module}`"
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        for module in imported(node, file, package)
        if module.split(".")[0] == package.name and not may_import(name, package_of(module))
    ]


def optional_imports(file: Path, package: Path) -> list[str]:
    """Imports that run when the file is imported, of packages that the core install does not have, or that need them."""
    name = file.relative_to(package).as_posix()
    extends = EXTENSIONS.get(name, set())
    needy = {f"{package.name}.{path.removesuffix('.py').replace('/', '.')}" for path in EXTENSIONS}
    found = []
    for node in run_at_import(ast.parse(file.read_text("utf-8"))):
        for module in imported(node, file, package):
            if module.split(".")[0] not in CORE | {package.name, "sb3_flow_command"} | extends:
                found.append(f"{package.name}/{name}:{node.lineno}: `{module}` is not part of the core install")
            names = {f"{module}.{alias.name}" for alias in node.names} if isinstance(node, ast.ImportFrom) else set()
            for other in ({module} | names) & needy if not extends else ():
                found.append(f"{package.name}/{name}:{node.lineno}: `{other}` needs more than the core install")
    return found


def imports_of(file: Path, package: Path) -> set[str]:
    """The modules of the package that a file imports, anywhere in it, without those of the folders above it."""
    modules = {".".join(other.relative_to(package.parent).with_suffix("").parts) for other in package.rglob("*.py")}
    own = ".".join(file.relative_to(package.parent).with_suffix("").parts)
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        for module in imported(node, file, package):
            names = {f"{module}.{alias.name}" for alias in node.names} if isinstance(node, ast.ImportFrom) else set()
            found |= (names & modules) or ({module, f"{module}.__init__"} & modules)
    return found - {own}


FILES = sorted(PACKAGE.rglob("*.py"))


def test_arrows_point_down() -> None:
    assert [line for file in FILES for line in wrong_directions(file, PACKAGE)] == []


@pytest.mark.slow
def test_no_import_circles() -> None:
    """Not even for type hints or inside functions: each file can be read after those that it imports."""
    graph = {".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts): imports_of(file, PACKAGE) for file in FILES}
    assert len([module for module, others in graph.items() if others]) > len(FILES) / 2
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError with the files of a circle


def test_the_core_needs_no_optional_package() -> None:
    assert [line for file in FILES for line in optional_imports(file, PACKAGE)] == []


@pytest.mark.parametrize("name", EXTENSIONS)
def test_extensions_import_what_they_are_allowed_to(name: str) -> None:
    tree = ast.parse((PACKAGE / name).read_text("utf-8"))
    modules = {module.split(".")[0] for node in run_at_import(tree) for module in imported(node, PACKAGE / name, PACKAGE)}
    assert modules >= EXTENSIONS[name]  # or the table says more than it has to


def test_files_are_short() -> None:
    assert [file for file in FILES if len(file.read_text("utf-8").splitlines()) > MAX_LINES] == []


def write(root: Path, name: str, text: str) -> tuple[Path, Path]:
    """A package with folders of all kinds, and one file of it with a text."""
    package = root / "sb3_flow"
    for folder in ("common", "datasets", "envs", "fql", "gfp", "qam", "tables", "zoo"):
        (package / folder).mkdir(parents=True)
    (package / "cli.py").touch()
    file = package / name
    file.write_text(text, "utf-8")
    return file, package


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("common/flow.py", "import sb3_flow"),
        ("common/flow.py", "import sb3_flow.fql"),
        ("common/flow.py", "from sb3_flow import FQL"),
        ("common/flow.py", "from sb3_flow import fql"),
        ("common/flow.py", "from sb3_flow.datasets import read"),
        ("common/flow.py", "def f():\n    from sb3_flow.zoo import register"),
        ("common/flow.py", "from ..qam import QAM"),
        ("common/flow.py", "from .. import qam"),
        ("datasets/registry.py", "from sb3_flow.envs import toy"),
        ("datasets/registry.py", "from sb3_flow.cli import main"),
        ("envs/toy.py", "from sb3_flow.datasets.registry import Recipe"),
        ("fql/fql.py", "from sb3_flow.gfp import GFP"),
        ("qam/qam.py", "from sb3_flow.fql.policies import FQLPolicy"),
        ("gfp/gfp.py", "from sb3_flow.qam import QAM"),
        ("qam/qam.py", "from sb3_flow.zoo import register"),
        ("zoo/commands.py", "from sb3_flow.tables.sweep import Sweep"),
        ("zoo/commands.py", "from sb3_flow.cli import main"),
        ("tables/sweep.py", "from sb3_flow.cli import main"),
    ],
)
def test_an_arrow_up_is_found(tmp_path: Path, name: str, text: str) -> None:
    assert len(wrong_directions(*write(tmp_path, name, text))) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("common/flow.py", "import torch as th\nfrom sb3_flow.common.type_aliases import Batch\nfrom .types import Metrics"),
        ("common/flow.py", "from sb3_flow import common"),
        ("datasets/registry.py", "from sb3_flow.common.optional import require\nfrom . import arrays"),
        ("fql/fql.py", "from sb3_flow.common import flow\nfrom sb3_flow.datasets import read\nfrom sb3_flow.envs import toy"),
        ("gfp/gfp.py", "from sb3_flow.fql import FQL"),
        ("zoo/register.py", "from sb3_flow import FQL\nfrom sb3_flow.qam import QAM"),
        ("tables/sweep.py", "from sb3_flow.zoo import register"),
        ("zoo/__main__.py", "from sb3_flow.cli import main"),
        ("cli.py", "import sb3_flow.zoo"),
        ("__init__.py", "from sb3_flow.fql import FQL"),
    ],
)
def test_an_arrow_down_is_left_alone(tmp_path: Path, name: str, text: str) -> None:
    assert wrong_directions(*write(tmp_path, name, text)) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import h5py", 1),
        ("from ogbench.relabel_utils import relabel_dataset", 1),
        ("try:\n    import minari\nexcept ImportError:\n    minari = None", 1),
        ("class A:\n    import tqdm", 1),
        ("if True:\n    import tqdm", 1),
        ("def f():\n    import h5py", 0),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import minari", 0),
        ("import json\nimport gymnasium\nfrom stable_baselines3.common import buffers\nfrom . import types", 0),
    ],
)
def test_an_optional_package_is_found_where_it_runs_at_import(tmp_path: Path, text: str, found: int) -> None:
    assert len(optional_imports(*write(tmp_path, "common/flow.py", text))) == found


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("zoo/experiment.py", "import yaml\nfrom rl_zoo3.exp_manager import ExperimentManager", 0),
        ("zoo/experiment.py", "from sb3_flow.zoo.hyperparameters import HyperparameterReader", 0),
        ("zoo/experiment.py", "import optuna", 1),
        ("zoo/hyperparameters.py", "import yaml", 1),
        ("zoo/commands.py", "from rl_zoo3.train import train", 1),
        ("zoo/commands.py", "from sb3_flow.zoo.experiment import FlowExperimentManager", 1),
        ("zoo/commands.py", "from sb3_flow.zoo import experiment", 1),
        ("zoo/commands.py", "from . import experiment", 1),
        ("zoo/commands.py", "import sb3_flow.zoo.experiment", 1),
        ("zoo/commands.py", "def f():\n    from sb3_flow.zoo.experiment import FlowExperimentManager", 0),
        ("fql/experiment.py", "import yaml", 1),
    ],
)
def test_only_extensions_import_optional_packages(tmp_path: Path, name: str, text: str, found: int) -> None:
    assert len(optional_imports(*write(tmp_path, name, text))) == found
