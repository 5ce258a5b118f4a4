"""What the tests of datasets share: folders of their own, and small collections made once."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from sb3_flow.datasets import RECIPES, collect

Arrays = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's datasets."""
    monkeypatch.setenv("OGBENCH_DATA_DIR", str(tmp_path / "ogbench"))
    monkeypatch.setenv("SB3_FLOW_DATA_DIR", str(tmp_path / "sb3_flow"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def short_cube_episodes() -> Iterator[int]:
    """Number of transitions of an episode of cube-single play data, which has a thousand otherwise."""
    name = "cube-single-play-v0"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, name, dataclasses.replace(RECIPES[name], states=201))
        yield 200


@pytest.fixture(scope="session")
def cube_file(tmp_path_factory: pytest.TempPathFactory, short_cube_episodes: int) -> Path:
    """One episode of cube-single play data, collected by one worker."""
    pytest.importorskip("ogbench")
    folder = tmp_path_factory.mktemp("cube")
    return collect("cube-single-play-v0", transitions=200, directory=folder, workers=1, progress=False)


@pytest.fixture(scope="session")
def maze_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve short episodes of point maze data, collected by one worker."""
    pytest.importorskip("ogbench")
    folder = tmp_path_factory.mktemp("maze")
    return collect("pointmaze-medium-stitch-v0", transitions=2400, directory=folder, workers=1, progress=False)


@pytest.fixture
def transitions() -> Callable[..., Arrays]:
    """Make transitions under Gymnasium's names: trajectories of 3 and 4 steps, the first one terminates."""

    def make() -> Arrays:
        count = 7
        columns = {
            "observations": np.arange(2 * count, dtype=np.float32).reshape(count, 2),
            "actions": np.linspace(-1, 1, count, dtype=np.float32)[:, None],
            "rewards": np.arange(count, dtype=np.float32),
            "terminations": np.zeros(count, dtype=bool),
            "truncations": np.zeros(count, dtype=bool),
        }
        columns["next_observations"] = columns["observations"] + 2
        columns["terminations"][2] = columns["truncations"][6] = True
        return columns

    return make
