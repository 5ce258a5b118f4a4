"""Bad data and bad arguments are refused before anything is trained or written, and the caller's objects are not changed."""

import copy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import CheckpointCallback

from conformance.callbacks import Recorder
from conformance.case import AlgorithmCase
from conformance.environments import collect, pendulum


def _with(field: str, row: int, value: float) -> dict[str, np.ndarray]:
    data = collect(pendulum)
    data[field] = data[field].astype(np.float64)
    data[field][row] = value
    return data


def _without(field: str) -> dict[str, np.ndarray]:
    data = collect(pendulum)
    del data[field]
    return data


def _empty() -> dict[str, np.ndarray]:
    return {name: column[:0] for name, column in collect(pendulum).items()}


def _reshaped(field: str, rows: slice, columns: slice) -> dict[str, np.ndarray]:
    data = collect(pendulum)
    data[field] = data[field][rows, columns] if data[field].ndim > 1 else data[field][rows]
    return data


ALL = slice(None)
BAD_DATA = {
    "NaN in the observations": (lambda: _with("observations", 17, np.nan), r"`observations` row 17 .*nan"),
    "NaN in what follows": (lambda: _with("next_observations", 3, np.nan), r"`next_observations` row 3 .*nan"),
    "infinite reward": (lambda: _with("rewards", 5, np.inf), r"`rewards` row 5 .*inf"),
    "NaN in the actions": (lambda: _with("actions", 0, np.nan), r"`actions` row 0 .*nan"),
    "action outside": (lambda: _with("actions", 8, 2.5), r"`actions` row 8 is \[2\.5\], outside"),
    "flag that is none": (lambda: _with("terminations", 2, 0.5), r"`terminations` row 2 is 0\.5"),
    "short observations": (lambda: _reshaped("observations", slice(150), ALL), r"`observations` has 150 rows.*200"),
    "short rewards": (lambda: _reshaped("rewards", slice(150), ALL), r"`rewards` has 150 rows.*200"),
    "wrong observation": (lambda: _reshaped("observations", ALL, slice(2)), r"`observations` has the shape \(2,\).*\(3,\)"),
    "wrong action": (lambda: {**collect(pendulum), "actions": np.zeros((200, 2))}, r"`actions` has shape \(200, 2\).*\(1,\)"),
    "no observations": (lambda: _without("observations"), "`observations` is missing"),
    "no actions": (lambda: _without("actions"), "`actions` is missing"),
    "nothing in it": (_empty, "no transition"),
    "words": (lambda: {**collect(pendulum), "rewards": np.array(["x"] * 200)}, r"`rewards` has .*; expected numbers"),
    "no data at all": (lambda: 17, "Cannot read 17 as a dataset"),
}


@pytest.mark.one_variant
def test_bad_data(offline_algorithm: AlgorithmCase, subtests: pytest.Subtests) -> None:
    """The error names the field, the row and the value, and what was expected."""
    env = pendulum()
    for name, (make_data, message) in BAD_DATA.items():
        with subtests.test(name), pytest.raises(ValueError, match=message):
            offline_algorithm.make(env, dataset=make_data())


def test_data_without_rewards(offline_algorithm: AlgorithmCase) -> None:
    """An algorithm that needs rewards says so; one that imitates trains without."""
    if offline_algorithm.cls.needs_rewards:
        with pytest.raises(ValueError, match="no rewards"):
            offline_algorithm.make(pendulum(), dataset=_without("rewards"))
    else:
        offline_algorithm.make(pendulum(), dataset=_without("rewards")).learn(1)


def test_offline_steps_without_data(two_phase_algorithm: AlgorithmCase) -> None:
    """An offline phase needs a dataset."""
    with pytest.raises(ValueError, match=r"`offline_steps=5` needs a dataset.*`dataset`"):
        two_phase_algorithm.make(pendulum(), offline_steps=5)


BAD_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"batch_size": 0}, "`batch_size` is 0"),
    ({"crop_probability": 2.0}, "`crop_probability` is 2.0"),
    ({"learning_rate": -1.0}, "`learning_rate` is -1.0"),
    ({"policy_kwargs": {"net_arch": []}}, "`net_arch` is empty"),
    ({"policy_kwargs": {"net_arch": [8], "activation": "gellu"}}, "'gellu'.*gelu"),
    ({"policy_kwargs": {"net_arch": [8], "n_critics": 0}}, "`n_critics` is 0"),
    ({"policy_kwargs": {"net_ark": [8]}}, "net_ark"),
    ({"no_such_argument": 1}, "no_such_argument"),
]
BAD_ARGUMENTS_ONLINE: list[tuple[dict[str, Any], str]] = [
    ({"n_steps": 0}, "`n_steps` is 0"),
    ({"offline_steps": -1}, "`offline_steps` is -1"),
    ({"gamma": 1.5}, "`gamma` is 1.5"),
    ({"tau": -0.1}, "`tau` is -0.1"),
    ({"gradient_steps": -2}, "`gradient_steps` is -2"),
    ({"train_freq": (1, "year")}, "year"),
]


@pytest.mark.one_variant
def test_bad_arguments(algorithm: AlgorithmCase, subtests: pytest.Subtests) -> None:
    """The error comes when the model is made, and names the argument and its value."""
    env = pendulum()
    for arguments, message in BAD_ARGUMENTS + BAD_ARGUMENTS_ONLINE * algorithm.online:
        with subtests.test(message), pytest.raises((ValueError, TypeError), match=message):
            algorithm.make(env, **arguments)


class Infinite(gym.RewardWrapper):
    """Its reward is infinite from some step on."""

    def __init__(self, env: gym.Env, after: int) -> None:
        super().__init__(env)
        self.left = after

    def reward(self, reward: Any) -> float:
        self.left -= 1
        return float("inf") if self.left < 0 else float(reward)


def test_loss_that_is_not_finite_offline(offline_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """A learning rate that destroys the parameters is a ``ValueError``, before any callback could save them."""
    model = offline_algorithm.make(pendulum(), dataset=collect(pendulum), learning_rate=1e30)
    recorder = Recorder()
    with pytest.raises(ValueError, match=r"not finite.*learning rate"):
        model.learn(20, callback=[recorder, CheckpointCallback(1, str(tmp_path))])
    assert recorder.ends == 1
    saved = sorted(tmp_path.glob("*.zip"))
    assert len(saved) == len(recorder.clock) == model._n_updates - 1 < 19
    data = collect(pendulum)
    for path in saved:
        offline_algorithm.load(path, env=pendulum(), dataset=data)


def test_reward_that_is_not_finite(online_algorithm: AlgorithmCase) -> None:
    """An infinite reward of the environment stops training before it is stored; what was collected before it stays."""
    model = online_algorithm.make(Infinite(pendulum(), after=6), learning_starts=4, batch_size=64)
    with pytest.raises(ValueError, match="After 7 environment steps, the reward of environment 0 is inf"):
        model.learn(100)
    assert len(model.replay_buffer) == 6
    assert np.isfinite(model.replay_buffer.rewards).all()
    assert all(bool(value.isfinite().all()) for value in model.policy.state_dict().values())


@pytest.mark.one_variant
def test_dictionaries_and_arrays_are_not_changed(two_phase_algorithm: AlgorithmCase) -> None:
    """``policy_kwargs`` and the data are as they were after training; the data may even be write-protected."""
    data = collect(pendulum)
    data["actions"][3] = 2.0005  # inside by rounding only, so that it is clipped in a copy
    for column in data.values():
        column.setflags(write=False)
    policy_kwargs = {"net_arch": [16, 16], "optimizer_kwargs": {"betas": (0.9, 0.99)}, "features_extractor_kwargs": {}}
    original_data, original_kwargs = copy.deepcopy(data), copy.deepcopy(policy_kwargs)
    two_phase_algorithm.make(
        pendulum(), dataset=data, offline_steps=2, policy_kwargs=policy_kwargs, normalize_observations=True
    ).learn(14)
    assert policy_kwargs == original_kwargs
    assert data.keys() == original_data.keys()
    for name in data:
        np.testing.assert_array_equal(data[name], original_data[name])
        assert data[name].dtype == original_data[name].dtype
