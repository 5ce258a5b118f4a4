"""The planner of FlowOpt as one graph: its loops compute what `plan` computes, and its file acts as `predict` does."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from conformance.scenes import plans, scenes

from sb3_flow import FlowOpt
from sb3_flow.baselines.diffusion_opt import DiffusionOpt
from sb3_flow.deploy import ControlLoop
from sb3_flow.methods import SMALL_PLANS

Tensors = tuple[th.Tensor, ...]
KWARGS: dict[str, Any] = {name: value for name, value in SMALL_PLANS["policy_kwargs"].items() if name != "best_of_n"}


def observe(n: int) -> dict[str, np.ndarray]:
    env = scenes()
    rows = [env.reset(seed=i)[0] for i in range(n)]
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def make(cls: type[FlowOpt] = FlowOpt, disturbance: float = 0.5, **policy_kwargs: Any) -> FlowOpt:
    """A model whose networks are not at their initial values, for which proposals are straight lines."""
    kwargs = {**KWARGS, **policy_kwargs}
    model = cls(
        "FlowPolicy", scenes(), **{**SMALL_PLANS, "dataset": plans(), "device": "cpu", "seed": 0, "policy_kwargs": kwargs}
    )
    generator = th.Generator().manual_seed(7)
    for module, size in ((model.policy.flow_average, disturbance), (model.policy.initializer, 0.05)):
        for parameter in module.parameters():
            parameter.data += size * th.randn(parameter.shape, generator=generator)
    return model


def while_loop(cond: Callable[..., th.Tensor], body: Callable[..., Tensors], carried: Tensors) -> Tensors:
    """``torch.while_loop``, which takes half a minute to trace its functions."""
    while cond(*carried):
        after = body(*carried)
        assert [(part.shape, part.dtype) for part in after] == [(part.shape, part.dtype) for part in carried]
        carried = after
    return carried


@pytest.mark.parametrize(
    ("policy_kwargs", "rounds", "solved"),
    [
        ({}, 1, {6}),
        ({"best_of_n": 3, "multipliers": "matched"}, 1, {6}),
        ({"initialize": False, "polish_rounds": 3}, 1, {6}),
        ({"filter_kwargs": {"max_iterations": 3}, "best_of_n": 2}, 2, {6}),
        ({"filter_kwargs": {"max_iterations": 1}, "polish_rounds": 2}, 3, range(1, 6)),
        ({"filter_kwargs": {"max_iterations": 5}, "fallback": False}, 1, {0}),
        ({"filter_kwargs": {"majorizer": "exact", "metric": "coefficients", "push": "samples"}}, 2, {6}),
    ],
)
def test_the_graph_plans_what_plan_does(
    policy_kwargs: dict[str, Any], rounds: int, solved: Collection[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(th, "while_loop", while_loop)
    policy, n = make(**policy_kwargs).policy, 6
    observations = {key: th.as_tensor(value) for key, value in observe(n).items()}
    noise = policy._noise(n, deterministic=False)
    policy._noise = lambda *_: noise  # type: ignore[method-assign]
    expected = policy.plan(observations)
    assert expected.candidates.feasible.shape[1] == rounds * policy.best_of_n
    assert int(expected.feasible.sum()) in solved
    with th.no_grad():
        best = policy.plan_in_graph(observations, noise)
    assert th.equal(best.feasible[:, 0], expected.feasible)
    th.testing.assert_close(best.actions[:, 0], expected.actions, atol=1e-5, rtol=1e-5)
    th.testing.assert_close(best.cost[:, 0], expected.cost, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_control_loop_plans_as_predict_does(deterministic: bool) -> None:
    """Without the graph, which takes a minute to trace and is for export only."""
    model, observation = make(best_of_n=2), {key: value[0] for key, value in observe(1).items()}
    th.manual_seed(0)
    expected, _ = model.predict(observation, deterministic=deterministic)
    th.manual_seed(0)
    with ControlLoop(model, latency=0, deterministic=deterministic) as loop:
        np.testing.assert_array_equal(loop.act(observation), expected)


@pytest.mark.parametrize("cls", [FlowOpt, DiffusionOpt])
def test_a_control_loop_tells_which_plans_are_certified(cls: type[FlowOpt]) -> None:
    """With one iteration and no fallback it is not, and proposals that are not filtered have no certificates."""
    observation = {key: value[0] for key, value in observe(1).items()}
    with ControlLoop(make(cls), latency=0) as loop:
        loop.act(observation)
    assert loop.certified is True
    failing = make(cls, filter_kwargs={"max_iterations": 1}, fallback=False)
    with ControlLoop(failing, latency=0) as loop, pytest.warns(UserWarning, match="A plan is not certified to be safe"):
        loop.act(observation)
    assert loop.certified is False and failing.last_plan is None
    with pytest.raises(RuntimeError, match="There is no certified plan"), pytest.warns(UserWarning):
        ControlLoop(failing, latency=0, only_certified=True, hold=np.zeros_like).act(observation)
    unfiltered = ControlLoop(failing.policy.with_sampler("flow"), latency=0)
    unfiltered.act(observation)
    assert unfiltered.certified is None


def test_certified_plans_are_not_exported_for_real_time(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    with pytest.raises(ValueError, match=r"'filter' certifies whole plans, .* Export it without `real_time`"):
        make().export(tmp_path / "policy.onnx", real_time=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.nightly  # The exporter traces the loops for one to three minutes.
@pytest.mark.parametrize(
    ("cls", "policy_kwargs"),
    [(FlowOpt, {"best_of_n": 2, "polish_rounds": 2}), (DiffusionOpt, {"filter_kwargs": {"max_iterations": 3}})],
)
def test_an_exported_planner_acts_as_predict_does(cls: type[FlowOpt], policy_kwargs: dict[str, Any], tmp_path: Path) -> None:
    # With proposals that are further from safe plans, the filter amplifies the rounding of both to more than the tolerance.
    runner, model = pytest.importorskip("sb3_flow.deploy").OnnxPolicy, make(cls, 0.2, **policy_kwargs)
    model.export(tmp_path / "policy.onnx")
    exported = runner(tmp_path / "policy.onnx")
    observations = observe(6)
    for deterministic in (True, False):
        compare(model.policy, exported, observations, deterministic)
        assert np.array_equal(exported.further[0], model.policy.last_plan.feasible)
    one = {key: value[0] for key, value in observations.items()}
    with ControlLoop(exported, latency=0) as loop:
        loop.act(one)
        assert loop.certified is bool(exported.further[0][0])
    assert exported.predict(one)[0].shape == model.predict(one)[0].shape  # nothing of the graph is left in the model


@pytest.mark.nightly
def test_an_exported_flow_without_filter_acts_as_predict_does(tmp_path: Path) -> None:
    runner, model = pytest.importorskip("sb3_flow.deploy").OnnxPolicy, make(best_of_n=2)
    model.export(tmp_path / "policy.onnx", "flow")
    exported = runner(tmp_path / "policy.onnx")
    compare(model.policy.with_sampler("flow"), exported, observe(3), deterministic=False)
    assert exported.further == []


def compare(policy: Any, exported: Any, observations: dict[str, np.ndarray], deterministic: bool) -> None:
    """Compare the actions for equal noise."""
    exported.generator, generator = np.random.default_rng(0), np.random.default_rng(0)
    draw, shape = type(policy)._noise, exported.spec["noise"]

    def noise(n: int, deterministic: bool) -> th.Tensor:
        return draw(policy, n, True) if deterministic else th.as_tensor(generator.standard_normal((n, *shape), np.float32))

    policy._noise = noise
    expected, _ = policy.predict(observations, deterministic=deterministic)
    actions, _ = exported.predict(observations, deterministic=deterministic)
    np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-5)
