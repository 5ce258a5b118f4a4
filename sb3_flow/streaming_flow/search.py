"""The search spaces of streaming flow policies."""

from typing import Any

from sb3_flow.common.search import Parameters, SearchSpace, configured


def _suggest_streaming_flow(trial: Any) -> Parameters:
    """Width of the tube, stabilizing gain, number of executed actions, and optimization. There are no critics."""
    horizon = int(configured(trial, "horizon_length", "16"))
    return {
        "k": trial.suggest_categorical("k", [k for k in (0.0, 1.0, 2.5, 5.0, 10.0) if k < horizon]),
        "sigma_0": trial.suggest_categorical("sigma_0", [0.05, 0.1, 0.2]),
        "n_action_steps": trial.suggest_categorical("n_action_steps", [n for n in (1, 2, 4, 8) if n <= horizon]),
        "learning_rate": trial.suggest_float("learning_rate", 3e-5, 1e-3, log=True),
        "batch_size_pow": trial.suggest_int("batch_size_pow", 7, 10),
    }


def _suggest_streaming_flow_stochastic(trial: Any) -> Parameters:
    """The same, and ``sigma_1`` of the stochastic variant."""
    return {"sigma_1": trial.suggest_categorical("sigma_1", [0.2, 0.4, 0.8]), **_suggest_streaming_flow(trial)}


STREAMING_FLOW_SPACE = SearchSpace(_suggest_streaming_flow)
STREAMING_FLOW_STOCHASTIC_SPACE = SearchSpace(_suggest_streaming_flow_stochastic)
