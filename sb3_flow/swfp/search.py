"""The search space of SWFP."""

from typing import Any

from sb3_flow.common.search import Parameters, SearchSpace, suggest_common


def _suggest_swfp(trial: Any) -> Parameters:
    """Settings of the stage ``improve``; the stages before are not searched."""
    return {
        "radius": trial.suggest_float("radius", 0.02, 0.2, log=True),
        "h_max": trial.suggest_float("h_max", 0.02, 0.5, log=True),
        "entropy_coef": trial.suggest_float("entropy_coef", 1e-3, 0.1, log=True),
        "n_blocks": trial.suggest_categorical("n_blocks", [2, 4, 8]),
        "q_agg": trial.suggest_categorical("q_agg", ["mean", "min"]),
        **suggest_common(trial),
    }


SWFP_SPACE = SearchSpace(_suggest_swfp)
