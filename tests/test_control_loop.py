"""The control loop: which action of which plan is executed when, conditions on known actions, deadlines and errors."""

import json
import math
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from conformance.environments import pendulum, transitions
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize, VecTransposeImage

from sb3_flow import FQL, StreamingFlow
from sb3_flow.baselines import ChunkFlow, ChunkRegression
from sb3_flow.common.flow import euler, guided
from sb3_flow.deploy import ControlLoop, OnnxPolicy
from sb3_flow.deploy.control_loop import soft_mask

SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu", "seed": 0}


class Numbered:
    """A planner whose actions are ``100 * plan + index``. It records its arguments."""

    n_obs_steps, action_shape, conditions_plans = 2, (1,), True

    def __init__(self, prediction_horizon: int = 16, n_action_steps: int = 8) -> None:
        self.prediction_horizon, self.n_action_steps = prediction_horizon, n_action_steps
        self.calls: list[tuple[Any, ...]] = []

    def check(self, observation: Any) -> None:
        if np.shape(observation) != (1,):
            raise ValueError("wrong shape")

    def plan(self, *arguments: Any) -> Iterable[np.ndarray]:
        self.calls.append(arguments)
        return 100.0 * (len(self.calls) - 1) + np.arange(self.prediction_horizon, dtype=float)[:, None]


class Counting(Numbered):
    """
    A planner for a robot whose observation is its position and whose actions are the next positions: it plans one step further
    with each action. Action by action, each after a delay in seconds.
    """

    n_obs_steps = 1

    def __init__(self, *sizes: int, delay: Any = lambda: 0.0, per_action: float = 0.0) -> None:
        super().__init__(*sizes)
        self.delay, self.per_action = delay, per_action

    def plan(self, history: list[Any], *arguments: Any) -> Iterator[np.ndarray]:
        time.sleep(self.delay())
        for index in range(self.prediction_horizon):
            time.sleep(self.per_action)
            yield history[-1] + 1.0 + index


def at(value: float) -> np.ndarray:
    return np.array([value], np.float32)


# Simulated latencies.


@pytest.mark.parametrize("latency", [0, 1, 3, 8])
@pytest.mark.parametrize("n_action_steps", [1, 4, 8])
def test_which_action_of_which_plan_is_executed(latency: int, n_action_steps: int) -> None:
    """
    The first plan is ready at once, as the robot waits for it. The second one starts after ``s`` steps, and the others ``s``
    steps, or ``d`` if this is more, after the one before. Each is executed ``d`` steps after its start, from its action ``d``.
    """
    loop = ControlLoop(Numbered(16, n_action_steps), latency=latency)
    actions = [loop.act(at(0))[0] for _ in range(60)]
    starts = [0, *range(n_action_steps, 60, max(n_action_steps, latency))]
    for step, action in enumerate(actions):
        plan = max(i for i, start in enumerate(starts) if i == 0 or start + latency <= step)
        assert action == 100 * plan + step - starts[plan]
    assert loop.n_late == 0


@pytest.mark.parametrize("latency", [0, 1, 3, 7, 8, 11, 15, 16, 40])
@pytest.mark.parametrize(("horizon", "n_action_steps"), [(16, 8), (16, 16), (16, 1), (1, 1)])
def test_no_action_is_skipped_or_repeated(latency: int, horizon: int, n_action_steps: int) -> None:
    """If plans are too late, the robot waits, and then continues where it stopped."""
    loop = ControlLoop(Counting(horizon, n_action_steps), latency=latency, max_late=100)
    position = 0.0
    for _ in range(100):
        late = loop.n_late
        action = loop.act(at(position))[0]
        assert action == position + (loop.n_late == late)
        position = action
    assert loop.n_late == 0 if latency + 1 <= horizon / 2 else position > 0


def test_only_late_steps_in_a_row_are_an_error() -> None:
    """Plans of four actions are ready after six steps: some steps of each plan are late."""
    loop = ControlLoop(Counting(4, 4), latency=6, max_late=5)
    for _ in range(60):
        loop.act(at(0))
    assert loop.n_late > 10


def test_a_plan_gets_what_will_have_been_executed() -> None:
    planner = Numbered(horizon := 16, 8)
    loop = ControlLoop(planner, latency=3, deterministic=True)
    for step in range(9):
        loop.act(at(step))
    (history, previous, known, weights, deterministic), (_, _, again, masked, _) = planner.calls[0], planner.calls[1]
    assert previous is None and deterministic and not known.any() and not weights.any()
    np.testing.assert_array_equal(history, [[0], [0]])  # at the start of an episode: copies of the first observation
    history, previous = planner.calls[1][:2]
    np.testing.assert_array_equal(history, [[7], [8]])
    assert previous == [7]
    np.testing.assert_array_equal(again[:, 0], [*range(8, 16), *[0] * 8])
    np.testing.assert_array_equal(masked, soft_mask(3, 8, horizon))


def test_plans_are_not_conditioned_on_request() -> None:
    planner = Numbered()
    loop = ControlLoop(planner, latency=3, condition=False)
    for step in range(9):
        loop.act(at(step))
    assert not planner.calls[1][3].any()


def test_plans_of_flows_are_conditioned_by_default_and_those_of_streaming_policies_not() -> None:
    options = {"dataset": transitions(), "horizon_length": 6, **SMALL}
    models = [algorithm("FlowPolicy", pendulum(), **options) for algorithm in (ChunkFlow, StreamingFlow)]
    assert [ControlLoop(model, latency=1).condition for model in models] == [True, False]
    assert ControlLoop(models[1], latency=1, condition=True).condition


def test_soft_mask() -> None:
    """With ``d = 2`` of 5 known actions, ``c_i = (5 - i) / 4`` and ``W_i = c_i (exp(c_i) - 1) / (e - 1)``."""
    expected = [1, 1, *(c * (np.exp(c) - 1) / (np.e - 1) for c in (0.75, 0.5, 0.25)), 0, 0]
    np.testing.assert_allclose(soft_mask(2, 5, 7), expected, rtol=1e-6)
    np.testing.assert_array_equal(soft_mask(0, 0, 3), np.zeros(3))
    np.testing.assert_array_equal(soft_mask(3, 3, 3), np.ones(3))


def test_reset_starts_an_episode() -> None:
    planner = Numbered()
    loop = ControlLoop(planner, latency=3)
    for step in range(20):
        loop.act(at(step))
    loop.reset()
    n = len(planner.calls)
    assert loop.act(at(5)) == 100 * n  # the first action of a new plan
    history, previous, _, weights, _ = planner.calls[-1]
    np.testing.assert_array_equal(history, [[5], [5]])
    assert previous is None and not weights.any()


# Certificates.


class Certifying(Numbered):
    """A planner of plans of one action, some of which are certified."""

    def __init__(self, *certificates: bool) -> None:
        super().__init__(1, 1)
        self.certificates, self.certified = certificates, False

    def plan(self, *arguments: Any) -> Iterable[np.ndarray]:
        self.certified = self.certificates[len(self.calls)]
        return super().plan(*arguments)


@pytest.mark.parametrize("latency", [0, None])
def test_plans_that_are_not_certified_are_executed_with_a_warning(latency: int | None) -> None:
    """One when the first one is ready, and one with their number at the end."""
    certificates = [True, False, False, True, False]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with ControlLoop(Certifying(*certificates), latency=latency, frequency=1.0) as loop:
            assert loop.certified is None
            for i, expected in enumerate(certificates):
                assert loop.act(at(0)) == 100 * i and loop.certified is expected
                assert len(warned) == (i > 0)
        loop.close()
    assert (loop.n_plans, loop.n_uncertified) == (5, 3)
    first, last = (str(each.message) for each in warned)
    assert first.startswith("A plan is not certified to be safe (plan 2 of this control loop): it is executed.")
    assert last == "3 of 5 plans were not certified. They were executed."
    assert warned[0].filename == __file__


@pytest.mark.parametrize("latency", [0, None])
def test_plans_that_are_not_certified_are_refused_on_request(latency: int | None) -> None:
    """The robot is held, and each step has a new plan, until one is certified."""
    loop = ControlLoop(
        Certifying(True, False, False, True, False, False, False),
        frequency=1.0,
        latency=latency,
        only_certified=True,
        max_late=2,
        hold=np.negative,
    )
    with pytest.warns(UserWarning, match=r"\(plan 2 of this control loop\): it is refused, and `hold` is called instead"):
        found = [(loop.act(at(0))[0] + 1, loop.certified) for _ in range(5)]
    # 0 by the first plan, held twice, 300 by the fourth one, held.
    assert found == [(1, True), (1, False), (1, False), (301, True), (-299, False)]
    assert loop.act(at(0)) == 300 and loop.n_late == 4
    with pytest.raises(RuntimeError, match="There is no certified plan: 3 in a row were refused, and for 3 control steps"):
        loop.act(at(0))
    with pytest.warns(UserWarning, match="5 of 7 plans were not certified. They were refused."):
        loop.close()


def test_a_refused_first_plan_is_an_error_and_the_next_call_plans_again() -> None:
    loop = ControlLoop(Certifying(False, True), latency=0, only_certified=True, hold=np.zeros_like)
    with pytest.warns(UserWarning), pytest.raises(RuntimeError, match="There is no certified plan: 1 in a row"):
        loop.act(at(0))
    assert loop.act(at(0)) == 100 and loop.certified


@pytest.mark.parametrize(
    ("planner", "hold", "message"),
    [
        (Numbered(), np.zeros_like, "this policy has none: use FlowOpt with its sampler 'filter'"),
        (Certifying(True), None, "`only_certified=True` needs `hold`, a function from the last action to one that is safe"),
    ],
)
def test_certificates_that_cannot_be_required(planner: Any, hold: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ControlLoop(planner, only_certified=True, hold=hold)


def test_planners_without_certificates() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with ControlLoop(Numbered(), latency=0) as loop:
            loop.act(at(0))
    assert loop.certified is None and (loop.n_plans, loop.n_uncertified) == (1, 0)


def test_the_certificate_of_an_exported_policy(tmp_path: Path) -> None:
    """Of a file whose plan is the observation, certified if it is positive."""
    helper, onnx = pytest.importorskip("onnx.helper"), pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    nodes = [
        helper.make_node("Unsqueeze", ["observation", "one"], ["actions"]),
        helper.make_node("Identity", ["observation"], ["next_last_actions"]),
        helper.make_node("Greater", ["observation", "zero"], ["positive"]),
        helper.make_node("Squeeze", ["positive", "one"], ["certified"]),
    ]
    numbers = onnx.TensorProto.FLOAT
    values = {"actions": (numbers, ["B", 1, 1]), "next_last_actions": (numbers, ["B", 1])}
    outputs = {**values, "certified": (onnx.TensorProto.BOOL, ["B"])}
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info("observation", numbers, ["B", 1])],
        [helper.make_tensor_value_info(name, *value) for name, value in outputs.items()],
        [helper.make_tensor("one", onnx.TensorProto.INT64, [1], [1]), helper.make_tensor("zero", numbers, [], [0.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    box = {"shape": [1], "dtype": "float32"}
    spec = {"n_obs_steps": 1, "n_action_steps": 1, "horizon_length": 1, "noise": [1, 1], "deterministic_noise": 0.0}
    spec |= {"observations": {"observation": box}, "action": {**box, "low": [-9.0], "high": [9.0]}}
    helper.set_model_props(model, {"sb3_flow": json.dumps(spec)})
    onnx.save(model, tmp_path / "policy.onnx")
    loop = ControlLoop(OnnxPolicy(tmp_path / "policy.onnx"), latency=0)
    assert loop.act(at(2)) == 2 and loop.certified is True
    with pytest.warns(UserWarning, match="A plan is not certified to be safe"):
        assert loop.act(at(-3)) == -3
    assert loop.certified is False


# Models.


def observations(n: int = 30) -> np.ndarray:
    angles = np.linspace(0, 3, n)
    return np.stack([np.cos(angles), np.sin(angles), angles], axis=1).astype(np.float32)


MODELS: dict[str, tuple[Any, dict[str, Any], bool]] = {
    "chunk flow": (ChunkFlow, {"horizon_length": 6, "n_action_steps": 3}, False),
    "chunk regression": (ChunkRegression, {"horizon_length": 6, "n_action_steps": 3}, True),
    "streaming flow": (StreamingFlow, {"horizon_length": 6, "n_action_steps": 3}, True),
    "stochastic streaming flow": (
        StreamingFlow,
        {"horizon_length": 6, "n_action_steps": 3, "stochastic": True, "k": 0.0, "sigma_0": 0.1},
        True,
    ),
    "FQL": (FQL, {"horizon_length": 3, "n_action_steps": 2, "flow_steps": 2}, True),
    "FQL without chunks": (FQL, {"flow_steps": 2}, True),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("deterministic", [True, False])
def test_without_latency_the_loop_acts_as_predict_does(name: str, deterministic: bool) -> None:
    """Only plans of flows differ, because they follow the previous plan, unless that is turned off."""
    algorithm, arguments, condition = MODELS[name]
    model = algorithm("FlowPolicy", pendulum(), dataset=transitions(), **arguments, **SMALL)
    loop = ControlLoop(model, latency=0, deterministic=deterministic, condition=condition)
    th.manual_seed(0)
    actions = [loop.act(observation) for observation in observations()]
    th.manual_seed(0)
    state, expected = None, []
    for observation in observations():
        action, state = model.predict(observation, state, deterministic=deterministic)
        expected.append(action)
    np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stochastic", [False, True])
def test_a_streaming_plan_continues_at_the_known_actions(stochastic: bool) -> None:
    """Known actions are followed by Euler steps from the last one of them, at its flow time."""
    variant = {"stochastic": True, "k": 0.0, "sigma_0": 0.1} if stochastic else {}
    model = StreamingFlow("FlowPolicy", pendulum(), dataset=transitions(), horizon_length=6, **variant, **SMALL)
    planner, policy = model.policy.planner(), model.policy
    known = np.array([[0.1], [-0.4], [1.0], [0.7], [0.0], [0.0]], np.float32)
    weights = soft_mask(3, 4, 6)
    history = list(observations(2))
    evaluations: list[int] = []
    hook = policy.acting.net.register_forward_hook(lambda *_: evaluations.append(1))
    plan = np.array(list(planner.plan(history, at(0.2), known, weights, True)))
    hook.remove()
    assert len(evaluations) == (6 if stochastic else 3)  # latents are integrated, known actions are not
    np.testing.assert_allclose(plan[:3], known[:3], rtol=1e-6)
    with th.no_grad():
        context = policy.context(policy.acting, th.as_tensor(np.stack(history)))
        action, latents = th.tensor([[0.1]]), th.zeros(1, policy.latent_dim)  # actions are in [-2, 2]
        for cursor in range(6):
            action, latents = policy.step(context, th.cat([action, latents], dim=1), th.full((1, 1), cursor))
            if cursor < 3:
                action = th.as_tensor(known[cursor : cursor + 1]) / 2
            np.testing.assert_allclose(plan[cursor], 2 * action[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("t", [0.0, 0.1, 0.5, 0.9])
def test_guidance_of_a_linear_field(t: float) -> None:
    """For ``v = A x``: ``v + min(5, (t^2 + (1 - t)^2) / (t (1 - t))) J^T W (y - x_1)`` with ``J = 1 + (1 - t) A``."""
    numbers = [[0.3, -1.2], [0.5, 0.8]], [[0.5, 1.0], [-1.0, 0.2]], [[1.2, 9.0]], [[0.7, 0.1]]
    matrix, x, target, weights = (th.tensor(each, dtype=th.float64) for each in numbers)
    v = x @ matrix.T
    errors = weights * (target - (x + (1 - t) * v))
    weight = min(5.0, (t**2 + (1 - t) ** 2) / (t * (1 - t)) if t else 5.0)
    with th.no_grad():
        found = guided(lambda x, t: x @ matrix.T, target, weights)(x, th.full((2, 1), t, dtype=th.float64))
    np.testing.assert_allclose(found, v + weight * errors @ (th.eye(2, dtype=th.float64) + (1 - t) * matrix), rtol=1e-10)


def test_guided_samples_have_the_known_coordinate_and_the_conditional_mean() -> None:
    """Of a Gaussian with the correlation 0.8; given ``x_0``, the mean of ``x_1`` is ``-0.2 + 0.8 (x_0 - 0.3)``."""
    mean, covariance = th.tensor([0.3, -0.2]), th.tensor([[1.0, 0.8], [0.8, 1.0]])

    def velocity(x: th.Tensor, t: th.Tensor) -> th.Tensor:
        time = float(t[0])
        gain = time * covariance @ th.linalg.inv((1 - time) ** 2 * th.eye(2) + time**2 * covariance)
        return (mean + (x - time * mean) @ gain.T - x) / (1 - t)

    noise = th.randn(4000, 2, generator=th.Generator().manual_seed(0))
    samples = euler(guided(velocity, th.tensor([[1.5, 0.0]]), th.tensor([[1.0, 0.0]])), noise, 50)
    free = euler(velocity, noise, 50)
    assert abs(float(free[:, 0].mean()) - 0.3) < 0.05
    assert abs(float(samples[:, 0].mean()) - 1.5) < 0.1 and float(samples[:, 0].std()) < 0.3
    assert abs(float(samples[:, 1].mean()) - (-0.2 + 0.8 * 1.2)) < 0.15


@pytest.mark.parametrize("flow", ["chunk flow", "FQL"])
def test_a_flow_follows_known_actions(flow: str) -> None:
    """Of an untrained flow, too: its first action is closer to the known one; without weights nothing changes."""
    algorithm, arguments, _ = MODELS[flow]
    model = algorithm("FlowPolicy", pendulum(), dataset=transitions(), **arguments, **SMALL)
    policy = model.policy.with_sampler("bc_flow") if flow == "FQL" else model.policy
    planner, n = policy.planner(), policy.prediction_horizon
    known, history = np.full((n, 1), 1.5, np.float32), list(observations(policy.n_obs_steps))
    free, followed, free_again = (
        np.asarray(planner.plan(history, at(0), known, weights, True))
        for weights in (np.zeros(n, np.float32), np.eye(n, dtype=np.float32)[0], np.zeros(n, np.float32))
    )
    np.testing.assert_array_equal(free, free_again)
    assert abs(followed[0, 0] - 1.5) < 0.5 * abs(free[0, 0] - 1.5)


def test_the_one_step_actor_is_not_conditioned() -> None:
    model = FQL("FlowPolicy", pendulum(), horizon_length=3, flow_steps=2, **SMALL)
    planner = model.policy.planner()
    plans = [planner.plan([observations()[0]], at(0), np.ones((3, 1)), weights, True) for weights in (np.zeros(3), np.ones(3))]
    np.testing.assert_array_equal(*plans)


# Exported policies.


@pytest.mark.slow
@pytest.mark.parametrize("real_time", [True, pytest.param(False, marks=pytest.mark.nightly)])
@pytest.mark.parametrize(
    "name",
    [
        "FQL",
        *(
            pytest.param(name, marks=pytest.mark.nightly)
            for name in ("chunk flow", "streaming flow", "stochastic streaming flow")
        ),
    ],
)
def test_an_exported_policy_acts_in_the_loop_as_its_model(name: str, real_time: bool, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    algorithm, arguments, _ = MODELS[name]
    model = algorithm("FlowPolicy", pendulum(), dataset=transitions(), **arguments, **SMALL)
    sampler = "bc_flow" if name == "FQL" else None
    if sampler:
        model.policy = model.policy.with_sampler(sampler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.export(tmp_path / "policy.onnx", real_time=real_time)
    assert not [warning for warning in caught if issubclass(warning.category, RuntimeWarning)]
    exported = OnnxPolicy(tmp_path / "policy.onnx", seed=0)
    generator = np.random.default_rng(0)
    shape = (1, *exported.spec["noise"])
    drawn = lambda n, deterministic: th.as_tensor(generator.standard_normal(shape, dtype=np.float32))  # noqa: E731
    model.policy._noise = drawn  # type: ignore[method-assign]
    # A file that was not exported for real time has the first actions of a plan only, and cannot be conditioned.
    reference = model.policy if real_time else Short(model.policy)
    loops = [ControlLoop(policy, latency=1, condition=real_time, n_action_steps=2) for policy in (reference, exported)]
    for observation in observations():
        expected, found = (loop.act(observation) for loop in loops)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    if real_time:  # `predict` executes the same part of each plan as before
        state = None
        for index, observation in enumerate(observations(4)):
            _, state = exported.predict(observation, state)
            assert state[1][0] == index % model.policy.n_action_steps + 1


class Short:
    """The planner of a policy that returns the actions that `predict` executes only."""

    def __init__(self, policy: Any) -> None:
        self.whole = policy.planner()
        self.prediction_horizon = self.n_action_steps = policy.n_action_steps
        self.n_obs_steps, self.action_shape, self.check = policy.n_obs_steps, self.whole.action_shape, self.whole.check
        self.conditions_plans = False

    def plan(self, history: Any, previous: Any, known: Any, weights: Any, deterministic: bool) -> Any:
        n = self.whole.prediction_horizon
        return list(self.whole.plan(history, previous, np.zeros((n, 1)), np.zeros(n), deterministic))[: self.n_action_steps]


@pytest.mark.slow
def test_the_loop_needs_no_torch(tmp_path: Path) -> None:
    FQL("FlowPolicy", pendulum(), horizon_length=3, flow_steps=2, **SMALL).export(tmp_path / "policy.onnx")
    code = (
        "import sys; sys.modules['torch'] = sys.modules['stable_baselines3'] = sys.modules['gymnasium'] = None\n"
        "import numpy as np\nfrom sb3_flow.deploy import ControlLoop, OnnxPolicy\n"
        f"with ControlLoop(OnnxPolicy({str(tmp_path / 'policy.onnx')!r}), frequency=50) as loop:\n"
        "    actions = loop.actions(lambda: np.zeros(3, np.float32))\n"
        "    assert [next(actions).shape for _ in range(5)] == [(1,)] * 5"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Real threads. Tolerances are wide, because other processes may take the time of these tests.


@pytest.mark.parametrize(("horizon", "n_action_steps"), [(16, 8), (4, 4), (1, 1)])
@pytest.mark.parametrize("per_action", [0.0, 0.001])
def test_a_thread_plans_while_actions_are_executed(horizon: int, n_action_steps: int, per_action: float) -> None:
    """Whatever the delays are, each action is the next one, or the robot waits, which is counted."""
    delays = np.random.default_rng(0).uniform(0, 0.02, 1000)
    planner = Counting(horizon, n_action_steps, delay=iter(delays).__next__, per_action=per_action)
    position = at(0)
    with ControlLoop(planner, frequency=200, max_late=1000) as loop:
        for step, action in enumerate(loop.actions(lambda: position)):
            assert action[0] in (position[0], position[0] + 1)
            position[:] = action  # in place, as drivers of robots do
            if step == 60:
                break
        assert position[0] == 61 - loop.n_late
    assert not any(thread.name.startswith("planner") and thread.is_alive() for thread in threading.enumerate())


def test_actions_are_handed_out_at_the_frequency() -> None:
    planner = Counting(16, 8, delay=lambda: 0.03)
    with ControlLoop(planner, frequency=50) as loop:
        times = []
        for _ in loop.actions(lambda: at(0)):
            times.append(time.perf_counter())
            if len(times) == 40:
                break
    assert abs(np.median(np.diff(times)) - 0.02) < 0.004
    assert np.mean(np.diff(times)) >= 0.0195  # never faster


@pytest.mark.slow
def test_the_first_plan_of_each_episode_is_no_overrun_of_the_caller() -> None:
    """The caller waits for it, and then the clock starts again."""
    planner = Counting(16, 8, delay=lambda: 0.25)
    with ControlLoop(planner, frequency=10) as loop:
        times: list[float] = []
        for _ in loop.actions(lambda: at(0)):
            times.append(time.perf_counter())
            if len(times) == 5:
                loop.reset()
            if len(times) == 10:
                break
    assert loop.n_overrun == 0
    assert np.diff(times)[4] >= 0.25 and np.diff(times)[5:].min() > 0.05


def test_a_slow_caller_gets_no_burst_of_actions() -> None:
    with ControlLoop(Counting(16, 8), frequency=100) as loop:
        times = []
        for _ in loop.actions(lambda: at(0)):
            times.append(time.perf_counter())
            if len(times) == 5:
                time.sleep(0.1)
            if len(times) == 10:
                break
    assert loop.n_overrun >= 1
    assert times[5] - times[4] >= 0.1 and times[-1] - times[5] >= 0.035


@pytest.mark.parametrize("hold", [None, lambda previous: 0 * previous])
def test_the_robot_is_held_if_the_planner_is_late(hold: Any) -> None:
    """After the four actions of the first plan, and then an error."""
    event = threading.Event()
    planner = Counting(4, 4, delay=iter([0.0] + [5.0] * 9).__next__)
    plan = planner.plan
    planner.plan = lambda *arguments: event.wait() and plan(*arguments) if arguments[1] is not None else plan(*arguments)  # type: ignore
    loop = ControlLoop(planner, frequency=200, max_late=3, hold=hold)
    found = [loop.act(at(0))[0] for _ in range(7)]
    assert found == [1, 2, 3, 4, *[4 if hold is None else 0] * 3]
    with pytest.raises(TimeoutError, match=r"for 4 control steps of 5 ms there was no planned action. A plan has 4 actions"):
        loop.act(at(0))
    planner.delay = lambda: 0.0
    event.set()
    loop.close()


# Errors.


def test_errors_of_the_planner_are_raised_in_the_callers_thread() -> None:
    class Broken(Counting):
        def plan(self, history: list[Any], *arguments: Any) -> Iterator[np.ndarray]:
            if arguments[0] is not None:
                raise ZeroDivisionError("broken")
            return super().plan(history, *arguments)

    with ControlLoop(Broken(4, 2), frequency=200) as loop, pytest.raises(ZeroDivisionError, match="broken"):
        for _ in range(10):
            loop.act(at(0))
    with pytest.raises(ZeroDivisionError):
        simulated = ControlLoop(Broken(4, 2), latency=1)
        for _ in range(10):
            simulated.act(at(0))


def test_actions_that_are_not_finite() -> None:
    planner = Numbered()
    planner.plan = lambda *arguments: np.full((16, 1), np.nan)  # type: ignore[method-assign]
    with ControlLoop(planner) as loop, pytest.raises(ValueError, match="not finite"):
        loop.act(at(0))


def test_a_closed_loop_does_not_act() -> None:
    with ControlLoop(Numbered()) as loop:
        loop.act(at(0))
    with pytest.raises(RuntimeError, match="closed"):
        loop.act(at(0))


class Camera(gym.Env[Any, Any]):
    """A vector and an image with channels last."""

    observation_space = spaces.Dict({"camera": spaces.Box(0, 255, (36, 36, 3), np.uint8), "joints": spaces.Box(-5, 5, (4,))})
    action_space = spaces.Box(-2, 6, (2,))

    def reset(self, **kwargs: Any) -> Any:
        super().reset(**kwargs)
        return self.observation_space.sample(), {}


def test_a_model_plans_from_observations_of_the_environment() -> None:
    """As an exported policy, without the wrappers of SB3; its policy plans from those that it is trained with."""
    env: Any = VecNormalize(VecTransposeImage(DummyVecEnv([Camera])), norm_obs_keys=["joints"], norm_reward=False)
    env.obs_rms["joints"].mean[:], env.obs_rms["joints"].var[:] = [1, -2, 3, 0], [4, 0.5, 1, 9]
    policy_kwargs = {"net_arch": [8], "features_extractor_kwargs": {"encoder": "small"}}
    model = FQL("FlowPolicy", env, horizon_length=3, flow_steps=2, **{**SMALL, "policy_kwargs": policy_kwargs})
    observation = Camera.observation_space.sample()
    prepared = {"camera": np.moveaxis(observation["camera"], -1, 0), "joints": observation["joints"]}
    prepared = env.normalize_obs(prepared)
    for sampler in model.policy.samplers:
        policy = model.policy.with_sampler(sampler)
        expected = policy.predict(prepared, deterministic=True)[0]
        with ControlLoop(model.planner(sampler), latency=0, deterministic=True) as loop:
            np.testing.assert_allclose(loop.act(observation), expected, rtol=1e-5, atol=1e-5)
        with ControlLoop(policy, latency=0, deterministic=True) as loop:
            np.testing.assert_allclose(loop.act(prepared), expected, rtol=1e-5, atol=1e-5)
    default = model.predict(prepared, deterministic=True)[0]
    with ControlLoop(model, latency=0, deterministic=True) as loop:
        np.testing.assert_allclose(loop.act(observation), default, rtol=1e-5, atol=1e-5)
        with pytest.raises(ValueError, match=r"`camera` of .* has the shape \(3, 36, 36\); expected \(36, 36, 3\)"):
            loop.act({**observation, "camera": prepared["camera"]})
        with pytest.raises(ValueError, match=r"`joints` of the observation has the shape \(5,\); expected \(4,\)"):
            loop.act({**observation, "joints": np.zeros(5, np.float32)})
        with pytest.raises(ValueError, match="The observation is a batch"):
            loop.act({key: part[None] for key, part in observation.items()})


def test_a_model_without_its_statistics_warns(tmp_path: Path) -> None:
    env = VecNormalize(DummyVecEnv([pendulum]))
    FQL("FlowPolicy", env, **SMALL).save(tmp_path / "model")
    with pytest.warns(UserWarning, match="The control loop expects normalized observations"):
        ControlLoop(FQL.load(tmp_path / "model"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ControlLoop(FQL.load(tmp_path / "model", env=env))


@pytest.mark.parametrize("exported", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_observations_that_do_not_fit(exported: bool, tmp_path: Path) -> None:
    policy: Any = FQL("FlowPolicy", pendulum(), horizon_length=3, flow_steps=2, **SMALL)
    if exported:
        policy.export(tmp_path / "policy.onnx")
        policy = OnnxPolicy(tmp_path / "policy.onnx")
    observations: dict[str, Any] = {
        r"\(4,\)": np.zeros(4, np.float32),
        "finite|nan": np.full(3, np.nan, np.float32),
        "The observation is a batch": np.zeros((2, 3), np.float32),
        r"\['joints'\]": {"joints": np.zeros(3)},
    }
    for message, observation in observations.items():
        with ControlLoop(policy) as loop:
            loop.act(np.zeros(3, np.float32))
            with pytest.raises(ValueError, match=message):
                loop.act(observation)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frequency": 0}, "`frequency` is 0"),
        ({"n_action_steps": 17}, "`n_action_steps` is 17; it must be a whole number from 1 to 16"),
        ({"max_late": -1}, "`max_late` is -1"),
        ({"latency": -1}, "`latency` is -1"),
        ({"n_action_steps": 2.5}, "`n_action_steps` is 2.5; it must be a whole number from 1 to 16"),
        ({"latency": 1.5}, "`latency` is 1.5; it must be a whole number"),
        ({"max_late": 0.5}, "`max_late` is 0.5; it must be a whole number"),
        ({"frequency": "50"}, "`frequency` is '50'; it must be a number"),
        ({"n_action_steps": True}, "`n_action_steps` is True; it must be a number"),
        ({"hold": 0.0}, "`hold` is 0.0; it must be a function of the last action, such as numpy.zeros_like"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        ControlLoop(Numbered(), **arguments)


def test_observe_is_a_function() -> None:
    with ControlLoop(Numbered()) as loop, pytest.raises(TypeError, match="`observe` must be a function"):
        next(loop.actions(at(0)))  # type: ignore[arg-type]


def test_a_loop_may_be_late_without_a_limit() -> None:
    ControlLoop(Numbered(), max_late=math.inf).close()  # type: ignore[arg-type]


def test_conditions_on_plans_that_cannot_be_conditioned(tmp_path: Path) -> None:
    model = FQL("FlowPolicy", pendulum(), horizon_length=3, flow_steps=2, **SMALL)
    with pytest.warns(UserWarning, match="`condition=True` has no effect: plans of this sampler cannot be conditioned"):
        ControlLoop(model, condition=True).close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ControlLoop(model.policy.with_sampler("bc_flow"), condition=True).close()


@pytest.mark.parametrize(
    ("held", "message"),
    [(np.nan, r"`hold` has returned .*nan.*; expected finite numbers of the shape \(1,\)"), (None, "has returned .*None")],
)
def test_what_hold_returns_is_checked(held: Any, message: str) -> None:
    """It is sent to the robot."""
    event = threading.Event()
    planner = Counting(2, 2, delay=iter([0.0] + [5.0] * 9).__next__)
    plan = planner.plan
    planner.plan = lambda *arguments: event.wait() and plan(*arguments) if arguments[1] is not None else plan(*arguments)  # type: ignore
    loop = ControlLoop(planner, frequency=200, hold=lambda previous: np.full(1, held))
    assert [loop.act(at(0))[0] for _ in range(2)] == [1, 2]
    with pytest.raises(ValueError, match=message):
        loop.act(at(0))
    planner.delay = lambda: 0.0
    event.set()
    loop.close()


def test_policies_that_cannot_plan() -> None:
    with pytest.raises(TypeError, match="SAC cannot plan; expected a model or policy of sb3_flow"):
        ControlLoop(SAC("MlpPolicy", pendulum()))
