"""The search space of RQL."""

from typing import Any

from sb3_flow.common.search import Parameters, SearchSpace, configured, suggest_common


def _suggest_rql(trial: Any) -> Parameters:
    """The paper tuned the BC weight and the expectile, and chose pessimism and chunks by domain."""
    arguments = {
        "alpha": trial.suggest_float("alpha", 0.03, 30.0, log=True),
        "expectile": trial.suggest_categorical("expectile", [0.5, 0.7, 0.9]),
        "rho": trial.suggest_categorical("rho", [0.0, 0.5]),
        **suggest_common(trial),
    }
    if configured(trial, "n_steps", "1") == "1":  # returns over several steps are for one action at a time
        arguments["horizon_length"] = trial.suggest_categorical("horizon_length", [1, 5])
    return arguments


RQL_SPACE = SearchSpace(_suggest_rql)
