"""Several seeds in one process: their numbers are those of models that train alone."""

from typing import Any

import pytest
import torch as th
from conformance.cases import CASES
from conformance.case import AlgorithmCase, parameters

from sb3_flow.common.batched_gradients import BatchedGradients, train_together
from sb3_flow.common.flow_algorithm import FlowAlgorithm
from sb3_flow.common.turns import Ask, take_turns

SEEDS = (0, 1, 2)


def in_turns(models: list[FlowAlgorithm], train: Any) -> list[BaseException | None]:
    def function(model: FlowAlgorithm) -> Any:
        def run(ask: Ask) -> None:
            train_together(model, ask)
            train(model)

        return run

    return take_turns([function(model) for model in models], BatchedGradients())


def test_updates_equal_those_of_models_alone(case: AlgorithmCase) -> None:
    data = case.data() if case.offline else None
    alone, together = ([case.fresh(dataset=data, seed=seed) for seed in SEEDS] for _ in range(2))
    for model in alone:
        model.learn(case.stages + 3)
    errors = in_turns(together, lambda model: model.learn(case.stages + 3))
    assert errors == [None] * 3
    for one, other in zip(alone, together):
        a, b = parameters(one), parameters(other)
        for name in a:
            th.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-5, msg=lambda m: f"{name} {m}")
