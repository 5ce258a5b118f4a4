"""``Algorithm("FlowPolicy", env).learn(n)``, with and without data."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from conformance.callbacks import Recorder
from conformance.case import AlgorithmCase, parameters, same_parameters
from conformance.environments import collect, maze, pendulum


@pytest.mark.parametrize("policy", ["FlowPolicy", "MlpPolicy", "MultiInputPolicy"])
def test_learns_online_from_scratch(online_algorithm: AlgorithmCase, policy: str) -> None:
    """Training on an environment steps it and changes the parameters, under every name of the policy."""
    model = online_algorithm.cls(policy, pendulum(), learning_starts=10, policy_kwargs={"net_arch": [16, 16]}, device="cpu")
    before = parameters(model)
    assert model.learn(40) is model
    assert (model.num_timesteps, model.n_env_steps, model.n_offline_updates) == (40, 40, 0)
    assert model._n_updates == 30, "one update after each step that follows the first `learning_starts`"
    assert not same_parameters(before, parameters(model))


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "Reacher-v5", "InvertedPendulum-v5"])
def test_environment_by_its_id(online_algorithm: AlgorithmCase, env_id: str) -> None:
    """Gymnasium makes the environment of an id, MuJoCo's too."""
    model = online_algorithm.make(env_id).learn(30)
    assert model.env is not None and model.env.get_attr("spec")[0].id == env_id
    assert model.n_env_steps == 30


def test_ogbench_environment_by_its_id_alone(online_algorithm: AlgorithmCase) -> None:
    """The id of an OGBench environment suffices in a fresh process, where nobody has imported ogbench."""
    script = (
        "import sys\n"
        f"from {online_algorithm.cls.__module__} import {online_algorithm.cls.__name__} as Algorithm\n"
        "assert 'ogbench' not in sys.modules\n"
        "model = Algorithm('FlowPolicy', 'pointmaze-medium-singletask-task1-v0', policy_kwargs={'net_arch': [16, 16]})\n"
        "print(model.learn(5).n_env_steps)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[-1] == "5"


def test_environment_that_does_not_exist(algorithm: AlgorithmCase) -> None:
    """An unknown id is Gymnasium's own error, with its suggestions."""
    with pytest.raises(Exception, match="NoSuchEnvironment"):
        algorithm.make("NoSuchEnvironment-v0")


def test_learn_without_a_number(algorithm: AlgorithmCase) -> None:
    """``learn()`` takes the documented default budget."""
    model = algorithm.make(pendulum(), dataset=collect(pendulum) if algorithm.offline else None)
    recorder = Recorder(stop_at=3)
    model.learn(callback=recorder)
    assert recorder.total_timesteps == algorithm.cls.default_timesteps == 1_000_000
    assert "default_timesteps" in (algorithm.cls.learn.__doc__ or "")
    assert model.num_timesteps == 3


@pytest.mark.parametrize("make_env", [pendulum, maze])
def test_learns_from_a_dictionary(offline_algorithm: AlgorithmCase, make_env: Callable[[], gym.Env]) -> None:
    """With data, one timestep is one gradient step."""
    model = offline_algorithm.make(make_env(), dataset=collect(make_env))
    before = parameters(model)
    model.learn(20)
    assert (model.num_timesteps, model.n_env_steps, model.n_offline_updates, model._n_updates) == (20, 0, 20, 20)
    assert not same_parameters(before, parameters(model))


def test_learns_from_a_file_by_its_path(offline_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """A path is understood by whoever imported the algorithm only."""
    path = tmp_path / "log.npz"
    np.savez(path, **collect(pendulum))
    script = (
        f"from {offline_algorithm.cls.__module__} import {offline_algorithm.cls.__name__} as Algorithm\n"
        f"model = Algorithm('FlowPolicy', 'Pendulum-v1', dataset={str(path)!r}, policy_kwargs={{'net_arch': [16, 16]}})\n"
        "print(model.learn(5).n_offline_updates)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[-1] == "5"
