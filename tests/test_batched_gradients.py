"""Several models in one process, whose gradients are computed at once: they get the numbers of models that train alone."""

import copy
import random
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from conformance.case import AlgorithmCase, parameters
from conformance.environments import pendulum, transitions
from stable_baselines3 import SAC
from torch import nn

from sb3_flow import FQL
from sb3_flow.baselines.offline import OfflineTD3
from sb3_flow.common.batched_gradients import BatchedGradients, Call, train_together
from sb3_flow.common.encoders import FlowExtractor
from sb3_flow.common.execution import Compiled, Execution, differentiate
from sb3_flow.common.flow_algorithm import FlowAlgorithm
from sb3_flow.common.turns import Ask, take_turns

SEEDS = (0, 1, 2)
SMALL: dict[str, Any] = {"batch_size": 16, "device": "cpu", "learning_rate": 1e-3, "flow_steps": 3}


def fql(seed: int = 0, **kwargs: Any) -> FQL:
    return FQL(
        "FlowPolicy", pendulum(), dataset=transitions(), seed=seed, **{**SMALL, "policy_kwargs": {"net_arch": [16]}, **kwargs}
    )


def learn_together(
    models: Sequence[FlowAlgorithm],
    timesteps: Sequence[int],
    gradients: Callable[[list[Call]], Any] | None = None,
) -> list[BaseException | None]:
    """Let each model learn for its timesteps."""

    def learning(model: FlowAlgorithm, steps: int) -> Callable[[Ask], None]:
        def learn(ask: Ask) -> None:
            train_together(model, ask)
            model.learn(steps)

        return learn

    functions = [learning(model, steps) for model, steps in zip(models, timesteps, strict=True)]
    return take_turns(functions, gradients or BatchedGradients())


class Compared(BatchedGradients):
    """Compares each gradient and each metric with those of the model alone, at the same parameters, batch and noise."""

    def __init__(self) -> None:
        super().__init__()
        self.largest_group = 0

    def _of_one_kind(self, execution: Execution, calls: list[Call]) -> Any:
        results = super()._of_one_kind(execution, calls)
        self.largest_group = max(self.largest_group, len(calls))
        for call, (gradients, metrics) in zip(calls, results, strict=True):
            alone, alone_metrics = differentiate(call.loss, call.parameters, *call.inputs)
            assert [gradient is None for gradient in gradients] == [gradient is None for gradient in alone]
            for gradient, expected in zip(gradients, alone, strict=True):
                if gradient is not None and expected is not None:
                    th.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5 * max(1.0, float(expected.abs().max())))
            for name, value in alone_metrics.items():
                th.testing.assert_close(metrics[name], value, rtol=1e-4, atol=1e-5)
        return results


@pytest.mark.slow
@pytest.mark.one_variant
def test_gradients_of_all_algorithms(case: AlgorithmCase) -> None:
    """Also online, where each model has an environment and a replay buffer of its own."""
    data = case.data() if case.offline else None
    steps = case.stages + 2 if case.offline else 15
    models = [case.fresh(dataset=data, seed=seed) for seed in SEEDS]
    alone = [case.fresh(dataset=data, seed=seed) for seed in SEEDS]
    gradients = Compared()
    assert learn_together(models, [steps] * 3, gradients) == [None] * 3
    assert gradients.largest_group == 3
    for model, other in zip(models, alone, strict=True):
        other.learn(steps)
        assert model._n_updates == other._n_updates > 0
        assert th.equal(model.random_state(), other.random_state())
        for name, value in parameters(model).items():
            th.testing.assert_close(value, parameters(other)[name], rtol=1e-2, atol=1e-4)


@pytest.mark.nightly
def test_compiled_updates() -> None:
    models, alone = ([fql(seed, compile=compile) for seed in SEEDS] for compile in (True, False))
    gradients = Compared()
    assert learn_together(models, [5] * 3, gradients) == [None] * 3
    assert isinstance(gradients.execution, Compiled) and gradients.execution.functions and not gradients.execution.failed
    for model, other in zip(models, alone, strict=True):
        other.learn(5)
        for name, value in parameters(model).items():
            th.testing.assert_close(value, parameters(other)[name], rtol=1e-3, atol=1e-5)


def test_models_that_end_earlier_leave_the_others() -> None:
    models, alone = ([fql(seed) for seed in SEEDS] for _ in range(2))
    steps = [3, 8, 6]
    assert learn_together(models, steps) == [None] * 3
    for model, other, count in zip(models, alone, steps, strict=True):
        other.learn(count)
        for name, value in parameters(model).items():
            th.testing.assert_close(value, parameters(other)[name], rtol=1e-3, atol=1e-5)


def test_only_calls_of_one_kind_are_batched() -> None:
    models = [fql(0), fql(1, batch_size=8), fql(2)]
    gradients = Compared()
    assert learn_together(models, [3] * 3, gradients) == [None] * 3
    assert gradients.largest_group == 2


def test_parameters_that_are_replaced_are_used() -> None:
    """``load_state_dict`` writes to the stacked parameters, and new data of a parameter is stacked again."""
    models, other = [fql(seed) for seed in SEEDS], fql(7)
    gradients = Compared()
    assert learn_together(models, [2] * 3, gradients) == [None] * 3
    models[1].policy.load_state_dict(other.policy.state_dict())
    for parameter, replacement in zip(models[2].policy.parameters(), other.policy.parameters(), strict=True):
        parameter.data = replacement.data.clone()
    assert learn_together(models, [2] * 3, gradients) == [None] * 3


def test_files_have_the_parameters_of_one_model(tmp_path: Path) -> None:
    models, alone = [fql(seed) for seed in SEEDS], fql(0)
    assert learn_together(models, [2] * 3) == [None] * 3
    alone.learn(2)
    models[1].save(tmp_path / "together.zip")
    alone.save(tmp_path / "alone.zip")
    sizes = [(tmp_path / name).stat().st_size for name in ("together.zip", "alone.zip")]
    assert sizes[0] < 1.05 * sizes[1]
    loaded = FQL.load(tmp_path / "together.zip", env=pendulum(), dataset=transitions(), device="cpu")
    assert all(th.equal(value, parameters(models[1])[name]) for name, value in parameters(loaded).items())
    copied = copy.deepcopy(models[1].policy)
    assert next(copied.parameters()).untyped_storage().nbytes() == next(alone.policy.parameters()).untyped_storage().nbytes()


class WithDropout(FlowExtractor):
    """Draws random numbers inside of the loss."""

    def forward(self, observations: Any) -> th.Tensor:
        return nn.functional.dropout(super().forward(observations), 0.5, training=True)


def test_a_loss_that_draws_random_numbers_is_refused() -> None:
    extractor = {"net_arch": [16], "features_extractor_class": WithDropout}
    errors = learn_together([fql(seed, policy_kwargs=extractor) for seed in SEEDS], [2] * 3)
    for error in errors:
        assert isinstance(error, ValueError)
        assert "`loss` of FQL cannot be computed for several seeds at once: train each seed" in str(error)


@pytest.mark.parametrize("cls", [SAC, OfflineTD3])
def test_algorithms_with_updates_of_their_own_are_refused(cls: type[Any]) -> None:
    data = {"dataset": transitions()} if cls is OfflineTD3 else {}
    with pytest.raises(ValueError, match=f"Seeds of {cls.__name__} cannot train together in one process"):
        train_together(cls("MlpPolicy", pendulum(), device="cpu", **data), lambda request: request)


def test_cuda_graphs_are_refused() -> None:
    model = fql()
    model.compile = "cudagraph"
    with pytest.raises(ValueError, match="have no CUDA graphs: set `compile` to True or False"):
        train_together(model, lambda request: request)


# Turns.


def test_each_function_has_its_own_random_numbers() -> None:
    """The global generators, which evaluations use, are those of a process for each function."""

    def draws(seed: int) -> list[float]:
        return [random.random(), float(np.random.random()), float(th.rand(()))]

    def function(seed: int) -> Callable[[Ask], None]:
        def run(ask: Ask) -> None:
            random.seed(seed), np.random.seed(seed), th.manual_seed(seed)
            for _ in range(3):
                drawn[seed] += draws(seed)
                ask(None)

        return run

    drawn: dict[int, list[float]] = {seed: [] for seed in SEEDS}
    before = th.get_rng_state()
    assert take_turns([function(seed) for seed in SEEDS], lambda requests: requests) == [None] * 3
    assert th.equal(th.get_rng_state(), before)
    for seed in SEEDS:
        random.seed(seed), np.random.seed(seed), th.manual_seed(seed)
        assert drawn[seed] == [number for _ in range(3) for number in draws(seed)]


def test_an_error_ends_one_function() -> None:
    served = []

    def good(ask: Ask) -> None:
        assert [ask(i) for i in range(3)] == [0, 10, 20]

    def bad(ask: Ask) -> None:
        ask(0)
        raise OSError("disk")

    def answer(requests: list[int]) -> list[int]:
        served.append(len(requests))
        return [10 * request for request in requests]

    errors = take_turns([good, bad, good], answer)
    assert errors[0] is None and errors[2] is None and isinstance(errors[1], OSError)
    assert served == [3, 2, 2]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no")])
def test_an_error_of_the_answer_reaches_all(error: BaseException) -> None:
    saved = []

    def function(ask: Ask) -> None:
        try:
            ask(None)
        finally:
            saved.append(True)

    def answer(requests: list[None]) -> list[None]:
        raise error

    assert take_turns([function] * 2, answer) == [error] * 2
    assert len(saved) == 2


def test_an_interrupt_during_a_turn_reaches_all() -> None:
    import _thread

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it

    def function(ask: Ask) -> None:
        _thread.interrupt_main()  # as Ctrl-C does
        ask(None)

    try:
        errors = take_turns([function] * 2, lambda requests: requests)
    finally:
        signal.signal(signal.SIGINT, before)
    assert [type(error) for error in errors] == [KeyboardInterrupt] * 2
