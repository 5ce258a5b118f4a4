"""The shipped configurations: what the papers published, on environments and arguments that exist."""

import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from conformance.environments import AnySpaces
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from sb3_flow.common.environments import register_environment
from sb3_flow.zoo.algorithms import ALGORITHMS
from sb3_flow.zoo.configs import ZOO_KEYS, arguments_of, check_keys, config_path, find_config, policy_arguments, read_entries

FOLDER = Path(__file__).parents[2] / "zoo_configs"
FILES = {file.stem: yaml.safe_load(file.read_text("utf-8")) for file in sorted(FOLDER.glob("*.yml"))}
#: Packages whose environments we configure, but that no extra brings; how their ids begin.
ELSEWHERE = {"gymnasium_robotics": ("AntMaze_", "AdroitHand"), "Box2D": ("LunarLander", "BipedalWalker")}

#: Offline, from the paper's tables: alpha, gamma, aggregation, number of updates. All five tasks share them.
OGBENCH = {
    "antmaze-large-navigate": (10, 0.99, "min"),
    "antmaze-giant-navigate": (10, 0.995, "min"),
    "humanoidmaze-medium-navigate": (30, 0.995, "mean"),
    "humanoidmaze-large-navigate": (30, 0.995, "mean"),
    "antsoccer-arena-navigate": (10, 0.995, "mean"),
    "cube-single-play": (300, 0.99, "mean"),
    "cube-double-play": (300, 0.99, "mean"),
    "scene-play": (300, 0.99, "mean"),
    "puzzle-3x3-play": (1000, 0.99, "mean"),
    "puzzle-4x4-play": (1000, 0.99, "mean"),
}
PIXELS = {"cube-single": 300, "cube-double": 100, "scene": 100, "puzzle-3x3": 300, "puzzle-4x4": 300}
#: D4RL by Minari's names: alpha offline, and of the offline-to-online runs where there are any.
ANTMAZE = {
    "AntMaze_UMaze-v4": ("umaze", 10, 10),
    "AntMaze_Medium-v4": ("medium-play", 10, 10),
    "AntMaze_Medium_Diverse_GR-v4": ("medium-diverse", 10, 10),
    "AntMaze_Large-v4": ("large-play", 3, 3),
    "AntMaze_Large_Diverse_GR-v4": ("large-diverse", 3, 3),
}
ADROIT = {"Pen": (10_000, 1_000), "Door": (30_000, 1_000), "Hammer": (10_000, 1_000), "Relocate": (30_000, 10_000)}
#: What the comments say of Adroit's other data: human, expert.
ADROIT_OTHERS = {"pen": (10_000, 3_000), "door": (30_000, 30_000), "hammer": (30_000, 30_000), "relocate": (10_000, 30_000)}
#: OGBench's offline-to-online runs: alpha and gamma.
ONLINE = {
    "humanoidmaze-medium-navigate": (100, 0.995),
    "antsoccer-arena-navigate": (30, 0.995),
    "cube-double-play": (300, 0.99),
    "scene-play": (300, 0.99),
    "puzzle-4x4-play": (1000, 0.99),
}
#: The paper's settings that all tasks share are the constructor's defaults: an entry that is published leaves them alone.
SHARED = {"learning_rate", "batch_size", "tau", "flow_steps", "policy_kwargs", "normalize_q_loss", "n_steps", "horizon_length"}


def algorithm_of(file: str) -> str:
    """The algorithm that a file is for: the longest name that it begins with."""
    return max((name for name in ALGORITHMS if file.startswith(name)), key=len)


def env_of(dataset: str, task: str = "") -> str:
    """``cube-single-play`` and ``-task2`` make ``cube-single-singletask-task2-v0``."""
    return f"{re.sub('-(navigate|play)$', '', dataset)}-singletask{task}-v0"


@pytest.mark.parametrize("dataset", OGBENCH)
@pytest.mark.parametrize("task", ["", *(f"-task{number}" for number in range(1, 6))])
def test_published_offline_settings(dataset: str, task: str) -> None:
    entry = FILES["fql"][env_of(dataset, task)]
    assert (entry["alpha"], entry["gamma"], entry["q_agg"]) == OGBENCH[dataset]
    assert entry["dataset"] == f"ogbench:{dataset}-singletask{task}-v0"
    assert entry["n_timesteps"] == 1e6 and not SHARED & set(entry) and "offline_steps" not in entry


@pytest.mark.parametrize("name", PIXELS)
def test_published_settings_from_images(name: str) -> None:
    entry = FILES["fql"][f"visual-{name}-singletask-task1-v0"]
    assert (entry["alpha"], entry["frame_stack"], entry["n_timesteps"]) == (PIXELS[name], 3, 5e5)
    assert not {"gamma", "q_agg", "crop_probability", *SHARED} & set(entry)  # the defaults: 0.99, the mean, 0.5


def test_published_settings_of_d4rl() -> None:
    offline, online = FILES["fql"], FILES["fql_offline_to_online"]
    for env_id, (data, alpha, alpha_online) in ANTMAZE.items():
        for entry, expected, timesteps in ((offline[env_id], alpha, 5e5), (online[env_id], alpha_online, 2e6)):
            assert entry["dataset"] == f"minari:D4RL/antmaze/{data}-v1" and entry["n_timesteps"] == timesteps
            assert (entry["alpha"], entry["gamma"], entry["q_agg"]) == (expected, 0.99, "mean")
    for hand, (alpha, alpha_online) in ADROIT.items():
        env_id = f"AdroitHand{hand}-v1"
        for entry, expected, timesteps in ((offline[env_id], alpha, 5e5), (online[env_id], alpha_online, 2e6)):
            assert entry["dataset"] == f"minari:D4RL/{hand.lower()}/cloned-v2" and entry["n_timesteps"] == timesteps
            assert (entry["alpha"], entry["gamma"], entry["q_agg"]) == (expected, 0.99, "min")
    comments = (FOLDER / "fql.yml").read_text("utf-8")
    for hand, alphas in ADROIT_OTHERS.items():
        for data, alpha in zip(("human", "expert"), alphas, strict=True):
            assert re.search(rf"\b{hand}/{data}-v2, alpha {alpha}\b", comments)


@pytest.mark.parametrize("dataset", ONLINE)
def test_published_offline_to_online_settings(dataset: str) -> None:
    entry = FILES["fql_offline_to_online"][env_of(dataset)]
    assert (entry["alpha"], entry["gamma"], entry["q_agg"]) == (*ONLINE[dataset], "mean")
    assert (entry["n_timesteps"], entry["offline_steps"]) == (2_000_000, 1_000_000) and not SHARED & set(entry)
    assert entry["dataset"] == f"ogbench:{dataset}-singletask-v0"


#: Arguments that need data.
OF_THE_DATA = {"dataset", "normalize_observations", "offline_steps"}
#: One task of each environment: the others share its entry, as the tests above have it.
ENTRIES = [
    pytest.param(file, env_id, id=f"{file}:{env_id}")
    for file, entries in FILES.items()
    for env_id in entries
    if env_id != "default" and (env_id.startswith("visual-") or not re.search("-task[1-5]-", env_id))
]


def make(env_id: str) -> gym.Env:
    """The environment; images need a renderer, so that those are made up."""
    assert env_id in gym.registry
    if env_id.startswith("visual-"):
        return AnySpaces(spaces.Box(0, 255, (64, 64, 3), np.uint8), spaces.Box(-1, 1, (5,), np.float32))
    return gym.make(env_id)


@pytest.mark.parametrize(("file", "env_id"), ENTRIES)
def test_an_entry_makes_a_model(file: str, env_id: str) -> None:
    """With smaller networks and buffers, and without its data; tasks of one environment share their entry."""
    for package, prefixes in ELSEWHERE.items():
        if env_id.startswith(prefixes):
            pytest.importorskip(package)
    register_environment(env_id)
    entry = FILES[file][env_id]
    known = policy_arguments(ALGORITHMS[algorithm_of(file)], entry["policy"])
    assert known is not None
    check_keys(entry.get("policy_kwargs", {}), known, file, env_id)
    env = DummyVecEnv([lambda: make(env_id)])
    arguments = {key: value for key, value in entry.items() if key not in ZOO_KEYS | OF_THE_DATA}
    arguments |= {"policy_kwargs": {"net_arch": [8]}, "buffer_size": 1, "device": "cpu"}
    if isinstance(entry.get("learning_rate"), str):  # of RL Zoo: lin_VALUE
        assert entry["learning_rate"].startswith("lin_")
        arguments["learning_rate"] = float(entry["learning_rate"].removeprefix("lin_"))
    stacked = VecFrameStack(env, entry["frame_stack"]) if "frame_stack" in entry else env
    model = ALGORITHMS[algorithm_of(file)](entry["policy"], stacked, **arguments)
    action, _ = model.predict(stacked.reset())
    assert isinstance(model.action_space, spaces.Box) and np.isfinite(action).all()
    stacked.close()


# Finding and reading them.


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_has_its_file(name: str) -> None:
    assert find_config(None, name) == str(config_path(name))
    assert "default" in read_entries(str(config_path(name)))


def test_files_are_found_by_name() -> None:
    assert find_config("fql_small", "fql") == str(FOLDER / "fql_small.yml")
    assert find_config("own.yml", "fql") == "own.yml"
    assert find_config("own.module", "fql") == "own.module"
    assert find_config(None, "ppo") is None  # RL Zoo's own


def test_arguments_reach_through_those_that_are_passed_on() -> None:
    class Base:
        def __init__(self, a: int, b: int = 0) -> None: ...

    class Open(Base):
        def __init__(self, c: int, **kwargs: Any) -> None: ...

    class Closed(Open):
        def __init__(self, d: int) -> None: ...

    assert arguments_of(Open) == {"a", "b", "c"}
    assert arguments_of(Closed) == {"d"}
