"""``Algorithm("FlowPolicy", env).learn(n)``, with and without data."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th

from conformance.algorithms import ALGORITHMS
from conformance.callbacks import Recorder
from conformance.case import AlgorithmCase, parameters, same_parameters
from conformance.environments import collect, maze, pendulum


@pytest.mark.parametrize("policy", ["FlowPolicy", "MlpPolicy", "MultiInputPolicy"])
@pytest.mark.one_variant
def test_learns_online_from_scratch(online_algorithm: AlgorithmCase, policy: str) -> None:
    """Training on an environment steps it and changes the parameters, under every name of the policy."""
    model = online_algorithm.cls(policy, pendulum(), learning_starts=10, policy_kwargs={"net_arch": [16, 16]}, device="cpu")
    before = parameters(model)
    assert model.learn(13) is model
    assert (model.num_timesteps, model.n_env_steps, model.n_offline_updates) == (13, 13, 0)
    assert model._n_updates == 3, "one update after each step that follows the first `learning_starts`"
    assert not same_parameters(before, parameters(model))


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "Reacher-v5", "InvertedPendulum-v5"])
@pytest.mark.one_variant
def test_environment_by_its_id(online_algorithm: AlgorithmCase, env_id: str) -> None:
    """Gymnasium makes the environment of an id, MuJoCo's too."""
    model = online_algorithm.make(env_id).learn(12)
    assert model.env is not None and model.env.get_attr("spec")[0].id == env_id
    assert model.n_env_steps == 12


def test_environment_that_does_not_exist(algorithm: AlgorithmCase) -> None:
    """An unknown id is Gymnasium's own error, with its suggestions."""
    with pytest.raises(Exception, match="NoSuchEnvironment"):
        algorithm.make("NoSuchEnvironment-v0")


@pytest.mark.one_variant
def test_learn_without_a_number(algorithm: AlgorithmCase) -> None:
    """``learn()`` takes the documented default budget."""
    model = algorithm.make(pendulum(), dataset=collect(pendulum) if algorithm.offline else None)
    recorder = Recorder(stop_at=3)
    model.learn(callback=recorder)
    assert recorder.total_timesteps == algorithm.cls.default_timesteps == 1_000_000
    assert "default_timesteps" in (algorithm.cls.learn.__doc__ or "")
    assert model.num_timesteps == 3


@pytest.mark.slow
def test_frozen_networks_stay_as_they_are(case: AlgorithmCase) -> None:
    """After updates, so that the optimizer has moments and gradients of them: one network, then all. Gradients are clipped."""
    model = case.fresh(dataset=case.data() if case.offline else None, max_grad_norm=1.0)
    model.learn(case.stages + 12)
    policy = model.policy
    for networks in ([next(net for net in policy.children() if any(p.requires_grad for p in net.parameters()))], [policy]):
        for network in networks:
            network.requires_grad_(False)
        before = [parameter.clone() for network in networks for parameter in network.parameters()]
        targets = {id(p) for target in policy.targets for p in target.parameters()}
        model.learn(5, reset_num_timesteps=False)
        now = [parameter for network in networks for parameter in network.parameters()]
        assert all(th.equal(*pair) for pair in zip(now, before, strict=True) if id(pair[0]) not in targets)


@pytest.mark.parametrize("make_env", [pendulum, maze])
def test_learns_from_a_dictionary(offline_algorithm: AlgorithmCase, make_env: Callable[[], gym.Env]) -> None:
    """With data, one timestep is one gradient step."""
    model = offline_algorithm.make(make_env(), dataset=collect(make_env))
    before = parameters(model)
    model.learn(4)
    assert (model.num_timesteps, model.n_env_steps, model.n_offline_updates, model._n_updates) == (4, 0, 4, 4)
    assert not same_parameters(before, parameters(model))


#: Imports the package, and then makes each algorithm in a process of its own, in which nothing else was imported.
IN_FRESH_PROCESSES = """
import os, sys
import sb3_flow.methods
for name in {names}:
    child = os.fork()
    if child == 0:
        assert "ogbench" not in sys.modules and "h5py" not in sys.modules
        model = getattr(sb3_flow.methods, name)("FlowPolicy", {arguments}, policy_kwargs={{"net_arch": [16, 16]}})
        model.learn(2)
        print(name, model.n_offline_updates, model.n_env_steps, flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, name
"""


def learn_in_fresh_processes(names: list[str], arguments: str) -> dict[str, str]:
    """By the name of a class, its offline updates and its steps of environments."""
    script = IN_FRESH_PROCESSES.format(names=names, arguments=arguments)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return dict(line.split(maxsplit=1) for line in result.stdout.splitlines())


ONLINE = sorted({case.cls.__name__ for case in ALGORITHMS if case.online})
OFFLINE = sorted({case.cls.__name__ for case in ALGORITHMS if case.offline})


@pytest.mark.slow
@pytest.mark.parametrize("names", [["FQL"], pytest.param(ONLINE, marks=pytest.mark.nightly)], ids=["one", "all"])
def test_ogbench_environment_by_its_id_alone(names: list[str]) -> None:
    """The id of an OGBench environment suffices in a fresh process, where ogbench has not been imported."""
    assert learn_in_fresh_processes(names, "'pointmaze-medium-singletask-task1-v0'") == dict.fromkeys(names, "0 2")


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", [["FQL", "StreamingFlow"], pytest.param(OFFLINE, marks=pytest.mark.nightly)], ids=["two", "all"]
)
def test_learns_from_a_file_by_its_path(tmp_path: Path, names: list[str]) -> None:
    """A path is enough in a fresh process that has imported only the algorithm."""
    path = tmp_path / "log.npz"
    np.savez(path, **collect(pendulum))
    assert learn_in_fresh_processes(names, f"'Pendulum-v1', dataset={str(path)!r}") == dict.fromkeys(names, "2 0")
