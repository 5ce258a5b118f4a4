"""The search space of FPMD."""

from typing import Any

from sb3_flow.common.search import Parameters, SearchSpace, suggest_common


def _suggest_fpmd(trial: Any) -> Parameters:
    """Learning rate of the flow, schedule of alpha (exploration noise and temperature), weights and number of samples."""
    return {
        "policy_learning_rate": trial.suggest_float("policy_learning_rate", 1e-4, 1e-3, log=True),
        "target_entropy_scale": trial.suggest_float("target_entropy_scale", 0.5, 2.0),
        "alpha_interval": trial.suggest_categorical("alpha_interval", [25, 100, 250]),
        "weight_mode": trial.suggest_categorical("weight_mode", ["release", "temp", "advantage"]),
        "reward_scale": trial.suggest_float("reward_scale", 0.05, 1.0, log=True),
        "particles": trial.suggest_categorical("particles", [8, 16, 32]),
        **suggest_common(trial),
    }


FPMD_SPACE = SearchSpace(_suggest_fpmd)
