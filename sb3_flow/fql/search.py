"""The search space of FQL."""

from typing import Any

from sb3_flow.common.search import Parameters, SearchSpace, configured, suggest_common


def _suggest_fql(trial: Any) -> Parameters:
    """The paper tunes alpha for each task, and gamma and the target's aggregation for each domain."""
    # Alpha scales with the rewards unless the loss is normalized: the paper's grids end at 1000, on Adroit at 30000.
    normalized = configured(trial, "normalize_q_loss", "False") not in ("False", "0")
    low, high = (0.03, 10.0) if normalized else (3.0, 30_000.0)
    return {
        "alpha": trial.suggest_float("alpha", low, high, log=True),
        "q_agg": trial.suggest_categorical("q_agg", ["mean", "min"]),
        "flow_steps": trial.suggest_categorical("flow_steps", [5, 10, 20]),
        **suggest_common(trial),
    }


FQL_SPACE = SearchSpace(_suggest_fql)
