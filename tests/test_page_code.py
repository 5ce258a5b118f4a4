"""
All Python blocks of the documentation run: those of a page one after the other, in one namespace, and unchanged.

Not the text is made short, but what it calls, by ``shortened``: networks, budgets and numbers of episodes. What readers have
before they begin with a page, such as a recording or an older model, is made by ``STAND_INS``. Datasets that have names are
those that ``collect`` makes, with few steps.
"""

import dataclasses
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from conformance.environments import transitions
from stable_baselines3.common import evaluation
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.envs import BitFlippingEnv

import sb3_flow.plots
from sb3_flow import FQL
from sb3_flow.cli import main
from sb3_flow.common.arguments import CheckedArguments
from sb3_flow.common.offline_algorithm import OfflineAlgorithm
from sb3_flow.datasets import RECIPES, collect, load_dataset
from sb3_flow.methods import METHODS

ROOT = Path(__file__).parent.parent


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


#: Pages with Python blocks that other tests run, in which the world is a different one.
ELSEWHERE = {"docs/own_robot.md": "tests/test_own_robot.py", "docs/zoo.md": "tests/zoo/test_hub.py, tests/zoo/test_plug_in.py"}
#: All other pages with Python blocks.
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for files in (
        ROOT.glob("*.md"),
        *((ROOT / folder).rglob("*.md") for folder in ("benchmarks", "course", "docs", "results")),
    )
    for page in files
    if blocks(page)
)
#: Pages that are also run without `--all`. The others differ from these in a class and its arguments.
FIRST = ["README.md", "docs/datasets.md", "docs/memory.md", "docs/resume.md"]

#: The length of each call of ``learn``, and of arguments of constructors.
TIMESTEPS = 20
LARGEST = {"offline_steps": 12, "learning_starts": 4, "buffer_size": 1000, "expert_scenes": 2}


def shortened(patch: pytest.MonkeyPatch) -> None:
    """
    Make everything small that a page calls: models have the arguments of the conformance tests where the page gives none,
    arguments are at most ``LARGEST``, ``learn`` ends after ``TIMESTEPS``, ``evaluate_policy`` after one episode, and ``film``
    has every fiftieth frame.
    """
    create, begin, evaluate = CheckedArguments.__call__, BaseAlgorithm._setup_learn, evaluation.evaluate_policy
    small = {method.algorithm: method.variants[0].small or {} for method in METHODS}

    def create_small(cls: type, *args: Any, **given: Any) -> Any:
        if not issubclass(cls, OfflineAlgorithm):
            return create(cls, *args, **given)
        defaults = {"batch_size": 16, "policy_kwargs": {"net_arch": [16]}, **small[cls]}
        policy_kwargs = {**defaults["policy_kwargs"], **(given.get("policy_kwargs") or {})}
        given = {name: min(value, LARGEST[name]) if name in LARGEST and value else value for name, value in given.items()}
        return create(cls, *args, **{**defaults, **given, "policy_kwargs": policy_kwargs})

    def begin_short(self: BaseAlgorithm, total_timesteps: int, *args: Any, **kwargs: Any) -> Any:
        return begin(self, min(total_timesteps, TIMESTEPS), *args, **kwargs)

    def evaluate_once(model: Any, env: Any, n_eval_episodes: int = 10, *args: Any, **kwargs: Any) -> Any:
        return evaluate(model, env, 1, *args, **kwargs)

    patch.setattr(CheckedArguments, "__call__", create_small)
    patch.setattr(BaseAlgorithm, "_setup_learn", begin_short)
    patch.setattr(evaluation, "evaluate_policy", evaluate_once)
    patch.setattr(sb3_flow.plots, "film", partial(sb3_flow.plots.film, every=50))


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], None]:
    """Collects the dataset of a name, once."""
    folder, done = tmp_path_factory.mktemp("data"), set()

    def collect_once(name: str) -> None:
        pytest.importorskip(RECIPES[name].source.module)
        if name not in done:
            with pytest.MonkeyPatch.context() as patch:
                if RECIPES[name].states is None:
                    size = {"episodes": 2}
                else:
                    patch.setitem(RECIPES, name, dataclasses.replace(RECIPES[name], states=41))
                    size = {"transitions": 80}
                collect(name, **size, directory=folder, workers=1, progress=False)
            done.add(name)

    collect_once.folder = folder  # type: ignore[attr-defined]
    return collect_once


# What readers have.


def recordings(folder: Path) -> None:
    """For ``docs/datasets.md``: recordings in two formats, the second one with parts; an environment of Gymnasium-Robotics."""
    h5py = pytest.importorskip("h5py")
    columns = transitions()
    observations = columns.pop("observations")
    del columns["next_observations"]
    (folder / "demonstrations").mkdir()
    with h5py.File(folder / "demonstrations" / "first.hdf5", "w") as file:
        for name, column in {**columns, "observations": observations}.items():
            file[name] = column
    parts = {"observations/angle": observations[:, :2], "observations/speed": observations[:, 2:]}
    np.savez(folder / "play.npz", **columns, **parts)
    gym.register("FetchReach-v4", partial(BitFlippingEnv, n_bits=3, continuous=True))


def a_folder(folder: Path) -> None:
    """For ``docs/memory.md``: what its command makes of a recording."""
    np.savez(folder / "data.npz", **transitions())
    (command,) = re.findall(
        r"^sb3-flow (datasets convert \S+ \S+)", (ROOT / "docs" / "memory.md").read_text("utf-8"), re.MULTILINE
    )
    assert main(command.split()) == 0


def old_files(folder: Path) -> None:
    """For ``docs/resume.md``: files that version 0.1 wrote with this data, and a policy."""
    np.savez(folder / "old_data.npz", **transitions())
    files = ROOT / "tests" / "files_0_1"
    shutil.copy(files / "FQL.zip", folder / "old_model.zip")
    shutil.copytree(files / "run", folder / "runs" / "old")
    shutil.copy(files / "run" / "checkpoint_20" / "replay_buffer.pkl", folder / "old_buffer.pkl")
    FQL.load(files / "FQL.zip", trusted=True).policy.save(folder / "old_policy")


def a_table(folder: Path) -> None:
    """For ``docs/sweeps.md``."""
    (folder / "results" / "table").mkdir(parents=True)
    shutil.copy(ROOT / "results" / "small" / "evaluations.csv", folder / "results" / "table")


def a_model(folder: Path) -> None:
    """For ``docs/swfp.md``: the file that ``docs/fql.md`` writes."""
    FQL("FlowPolicy", "cube-single-singletask-task2-v0").save(folder / "fql_cube")


STAND_INS: dict[str, Callable[[Path], None]] = {
    "docs/datasets.md": recordings,
    "docs/memory.md": a_folder,
    "docs/resume.md": old_files,
    "docs/sweeps.md": a_table,
    "docs/swfp.md": a_model,
}


def without_a_display(patch: pytest.MonkeyPatch) -> None:
    """Where MuJoCo cannot draw, OGBench's images are black: machines for tests often have no OpenGL."""
    mujoco = pytest.importorskip("mujoco")
    env = pytest.importorskip("ogbench.manipspace.envs.env").CustomMuJoCoEnv
    try:
        mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 8, 8).close()
    except Exception:
        patch.setattr(env, "render", lambda *_, **__: np.zeros((200, 200, 3), np.uint8))


# What a page promises beyond that its code runs.


def check_datasets(names: dict[str, Any]) -> None:
    data = load_dataset(names["dataset"])
    assert data.observations.shape[1:] == (3,) and names["model"].n_offline_updates == 0
    names["model"].learn(2)
    assert names["model"].n_offline_updates == 2


def check_deployment(names: dict[str, Any]) -> None:
    assert names["steps"] == 25 and names["loop"].closed


def check_guide(names: dict[str, Any]) -> None:
    assert names["imitation"].n_offline_updates == TIMESTEPS
    assert all(Path(file).stat().st_size for file in ("flow.png", "values.png", "episode.gif"))
    assert names["values"].shape == (2, 1) and names["metrics"]


def check_resume(names: dict[str, Any]) -> None:
    assert (names["model"].n_offline_updates, names["model"].n_env_steps) == (5, 15)


CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "docs/datasets.md": check_datasets,
    "docs/deployment.md": check_deployment,
    "docs/guide.md": check_guide,
    "docs/resume.md": check_resume,
}


@pytest.fixture
def registry() -> Any:
    """Ids that a page registers are forgotten."""
    before = dict(gym.registry)
    yield
    gym.registry.pop("FetchReach-v4", None)
    gym.registry.update(before)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:There is no environment")
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=() if page in FIRST else pytest.mark.nightly) for page in PAGES if page not in ELSEWHERE],
)
def test_the_code_of_a_page_runs(
    page: str, collected: Any, registry: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = blocks(ROOT / page)
    for name in RECIPES.keys() & set(re.findall(r'"([\w-]+)"', "".join(found))):
        collected(name)
    for variable in ("OGBENCH_DATA_DIR", "SB3_FLOW_DATA_DIR"):
        monkeypatch.setenv(variable, str(collected.folder))
    monkeypatch.chdir(tmp_path)
    shortened(monkeypatch)
    if "film(" in "".join(found):
        without_a_display(monkeypatch)
    STAND_INS.get(page, lambda _: None)(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, block in enumerate(found, 1):
        exec(compile(block, f"{page}, block {number}", "exec"), names)
    CHECKS.get(page, lambda _: None)(names)


@pytest.mark.parametrize("page", ELSEWHERE)
def test_the_other_pages_are_read_by_the_tests_that_run_them(page: str) -> None:
    assert page in PAGES
    for file in ELSEWHERE[page].split(", "):
        assert f'"{Path(page).name}"' in (ROOT / file).read_text("utf-8")
