"""The installed package: names, version, a light import, a complete wheel, and valid configurations."""

import inspect
import json
import re
import subprocess
import sys
import zipfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import gymnasium as gym
import pytest
from shipped_configs import FILES
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy

import sb3_flow
from sb3_flow import zoo
from sb3_flow.common.environments import register_environment

ROOT = Path(__file__).parents[1]
#: Packages that hold no algorithm; see test_architecture.py.
OTHER_PACKAGES = {"baselines", "common", "datasets", "deploy", "envs", "imitation", "planning", "plots", "tables", "zoo"}
#: What an import of the package must not load on its own account.
OPTIONAL = {
    *("dm_control", "h5py", "imageio", "matplotlib", "minari", "mujoco", "ogbench", "optuna", "pandas", "PIL", "rich"),
    *("rl_zoo3", "sb3_contrib", "scipy", "shimmy", "tensorboard", "tqdm", "yaml"),
}
#: Keys of an entry that RL Zoo takes for itself; all others are arguments of the algorithm.
ZOO_KEYS = {
    *("callback", "env_kwargs", "env_wrapper", "frame_stack", "n_envs", "n_timesteps", "noise_std", "noise_type"),
    *("normalize", "vec_env_wrapper"),
}

ALGORITHMS = [name for name in sb3_flow.__all__ if name != "__version__"]


def algorithm(name: str) -> type[BaseAlgorithm]:
    """The class that a configuration file configures: ``FQL`` for ``fql`` and for ``fql_small``."""
    return zoo.ALGORITHMS[max((key for key in zoo.ALGORITHMS if f"{name}_".startswith(f"{key}_")), key=len)]


def test_the_version_is_that_of_the_installed_package() -> None:
    assert sb3_flow.__version__ == metadata.version("sb3_flow")


@pytest.mark.parametrize("file", ["CITATION.cff", "CHANGELOG.md"])
def test_the_version_is_written_in(file: str) -> None:
    assert re.search(rf"(version: |Release ){re.escape(sb3_flow.__version__)}\b", (ROOT / file).read_text("utf-8"))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_algorithms_are_those_of_stable_baselines3(name: str) -> None:
    cls = getattr(sb3_flow, name)
    assert issubclass(cls, BaseAlgorithm)
    assert issubclass(cls.policy_aliases["FlowPolicy"], BasePolicy)
    # `load` passes these by name.
    assert {"policy", "env", "device", "_init_setup_model"} <= arguments(cls)


def test_every_package_of_an_algorithm_is_exported_and_configured() -> None:
    packages = {folder.parent.name for folder in (ROOT / "sb3_flow").glob("*/__init__.py")} - OTHER_PACKAGES
    exported = {name.lower() for name in ALGORITHMS if getattr(sb3_flow, name).__module__.split(".")[1] not in OTHER_PACKAGES}
    assert packages and {name.replace("_", "") for name in packages} == exported
    names = {name for name, cls in zoo.ALGORITHMS.items() if cls.__module__.split(".")[1] in packages}
    # Each is known to RL Zoo by the name of its package; a variant adds to it, as in qam_fql.
    assert packages <= names and all(
        f"{name}_".startswith(zoo.ALGORITHMS[name].__module__.split(".")[1] + "_") for name in names
    )
    assert set(zoo.ALGORITHMS) <= set(FILES)


def loaded_by(statement: str) -> tuple[set[str], set[str]]:
    """The packages that a fresh interpreter has after a statement, and the environments that Gymnasium knows then."""
    program = f"{statement}\nimport gymnasium, json, sys\nprint(json.dumps([[*sys.modules], [*gymnasium.registry]]))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules, environments = json.loads(run.stdout)
    return {module.split(".")[0] for module in modules}, set(environments)


@pytest.mark.slow
def test_an_import_is_light_and_registers_the_environments() -> None:
    """Of the optional packages it loads none that Stable-Baselines3 does not load."""
    modules, environments = loaded_by("import sb3_flow.cli")
    ours = modules - loaded_by("import stable_baselines3")[0]
    assert "sb3_flow" in ours
    assert ours & OPTIONAL == set()
    assert {name for name in environments if name.startswith("sb3_flow/")} == {
        *(f"sb3_flow/MultiRobot{kind}-v0" for kind in ("2D", "3D", "2DReplan")),
        *("sb3_flow/TwoGoals-v0", "sb3_flow/TwoRoutes-v0"),
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names of the files in the wheel that this checkout makes."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (file,) = folder.iterdir()
    return zipfile.ZipFile(file).namelist()


def test_the_wheel_is_complete(wheel: list[str]) -> None:
    modules = {file.relative_to(ROOT).as_posix() for file in (ROOT / "sb3_flow").rglob("*.py")}
    configs = {f"sb3_flow/zoo_configs/{name}.yml" for name in FILES}
    assert configs and modules | configs | {"sb3_flow/py.typed"} <= set(wheel)
    assert any(name.endswith("/LICENSE") for name in wheel)


def test_the_wheel_has_nothing_else(wheel: list[str]) -> None:
    assert {name.split("/")[0] for name in wheel} == {
        "sb3_flow",
        "sb3_flow_command.py",
        f"sb3_flow-{sb3_flow.__version__}.dist-info",
    }
    assert not [name for name in wheel if "test" in name or "__pycache__" in name]


def arguments(cls: type[BaseAlgorithm]) -> set[str]:
    """The arguments that an algorithm takes by name, those of its bases included where it passes ``**kwargs`` on."""
    names: set[str] = set()
    for base in cls.__mro__:
        parameters = inspect.signature(base.__init__).parameters.values()
        names |= {
            parameter.name
            for parameter in parameters
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        }
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return names - {"self"}


def test_configurations_have_a_default() -> None:
    assert [name for name, entries in FILES.items() if "default" not in entries] == []


@pytest.mark.parametrize("name", FILES)
def test_configurations_are_understood(name: str) -> None:
    """Each key of each entry is one of RL Zoo's, or an argument of the algorithm."""
    known = ZOO_KEYS | arguments(algorithm(name))
    for env_id, entry in FILES[name].items():
        assert {"policy", "n_timesteps"} <= set(entry), env_id
        assert set(entry) <= known, env_id


@pytest.mark.parametrize("name", FILES)
def test_configurations_are_of_environments_that_exist(name: str) -> None:
    """And their datasets are of the same task. Environments of packages that are not installed are passed over."""
    for env_id, entry in FILES[name].items():
        if env_id == "default" or not installed(env_id):
            continue
        register_environment(env_id)
        assert env_id in gym.registry, env_id
        if entry.get("dataset", "").startswith("ogbench:"):
            dataset = entry["dataset"].removeprefix("ogbench:")
            assert re.sub("-(navigate|play|noisy|stitch|explore)-singletask", "-singletask", dataset) == env_id != dataset


def installed(env_id: str) -> bool:
    """Whether the package is there that brings an environment. No extra of ours brings gymnasium_robotics."""
    if env_id.startswith(("AntMaze_", "AdroitHand")):
        return find_spec("gymnasium_robotics") is not None
    return not env_id.startswith("dm_control/") or all(map(find_spec, ("dm_control", "shimmy")))
