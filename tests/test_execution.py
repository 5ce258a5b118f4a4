"""Eager, compiled and captured updates give the same numbers; and when the host looks at them."""

import copy
import math
import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from conformance.callbacks import Recorder
from conformance.case import AlgorithmCase, parameters, same_parameters
from conformance.environments import collect, pendulum
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.save_util import load_from_zip_file
from torch.utils._python_dispatch import TorchDispatchMode

from sb3_flow import FPMD, FQL, SWFP
from sb3_flow.common import execution
from sb3_flow.common.execution import Compiled, Execution, make_execution
from sb3_flow.common.flow_algorithm import FlowAlgorithm, MetricSums

BATCH_SIZE = 16
EAGERLY = "executed eagerly"


@contextmanager
def backend(name: Any) -> Iterator[None]:
    """
    Compile by another backend than PyTorch's default one, which writes C++ and takes half a minute.

    ``"eager"`` traces and guards; ``"aot_eager"`` traces the gradients, too.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(th, "compile", partial(th.compile, backend=name))
        yield


def make(case: AlgorithmCase, **kwargs: Any) -> FlowAlgorithm:
    """A small model; its flow has two steps, because a compiler unrolls them."""
    few = {"flow_steps": 2} if "flow_steps" in case.small else {}
    return case.make(pendulum(), dataset=collect(pendulum), **few, **kwargs)


@dataclass
class Twins:
    """Two models after the same updates, the last ones compiled in one of them, and warnings of PyTorch and of ours."""

    eager: FlowAlgorithm
    compiled: FlowAlgorithm
    before: dict[str, th.Tensor]
    after: dict[str, th.Tensor]
    after_compiled: dict[str, th.Tensor]
    warnings: list[str]

    @classmethod
    def train(cls, case: AlgorithmCase) -> "Twins":
        eager, compiled = (make(case, learning_rate=lambda left: 1e-3 * left, offline_log_interval=4) for _ in range(2))
        for model in (eager, compiled):
            # Adam's first steps are the sign of the gradient, whose rounding would count as much as the gradient itself.
            model.train(10, BATCH_SIZE)
        before = parameters(eager)
        compiled.compile = True
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for model in (eager, compiled):
                model.train(10, BATCH_SIZE)
        messages = [str(warning.message) for warning in caught]
        return cls(eager, compiled, before, parameters(eager), parameters(compiled), messages)

    def assert_same_numbers(self) -> None:
        """Compiled updates, and what is logged, are the eager ones; nothing falls back to eager execution."""
        compiled = self.compiled.execution
        assert isinstance(compiled, Compiled) and compiled.functions and not compiled.failed
        assert [message for message in self.warnings if EAGERLY in message] == []
        assert max((self.after[name] - self.before[name]).abs().max().item() for name in self.after) > 1e-3
        for name, value in self.after_compiled.items():
            th.testing.assert_close(value, self.after[name], rtol=1e-4, atol=1e-6)
        assert self.compiled._metrics.means() == pytest.approx(self.eager._metrics.means(), rel=1e-4)


# Compiled losses.


@pytest.fixture(scope="module")
def twins(offline_algorithm: AlgorithmCase) -> Iterator[Twins]:
    """One compilation for all tests of an algorithm."""
    with backend("aot_eager"):
        trained = Twins.train(offline_algorithm)
    yield trained
    th.compiler.reset()


@pytest.mark.slow
@pytest.mark.algorithms("FQL", "QAM")
def test_compiled_updates_are_eager_ones(twins: Twins) -> None:
    """Also the gradients: they are traced as PyTorch's compiler traces them."""
    twins.assert_same_numbers()


@pytest.mark.slow
@pytest.mark.algorithms("FQL", "QAM")
def test_compiled_once(twins: Twins, tmp_path: Path) -> None:
    """Acting, saving, logging and another learning rate do not compile the losses again."""
    model = twins.compiled
    with th.compiler.set_stance("fail_on_recompile"):
        evaluation = EvalCallback(pendulum(), eval_freq=3, n_eval_episodes=1, verbose=0, warn=False)
        model.learn(6, callback=[evaluation, CheckpointCallback(3, str(tmp_path))])
        model.set_parameters(model.get_parameters())
        model.train(3, BATCH_SIZE)
        with pytest.raises(RuntimeError, match="recompil"):
            model.train(1, BATCH_SIZE + 1)


@pytest.mark.nightly
@pytest.mark.algorithms("FQL")
def test_updates_in_compiled_cpp_are_eager_ones(offline_algorithm: AlgorithmCase) -> None:
    """Also with PyTorch's default backend."""
    Twins.train(offline_algorithm).assert_same_numbers()


@pytest.mark.slow
@pytest.mark.algorithms("StreamingFlow")
def test_where_pytorch_does_not_compile_gradients(offline_algorithm: AlgorithmCase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older versions compile the loss only, and derive its gradients outside."""
    monkeypatch.setattr(execution, "traces_gradients", lambda: False)
    with backend("aot_eager"):
        Twins.train(offline_algorithm).assert_same_numbers()


def test_gradients_have_the_order_of_their_parameters() -> None:
    """Fused optimizers read both as arrays in memory: a transposed gradient would update the wrong elements."""
    weight, fixed = th.arange(6.0).view(2, 3).requires_grad_(), th.arange(6.0, requires_grad=True)

    def loss() -> tuple[th.Tensor, dict[str, th.Tensor]]:
        return (weight.t().exp() * th.ones(3, 2)).sum(), {}

    (plain,) = th.autograd.grad(loss()[0], [weight])
    assert plain.stride() != weight.stride(), "autograd gives a transposed gradient"
    (gradient, none), _ = execution.differentiate(loss, [weight, fixed])
    assert none is None and gradient is not None
    assert gradient.stride() == weight.stride()
    assert th.equal(gradient, weight.exp())


@pytest.mark.slow
@pytest.mark.algorithms("FPMD", "StreamingFlow")
def test_each_model_has_a_compiler_of_its_own(offline_algorithm: AlgorithmCase, recwarn: pytest.WarningsRecorder) -> None:
    """One model's compilations do not use up the number that another one may have."""
    with th._dynamo.config.patch(recompile_limit=1), backend("eager"):
        for width in (8, 12):
            make(offline_algorithm, compile=True, policy_kwargs={"net_arch": [width]}).train(1, BATCH_SIZE)
    assert [warning for warning in recwarn if EAGERLY in str(warning.message)] == []


def assert_one_warning_and_eager_numbers(case: AlgorithmCase, reason: str) -> None:
    eager, model = make(case), make(case, compile=True)
    with pytest.warns(UserWarning, match=f"{EAGERLY}.*{reason}") as warned:
        model.train(case.stages + 2, BATCH_SIZE)
    assert len([warning for warning in warned if EAGERLY in str(warning.message)]) == 1
    eager.train(case.stages + 2, BATCH_SIZE)
    assert same_parameters(parameters(model), parameters(eager))


@pytest.mark.slow
@pytest.mark.algorithms("StreamingFlow")
def test_without_a_compiler(offline_algorithm: AlgorithmCase) -> None:
    """A machine without a C++ compiler gets one warning, and the numbers of eager execution."""
    with th._inductor.config.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}):
        assert_one_warning_and_eager_numbers(offline_algorithm, "PyTorch says: .*InvalidCxxCompiler")


def no_compiler(graph: Any, inputs: Any) -> Any:
    """A backend that cannot compile anything."""
    raise NotImplementedError


@pytest.mark.slow
@pytest.mark.algorithms("FPMD", "SWFP", "StreamingFlow")
def test_what_cannot_be_compiled_is_executed_eagerly(offline_algorithm: AlgorithmCase) -> None:
    """Also for algorithms with several losses, with one warning for all of them."""
    with backend(no_compiler):
        assert_one_warning_and_eager_numbers(offline_algorithm, "no_compiler")


@pytest.mark.slow
@pytest.mark.algorithms("FPMD", "StreamingFlow")
def test_copies_and_files(offline_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """A file holds the word only; a copy and a pickle compile anew, and a loaded model trains on as the original does."""
    model = make(offline_algorithm, compile=True)
    with backend("eager"):
        model.train(3, BATCH_SIZE)
    model.save(tmp_path / "model")
    saved = load_from_zip_file(tmp_path / "model.zip")[0]
    assert saved is not None and saved["compile"] is True
    assert not any(isinstance(value, Execution) for value in saved.values())
    loaded = offline_algorithm.load(tmp_path / "model", env=pendulum(), dataset=collect(pendulum))
    loaded._require_dataset()
    env, model.env = model.env, None  # RL Zoo replaces a class of Gymnasium's, whose older objects cannot be pickled then
    twins = copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded
    model.env = env
    for twin in twins:
        assert twin.compile is True
        assert isinstance(twin.execution, Compiled) and twin.execution.functions == {}
    with backend("eager"):
        for twin in (model, loaded):
            twin.train(3, BATCH_SIZE)
    assert same_parameters(parameters(loaded), parameters(model))
    assert offline_algorithm.load(tmp_path / "model", compile=False).compile is False


# CUDA graphs, where there is no CUDA. Where there is: test_cuda.py.


@pytest.mark.parametrize(
    ("mode", "message"), [("cudagraph", r"needs a CUDA device.*'cpu'.*compile=True"), ("fast", "'fast'; choose False, True")]
)
def test_modes_that_are_refused(algorithm: AlgorithmCase, mode: str, message: str) -> None:
    """When the model is made, and with what to use instead."""
    with pytest.raises(ValueError, match=message):
        algorithm.make(pendulum(), compile=mode)


def test_updates_that_differ_are_no_graph() -> None:
    """The error says which mode to use. This check needs no GPU."""
    with pytest.raises(ValueError, match=r"differ from each other.*`compile=True`"):
        make_execution("cudagraph", th.device("cuda"), one_graph=False)
    assert not FPMD.one_graph
    assert not SWFP.one_graph
    assert FQL.one_graph


@pytest.mark.one_variant
def test_a_model_from_a_gpu_acts_anywhere(offline_algorithm: AlgorithmCase, tmp_path: Path) -> None:
    """A model that was trained as a CUDA graph is loaded without CUDA; training it says what to change."""
    model = make(offline_algorithm)
    model.compile = "cudagraph"
    model.save(tmp_path / "model")
    loaded = offline_algorithm.load(tmp_path / "model", env=pendulum(), dataset=collect(pendulum))
    loaded.predict(np.zeros(3, dtype=np.float32))
    with pytest.raises(ValueError, match="needs a CUDA device"):
        loaded.learn(1)
    loaded.compile = False
    loaded.learn(1)


# When the host looks.


class Reads(TorchDispatchMode):
    """Counts the operators that bring a value of a tensor to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.overloadpacket in (th.ops.aten._local_scalar_dense, th.ops.aten.nonzero, th.ops.aten.equal):
            self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def test_an_update_reads_no_value(offline_algorithm: AlgorithmCase) -> None:
    """No operator of ``train`` waits for a value, so that a GPU is never waited for."""
    model = make(offline_algorithm)
    with Reads() as reads:
        model.train(3, BATCH_SIZE)
    assert reads.names == []
    with Reads() as reads:
        bool(th.ones(()) > 0)
    assert reads.names == ["aten._local_scalar_dense.default"], "the count counts"


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The losses are looked at every tenth update, as every hundredth on a GPU. Holds the updates before each look."""
    monkeypatch.setattr(FlowAlgorithm, "check_interval", 10)
    counts: list[int] = []
    not_finite = MetricSums.not_finite

    def counted(sums: MetricSums) -> list[str]:
        counts.append(sums.unchecked)
        return not_finite(sums)

    monkeypatch.setattr(MetricSums, "not_finite", counted)
    return counts


@pytest.mark.one_variant
def test_losses_are_looked_at_seldom(offline_algorithm: AlgorithmCase, looks: list[int]) -> None:
    """Every ten updates, at each line of the log, at the end of ``learn``: not at each timestep."""
    make(offline_algorithm, offline_log_interval=13).learn(25)
    assert looks == [10, 3, 10, 2]


@pytest.mark.one_variant
def test_actions_are_looked_at(offline_algorithm: AlgorithmCase, looks: list[int]) -> None:
    """``predict`` and ``save`` check the losses first; without updates in between there is nothing to check."""
    model = make(offline_algorithm)
    model.train(6, BATCH_SIZE)
    for _ in range(3):
        model.predict(np.zeros(3, dtype=np.float32))
    assert looks == [6]


class Poison(BaseCallback):
    """
    Sets all parameters to NaN right before an update. It must be the last callback, because the others are not to see them.

    :param update: Number of the update
    """

    def __init__(self, update: int) -> None:
        super().__init__()
        self.update = update

    def _on_step(self) -> bool:
        if self.num_timesteps == self.update - 1:
            for parameter in self.model.policy.parameters():
                parameter.data.fill_(math.nan)
        return True


@pytest.mark.one_variant
def test_a_loss_that_is_lost_is_found_with_its_place(offline_algorithm: AlgorithmCase, looks: list[int]) -> None:
    """The next look finds it, and says between which updates it happened."""
    model = make(offline_algorithm)
    with pytest.raises(ValueError, match=r"One of the updates 11 to 20 is not finite \(.*_loss.*learning rate"):
        model.learn(1_000, callback=Poison(11))
    assert model._n_updates == 20


@pytest.mark.one_variant
def test_at_the_end_of_learn(offline_algorithm: AlgorithmCase, looks: list[int]) -> None:
    """``learn`` raises if the parameters are not finite at its end."""
    with pytest.raises(ValueError, match="One of the updates 1 to 9 is not finite"):
        make(offline_algorithm).learn(9, callback=Poison(5))


@pytest.mark.one_variant
def test_callbacks_save_no_lost_model(offline_algorithm: AlgorithmCase, looks: list[int], tmp_path: Path) -> None:
    """A checkpoint looks before the model is saved: what is in a file is finite."""
    model = make(offline_algorithm)
    with pytest.raises(ValueError, match="Update 5 is not finite"):
        model.learn(1_000, callback=[CheckpointCallback(1, str(tmp_path)), Poison(5)])
    assert len(list(tmp_path.glob("*.zip"))) == 4


@pytest.mark.one_variant
def test_callbacks_evaluate_no_lost_model(offline_algorithm: AlgorithmCase, looks: list[int]) -> None:
    """A policy with parameters that are not finite does not act in an environment."""
    env = Monitor(pendulum())
    model = make(offline_algorithm)
    with pytest.raises(ValueError, match="One of the updates 5 to 6 is not finite"):
        model.learn(1_000, callback=[EvalCallback(env, eval_freq=2, n_eval_episodes=1, verbose=0, warn=False), Poison(5)])
    actions = env.get_wrapper_attr("actions")
    assert len(actions) > 0 and np.isfinite(actions).all()


@pytest.mark.one_variant
def test_after_a_loss_another_model_takes_over(offline_algorithm: AlgorithmCase, looks: list[int]) -> None:
    """After good parameters are set, the same object trains again."""
    model = make(offline_algorithm)
    good = copy.deepcopy(model.get_parameters())
    with pytest.raises(ValueError, match="is not finite"):
        model.learn(1_000, callback=Poison(5))
    model.set_parameters(good)
    recorder = Recorder()
    model.learn(12, callback=recorder)
    assert len(recorder.clock) == 12


def test_metrics_that_not_every_update_has() -> None:
    """Means are over the updates that had the metric."""
    sums = MetricSums()
    for value in (1.0, 2.0, 6.0):
        sums.add(("critic",), th.tensor([value]))
    sums.add(("critic", "actor"), th.tensor([3.0, 5.0]))
    assert sums.means() == {"critic": 3.0, "actor": 5.0}
    assert sums.means() == {}
    sums.add(("critic", "actor"), th.tensor([1.0, math.inf]))
    assert (sums.not_finite(), sums.not_finite()) == (["actor"], [])
