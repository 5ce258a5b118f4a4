"""The search spaces of both variants of Decision Flow."""

from typing import Any

from sb3_flow.common.search import Parameters, SearchSpace, suggest_common


def _suggest_inner(trial: Any) -> Parameters:
    """Settings of both variants. No search space is published; the range of each weight covers GFP's alpha per action size."""
    return {
        "on_policy_share": trial.suggest_categorical("on_policy_share", [0.0, 0.5]),
        "q_agg": trial.suggest_categorical("q_agg", ["mean", "min"]),
        "flow_steps": trial.suggest_categorical("flow_steps", [5, 10, 30]),
        **suggest_common(trial),
    }


def _suggest_decision_flow(trial: Any) -> Parameters:
    """Weight of flow matching, and the settings of both variants."""
    return {"fm_coef": trial.suggest_float("fm_coef", 1e-4, 10.0, log=True), **_suggest_inner(trial)}


def _suggest_decision_flow_div(trial: Any) -> Parameters:
    """Weight of the divergence from the BC flow, and the settings of both variants."""
    return {"beta": trial.suggest_float("beta", 2e-4, 20.0, log=True), **_suggest_inner(trial)}


DECISION_FLOW_SPACE = SearchSpace(_suggest_decision_flow)
DECISION_FLOW_DIV_SPACE = SearchSpace(_suggest_decision_flow_div)
