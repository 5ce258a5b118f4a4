"""Updates on a GPU: one CUDA graph gives the numbers of eager execution, and the host never waits for the GPU."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch as th
from conformance.case import SMALL, AlgorithmCase, parameters
from conformance.environments import collect, pendulum

from sb3_flow import SWFP
from sb3_flow.common.execution import Captured
from sb3_flow.common.flow_algorithm import FlowAlgorithm

pytestmark = pytest.mark.skipif(not th.cuda.is_available(), reason="needs a CUDA device")

BATCH_SIZE = 16


def make(case: AlgorithmCase, compile: bool | str, **kwargs: Any) -> FlowAlgorithm:
    if compile == "cudagraph" and not case.cls.one_graph:
        pytest.skip("its updates are not alike")
    return case.make(pendulum(), dataset=collect(pendulum), device="cuda", compile=compile, **kwargs)


def pair(case: AlgorithmCase, mode: bool | str, **kwargs: Any) -> tuple[FlowAlgorithm, FlowAlgorithm]:
    """An eager model and one of another mode, after the same eager updates: Adam's first steps magnify rounding."""
    if mode == "cudagraph" and not case.cls.one_graph:
        pytest.skip("its updates are not alike")
    models = make(case, False, **kwargs), make(case, False, **kwargs)
    for model in models:
        model.train(10, BATCH_SIZE)
    models[1].compile = mode
    return models


def assert_same_numbers(first: FlowAlgorithm, second: FlowAlgorithm) -> None:
    expected = parameters(first)
    for name, value in parameters(second).items():
        th.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["cudagraph", pytest.param(True, marks=pytest.mark.nightly)])
def test_same_numbers_as_eager_execution(offline_algorithm: AlgorithmCase, mode: bool | str) -> None:
    """Captured from the first or from a later update: parameters, targets and metrics are the eager ones."""
    models = pair(offline_algorithm, mode)
    before = parameters(models[0])
    for model in models:
        model.train(20, BATCH_SIZE)
    assert max((value - before[name]).abs().max().item() for name, value in parameters(models[0]).items()) > 1e-3
    assert_same_numbers(*models)
    assert models[1]._metrics.means() == pytest.approx(models[0]._metrics.means(), rel=1e-3, abs=1e-5)


def test_random_stream_goes_on(offline_algorithm: AlgorithmCase) -> None:
    """Replays advance the algorithm's generator as eager updates do; the warm-up does not change it."""
    models = pair(offline_algorithm, "cudagraph")
    for model in models:
        model.train(5, BATCH_SIZE)
    assert th.equal(models[0].random_state(), models[1].random_state())


def test_first_update_can_be_captured(offline_algorithm: AlgorithmCase) -> None:
    """The warm-up does not change Adam's state either, which does not exist before the first update."""
    models = make(offline_algorithm, False), make(offline_algorithm, "cudagraph")
    for model in models:
        model.train(5, BATCH_SIZE)
    eager, captured = ([state["step"].item() for state in model.policy.optimizer.state.values()] for model in models)
    assert eager == captured and set(eager) == {5.0}


def _tau(model: FlowAlgorithm) -> None:
    model.tau = 0.5


def _optimizer(model: FlowAlgorithm) -> None:
    model.set_parameters(copy.deepcopy(model.get_parameters()))


def _learning_rate(model: FlowAlgorithm) -> None:
    model.learning_rate = 2e-3
    model._setup_lr_schedule()


def _storage(model: FlowAlgorithm) -> None:
    for parameter in model.policy.parameters():
        parameter.data = parameter.data.clone()


@pytest.mark.parametrize("change", [_tau, _optimizer, _learning_rate, _storage])
def test_changes_reach_the_graph(offline_algorithm: AlgorithmCase, change: Callable[[Any], None]) -> None:
    """A change of settings updates the graph, or captures it again."""
    models = pair(offline_algorithm, "cudagraph")
    for model in models:
        model.train(5, BATCH_SIZE)
        change(model)
        model.train(5, BATCH_SIZE)
        model.train(5, 2 * BATCH_SIZE)
    assert_same_numbers(*models)


def test_no_waiting(offline_algorithm: AlgorithmCase) -> None:
    """No update makes the host wait, eager or captured."""
    for mode in (False, "cudagraph"):
        model = make(offline_algorithm, mode)
        if isinstance(model, SWFP):  # its absorb test waits, once in `absorb_steps` updates
            model.absorb_interval = model.absorb_steps = 100
        model.train(3, BATCH_SIZE)
        th.cuda.set_sync_debug_mode("error")
        try:
            model.train(20, BATCH_SIZE)
        finally:
            th.cuda.set_sync_debug_mode("default")


def test_save_and_load(offline_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """A loaded model goes on as the one that was saved; its optimizer is a plain one."""
    model = make(offline_algorithm, "cudagraph")
    model.train(10, BATCH_SIZE)
    group = model.policy.optimizer.param_groups[0]
    assert isinstance(group["lr"], float) and not group["capturable"]
    model.save(tmp_path / "model")
    loaded = offline_algorithm.cls.load(tmp_path / "model", env=pendulum(), dataset=collect(pendulum), device="cuda")
    loaded._require_dataset()
    assert isinstance(loaded.execution, Captured)
    for either in (model, loaded):
        either.train(10, BATCH_SIZE)
    assert_same_numbers(model, loaded)
    offline_algorithm.load(tmp_path / "model").predict(pendulum().reset(seed=0)[0])


def test_loss_that_is_not_finite(offline_algorithm: AlgorithmCase) -> None:
    """A loss that is not finite is found within a hundred updates."""
    model = make(offline_algorithm, "cudagraph")
    model.train(1, BATCH_SIZE)
    for parameter in model.policy.parameters():
        parameter.data.fill_(math.nan)
    with pytest.raises(ValueError, match="One of the updates 1 to 100 is not finite"):
        model.learn(1_000)


def test_optimizer_that_cannot_be_captured(offline_algorithm: AlgorithmCase) -> None:
    """The error says what an optimizer needs."""
    policy_kwargs = {**SMALL["policy_kwargs"], "optimizer_kwargs": {"fused": False}}
    with pytest.raises(ValueError, match="fused=True"):
        make(offline_algorithm, "cudagraph", policy_kwargs=policy_kwargs).train(1, BATCH_SIZE)
