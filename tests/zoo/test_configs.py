"""The shipped configurations: what the papers published, on environments and arguments that exist."""

import inspect
import re
from fnmatch import fnmatchcase
from fractions import Fraction
from itertools import product
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from conformance.environments import AnySpaces
from gymnasium import spaces
from shipped_configs import FILES, FOLDER, TASKS, WRITTEN, names_of
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack

from sb3_flow.common.arguments import hints_of, policy_arguments
from sb3_flow.common.environments import register_environment
from sb3_flow.common.offline_to_online_algorithm import OfflineToOnlineAlgorithm
from sb3_flow.zoo.algorithms import ALGORITHMS
from sb3_flow.zoo.configs import ZOO_KEYS, check_entry, check_keys, config_path, find_config, read_entries

#: Packages whose environments we configure, but that need not be there; how their ids begin.
ELSEWHERE = {
    "gymnasium_robotics": ("AntMaze_", "AdroitHand"),
    "Box2D": ("LunarLander", "BipedalWalker"),
    "dm_control": ("dm_control/",),
    "shimmy": ("dm_control/",),
    "gym_pusht": ("gym_pusht/",),
}

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
    return f"{re.sub('-(navigate|play|noisy|stitch|explore)$', '', dataset)}-singletask{task}-v0"


@pytest.mark.parametrize("dataset", OGBENCH)
def test_published_offline_settings(dataset: str) -> None:
    for task in TASKS:
        entry = FILES["fql"][env_of(dataset, task)]
        assert (entry["alpha"], entry["gamma"], entry["q_agg"]) == OGBENCH[dataset], task
        assert entry["dataset"] == f"ogbench:{dataset}-singletask{task}-v0"
        assert entry["n_timesteps"] == 1e6 and not SHARED & set(entry) and "offline_steps" not in entry, task


def test_published_settings_from_images() -> None:
    for name, alpha in PIXELS.items():
        entry = FILES["fql"][f"visual-{name}-singletask-task1-v0"]
        assert (entry["alpha"], entry["frame_stack"], entry["n_timesteps"]) == (alpha, 3, 5e5), name
        assert not {"gamma", "q_agg", "crop_probability", *SHARED} & set(entry), name  # the defaults: 0.99, the mean, 0.5


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


# QAM: 1M updates on the data, 500k steps online.

#: tau of QAM, tau and edit_scale of QAM-EDIT, tau and alpha of QAM-FQL.
QAM = {
    "antmaze-large-navigate": (10, (1, 0.1), (3, 30)),
    "antmaze-giant-navigate": (3, (10, 0.1), (3, 30)),
    "humanoidmaze-medium-navigate": (3, (3, 0.1), (1, 30)),
    "humanoidmaze-large-navigate": (3, (3, 0.1), (0.3, 30)),
    "scene-play": (1, (1, 0), (1, 300)),
    "puzzle-3x3-play": (3, (1, 0.1), (3, 0)),
    "puzzle-4x4-play": (30, (0.1, 0.9), (3, 3)),
    "cube-double-play": (1, (1, 0), (1, 0)),
    "cube-triple-play": (3, (3, 0.1), (10, 300)),
    "cube-quadruple-play": (1, (3, 0.1), (0.3, 30)),
}


@pytest.mark.parametrize("dataset", QAM)
def test_published_settings_of_qam(dataset: str) -> None:
    plain, edit, fql = QAM[dataset]
    variants = {
        "qam": {"inv_temp": plain},
        "qam_edit": {"inv_temp": edit[0], "edit_scale": edit[1]},
        "qam_fql": {"inv_temp": fql[0], "fql_alpha": fql[1]},
    }
    for (name, extra), task in product(variants.items(), TASKS):
        env_id = env_of(dataset, task)
        slow = env_id.startswith(("humanoidmaze-", "antmaze-giant-"))
        sparse = env_id.startswith(("scene-", "puzzle-"))
        assert FILES[name][env_id] == {
            "policy": "FlowPolicy",
            "dataset": f"ogbench:{dataset}-singletask{task}-v0",
            "n_timesteps": 1_500_000,
            "offline_steps": 1_000_000,
            "learning_starts": 5_000,
            "gamma": 0.995 if slow else 0.99,
            "rho": 0 if env_id.startswith("humanoidmaze-") else 0.5,
            "horizon_length": 1 if "maze-" in env_id else 5,
            **({"sparse_rewards": True} if sparse else {}),
            **extra,
        }, (name, task)


@pytest.mark.parametrize("dataset", QAM)
def test_published_settings_of_trust_region_qam(dataset: str) -> None:
    """What its release says, and of the budgets the only one that is known beside the default."""
    entry = FILES["qam_kl"][env_of(dataset, "-task3")]
    humanoid = dataset.startswith("humanoidmaze-")
    assert (entry["gamma"], entry["rho"]) == ((0.999, 0) if humanoid else (0.995, 0.5))
    assert entry["kl_budget"] == (0.5 if dataset == "cube-triple-play" else 1)
    same = ("n_timesteps", "offline_steps", "learning_starts", "dataset", "horizon_length", "sparse_rewards")
    plain = FILES["qam"][env_of(dataset, "-task3")]
    assert {name: entry.get(name) for name in same} == {name: plain.get(name) for name in same}


# RQL: alpha and expectile.

RQL = {
    "antmaze-large-navigate": (0.1, 0.5),
    "antmaze-giant-navigate": (0.1, 0.5),
    "humanoidmaze-medium-navigate": (0.3, 0.5),
    "humanoidmaze-large-navigate": (0.3, 0.5),
    "scene-play": (3, 0.7),
    "puzzle-3x3-play": (1, 0.7),
    "puzzle-4x4-play": (1, 0.9),
    "cube-double-play": (10, 0.9),
    "cube-triple-play": (1, 0.9),
    "cube-quadruple-play": (1, 0.7),
}


@pytest.mark.parametrize("dataset", RQL)
@pytest.mark.parametrize("task", TASKS)
def test_published_settings_of_rql(dataset: str, task: str) -> None:
    env_id = env_of(dataset, task)
    alpha, expectile = RQL[dataset]
    entry = dict(FILES["rql"][env_id])
    assert entry.pop("sparse_rewards", False) == env_id.startswith(("scene-", "puzzle-"))
    assert entry == {
        "policy": "FlowPolicy",
        "dataset": f"ogbench:{dataset}-singletask{task}-v0",
        "n_timesteps": 1e6,
        "alpha": alpha,
        "expectile": expectile,
        "gamma": 0.995 if env_id.startswith(("humanoidmaze-", "antmaze-giant-")) else 0.99,
        "rho": 0 if env_id.startswith("humanoidmaze-") else 0.5,
        "horizon_length": 1 if "maze-" in env_id else 5,
    }


def test_what_rql_leaves_out_is_the_constructors() -> None:
    model = ALGORITHMS["rql"]("FlowPolicy", "Pendulum-v1", device="cpu", buffer_size=1)
    shared = {"learning_rate": 3e-4, "batch_size": 256, "tau": 0.005, "flow_steps": 10, "ema": 0.999, "max_grad_norm": None}
    assert {name: getattr(model, name) for name in shared} == shared
    assert model.policy.net_arch == [512] * 4 and model.policy.n_critics == 10


def test_what_qam_leaves_out_is_the_constructors() -> None:
    model = ALGORITHMS["qam"]("FlowPolicy", "Pendulum-v1", device="cpu", buffer_size=1)
    shared = {"learning_rate": 3e-4, "batch_size": 256, "tau": 0.005, "flow_steps": 10, "max_grad_norm": 1.0}
    assert {name: getattr(model, name) for name in shared} == shared
    assert model.policy.net_arch == [512] * 4 and model.policy.n_critics == 10
    # Nothing that was collected online is overwritten.
    assert inspect.signature(OfflineToOnlineAlgorithm).parameters["buffer_size"].default >= 500_000


# GFP: batch size, gamma, flow steps, the aggregations of critics, target and guidance, alpha, eta.

MAZE, SOCCER, BLOCKS, CUBES = (
    ("min", "actor", "min"),
    ("mean", "actor", "min"),
    ("mean", "actor", "actor"),
    ("mean", "mean", "actor"),
)
HUMANOID = ("mean", "mean", "min")
GFP: dict[str, dict[str, tuple[Any, ...]]] = {
    "gfp": {
        "antmaze-giant-navigate": (1024, 0.995, 10, *MAZE, 0.1, 0.1),
        "antmaze-large-navigate": (256, 0.995, 10, *MAZE, 0.3, 1e-4),
        "antsoccer-arena-navigate": (256, 0.995, 10, *SOCCER, 0.1, 0.01),
        "cube-double-play": (256, 0.99, 10, *CUBES, 1, 0.01),
        "cube-single-play": (256, 0.99, 10, *CUBES, 10, 0.1),
        "cube-triple-play": (1024, 0.99, 10, *CUBES, 1, 1e-5),
        "humanoidmaze-large-navigate": (1024, 0.999, 30, *SOCCER, 0.3, 1e-4),
        "humanoidmaze-medium-navigate": (256, 0.995, 10, *HUMANOID, 0.3, 1e-3),
        "puzzle-3x3-play": (256, 0.99, 10, *BLOCKS, 3, 1e-3),
        "puzzle-4x4-play": (256, 0.99, 10, *BLOCKS, 3, 1e-5),
        "scene-play": (256, 0.99, 10, *BLOCKS, 10, 1e-3),
    },
    "gfp_noisy": {
        "cube-double-noisy": (256, 0.99, 10, *CUBES, 0.1, 1e-4),
        "cube-single-noisy": (256, 0.99, 10, *CUBES, 10, 1e-3),
        "cube-triple-noisy": (1024, 0.99, 10, *CUBES, 0.1, 1e-5),
        "puzzle-4x4-noisy": (256, 0.99, 10, *BLOCKS, 3, 1e-3),
        "scene-noisy": (256, 0.99, 10, *BLOCKS, 1, 1e-4),
    },
    "gfp_stitch": {
        "antmaze-large-stitch": (256, 0.995, 10, *MAZE, 0.3, 1e-6),
        "antsoccer-arena-stitch": (256, 0.995, 10, *SOCCER, 0.1, 0.01),
        "humanoidmaze-medium-stitch": (256, 0.999, 10, *HUMANOID, 0.3, 1e-3),
    },
    "gfp_explore": {"antmaze-large-explore": (1024, 0.995, 10, *MAZE, 0.01, 1e-6)},
    "gfp_advantage": {
        "antmaze-giant-navigate": (1024, 0.995, 10, "min", "actor", "actor", 0.1, 0.3),
        "antmaze-large-stitch": (256, 0.995, 10, *MAZE, 0.1, 0.3),
        "antsoccer-arena-stitch": (256, 0.995, 10, *BLOCKS, 0.1, 0.1),
        "cube-double-play": (256, 0.99, 10, *CUBES, 1, 0.1),
        "cube-triple-play": (1024, 0.99, 10, *CUBES, 1, 3),
        "humanoidmaze-large-navigate": (1024, 0.999, 30, *CUBES, 0.3, 0.1),
        "humanoidmaze-medium-navigate": (256, 0.995, 10, *CUBES, 0.3, 0.3),
        "puzzle-3x3-play": (256, 0.99, 10, *CUBES, 3, 1),
        "puzzle-4x4-play": (256, 0.99, 10, *CUBES, 1, 0.3),
    },
}
#: Other data of the environments in gfp_advantage.yml, as its comments have it: what differs from the entry.
GFP_ADVANTAGE_OTHERS = {
    "cube-double-noisy": "alpha 0.1, eta 0.1",
    "cube-triple-noisy": "alpha 0.03, eta 1",
    "humanoidmaze-medium-stitch": "gamma 0.999, alpha 0.3, eta 0.1",
    "puzzle-4x4-noisy": "alpha 0.3, eta 0.1",
}
GFP_PIXELS = {
    "cube-single": (*CUBES, 10, 0.1),
    "cube-double": (*CUBES, 0.3, 0.01),
    "scene": (*BLOCKS, 10, 1e-3),
    "puzzle-3x3": (*BLOCKS, 3, 0.01),
    "puzzle-4x4": (*BLOCKS, 1, 1e-4),
}
#: alpha and eta by data, of the entries and of the comments: D4RL's AntMaze and Adroit, and Minari's.
GFP_DATA = {
    "minari:D4RL/antmaze/umaze-v1": (0.1, 1e-3),
    "minari:D4RL/antmaze/umaze-diverse-v1": (0.1, 1e-3),
    "minari:D4RL/antmaze/medium-play-v1": (0.03, 1e-3),
    "minari:D4RL/antmaze/medium-diverse-v1": (0.03, 1e-3),
    "minari:D4RL/antmaze/large-play-v1": (0.03, 1e-5),
    "minari:D4RL/antmaze/large-diverse-v1": (0.03, 1e-5),
    "door-cloned-v1.hdf5": (10, 0.01),
    "door-expert-v1.hdf5": (10, 0.01),
    "door-human-v1.hdf5": (10, 0.01),
    "hammer-cloned-v1.hdf5": (10, 1e-5),
    "hammer-expert-v1.hdf5": (10, 0.01),
    "hammer-human-v1.hdf5": (10, 1e-5),
    "pen-cloned-v1.hdf5": (3, 1e-5),
    "pen-expert-v1.hdf5": (1, 1e-3),
    "pen-human-v1.hdf5": (3, 1e-4),
    "relocate-cloned-v1.hdf5": (10, 1e-4),
    "relocate-expert-v1.hdf5": (10, 1e-4),
    "relocate-human-v1.hdf5": (10, 1e-4),
    "minari:D4RL/door/cloned-v2": (0.03, 1e-6),
    "minari:D4RL/door/expert-v2": (3, 1e-3),
    "minari:D4RL/door/human-v2": (0.01, 0.01),
    "minari:D4RL/hammer/cloned-v2": (3, 1e-5),
    "minari:D4RL/hammer/expert-v2": (1, 1e-5),
    "minari:D4RL/hammer/human-v2": (1, 0.01),
    "minari:D4RL/pen/cloned-v2": (1, 1e-4),
    "minari:D4RL/pen/expert-v2": (0.3, 1e-6),
    "minari:D4RL/pen/human-v2": (3, 1e-6),
    "minari:D4RL/relocate/cloned-v2": (3, 1e-4),
    "minari:D4RL/relocate/expert-v2": (3, 1e-3),
    "minari:D4RL/relocate/human-v2": (3, 1e-5),
    "minari:mujoco/halfcheetah/expert-v0": (3, 0.01),
    "minari:mujoco/halfcheetah/medium-v0": (0.1, 1e-3),
    "minari:mujoco/halfcheetah/simple-v0": (0.03, 1e-6),
    "minari:mujoco/hopper/expert-v0": (3, 0.01),
    "minari:mujoco/hopper/medium-v0": (3, 1e-3),
    "minari:mujoco/hopper/simple-v0": (3, 1e-3),
    "minari:mujoco/walker2d/expert-v0": (3, 1e-3),
    "minari:mujoco/walker2d/medium-v0": (0.3, 0.01),
    "minari:mujoco/walker2d/simple-v0": (3, 0.1),
}


def aggregations(entry: dict[str, Any]) -> tuple[Any, ...]:
    return entry["q_agg"], entry["target_agg"], entry["guidance_agg"], entry["alpha"], entry["eta"]


@pytest.mark.parametrize(("file", "dataset"), [(file, dataset) for file, datasets in GFP.items() for dataset in datasets])
def test_published_settings_of_gfp(file: str, dataset: str) -> None:
    for task in TASKS:
        entry = FILES[file][env_of(dataset, task)]
        settings = entry.get("batch_size", 256), entry["gamma"], entry.get("flow_steps", 10), *aggregations(entry)
        assert settings == GFP[file][dataset], task
        assert entry["dataset"] == f"ogbench:{dataset}-singletask{task}-v0" and entry["n_timesteps"] == 1e6
        assert entry.get("guidance_fn", "softmax") == ("advantage" if file == "gfp_advantage" else "softmax"), task
        assert not SHARED - {"batch_size", "flow_steps"} & set(entry) and "offline_steps" not in entry, task


def test_published_settings_of_gfp_from_images() -> None:
    for name, settings in GFP_PIXELS.items():
        entry = FILES["gfp"][f"visual-{name}-singletask-task1-v0"]
        assert aggregations(entry) == settings, name
        assert (entry["gamma"], entry["frame_stack"], entry["n_timesteps"]) == (0.99, 3, 5e5), name
        assert not {"crop_probability", *SHARED} & set(entry), name


def test_published_settings_of_gfp_on_d4rl_and_minari() -> None:
    found: dict[str, tuple[float, float]] = {}
    for env_id, entry in FILES["gfp"].items():
        if not entry.get("dataset", "").startswith("minari:"):
            continue
        antmaze = env_id.startswith("AntMaze_")
        assert aggregations(entry)[:3] == (("min" if antmaze else "mean"), "actor", "actor")
        assert (entry["gamma"], entry["n_timesteps"]) == (0.99, 5e5 if antmaze else 1e6)
        assert entry.get("batch_size", 256) == (1024 if "/mujoco/" in entry["dataset"].replace(":", "/") else 256)
        assert not SHARED - {"batch_size"} & set(entry)
        found[entry["dataset"]] = entry["alpha"], entry["eta"]
    for data, alpha, eta in re.findall(
        r"# also (\S+): alpha (\S+), eta (\S+)$", (FOLDER / "gfp.yml").read_text("utf-8"), re.M
    ):
        assert data not in found
        found[data] = float(alpha), float(eta)
    assert found == GFP_DATA


def test_published_settings_of_gfp_by_advantage_on_other_data() -> None:
    comments = re.findall(
        r"^(\S+)-singletask\*-v0:  # .*; also (\S+), (.*)$", (FOLDER / "gfp_advantage.yml").read_text("utf-8"), re.M
    )
    assert {data: settings for _, data, settings in comments} == GFP_ADVANTAGE_OTHERS
    assert all(data.startswith(f"{env}-") for env, data, _ in comments)


def test_what_gfp_leaves_out_is_the_constructors() -> None:
    model = ALGORITHMS["gfp"]("FlowPolicy", "Pendulum-v1", device="cpu", buffer_size=1)
    shared = {"learning_rate": 3e-4, "batch_size": 256, "tau": 0.005, "flow_steps": 10, "max_grad_norm": None}
    shared |= {"normalize_q_loss": True, "guidance_fn": "softmax"}
    assert {name: getattr(model, name) for name in shared} == shared
    assert model.policy.net_arch == [512] * 4 and model.policy.n_critics == 2
    assert FILES["gfp"]["default"].items() >= {"alpha": model.alpha, "eta": model.eta}.items()  # the release's


#: dm_control's tasks from images, that the published code of FPMD has.
DM_CONTROL = {
    **{"acrobot": "swingup", "ball_in_cup": "catch", "cartpole": "balance swingup swingup_sparse", "cheetah": "run"},
    **{"dog": "stand walk trot run fetch", "finger": "spin turn_hard", "hopper": "stand hop", "humanoid": "stand walk"},
    **{"manipulator": "bring_ball", "pendulum": "swingup", "quadruped": "walk run escape fetch", "reacher": "hard"},
    **{"stacker": "stack_2", "walker": "stand walk run"},
}


@pytest.mark.parametrize("file", ["fpmd_pixels", "fpmd_m_pixels"])
def test_published_settings_of_fpmd_from_images(file: str) -> None:
    """Half a million steps beside the random ones, of two steps of the simulation each; three frames of 84 pixels."""
    entries = {name: dict(entry) for name, entry in FILES[file].items() if name != "default"}
    assert set(entries) == {f"dm_control/{robot}-{task}-v0" for robot, tasks in DM_CONTROL.items() for task in tasks.split()}
    expected = {"policy": "FlowPolicy", "n_envs": 5, "n_timesteps": 530_000, "buffer_size": 1_000_000}
    expected |= {"learning_starts": 30_000, "gradient_steps": 1, "train_freq": 1}
    expected |= {"flow": "mean"} if "_m_" in file else {}
    for name, entry in entries.items():
        (wrapper,) = entry.pop("env_wrapper")
        options = dict(*wrapper.values())
        assert entry == expected and list(wrapper) == ["sb3_flow.envs.pixels.PixelObservation"]
        assert options.pop("camera", 0) == (2 if "quadruped" in name else 0)
        assert options == {"size": 84, "frame_stack": 3, "action_repeat": 2}


#: Streaming flow's published scripts: one task, with and without the latent.
@pytest.mark.parametrize("file", ["streaming_flow", "streaming_flow_stochastic"])
def test_published_settings_of_streaming_flow(file: str) -> None:
    entry = dict(FILES[file]["gym_pusht/PushT-v0"])
    assert (entry["n_timesteps"], entry["batch_size"], entry["k"]) == (24_000, 1024, 0)
    assert (entry["sigma_0"], entry.get("sigma_1")) == (0.1, 0.1 if "stochastic" in file else None)
    assert entry["policy_kwargs"] == {"modulated": True, "net_arch": [256, 512, 1024], "encode_time_dim": 256}
    assert entry["start_from"] == [0, 1] and entry.get("stochastic", False) == ("stochastic" in file)
    # The defaults: 8 of 16 actions, two observations, a learning rate of 1e-4 that rises over 2% (of 24,000: 480 updates).
    defaults = inspect.signature(ALGORITHMS["streaming_flow"]).parameters
    assert (defaults["learning_rate"].default, defaults["horizon_length"].default) == (1e-4, 16)
    assert (defaults["n_obs_steps"].default, defaults["cosine"].default, defaults["warm_up"].default) == (2, True, 0.02)
    assert not {"learning_rate", "horizon_length", "n_action_steps", "n_obs_steps", "cosine", "warm_up"} & set(entry)


# Decision Flow: nothing is published. Its outer loop is GFP's, its weights are derived from GFP's alpha.

#: Dimensions of an action, by how ids begin.
ACTION_DIM = {
    "visual-": 5,
    **dict.fromkeys(("cube-", "scene-", "puzzle-"), 5),
    **dict.fromkeys(("antmaze-", "AntMaze_", "antsoccer-"), 8),
    "humanoidmaze-": 21,
    **{"AdroitHandPen": 24, "AdroitHandDoor": 28, "AdroitHandHammer": 26, "AdroitHandRelocate": 30},
    **{"HalfCheetah": 6, "Hopper": 3, "Walker2d": 6},
}


def action_dim(env_id: str) -> int:
    (dim,) = {dim for prefix, dim in ACTION_DIM.items() if env_id.startswith(prefix)}
    return dim


def test_settings_of_decision_flow_are_derived_from_those_of_gfp() -> None:
    """A velocity shifted by an action's shift costs what the shift costs in GFP: w = alpha / d, beta = 2 alpha / d."""
    for env_id in FILES["gfp"].keys() - {"default", "Pendulum-v1"}:
        entry = dict(FILES["gfp"][env_id])
        alpha = entry.pop("alpha")
        for name in ("eta", "target_agg", "guidance_agg"):
            del entry[name]
        for file, weight, factor in (("decision_flow", "fm_coef", 1), ("decision_flow_div", "beta", 2)):
            found = dict(FILES[file][env_id])
            assert found.pop(weight) == float(factor * Fraction(str(alpha)) / action_dim(env_id)), (file, env_id)
            assert found == {**entry, **({"variant": "div"} if file == "decision_flow_div" else {})}, (file, env_id)


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("decision_flow")])
def test_variants_of_decision_flow(file: str) -> None:
    """Every entry is of the variant that its file is named after, so that no weight is refused."""
    for entry in FILES[file].values():
        assert entry.get("variant", "dir") == ("div" if "_div" in file else "dir")
        assert ("beta" in entry, "fm_coef" in entry) == (("_div" in file), ("_div" not in file))


#: Arguments that need data.
OF_THE_DATA = {"dataset", "normalize_observations", "offline_steps"}
#: One task of each environment: the others share its entry, as the tests above have it.
ENVIRONMENTS = [
    env_id
    for env_id in sorted({env_id for entries in FILES.values() for env_id in entries})
    if env_id != "default" and (env_id.startswith("visual-") or not re.search("-task[1-5]-", env_id))
    if not env_id.startswith("dm_control/") or "p-swingup-" in env_id or "walker-walk" in env_id
]


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ENVIRONMENTS)
def test_entries_make_models(env_id: str) -> None:
    """
    Those of all files for one environment, with smaller networks and buffers, and without their data.

    Images need a renderer, so that those are made up.
    """
    for package, prefixes in ELSEWHERE.items():
        if env_id.startswith(prefixes):
            pytest.importorskip(package)
    register_environment(env_id)
    assert env_id in gym.registry
    entries = {file: FILES[file][env_id] for file in FILES if env_id in FILES[file]}
    if env_id.startswith("visual-") or any("env_wrapper" in entry for entry in entries.values()):
        env: gym.Env = AnySpaces(spaces.Box(0, 255, (64, 64, 3), np.uint8), spaces.Box(-1, 1, (5,), np.float32))
    else:
        env = gym.make(env_id)
        if any(env_id.startswith(prefix) for prefix in ACTION_DIM):
            assert env.action_space.shape == (action_dim(env_id),)
    for file, entry in entries.items():
        algorithm = ALGORITHMS[algorithm_of(file)]
        known = policy_arguments(algorithm, entry["policy"])
        assert known is not None, file
        check_keys(entry.get("policy_kwargs", {}), known, file, env_id)
        arguments = {key: value for key, value in entry.items() if key not in ZOO_KEYS | OF_THE_DATA}
        arguments |= {"policy_kwargs": {"net_arch": [8]}, "device": "cpu"}
        if issubclass(algorithm, OfflineToOnlineAlgorithm):
            arguments["buffer_size"] = 1
        if isinstance(entry.get("learning_rate"), str):  # of RL Zoo: lin_VALUE
            assert entry["learning_rate"].startswith("lin_"), file
            arguments["learning_rate"] = float(entry["learning_rate"].removeprefix("lin_"))
        vec_env: VecEnv = DummyVecEnv([lambda: env])
        if "frame_stack" in entry:
            vec_env = VecFrameStack(vec_env, entry["frame_stack"])
        model = algorithm(entry["policy"], vec_env, **arguments)
        action, _ = model.predict(vec_env.reset())
        assert isinstance(model.action_space, spaces.Box) and np.isfinite(action).all(), file
    env.close()


# How they are written.

PATTERNS = sorted({name for entries in WRITTEN.values() for name in entries if "*" in name})


def test_a_pattern_stands_for_the_tasks_of_one_environment() -> None:
    """And for no other environment that there is."""
    for pattern in PATTERNS:
        register_environment(pattern)
        assert {env_id for env_id in gym.registry if fnmatchcase(env_id, pattern)} == set(names_of(pattern)), pattern


def test_tasks_that_share_their_settings_share_an_entry() -> None:
    """No entry stands there for every task, and every environment has one."""
    for file in FILES:
        names = [name for pattern in WRITTEN[file] for name in names_of(pattern)]
        assert len(names) == len(set(names)), file
        assert not [name for name in WRITTEN[file] if re.search("-task[2-5]-", name)], file


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

    assert hints_of(Open).keys() == {"a", "b", "c"}
    assert hints_of(Closed).keys() == {"d"}


def test_an_argument_of_the_policy_is_named_as_such() -> None:
    """In a configuration as in Python."""
    with pytest.raises(ValueError, match=r"file: FQL has no argument `n_critics`: it belongs to the policy: policy_kwargs="):
        check_entry({"policy": "FlowPolicy", "n_timesteps": 10, "n_critics": 2}, ALGORITHMS["fql"], lambda _: "file")
