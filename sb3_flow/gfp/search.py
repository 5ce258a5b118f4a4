"""The search space of GFP."""

from typing import Any

from sb3_flow.common.search import Parameters, SearchSpace, suggest_common


def _suggest_gfp(trial: Any) -> Parameters:
    """The paper tunes alpha and eta for each task, and the aggregations for each domain."""
    return {
        "alpha": trial.suggest_float("alpha", 0.01, 10.0, log=True),
        "eta": trial.suggest_float("eta", 1e-6, 0.1, log=True),
        "q_agg": trial.suggest_categorical("q_agg", ["mean", "min"]),
        "target_agg": trial.suggest_categorical("target_agg", ["actor", "mean"]),
        "guidance_agg": trial.suggest_categorical("guidance_agg", ["actor", "min"]),
        "flow_steps": trial.suggest_categorical("flow_steps", [5, 10, 30]),
        **suggest_common(trial),
    }


GFP_SPACE = SearchSpace(_suggest_gfp)
