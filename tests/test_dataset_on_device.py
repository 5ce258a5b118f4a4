"""
``dataset_on_device``: what it does not go with, and what does not fit. ``conformance/test_device.py`` compares the batches, on
a stand-in device.
"""

from typing import Any

import numpy as np
import pytest
import torch as th
from conformance.environments import AnySpaces, collect, pendulum
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_flow import FQL

SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}, "batch_size": 16, "device": "cpu", "dataset_on_device": True}


def test_normalized_rewards_are_refused() -> None:
    env = VecNormalize(DummyVecEnv([pendulum]))
    with pytest.raises(ValueError, match="`VecNormalize` normalizes batches on the CPU: set `dataset_on_device=False`"):
        FQL("FlowPolicy", env, dataset=collect(pendulum), **SMALL)


def test_hindsight_is_refused() -> None:
    part, rows = spaces.Box(-1, 1, (1,), np.float32), np.zeros((4, 1), np.float32)
    goals = dict.fromkeys(("observation", "achieved_goal", "desired_goal"), rows)
    data = {
        "observations": goals,
        "next_observations": goals,
        "actions": rows,
        "rewards": rows[:, 0],
        "terminations": np.zeros(4, bool),
        "truncations": np.arange(4) == 3,
    }
    env = AnySpaces(spaces.Dict(dict.fromkeys(goals, part)), part)
    with pytest.raises(ValueError, match="`hindsight` computes rewards on the CPU: set `dataset_on_device=False`"):
        FQL("FlowPolicy", env, dataset=data, hindsight=1, **SMALL)


def test_a_dataset_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FQL("FlowPolicy", pendulum(), dataset=collect(pendulum), **SMALL)
    buffer = model.offline_buffer
    assert buffer is not None
    buffer.device = th.device("cuda")
    monkeypatch.setattr(th.cuda, "mem_get_info", lambda device: (1000, 2000))
    with pytest.raises(ValueError, match=r"dataset has 0.0 GiB, but cuda has only 0.0 GiB free"):
        buffer.move()
    assert buffer.actions.device.type == "cpu"


def test_it_is_saved(tmp_path: Any) -> None:
    FQL("FlowPolicy", pendulum(), dataset=collect(pendulum), **SMALL).save(tmp_path / "model")
    assert FQL.load(tmp_path / "model", device="cpu").dataset_on_device
