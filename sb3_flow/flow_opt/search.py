"""The search space of FlowOpt."""

from typing import Any

from sb3_flow.common.search import Parameters, SearchSpace


def _suggest_flow_opt(trial: Any) -> Parameters:
    """Settings of the training; no search space is published. The settings of the filter are not searched."""
    return {
        "flow_fraction": trial.suggest_float("flow_fraction", 0.5, 1.0),
        "imitation_fraction": trial.suggest_categorical("imitation_fraction", [0.0, 0.2, 1.0]),
        "unrolled_iterations": trial.suggest_categorical("unrolled_iterations", [5, 10, 15]),
        "tau": trial.suggest_float("tau", 3e-4, 1e-2, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 2e-3, log=True),
        "batch_size_pow": trial.suggest_int("batch_size_pow", 6, 9),
    }


FLOW_OPT_SPACE = SearchSpace(_suggest_flow_opt)
